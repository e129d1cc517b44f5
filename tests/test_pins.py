"""What is installed is what is pinned, and pip takes no file whose hash is not."""

import re
import sysconfig
from importlib.metadata import distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PIN = re.compile(
    r"^(?P<requirement>[A-Za-z][^\\\n]*?) \\\n(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def pins(name: str) -> dict[str, str]:
    """The version of each package that a file of pins has for this Python and machine."""
    text = (ROOT / name).read_text()
    found = [Requirement(pin["requirement"]) for pin in PIN.finditer(text)]
    assert len(found) == len(re.findall(r"^[^ #\n]", text, re.M)), f"{name} has pins without hashes"
    assert all(str(one.specifier).startswith("==") for one in found)
    return {
        canonicalize_name(one.name): str(one.specifier)[2:]
        for one in found
        if one.marker is None or one.marker.evaluate()
    }


def test_what_is_installed_is_pinned_with_its_hash() -> None:
    pinned = pins("constraints.txt") | pins("constraints-build.txt")
    installed = {
        canonicalize_name(one.metadata["Name"]): one.version
        for one in distributions(path=[sysconfig.get_path("purelib")])
    }
    wrong = {name: version for name, version in installed.items() if pinned.get(name) != version}
    assert wrong.keys() <= {"fsr", "pip"}, f"installed in other versions than pinned, or not pinned: {wrong}"


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins("constraints.txt")
    for dependency in map(Requirement, distribution("fsr").requires or []):
        if dependency.name != "fsr" and (dependency.marker is None or dependency.marker.evaluate({"extra": "dev"})):
            assert pinned[canonicalize_name(dependency.name)] in dependency.specifier, dependency


def test_make_installs_nothing_without_hashes() -> None:
    recipes = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    installs = [line for line in recipes if "$(PIP)" in line or "pip install" in line]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line, line
