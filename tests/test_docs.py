"""The pages say what is so: links lead somewhere, named paths and flags exist, and marked blocks really run.

A fenced block ```bash runnable is run from the root of a copy of the repository, in the order of its page, with a
synthetic set of 24 images in `data/synthetic`; ```bash runnable slow only with `-m slow`. A block ```python file=PATH
is written to PATH there. Flags of every bash block are checked, run or not.
"""

import ast
import contextlib
import dataclasses
import importlib
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import fsr
from fsr.config import PRESETS
from launch.commands import MODULES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "csrc" / "README.md")
    if page.exists()
)
TOP = ("fsr", "launch", "analysis", "sweeps", "csrc", "tests", "docs", "benchmarks")
A_PATH = re.compile(rf"((?:{'|'.join(TOP)})/[\w./{{}},-]*)(?::(\w[\w.]*))?")
PLACEHOLDER = re.compile("NAME|STUDY|DIR|SET|NNNN")
# Their flags are not ours to check.
FOREIGN = {
    "apt-get",
    "cd",
    "cp",
    "export",
    "git",
    "mkdir",
    "nproc",
    "pip",
    "psql",
    "scancel",
    "sinfo",
    "squeue",
    "touch",
}
FOREIGN_FLAGS = {"--requeue", "--signal", "--array", "--kill-on-bad-exit", "--no-build-isolation"}
COMMANDS = [name for name in MODULES if "train" not in name and name != "cost"]
COMMANDS += [f"{name} {preset}" for name in ("train", "submit-train", "cost") for preset in PRESETS]
COMMANDS += ["infer images", "submit-infer images"]
BLOCK_S = 300
BESIDE_THE_PACKAGES = (
    *("docs", "tests", "benchmarks", "csrc", "Makefile", "pyproject.toml", "README.md", "setup.py", "setup.sh"),
    *("constraints.txt", "constraints-build.txt"),
)


class Block(NamedTuple):
    """A fenced block: the words after its backticks, its text, and its first line's number."""

    words: list[str]
    text: str
    line: int


class Page(NamedTuple):
    prose: str
    blocks: list[Block]


@cache
def read(page: str) -> Page:
    """A page without its fenced blocks, and these."""
    prose, blocks, block = [], [], None
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if not line.lstrip().startswith("```"):
            (prose if block is None else block[1]).append(line)
        elif block is None:
            block = line.lstrip().lstrip("`").split(), [], number + 1
        else:
            blocks.append(Block(block[0], "\n".join(block[1]), block[2]))
            block = None
    assert block is None, f"{page}: the block of line {block and block[2]} has no end"
    return Page("\n".join(prose), blocks)


def codes(page: str) -> list[str]:
    """What stands between backticks in the sentences of a page."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", read(page).prose)


def is_command(code: str) -> bool:
    return code.startswith((".venv/bin/", "fsr ", "make ", "python "))


def runnable(page: str, slow: bool) -> list[Block]:
    """The blocks to be run or written, in their order; none if there is nothing to run."""
    words = {"runnable", "slow"} if slow else {"runnable"}
    run = [b for b in read(page).blocks if "runnable" in b.words and words >= {"runnable", "slow"} & set(b.words)]
    files = [b for b in read(page).blocks if file_of(b)]
    wanted = any("slow" in b.words for b in run) if slow else run
    return sorted([*run, *files], key=lambda b: b.line) if wanted else []


def file_of(block: Block) -> str | None:
    """The file that a block is written to."""
    return next((word.removeprefix("file=") for word in block.words if word.startswith("file=")), None)


# Links


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    prose = read(str(page.relative_to(ROOT))).prose
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    prose = re.sub(r"`[^`\n]*`", "", read(page).prose)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match("https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target.resolve()), f"{page} links to {link}; there is no such heading"


def test_the_readme_links_to_every_page():
    links = set(re.findall(r"\]\(([^)\s#]+)", read("README.md").prose))
    assert {page for page in PAGES if page != "README.md"} <= links


def test_every_picture_and_table_of_results_is_shown():
    pages = "\n".join(read(page).prose for page in PAGES)
    for file in (*ROOT.glob("docs/*.png"), *ROOT.glob("docs/results/*")):
        assert file.name in pages, f"no page shows {file.relative_to(ROOT)}"


# Paths


def written_paths() -> set[str]:
    """Files that the pages themselves let a reader write."""
    return {file for page in PAGES for file in map(file_of, read(page).blocks) if file}


def spread(path: str) -> list[str]:
    """`a/{b,c}.py` as a/b.py and a/c.py."""
    parts = re.split(r"\{([^}]*)\}", path)
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def defines(file: Path, name: str) -> bool:
    """Whether a Python file defines `function`, `Class` or `Class.method`."""
    body = ast.parse(file.read_text()).body
    for part in name.split("."):
        found = next((node for node in body if part in names_of(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
    missing = []
    for code in codes(page):
        match = A_PATH.fullmatch(code)
        if match is None or PLACEHOLDER.search(code):
            continue
        for path in spread(match[1]):
            file = ROOT / path
            if not (file.exists() or path in written_paths()):
                missing.append(path)
            elif match[2] and not defines(file, match[2]):
                missing.append(f"{match[2]} in {path}")
    assert not missing, f"{page} names what does not exist: {', '.join(missing)}"


# Flags


class Command(NamedTuple):
    name: str
    """The word behind fsr, with its preset: sweep, train voc; or a target of make."""
    flags: list[str]


def commands(text: str) -> list[Command]:
    """Our own commands among lines of bash, and those of `make`."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.commenters, lexer.whitespace_split = "#", True
        words = list(lexer)
        while words:
            stop = next((i for i, word in enumerate(words) if set(word) <= set(";|&")), len(words))
            found += command(words[:stop])
            words = words[stop + 1 :]
    return found


