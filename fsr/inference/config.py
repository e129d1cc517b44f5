"""Every setting of an inference in one frozen dataclass. Imports no torch."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import tyro

from fsr.bounds import COUNT, FRACTION, PROCESSES, SIDE, WIDTH, Bounds, check_bounds
from fsr.command import asks_for_help, parse_flags, read_words
from fsr.config import TrainConfig, typed_config
from fsr.errors import UserError
from fsr.flags import flags_of

THREADS_ON_SLURM = 4
PICTURES: Final = "images"  # in the place of a data set
MOST_PIXELS = 640**2  # of a picture in COCO
_PLACES = ("data_folder", "list_folder", "output_folder", "checkpoint", "compare")


class Thresholds(NamedTuple):
    """The thresholds of an inference's CAMs."""

    background: float
    high: float
    low: float


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """One inference: its images, its checkpoint, what it saves. Raises UserError for a value that is not allowed.

    Aliases are the released code's flags and those of its relatives.

    Example:
        >>> config = InferConfig(dataset="voc", checkpoint=Path("runs/voc/best.pt"), data_folder=Path("data"))
        >>> config.results_folder.as_posix(), config.scales
        ('runs/voc/infer_val', (1.0, 1.25, 1.5))
    """

    # What is inferred
    dataset: tyro.conf.Positional[Literal["voc", "coco", "synthetic", "images"]]
    """Layout of the data set, and which classes it has; or images, pictures without a data set."""
    pictures: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FOLDER")] = ()
    """Folder of pictures; or pictures, folders and lists (.txt, with a path a line), any number of them."""
    checkpoint: Annotated[Path, tyro.conf.arg(aliases=("--model_path",))]
    """A run's best.pt (or checkpoint.pt), what `fsr export` wrote, or a bare state dict, as the released code saves."""
    data_folder: Path
    """Folder that holds VOCdevkit/VOC2012 or COCO, or that folder itself; of images the folder of all pictures."""
    list_folder: Path | None = None
    """Folder of the prepared lists; by default ImageSets/fsr inside the data set."""
    infer_set: str = "val"
    """Prepared list of the images: train, train_aug, val or test."""
    output_folder: Annotated[Path | None, tyro.conf.arg(aliases=("--out",))] = None
    """Where the results go; by default infer_SET beside the checkpoint. An interrupted inference in it resumes."""
    most_pixels: Annotated[int | None, Bounds(1024, 89_478_485)] = None
    """Most pixels that the network sees of a picture: of a larger one it sees a smaller copy. Label maps and overlays
    are as large as the picture itself. By default 409600 (640 x 640)."""

    # The network
    weights: Literal["student", "teacher"] | None = None
    """Which network of a run; by default the student."""
    num_classes: Annotated[int | None, Bounds(2, 255)] = None
    """Classes, background included; by default the data set's."""
    heads: Annotated[int | None, WIDTH] = None
    """Attention heads of a bare state dict, which does not tell them; any other checkpoint tells its own."""
    backbone: str | None = None
    """Backbone of a bare state dict, if its blocks are not those of the preset's: any plain ViT of timm, by name."""
    aux_layer: Annotated[int | None, Bounds(1, 1000)] = None
    """Block of the aux features of a bare state dict, counted from the last one; by default the third, as released."""
    decoder_dilation: Annotated[int | None, SIDE] = None
    """Dilation of the decoder of a bare state dict, which does not tell it."""
    scales: Annotated[tuple[float, ...], Bounds(0.1, 4.0)] = (1.0, 1.25, 1.5)
    """Scales of the image; each scale runs with and without horizontal flip."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the network's products: fp32 exact, tf32 with factors of 10 bits on a GPU, bf16 by autocast."""

    # Labels
    crf: bool = True
    """Sharpen the segmentation with a dense CRF."""
    single_scale: bool = False
    """Label the image at scale 1 without its flip, too, from the same pass: a column of its own in all scores."""
    class_gating: bool = False
    """Label by the multi-scale logits without the classes that the classifier rejects, too: a column of its own."""
    gate_threshold: Annotated[float, Bounds(-1000.0, 1000.0)] = 0.0
    """Class gating rejects a class whose top logit, of the image at scale 1 without its flip, is at most this."""
    pseudo_labels: Literal["none", "par", "crf"] = "none"
    """Labels from the CAMs by two thresholds, refined by PAR or by a dense CRF."""
    bkg_threshold: Annotated[float | None, FRACTION, tyro.conf.arg(aliases=("--bkg_thre",))] = None
    """CAM up to this is background; by default the checkpoint's, which a bare state dict does not tell."""
    high_threshold: Annotated[float | None, FRACTION, tyro.conf.arg(aliases=("--high_thre",))] = None
    """CAM above this is foreground in pseudo labels; by default the checkpoint's."""
    low_threshold: Annotated[float | None, FRACTION, tyro.conf.arg(aliases=("--low_thre",))] = None
    """CAM up to this is background in pseudo labels; by default the checkpoint's."""

    # How it is computed
    postprocess: Literal["device", "cpu"] = "device"
    """Where label maps, CRFs, counts and pictures are made: on the network's device, or on the threads of the CPU."""

    # What is saved
    save_cam: bool = False
    """Save the heat map of each present class."""
    save_overlays: bool = False
    """Save the images overlaid with the colours of their labels."""
    save_logits: bool = False
    """Save the segmentation logits of each scale, float16 on the patch grid."""
    report: bool = False
    """Write report.html: tables, curves, confusions and a gallery, in one file."""
    compare: Path | None = None
    """Results folder of another inference of the same list: write a page that shows where the two differ most."""
    report_images: Annotated[int, COUNT] = 400
    """Largest number of images in a page's gallery: the worst of each class in turn, or those that differ most."""
    skip_bad: bool = False
    """Leave out images whose files cannot be read, and report their names and number, instead of stopping."""

    # Processes and shards
    batch_size: Annotated[int, COUNT] = 4
    """Images of one size in a batch of the network."""
    workers: Annotated[int, PROCESSES, tyro.conf.arg(aliases=("--num_workers",))] = 2
    """Processes that read images."""
    threads: Annotated[int | None, Bounds(1, 1024)] = None
    """Threads that take batches from the network to the files, a core each; by default all cores (4 on Slurm)."""
    shards: Annotated[int, COUNT] = 1
    """Shards of the list; each image is in exactly one. Ranks of torchrun divide a shard further."""
    shard: Annotated[int, Bounds(0, 10**6)] = 0
    """Which shard, from 0."""

    def __post_init__(self) -> None:
        def check(name: str, allowed: bool, rule: str) -> None:
            if not allowed:
                raise UserError(f"{name} must be {rule}, got {getattr(self, name)}")

        check_bounds(type(self), vars(self))
        check("shard", 0 <= self.shard < self.shards, f"from 0 to {self.shards - 1}")
        check("scales", len(self.scales) > 0, "one or more numbers")
        unused = ("list_folder", "num_classes") if self.of_pictures else ("pictures", "most_pixels")
        for field in unused:
            check(field, not getattr(self, field), f"left out for {self.dataset}")
        name = self.infer_set
        check("infer_set", name.replace("_", "").replace("-", "").isalnum(), "the name of a prepared list, such as val")
        for field in ("single_scale", "class_gating"):
            check(field, not getattr(self, field) or 1.0 in self.scales, "false where no scale is 1")

    @property
    def of_pictures(self) -> bool:
        """Whether the images are pictures without a data set."""
        return self.dataset == PICTURES

    @property
    def seen_pixels(self) -> int | None:
        """Pixels of an image as the network sees it, at most; None without a limit."""
        return (self.most_pixels or MOST_PIXELS) if self.of_pictures else None

    @property
    def called(self) -> str:
        """What is inferred, in words."""
        return f"pictures in {self.data_folder}" if self.of_pictures else f"{self.dataset} {self.infer_set}"

    @property
    def results_folder(self) -> Path:
        """Where the results go."""
        name = Path(os.path.abspath(self.data_folder)).name if self.of_pictures else self.infer_set
        return self.output_folder or self.checkpoint.parent / f"infer_{name}"

    def told(self) -> dict[str, Any]:
        """What this inference needs of a network, and a bare state dict does not tell; None where it was not given."""
        names = ["heads", "decoder_dilation", "bkg_threshold"]
        names += ["high_threshold", "low_threshold"] if self.pseudo_labels != "none" else []
        names += [name for name in ("backbone", "aux_layer") if getattr(self, name) is not None]  # else as released
        return {name: getattr(self, name) for name in names}

    def thresholds(self, trained: TrainConfig) -> Thresholds:
        """The thresholds given here, else those of the checkpoint. Raises UserError if they contradict each other."""
        names = ("bkg_threshold", "high_threshold", "low_threshold")
        given = {name: getattr(self, name) for name in names}
        chosen = Thresholds(*(getattr(trained, name) if value is None else value for name, value in given.items()))
        if chosen.low > chosen.high:
            raise UserError(f"low_threshold must be at most high_threshold {chosen.high}, got {chosen.low}")
        return chosen

    def identity(self, checkpoint_sha256: str) -> dict[str, Any]:
        """The settings that the results depend on. Results of another identity are not resumed."""
        here = ("data_folder", "list_folder", "pictures", "most_pixels", "output_folder", "shards", "shard")
        how = ("batch_size", "workers", "threads", "postprocess")
        later = ("report", "report_images", "compare", "skip_bad", "checkpoint")
        chosen = {name: value for name, value in self.to_json().items() if name not in (*here, *how, *later)}
        return chosen | {"checkpoint_sha256": checkpoint_sha256}

    @property
    def cores(self) -> int:
        """Processor cores that it keeps busy."""
        return self.workers + (self.threads or THREADS_ON_SLURM)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        fields = dataclasses.asdict(self) | {"pictures": list(map(str, self.pictures))}
        return {name: str(fields[name]) if name in _PLACES and fields[name] else fields[name] for name in fields}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "InferConfig":
        """The inverse of `to_json`. Raises UserError for a value of another kind."""
        pictures = fields.get("pictures", ())
        if isinstance(pictures, list | tuple) and all(isinstance(place, str) for place in pictures):
            fields = fields | {"pictures": tuple(map(Path, pictures))}
        return typed_config(cls, fields, _PLACES)


