"""Two of a kind at once, and too little shared memory: the second says so, or both come to the same."""

from typing import Any

from situations.runs import same_run
from situations.situation import Answer, Check, Place, Situation, Verdict, either, refused, works
from situations.words import EXPORT, INFERENCE, LAUNCHED_TRAIN, PREPARE, RESUME, SWEEP, SYNTHETIC, TRAIN, changed

KIND = "crowded"
# The first is still at work when the second comes.
SECOND = (
    '"$@" >/dev/null 2>&1 & first=$!; for i in $(seq 200); do [ -e "SIGN" ] && break; sleep 0.3; done; '
    '"$@"; code=$?; kill -KILL $first; wait; exit $code'
)
BOTH = '"$@" >/dev/null & first=$!; "$@"; code=$?; wait $first || code=$?; exit $code'
SMALL = 'unshare --mount bash -c \'mount -t tmpfs -o size=SIZE none /dev/shm; exec "$@"\' bash "$@"'


def runs_already(name: str) -> Check:
    """It says that another one is at work in this folder."""

    def check(place: Place, answer: Answer) -> Verdict:
        return refused(name)(place, answer) if answer.code else "silent: two were at work in one folder"

    return check


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, shell: str, **more: Any) -> None:
        options = {"limit_s": 90} | more
        found.append(Situation(name=name, kind=KIND, words=words, expects=expects, shell=shell, **options))

    def second(sign: str) -> str:
        return SECOND.replace("SIGN", sign)

    of_run, of_trial = second("{out}/config.json"), second("{runs}/smoke/trial_0002/config.json")
    for name, words in {"train": TRAIN, "launch train": LAUNCHED_TRAIN}.items():
        long = changed(words, "--iterations", "100000")
        add(f"a second {name} in one folder", long, runs_already("{out}"), of_run)
    add("a second sweep of one study", [*SWEEP, "--trials", "40"], runs_already("{runs}"), of_trial, needs=["runs"])
    add(
        "two trains that resume one run",
        RESUME,
        either(refused("{half}"), works(checks=same_run("half"))),
        BOTH,
        needs=["half"],
    )
    add("two inferences into one folder", INFERENCE, either(works(), refused("{out}")), BOTH)
    add("two exports to one folder", EXPORT, either(works(), refused("{out}")), BOTH)
    add("two that draw one synthetic set", SYNTHETIC, either(works(), refused("{out}")), BOTH)
    add("two that prepare one data set", PREPARE, works(), BOTH, needs=["data"])
    for size in ("4k", "64k", "1m"):
        small = SMALL.replace("SIZE", size)
        for name, words in {"train": TRAIN, "infer": INFERENCE}.items():
            with_workers = changed(words, "--workers", "2")
            add(f"{name} with {size} of shared memory", with_workers, either(refused("shm"), works()), small)
    return found
