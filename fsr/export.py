"""Saves a run's networks in the released implementation's format: `python -m fsr.export BEST.PT FOLDER`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from fsr.checkpoint import load_network
from fsr.errors import reports_user_errors
from fsr.files import atomic_file
from fsr.tensor_file import write_tensors


def export(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BEST.PT")],
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
) -> None:
    """Write the weights of student and teacher as student.pth and teacher.pth.

    Args:
        checkpoint: A run's best.pt or checkpoint.pt.
        folder: Where to write; made if it does not exist.
    """
    for weights in ("student", "teacher"):
        network, _ = load_network(checkpoint, weights)
        with atomic_file(folder / f"{weights}.pth") as file:
            write_tensors(network.state_dict(), file)
        print(folder / f"{weights}.pth")


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    tyro.cli(export, prog="python -m fsr.export", args=sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
