"""Saves a run's networks, each with its configuration: `fsr export BEST.PT FOLDER`.

The released implementation reads these files, too (`fsr.released`).
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("export", torch=True)

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fsr.command import call
from fsr.config import TrainConfig
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.writable import check_folder


def export(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BEST.PT")],
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
) -> None:
    """Write student.pth and teacher.pth, which must not be there yet: the weights of each with its configuration.

    Examples:
        runs/voc/best.pt released
        runs/mask_ratio/trial_0003/best.pt released_3

    Args:
        checkpoint: A run's best.pt or checkpoint.pt.
        folder: Where to write; made if it does not exist.
    """
    check_folder(folder, "FOLDER")
    from fsr.checkpoint import load_trained  # here, for torch takes seconds, which --help does not wait for
    from fsr.released import Carried, carrying
    from fsr.tensor_file import write_tensors

    names: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
    files = {weights: folder / f"{weights}.pth" for weights in names}
    for path in files.values():
        if os.path.lexists(path):  # it may be anybody's: the released implementation calls its own weights so
            raise UserError(
                f"{path} is there already, and nothing is written over it; remove it, or take another FOLDER"
            )
    trained = {weights: load_trained(checkpoint, weights) for weights in names}  # both, before one is written
    for weights, path in files.items():
        network, config, class_names = trained[weights]
        told = Carried(weights=weights, config=without_places(config), class_names=class_names)
        with atomic_file(path) as file:
            write_tensors(carrying(network.state_dict(), told), file)
        print(path)


def without_places(config: TrainConfig) -> dict[str, Any]:
    """A configuration as JSON values, without paths of this machine: the file is for others."""
    return dataclasses.replace(config, data_folder=Path("data"), list_folder=None, pretrained="none").to_json()


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    call(export, "export", arguments)


if __name__ == "__main__":
    main()
