"""The archive that VOC 2012's evaluation server takes: label maps of the test set for competition 6."""

import tarfile
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from fsr.data.images import open_picture, refusing
from fsr.errors import UserError
from fsr.files import atomic_file
from fsr.regular_file import read_regular

FOLDER = PurePosixPath("results/VOC2012/Segmentation/comp6_test_cls")


def write_archive(path: Path, label_files: dict[str, Path]) -> None:
    """Pack the label PNGs of the images, by name, and read the archive back before it takes its place.

    Raises UserError if a label map cannot be read or is not what the server takes.
    """
    with atomic_file(path) as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, label_file in label_files.items():
                with refusing(label_file, "mask"):
                    content = read_regular(label_file)
                member = tarfile.TarInfo(str(FOLDER / f"{name}.png"))
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
        file.flush()
        check_archive(Path(file.name), set(label_files))


def check_archive(path: Path, names: set[str]) -> None:
    """Read an archive and check that it holds a whole label map of classes 0 to 20 for each image, and nothing else.

    Raises UserError for the first thing that is wrong.
    """
    left = set(names)
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            place = PurePosixPath(member.name)
            if place.parent != FOLDER or place.suffix != ".png" or place.stem not in left:
                raise UserError(f"archive {path} holds {member.name}, which the server does not expect there")
            left.remove(place.stem)
            content = archive.extractfile(member)
            if content is None:
                raise UserError(f"archive {path} holds {member.name}, which is no file")
            with refusing(path / member.name, "mask"):
                image = open_picture(BytesIO(content.read()), "mask")
                if image.mode != "P" or np.asarray(image).max() > 20:
                    raise UserError(f"label map {member.name} must be a palette PNG of classes 0 to 20")
    if left:
        raise UserError(f"archive {path} lacks {len(left)} images, among them {min(left)}")
