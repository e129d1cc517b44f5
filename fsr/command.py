"""The command line of a training run: a preset's name, then any field of TrainConfig as a flag."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

import tyro

from fsr.config import PRESETS, TrainConfig
from fsr.errors import UserError
from fsr.exit_codes import ExitCode


@dataclass(frozen=True)
class TrainCommand:
    """The folder and the configuration of a run."""

    run_folder: Path
    """Folder of the run: configuration, metrics, checkpoints, result. A run in it resumes."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig]


def parse_command(program: str, arguments: Sequence[str]) -> tuple[TrainConfig, Path]:
    """Configuration and run folder from `{voc,coco,synthetic} --run_folder DIR [--FIELD VALUE ...]`.

    Raises UserError for an unknown preset or flag, or a value that is not allowed.
    """
    presets = ", ".join(PRESETS)
    preset = arguments[0] if arguments else "nothing"
    if preset in ("-h", "--help"):
        print(f"usage: {program} DATASET --run_folder DIR [--FIELD VALUE ...]   (DATASET: {presets}; each has --help)")
        raise SystemExit(ExitCode.DONE)
    if preset not in PRESETS:
        raise UserError(f"{program} expects a data set as its first argument, got {preset}; allowed: {presets}")
    words = {"true": "True", "false": "False"}  # the released flags' spelling
    command, unknown = tyro.cli(
        TrainCommand,
        prog=f"{program} {preset}",
        args=[words.get(argument, argument) for argument in arguments[1:]],
        default=TrainCommand(tyro.MISSING, PRESETS[preset]()),
        config=(tyro.conf.FlagConversionOff,),
        return_unknown_args=True,
    )
    if unknown:
        flags = [f"--{field.name}" for field in fields(TrainConfig)] + ["--run_folder"]
        near = get_close_matches(unknown[0].replace("-", "_").replace("__", "--", 1), flags, n=3, cutoff=0.3)
        raise UserError(f"unknown option {unknown[0]}; nearest allowed: {', '.join(near) or 'none'} (all: --help)")
    return command.config, command.run_folder