TEXT = """Infer the images of a data set, by several scales, and a CRF: scores, label maps, report.

Pictures that belong to no data set: fsr infer images FOLDER (its flags: fsr infer images --help).

An interrupted inference resumes. On Slurm, fsr submit-infer takes the same flags.

With --study NAME it infers the checkpoints of a study and shows their table (fsr infer --study NAME --help).

Examples:
    voc --checkpoint runs/voc/best.pt --data_folder DIR --report
    voc --checkpoint student.pth --data_folder DIR --infer_set train_aug --pseudo_labels crf --no-crf
"""
TEXT_OF_PICTURES = """Infer pictures without labels, which belong to no data set: label maps, overlays, CAMs of the
classes that the network predicts, their areas, and a report.

Class names, thresholds and the network's settings come with the checkpoint. JPEG and PNG files are taken, and turned as
their EXIF says. An interrupted inference resumes.

Examples:
    photos --checkpoint student.pth --out results
    photos/a.jpg more_photos list.txt --checkpoint runs/voc/best.pt --out results --no-crf
"""
# What a data set has, and pictures have not; and the other way round.
_OF_DATA_SETS = ("data_folder", "list_folder", "infer_set", "num_classes")
_OF_PICTURES = ("pictures", "most_pixels")


def parse(arguments: Sequence[str]) -> InferConfig:
    """The configuration from a command line. Raises UserError for a value that is not allowed."""
    config: InferConfig = parse_inference(InferConfig, "infer", arguments, TEXT, lambda config: config)
    return in_its_folder(config)


