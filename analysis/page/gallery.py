"""The same validation images under different settings, as pictures that a page holds."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from PIL import Image

from analysis.page.chart import Named
from analysis.pictures import last_pictures
from fsr.picture_columns import COLUMNS
from launch.state.paths import StudyFolder

PICTURED = 30  # settings, best first; pictures of VOC's size take half a second a setting
TILE = 112  # pixels


@dataclass(frozen=True)
class Strip:
    """A validation picture of a trial."""

    trial: int
    title: str
    source: str
    """A data URL."""


@dataclass(frozen=True)
class Gallery:
    """The pictures of a study."""

    images: dict[str, list[Strip]] = field(default_factory=dict)
    """By validation image, its strip under each setting."""
    unread: list[str] = field(default_factory=list)
    """What could not be read, a sentence a trial."""
    left_out: int = 0
    """Settings whose pictures have no room."""

    @classmethod
    def of(cls, folder: StudyFolder, trials: Sequence[int], names: Named, budget: int) -> "Gallery":
        """Read those of these trials, in this order, as many as fit into `budget` bytes."""
        images: dict[str, list[Strip]] = {}
        unread: list[str] = []
        spent = 0
        wanted = [int(trial) for trial in dict.fromkeys(trials)]
        for place, trial in enumerate(wanted):
            if place == PICTURED or spent > budget:
                return cls(images, unread, len(wanted) - place)
            try:
                pictures = {name: encoded(picture) for name, picture in last_pictures(folder.run(trial)).items()}
            except (OSError, ValueError, SyntaxError, DecodeError) as error:  # SyntaxError: Pillow's, of a damaged PNG
                unread.append(f"The pictures of trial {trial} cannot be read: {error}")
                continue
            spent += sum(map(len, pictures.values()))
            for name, source in pictures.items():
                images.setdefault(name, []).append(Strip(trial, names.short(trial, 60), source))
        return cls(images, unread)


def encoded(strip: Image.Image) -> str:
    """A strip of tiles as a data URL, each tile at most TILE pixels wide."""
    # Newer runs have a line with the names of the columns above their square tiles; the page has its own.
    titles = strip.height - strip.width // len(COLUMNS)
    strip = strip.crop((0, max(0, titles), strip.width, strip.height))
    width = TILE * len(COLUMNS)
    if strip.width > width:
        strip = strip.resize((width, max(1, round(strip.height * width / strip.width))), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    strip.convert("RGB").save(stream, "WEBP", quality=65)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
