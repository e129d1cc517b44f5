"""Odd surroundings: output that nobody takes, limits, environments, names of folders, Ctrl-C at any moment."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from situations.situation import Answer, Check, Place, Situation, Verdict, anything, either, refused, works
from situations.words import (
    COMPARE,
    DOCTOR,
    EXPORT,
    FIGURES,
    GALLERY,
    INFERENCE,
    LAUNCHED_INFER,
    LAUNCHED_TRAIN,
    LOAD,
    PREPARE,
    REPORT,
    STATUS,
    SWEEP,
    SYNTHETIC,
    TRAIN,
    changed,
)

USER, NOBODY = 4001, 987_654
MORE = (*SWEEP, "--trials", "3")
DRY = (*SWEEP, "--dry_run")
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": TRAIN,
    "infer": INFERENCE,
    "export": EXPORT,
    "synthetic": SYNTHETIC,
    "prepare": PREPARE,
    "sweep": MORE,
    "dry run": DRY,
    "status": STATUS,
    "status --json": (*STATUS, "--json"),
    "doctor": DOCTOR,
    "load": LOAD,
    "compare": COMPARE,
}
OTHERS = {"launch train": LAUNCHED_TRAIN, "launch infer": LAUNCHED_INFER, "figures": FIGURES, "gallery": GALLERY}
EVERY = ("train", "infer", "sweep", "status", "load", "prepare")  # which meet everything; the others meet some of it
SOME = (
    *("standard output closed", "| true", "standard output full", "ulimit -n 24", "ulimit -f 0", "ulimit -v 1.5 GB"),
    *("no HOME", "LANG=C", "COLUMNS a word", "brackets", "a closing tag", "an escape", "no UTF-8"),
)
TELLERS = ("status", "status --json", "doctor", "dry run", "compare")  # whose output is all that they are for
NEEDS = ["runs", "data", "states", "run"]
OUTPUTS = {
    "standard output closed": '"$@" >&-',
    "standard error closed": '"$@" 2>&-',
    "all three closed": '"$@" <&- >&- 2>&-',
    "| head": '"$@" | head -n 1; exit ${PIPESTATUS[0]}',
    "| true": '"$@" | true; exit ${PIPESTATUS[0]}',
    "2>&1 | true": '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
    "standard output full": '"$@" >/dev/full',
    "both outputs full": '"$@" >/dev/full 2>/dev/full',
}
# What it says is written by processes without the limit.
LIMITED = '(LIMIT; exec "$@") > >(cat) 2> >(cat >&2); code=$?; sleep 0.3; exit $code'
LIMITS = {
    "ulimit -n 24": "ulimit -n 24",
    "ulimit -n 10": "ulimit -n 10",
    "ulimit -f 0": "ulimit -f 0",
    "ulimit -f 8": "ulimit -f 8",
    "ulimit -v 400 MB": "ulimit -v 400000",
    "ulimit -v 1.5 GB": "ulimit -v 1500000",
    "ulimit -s 256": "ulimit -s 256",
}
ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no HOME": {"HOME": None},
    "a HOME that is not there": {"HOME": "/nowhere/at/all"},
    "an empty HOME": {"HOME": ""},
    "TERM=dumb": {"TERM": "dumb"},
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII output": {"PYTHONIOENCODING": "ascii"},
    "latin-1 output": {"PYTHONIOENCODING": "latin-1"},
    "COLUMNS=1": {"COLUMNS": "1"},
    "COLUMNS a word": {"COLUMNS": "wide"},
    "LINES=0": {"LINES": "0", "COLUMNS": "0"},
    "TMPDIR that is not there": {"TMPDIR": "/nowhere/at/all"},
    "no PATH": {"PATH": ""},
    "OMP_NUM_THREADS a word": {"OMP_NUM_THREADS": "many"},
    "SLURM_JOB_ID a word": {"SLURM_JOB_ID": "job", "SLURM_PROCID": "first", "SLURM_NTASKS": "some"},
}
CACHES = {
    "a file": "{checkout}/fsr/train.py",
    "missing": "{here}/new/cache",
    "relative": "cache",
    "device": "/dev/null",
}
RANKS: dict[str, dict[str, str | None]] = {
    "RANK is a word": {"RANK": "first", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "WORLD_SIZE is a word": {"RANK": "0", "WORLD_SIZE": "two", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "WORLD_SIZE is 0": {"RANK": "0", "WORLD_SIZE": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "WORLD_SIZE is negative": {"RANK": "0", "WORLD_SIZE": "-2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "RANK is too large": {"RANK": "7", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "RANK is negative": {"RANK": "-1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "RANK is empty": {"RANK": "", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    "WORLD_SIZE is there alone": {"WORLD_SIZE": "2"},
    "RANK is there alone": {"RANK": "1"},
    "MASTER_PORT is a word": {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"},
    "MASTER_ADDR is missing": {"RANK": "0", "WORLD_SIZE": "1"},
    "LOCAL_RANK is a word": {"LOCAL_RANK": "me"},
    "the store is a folder": {"RANK": "0", "WORLD_SIZE": "1", "FSR_STORE_FILE": "{data}"},
    "CUDA_VISIBLE_DEVICES is a word": {"CUDA_VISIBLE_DEVICES": "all"},
}
NAMES = {
    "brackets": "[bold] [/] [red]x",
    "a closing tag": "[/]",
    "an escape": "a\x1b[31mb",
    "a newline": "a\nb",
    "other alphabets": "данные 数据 ü",
    "no UTF-8": os.fsdecode(b"caf\xe9"),
    "spaces and quotes": ' it\'s a "test" $HOME `id` ',
    "a leading dash": "-rf",
    "a percent sign": "%A_%a %s {x}",
    "a backslash": "a\\nb",
    "a colon": "a:b;c",
}
REFUSABLE = ("a leading dash", "a newline", "no UTF-8", "an escape")  # in a sentence, for what good is such a name?
NAMED = dict.fromkeys(("train", "infer", "export", "synthetic", "launch train", "launch infer"), "out")
NAMED |= {"prepare": "data", "compare": "states", "gallery": "run"}  # the folder of each command; else the runs folder
CTRL_C = {
    "train": (0.05, 0.3, 1.0, 2.0, 4.0, 8.0),
    "infer": (0.05, 0.3, 1.0, 2.0, 4.0),
    "sweep": (0.05, 0.2, 0.5, 1.0, 2.0, 4.0),
    "status": (0.05, 0.2, 0.4, 0.8),
    "doctor": (0.05, 0.3, 0.7),
    "load": (0.05, 0.4, 0.9, 1.5),
    "synthetic": (0.05, 0.3, 0.8),
    "prepare": (0.05, 0.3, 0.8),
    "export": (0.05, 0.5, 2.0),
    "compare": (0.3, 1.0),
    "gallery": (0.3, 1.5, 3.0),
    "figures": (0.4, 1.2),
}


def ends_well(command: str) -> Check:
    """It works, or says in a sentence why it cannot."""
    return works()


def output_check(command: str, how: str) -> Check:
    """What a command may do when its output is not taken."""
    if "full" in how:
        # Where the output is all that is wanted, its loss is an error; a sentence is seen only on the other stream.
        lost = anything if "both" in how else refused("output", codes=(1, 2))
        return lost_output(lost) if command in TELLERS else either(lost, works())
    if "|" in how:
        return works(codes=(0, 1, 2, 141))
    return works()


def lost_output(check: Check) -> Check:
    """The check, and that the exit code tells of the loss."""

    def both(place: Place, answer: Answer) -> Verdict:
        return "silent: exit code 0, though its output was lost" if answer.code == 0 else check(place, answer)

    return both


def no_home(place: Place, answer: Answer) -> Verdict:
    """The home that is not there was not made."""
    return "wrong result: /nowhere was made" if Path("/nowhere").exists() else None


def named(what: str, name: str) -> Callable[[Place], None]:
    """The set-up that gives a folder such a name."""

    def prepare(place: Place) -> None:
        new = place["here"] / name
        if what in ("out", "target"):
            place.paths[what] = new
        else:
            shutil.move(place[what], new)
            place.paths[what] = new

    return prepare


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, kind: str, words: Any, expects: Check, **more: Any) -> None:
        options = {"needs": NEEDS} | more
        found.append(Situation(name=name, kind=kind, words=words, expects=expects, **options))

    for command, words in (COMMANDS | OTHERS).items():

        def met(parts: dict[str, Any], command: str = command) -> list[tuple[str, Any]]:
            return [(name, part) for name, part in parts.items() if command in EVERY or name in SOME]

        for how, shell in met(OUTPUTS):
            add(f"{command}: {how}", "odd output", words, output_check(command, how), shell=shell)
        for how, limit in met(LIMITS):
            # Whatever is too little is said in a sentence, unless the command needs no more.
            says = either(refused(), works()) if "-s" not in how else works()
            add(f"{command}: {how}", "limit", words, says, shell=LIMITED.replace("LIMIT", limit))
        for how, variables in met(ENVIRONMENTS):
            alone = how in ("LANG=C", "ASCII output", "latin-1 output", "OMP_NUM_THREADS a word")
            add(f"{command}: {how}", "odd environment", words, works(checks=no_home), variables=variables, alone=alone)
        without = {"user": NOBODY, "variables": {"HOME": None}, "alone": command in EVERY}
        add(f"{command}: unknown user without HOME", "odd environment", words, works(), **without)
        sentence = either(works(), refused())
        if command in EVERY:
            gone = 'mkdir {here}/gone; cd {here}/gone; rmdir {here}/gone; "$@"'
            add(f"{command}: the working folder is gone", "odd environment", words, sentence, shell=gone)
            one = {"shell": 'ulimit -u 1; exec "$@"', "user": NOBODY - 1}
            add(f"{command}: ulimit -u 1", "limit", words, sentence, **one)
        for what, name in met(NAMES):
            folder = NAMED.get(command, "runs")
            check = sentence if what in REFUSABLE else works()
            add(f"{command}: {folder} is called with {what}", "odd name", words, check, prepare=named(folder, name))
    for how, cache in CACHES.items():
        for command in ("load", "compare", "figures"):
            words = (COMMANDS | OTHERS)[command]
            add(
                f"{command}: XDG_CACHE_HOME is {how}",
                "odd environment",
                words,
                works(),
                variables={"XDG_CACHE_HOME": cache},
            )
    for how, variables in RANKS.items():
        for command in ("train", "infer"):
            known = ("RANK", "WORLD_SIZE", "MASTER", "FSR_STORE_FILE", "CUDA")
            said = next((word for word in known if word in how), "")
            # Whoever says how many ranks there are has to say which is this one; a GPU that was promised is the node's.
            said = "RANK" if how == "WORLD_SIZE is there alone" else said
            expects = either(refused(said, codes=(2, 75) if said == "CUDA" else (2,)), works())
            add(
                f"{command}: {how}",
                "odd environment",
                COMMANDS[command],
                expects,
                variables=variables,
                alone=True,
                limit_s=40,
            )
    for variable in (
        "junk",
        "redis://x",
        "postgresql://me:secret@127.0.0.1:1/db",
        "sqlite:////nowhere/at/all/x.db",
        "",
    ):
        for command in ("status", "load", "sweep", "doctor"):
            words = COMMANDS[command]
            check = either(works(), secret_kept(refused()))
            add(
                f"{command}: FSR_STORAGE is {variable!r}",
                "odd environment",
                words,
                secret_kept(check),
                variables={"FSR_STORAGE": variable},
            )
    for command, moments in CTRL_C.items():
        words = (COMMANDS | OTHERS)[command]
        if command == "train":
            words = changed(words, "--iterations", "100000")
        if command == "synthetic":
            words = changed(words, "--images", "3000")
        if command == "sweep":
            words = (*words[:-1], "30")
        for moment in moments:
            check = works(codes=(0, 130, -2) if command not in ("train",) else (130, -2))
            add(
                f"{command}: Ctrl-C after {moment} s",
                "Ctrl-C",
                words,
                check,
                alone=True,
                interrupt_s=moment,
                limit_s=40,
            )
    add(
        "report: standard output closed",
        "odd output",
        REPORT,
        works(),
        shell=OUTPUTS["standard output closed"],
        limit_s=180,
    )
    return found


def secret_kept(check: Check) -> Check:
    """The check, and that no password is shown."""

    def both(place: Place, answer: Answer) -> Verdict:
        return "exposure: the password is shown" if "secret" in answer.said else check(place, answer)

    return both
