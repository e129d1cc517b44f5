"""Every situation of tests/situations is handled: no traceback, no silence, no hang, nothing that runs or leaks.

SITUATIONS chooses them by a regular expression over `KIND: NAME`; SITUATIONS_TABLE is a file for what came of each, and
SITUATIONS_FAILURES one for those that were not handled.
"""

import os
import re
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from situations import TABLES
from situations.commands import Commands
from situations.stock import Stock

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")]

# What is known not to be handled, each with the reason.
STARTING = "Python is starting, or imports what fsr/beginning.py needs: the handler of Ctrl-C is not set yet"
AT_ONCE = ("train", "infer", "sweep", "status", "doctor", "load", "synthetic", "prepare", "export")
KNOWN = {f"{command}: Ctrl-C after 0.05 s": STARTING for command in AT_ONCE}
KNOWN["doctor: journal.log is torn"] = (
    "the trial's parameters are lost with the tail, so its folder is no trial's, and doctor ends with 1"
)
KNOWN["two exports to one folder"] = "the second one refuses to write over the first one's files"


@pytest.fixture
def place_for_all():
    """A folder that other users may enter, wherever pytest's own lies."""
    with tempfile.TemporaryDirectory(prefix="fsr_situations_", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def shown(text):
    """A text whose control characters are spelled out, so that a table of them is one."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def test_situations(place_for_all):
    folder = place_for_all
    chosen = re.compile(os.environ.get("SITUATIONS", ""))
    situations = [
        situation for table in TABLES for situation in table() if chosen.search(f"{situation.kind}: {situation.name}")
    ]
    situations.sort(key=lambda situation: situation.alone or situation.shell is not None)  # what is quick comes first
    names = Counter(situation.name for situation in situations)
    assert not [name for name, count in names.items() if count > 1], names.most_common(3)
    places = folder / "places"
    places.mkdir()
    at_once = int(os.environ.get("SITUATIONS_AT_ONCE", len(os.sched_getaffinity(0)) + 1))
    commands = Commands(Stock(folder / "stock"), places, at_once)
    lines, failures, by_kind, by_command = [], [], Counter(), Counter()
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for situation, (answer, verdict, words) in zip(
                situations, pool.map(commands.meet, situations), strict=True
            ):
                good = verdict is None
                for counter, key in ((by_kind, situation.kind), (by_command, situation.command)):
                    counter[key, good] += 1
                first = next(iter(answer.err.splitlines()), "")
                end = "killed" if answer.code is None else answer.code
                lines.append(f"{situation.name} → {verdict or 'handled'} ({end}, {answer.seconds:.1f} s) {first[:160]}")
                if not good:
                    last = "\n".join(f"    {line[:300]}" for line in answer.said.splitlines()[-6:])
                    who = f" as {situation.user}" if situation.user else ""
                    frames = re.findall(r'File "\S*/checkout/(\S+)", line (\d+)', answer.said)
                    frame = ":".join(frames[-1]) if frames else situation.command
                    failures.append(f"{situation.name} → {verdict}\n  at {frame}\n  {' '.join(words)}{who}\n{last}\n")
                for name, content in (("TABLE", lines), ("FAILURES", failures)):
                    if f"SITUATIONS_{name}" in os.environ:
                        Path(os.environ[f"SITUATIONS_{name}"]).write_text(shown("\n".join(content)) + "\n")
    finally:
        commands.stop()
    totals = [
        f"{key}: {counter[key, True]} handled of {counter[key, True] + counter[key, False]}"
        for counter in (by_kind, by_command)
        for key in sorted({key for key, _ in counter})
    ]
    handled = sum(count for (_, good), count in by_kind.items() if good)
    totals.append(f"all: {handled} handled of {len(situations)}")
    print("\n".join(totals))
    if "SITUATIONS_TABLE" in os.environ:
        Path(os.environ["SITUATIONS_TABLE"]).write_text(shown("\n".join([*lines, "", *totals])) + "\n")
    unknown = [text for text in failures if text.partition(" → ")[0] not in KNOWN]
    assert not unknown, "\n".join(unknown)
    assert handled >= 0.99 * len(situations)