def command(words: list[str]) -> list[Command]:
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] == "nice"):
        words = words[1:]
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not words or words[0] in FOREIGN:
        return []
    if words[0] == "make":
        return [Command(f"make {word}", []) for word in words[1:] if "=" not in word]
    program = words[0].removeprefix(".venv/bin/")
    if (program == "torchrun" and "fsr.train" in words) or "fsr.infer" in words:
        start = words.index("-m") + 1
        flags = flags[sum(word.startswith("--") for word in words[:start]) :]  # the others are torchrun's own
        name = {module: name for name, module in MODULES.items()}[words[start]]
    elif program == "python" and words[1] == "launch/sweep.py":
        name, start = "sweep", 1
    elif program in ("python", "pip"):
        return []  # pytest, benchmarks
    else:
        assert program == "fsr", f"the pages show a command that no test knows: {' '.join(words)}"
        if len(words) == 1 or words[1].startswith("--"):
            return []
        name, start = words[1], 1
    if name in ("train", "submit-train", "cost") or "images" in words[start + 1 :][:1]:
        name = " ".join([name, *words[start + 1 :][:1]])
    if f"{name} --study" in MODULES and "--study" in flags:
        name = f"{name} --study"
    return [Command(name, flags)]


@cache
def flags_of_claims() -> set[str]:
    """The own flags of `make claims`, with hyphens."""
    source = (ROOT / "benchmarks/claims/__main__.py").read_text()
    return {plain(f"--{name}") for name in re.findall(r"^    (\w+): ", source, re.MULTILINE)}


@cache
def allowed_flags(name: str) -> set[str]:
    """The flags that a command's --help shows, with hyphens."""
    command, *preset = name.split()
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(MODULES.get(name, MODULES[command])).main([*preset, "--help"])
    flags = re.findall(r"^  (--[a-z]\w+)|(--no-\w+)|also\s+as\s+(--\w+)", shown.getvalue(), re.MULTILINE)
    return {"--help", *(plain(flag) for found in flags for flag in found if flag)}