def parse_inference(
    kind: Callable[..., Any], command: str, arguments: Sequence[str], text: str, holding: Callable[[InferConfig], Any]
) -> Any:
    """What a command line says that begins with a data set, or with `images` and pictures.

    It is of a `kind` that has the flags of an InferConfig; `holding` makes one of a configuration.
    """
    others, words = read_words(flags_of(kind), arguments)
    if others[:1] != [PICTURES]:
        if others[1:]:
            raise UserError(f"fsr {command} {others[0]} takes no {others[1]}; pictures stand behind {PICTURES}")
        return parse_flags(kind, command, arguments, text=text, without=_OF_PICTURES)
    default = InferConfig(
        dataset=PICTURES,
        pictures=tyro.MISSING,
        checkpoint=tyro.MISSING,
        data_folder=Path(),
        infer_set="pictures",
        save_overlays=True,
        save_cam=True,
        report=True,
    )
    without = ("dataset", *_OF_DATA_SETS)
    rest = [*others[1:], *words, *(["--help"] if asks_for_help(arguments) else [])]
    options: dict[str, Any] = {"text": TEXT_OF_PICTURES, "without": without, "first": [PICTURES]}
    return parse_flags(kind, f"{command} {PICTURES}", rest, default=holding(default), **options)


def in_its_folder(config: InferConfig) -> InferConfig:
    """A configuration from a command line with the folder from which its pictures are named: the one that was given, or
    the one that all lie in."""
    if not config.pictures:
        return config
    if len(config.pictures) == 1 and config.pictures[0].is_dir():
        return dataclasses.replace(config, data_folder=config.pictures[0], pictures=())
    folders = [place if place.is_dir() else place.parent for place in map(Path, map(os.path.abspath, config.pictures))]
    return dataclasses.replace(config, data_folder=Path(os.path.commonpath(folders)))
