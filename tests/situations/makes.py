"""The targets of the Makefile that look at a study, with names as people give them."""

from situations.situation import Check, Situation, refused, works

KIND = "make"
MAKE = "cd {checkout} && exec make -o .venv/installed "


def situations() -> list[Situation]:
    """All of them."""
    found = []

    def add(name: str, line: str, expects: Check, limit_s: float = 60) -> None:
        words = ["make", line.split()[0]]
        found.append(
            Situation(
                name=name, kind=KIND, words=words, expects=expects, shell=MAKE + line, needs=["runs"], limit_s=limit_s
            )
        )

    for target in ("report", "board", "dashboard"):
        add(f"make {target} of an unknown study", f"{target} STUDY=nothing RUNS='{{runs}}'", refused("nothing"))
        add(
            f"make {target} where no studies are", f"{target} RUNS='{{here}}/no such folder'", refused("no such folder")
        )
        add(f"make {target} of an empty name", f"{target} STUDY= RUNS='{{runs}}'", refused("study"))
        add(f"make {target} of a name with markup", f"{target} STUDY='[/]' RUNS='{{runs}}'", refused("[/]"))
    for target in ("board", "dashboard"):
        add(f"make {target} with a word for a port", f"{target} RUNS='{{runs}}' PORT=http", refused("port"))
        add(f"make {target} with a port too large", f"{target} RUNS='{{runs}}' PORT=99999", refused("99999"))
    add("make report of a study", "report RUNS='{runs}'", works("wrote"), 240)
    return found
