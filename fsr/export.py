"""Saves a run's networks in the released implementation's format: `fsr export BEST.PT FOLDER`."""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("export", torch=True)

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fsr.command import call
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.writable import check_folder


def export(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BEST.PT")],
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
) -> None:
    """Write the weights of student and teacher as student.pth and teacher.pth, which must not be there yet.

    Examples:
        runs/voc/best.pt released
        runs/mask_ratio/trial_0003/best.pt released_3

    Args:
        checkpoint: A run's best.pt or checkpoint.pt.
        folder: Where to write; made if it does not exist.
    """
    check_folder(folder, "FOLDER")
    from fsr.checkpoint import load_network  # here, for torch takes seconds, which --help does not wait for
    from fsr.tensor_file import write_tensors

    names: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
    files = {weights: folder / f"{weights}.pth" for weights in names}
    for path in files.values():
        if os.path.lexists(path):  # it may be anybody's: the released implementation calls its own weights so
            raise UserError(
                f"{path} is there already, and nothing is written over it; remove it, or take another FOLDER"
            )
    for weights, path in files.items():
        network, _ = load_network(checkpoint, weights)
        with atomic_file(path) as file:
            write_tensors(network.state_dict(), file)
        print(path)


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    call(export, "export", arguments)


if __name__ == "__main__":
    main()
