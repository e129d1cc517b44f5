"""The command lines that go on with a study, as they were typed for it."""

from pathlib import Path

from fsr.next_command import next_command
from launch.state.paths import Definition, StudyFolder

# What a later sweep says anew, or what the study's folder and definition say better.
NOT_AGAIN = {"study", "runs", "data_folder", "trials", "repeat", "best", "detach", "dry_run", "verify_resume"}


def next_line(folder: StudyFolder, definition: Definition, command: str, *more: str) -> str:
    """The line that runs a command on this study, with more flags.

    A sweep is told again what the first one was told: dataset, iterations, cluster. Another definition is refused.
    """
    words: list[str | Path] = ["--study", folder.name, "--runs", folder.folder.parent]
    if command == "sweep":
        words += ["--data_folder", definition["base"]["data_folder"], *told(definition)]
    return next_command(command, *words, *more)


def told(definition: Definition) -> list[str]:
    """The flags of the study's first sweep, as far as they hold for each; of one that is not known, what defines it."""
    launched, base = definition.get("launched", {}), definition["base"]
    command = launched.get("command", [])
    if "restored" in launched or "--study" not in command:
        return ["--dataset", base["dataset"], "--iterations", str(base["iterations"])]
    kept: list[str] = []
    keep = False
    for word in command[1:]:
        if word.startswith("--"):
            keep = word[2:].partition("=")[0].removeprefix("no-").replace("-", "_") not in NOT_AGAIN
        if keep:
            kept.append(word)
    return kept