def plain(flag: str) -> str:
    return flag.replace("_", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_a_command_exists(page):
    blocks = [block.text for block in read(page).blocks if block.words[:1] == ["bash"]]
    spans = [code for code in codes(page) if is_command(code) and not PLACEHOLDER.search(code)]
    for one in itertools.chain.from_iterable(map(commands, blocks + spans)):
        if one.name.startswith("make "):
            target = one.name.removeprefix("make ")
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: no {one.name}"
            continue
        unknown = [flag for flag in one.flags if plain(flag) not in allowed_flags(one.name)]
        assert not unknown, f"{page}: {one.name} has no {', '.join(unknown)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_in_a_sentence_is_one_of_some_command(page):
    allowed = set.union(*map(allowed_flags, COMMANDS)) | FOREIGN_FLAGS | flags_of_claims()
    sentences = [code for code in codes(page) if not is_command(code)]
    flags = {flag for code in sentences for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    unknown = sorted(flag for flag in flags if plain(flag) not in allowed)
    assert not unknown, f"{page} names flags that no command has: {', '.join(unknown)}"


# Blocks


def copy_of_the_repository(folder: Path, data: Path) -> None:
    """The checkout in a new folder, with an environment whose packages are the installed ones."""
    for name in ("fsr", "launch", "sweeps", "analysis"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE_THE_PACKAGES:
        (folder / name).symlink_to(ROOT / name)
    (folder / "data").mkdir()
    (folder / "data" / "synthetic").symlink_to(data)
    (folder / ".venv").mkdir()
    for entry in Path(sys.executable).parents[1].iterdir():
        if entry.name != "installed":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv" / "installed").touch()  # newer than all that make compares it with: make installs nothing


def run_page(page: str, slow: bool, data: Path, tmp_path: Path) -> None:
    folder, home = tmp_path / "repository", tmp_path / "home"
    home.mkdir()
    copy_of_the_repository(folder, data)
    ours = ("SLURM_", "FSR_STORAGE", "STUDY", "RUNS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(folder),
        "HOME": str(home),  # a cluster file of whoever runs the tests
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "OMP_NUM_THREADS": "1",
    }
    for block in runnable(page, slow):
        file = file_of(block)
        if file:
            (folder / file).write_text(f"{block.text}\n")
            continue
        answer = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
        )
        said = f"{answer.stdout}\n{answer.stderr}"
        assert answer.returncode == 0, f"{page}, block of line {block.line} ended with {answer.returncode}:\n{said}"


AT_ONCE = {"docs/cluster.md"}  # the others take longer, and are slow


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page in AT_ONCE else pytest.mark.slow)
        for page in PAGES
        if runnable(page, slow=False)
    ],
)
def test_the_commands_of_a_page_run(page, synthetic_folder, tmp_path):
    run_page(page, False, synthetic_folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page, slow=True)])
def test_the_slow_commands_of_a_page_run(page, synthetic_folder, tmp_path):
    run_page(page, True, synthetic_folder, tmp_path)


# What else is promised


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500


def test_the_citation_names_this_version():
    assert f'version: "{fsr.__version__}"' in (ROOT / "CITATION.cff").read_text()


def test_the_cluster_page_explains_every_exit_code():
    from fsr.exit_codes import ExitCode

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", read("docs/cluster.md").prose, re.MULTILINE)}
    assert codes == set(map(int, ExitCode))


def test_the_study_page_explains_every_field_of_a_study():
    from launch.study import Study

    prose = read("docs/studies.md").prose
    missing = [field.name for field in dataclasses.fields(Study) if f"| `{field.name}` |" not in prose]
    assert not missing, f"docs/studies.md has no row for {', '.join(missing)}"


def test_the_training_page_explains_every_flag():
    from fsr.config import TrainConfig

    rows = rows_of("docs/training.md")
    voc, *others = [PRESETS[name]() for name in ("voc", "coco", "synthetic")]
    for name in (field.name for field in dataclasses.fields(TrainConfig)):
        default = getattr(voc, name)
        values = [shown(default), *(shown(getattr(c, name)) if getattr(c, name) != default else "" for c in others)]
        assert rows.get(name, [])[:3] == values, f"docs/training.md must show {values} for --{name}"


def test_the_training_page_tells_what_the_test_bed_changes():
    ours, theirs = vars(PRESETS["test_bed"]()), vars(PRESETS["synthetic"]())
    changed = [(name, shown(theirs[name]), shown(ours[name])) for name in ours if ours[name] != theirs[name]]
    told = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", read("docs/training.md").prose, re.MULTILINE)
    assert [row for row in told if row[0] in ours] == changed


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells behind a flag in the tables that begin with one, by its name."""
    rows = re.findall(r"^\| `--(\w+)` \|(.*)\|$", read(page).prose, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def shown(default: object) -> str:
    """A default as the tables show it."""
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return "" if default is None else str(default)


def test_the_inference_page_explains_every_flag():
    from fsr.inference.config import InferConfig

    rows = rows_of("docs/inference.md")
    for field in dataclasses.fields(InferConfig):
        default = None if field.default is dataclasses.MISSING else field.default
        if field.name not in ("dataset", "pictures"):  # which have no flag
            place = f"docs/inference.md must show {shown(default)!r} for --{field.name}"
            assert rows.get(field.name, [])[:1] == [shown(default)], place


def test_the_analysis_page_explains_every_column(all_states):
    from analysis.load import load

    text = (ROOT / "docs/analysis.md").read_text()
    tables = vars(load("smoke", runs=all_states)).values()
    columns = {column for table in tables for column in table.columns if "/" not in column}
    missing = sorted(column for column in columns if f"`{column}`" not in text)
    assert not missing, f"docs/analysis.md does not explain {', '.join(missing)}"
