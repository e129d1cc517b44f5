"""Several ranks under torchrun, of which one or all meet something bad: one says it, and all end."""

from typing import Any

from situations.damage import DAMAGES
from situations.readers import damage
from situations.runs import change_json, together
from situations.situation import Answer, Check, Place, Situation, Verdict, either, works
from situations.words import TINY, changed

KIND = "several ranks"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fsr.train")
NEW = (*TORCHRUN, "synthetic", *TINY, "--ranks", "2", "--run_folder", "{out}")
RESUME = (*TORCHRUN, "synthetic", *TINY, "--run_folder", "{half}")
BAD = (
    ("--lr", "nan"),
    ("--momentum", "2"),
    ("--ranks", "3"),
    ("--data_folder", "{here}/nowhere"),
    ("--pretrained", "{here}/missing.pth"),
    ("--train_set", "no_such_list"),
    ("--nosuchflag", "1"),
)


def once(*names: str) -> Check:
    """It fails, and one rank alone says why."""

    def check(place: Place, answer: Answer) -> Verdict:
        said = [line for line in answer.err.splitlines() if line.startswith("error: ")]
        if answer.code == 0:
            return "silent: exit code 0"
        if len(said) != 1:
            return f"bad words: {len(said)} sentences: {' / '.join(said)[:120]}"
        missing = [name for name in map(place.fill, names) if name not in said[0]]
        return f"bad words: does not name {missing[0]}: {said[0][:120]}" if missing else None

    return check


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, words: Any, expects: Check, **more: Any) -> None:
        found.append(Situation(name=name, kind=KIND, words=words, expects=expects, alone=True, limit_s=90, **more))

    for flag, value in BAD:
        name = value if flag in ("--data_folder", "--pretrained", "--train_set") else flag.lstrip("-")
        add(f"torchrun {flag} {value}", changed(NEW, flag, value), once(name))
    add("torchrun with more ranks than micro-batches", RESUME, once("ranks"), needs=["half"])
    more = changed(NEW, "--run_folder", "{half}")
    of_two = change_json("{half}/config.json", ranks=2)
    add("torchrun in another run's folder", more, once("{half}"), needs=["half"], untouched=["{half}/checkpoint.pt"])
    for how in ("empty", "a folder"):
        for file in ("config.json", "metrics.jsonl"):
            prepare = together(of_two, damage(f"{{half}}/{file}", DAMAGES[how]))
            add(f"torchrun: {file} is {how}", more, either(once(file), works()), needs=["half"], prepare=prepare)
    return found
