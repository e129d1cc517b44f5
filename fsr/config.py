"""Every setting of a training run in one frozen dataclass, and the three presets. Imports no torch."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fsr.errors import UserError

# Where the data lies and how it is loaded: fields that may change while the run stays the same.
PLACES = ("data_folder", "list_folder", "workers")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The defaults are the paper's for VOC 2012 (AAAI 2024, METHOD and section 4.1).

    Points of the schedule are fractions of the run (`warmup`, `fsr_from`, `aff_from`, …), so that a shorter
    run keeps its shape. Raises UserError for a value that is not allowed.

    Example:
        A run on VOC of a tenth of the length; its warm-up shrinks with it.

        >>> config = dataclasses.replace(voc(Path("data")), iterations=2_000)
        >>> config.warmup_steps, voc().warmup_steps
        (150, 1500)
        >>> dataclasses.replace(config, mask_ratio=1.2)
        Traceback (most recent call last):
        fsr.errors.UserError: mask_ratio must be in (0, 1], got 1.2
    """

    # Data
    dataset: Literal["voc", "coco", "synthetic"]
    """Which data set `data_folder` holds. `synthetic` is VOC's format with 8 classes."""
    data_folder: Path
    """Folder that holds VOCdevkit/VOC2012 or COCO."""
    list_folder: Path | None = None
    """Folder of the prepared lists; by default ImageSets/fsr inside the data set."""
    train_set: str = "train_aug"
    """List to train on."""
    val_set: str = "val"
    """List to evaluate on."""
    num_classes: int = 21
    """Classes, background included (C = K + 1)."""

    # Network
    backbone: str = "vit_base_patch16_224"
    """Any plain ViT of timm, by name."""
    pretrained: str = "timm"
    """`timm` (from Hugging Face's cache or hub), `none`, or a local file: timm's, DINO's, MAE's or a run's."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    embed_dim: int | None = None
    """Width of the encoder; by default the backbone's own."""
    depth: int | None = None
    """Blocks of the encoder; by default the backbone's own."""
    heads: int | None = None
    """Attention heads; by default the backbone's own."""
    weight_init: Literal["vit", "fan_in"] = "vit"
    """Linear weights without pretraining: `vit` truncated normal of std .02, `fan_in` normal of std 1/sqrt(fan in)."""
    cls_depth: int = 2
    """Cross-attention blocks that aggregate the patches into the class token."""
    cls_attends: Literal["all", "unmasked"] = "all"
    """Patches that the class token of the masked view sees: `all` as released, `unmasked` as the abstract says."""
    decoder_width: int = 512
    """Channels of the LargeFOV decoder."""
    decoder_dilation: int = 5
    """Dilation of its 3x3 convolutions."""
    projector_hidden: int = 2048
    """Hidden width of the projector."""
    projector_bottleneck: int = 256
    """Width of the projector before its last layer."""
    out_dim: int = 4096
    """Outputs of the projector: the prototypes on which student and teacher are compared."""
    drop_path: float = 0.1
    """Highest rate of stochastic depth."""
    drop_path_in_targets: bool = True
    """Keep drop path active in the CAMs and the teacher, as released; False is the sounder choice."""

    # Views
    crop_size: int = 448
    """Side of the two training views in pixels."""
    crop_area: tuple[float, float] = (0.32, 1.0)
    """Smallest and largest fraction of the image that a view covers."""
    local_crops: int = 0
    """Small extra views of the student."""
    local_crop_size: int = 96
    """Their side in pixels."""
    local_crop_area: tuple[float, float] = (0.05, 0.32)
    """Smallest and largest fraction of the image that a local crop covers."""
    use_aa: bool = False
    """timm's rand-m9-mstd0.5-inc1 with random erasing .25 on the views."""
    use_gauss: bool = False
    """Gaussian blur on the views (p .1, radius .1 to 2 pixels)."""
    use_solar: bool = False
    """Solarisation of the views (p .2)."""
    augment: Literal["workers", "device"] = "workers"
    """Where the two views are flipped, recoloured and normalised: in the loading `workers`, or on the `device` for
    whole batches with the same random draws. `device` supports neither use_aa nor use_gauss. The workers always make
    the local crops."""

    # CAMs and labels
    cam_scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    """Scales of the multi-scale CAM."""
    high_threshold: float = 0.7
    """CAM above this is foreground in pseudo labels."""
    low_threshold: float = 0.25
    """CAM up to this is background in pseudo labels; between the two is ignored."""
    bkg_threshold: float = 0.5
    """CAM up to this is background in evaluation."""
    image_levels: Literal["truncate", "round"] = "truncate"
    """How the refinement takes the view back to 8 bits: `truncate` as released, `round` is the sounder choice."""

    # Masking
    use_mim: bool = True
    """Mask blocks of the student's second view."""
    block_size: int = 64
    """Side of a masked block in pixels: a multiple of the patch that divides the crop."""
    mask_ratio: float = 0.4
    """Fraction of the blocks that are masked, in (0, 1]."""
    uncertain: tuple[float, float] = (0.2, 0.7)
    """CAM values strictly between these are uncertain; such blocks are masked first."""
    block_uncertainty: Literal["pixel", "area"] = "pixel"
    """A block is uncertain by its top-left `pixel` as released, or if at least half its `area` is."""

    # Losses
    w_class: float = 0.1
    """Weight of class self-reinforcement."""
    w_patch: float = 0.1
    """Weight of patch self-reinforcement."""
    w_aff: float = 0.2
    """Weight of the affinity loss."""
    w_seg: float = 0.1
    """Weight of the segmentation loss."""
    w_reg: float = 0.05
    """Weight of the dense energy loss."""
    fsr_from: float = 0.0
    """Fraction of the run from which class and patch self-reinforcement count."""
    aff_from: float = 0.0
    """Fraction of the run from which the affinity loss counts."""
    seg_from: float = 0.1
    """Fraction of the run from which the segmentation loss counts."""
    reg_from: float = 0.1
    """Fraction of the run from which the energy loss counts."""
    student_temp: float = 0.1
    """Temperature of the student's softmax."""
    teacher_temp: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher's softmax: start, and end of its warm-up over the first eighth of the run."""

    # Optimisation
    iterations: int = 20_000
    """Optimizer steps."""
    batch_size: int = 2
    """Images of a micro-batch: what a process computes at a time."""
    ranks: int = 4
    """Micro-batches of one optimizer step, by default one on each of the paper's 4 GPUs. The global batch has ranks ·
    batch_size images. W processes accumulate the gradients of ranks / W micro-batches each, and learn the same."""
    lr: float = 6e-5
    """Peak learning rate of the encoder."""
    head_lr_factor: float = 10.0
    """Times lr for decoder, projector and classifiers."""
    cls_lr_factor: float = 1.0
    """Times lr for the randomly initialised cross-attention blocks; 1 as released."""
    weight_decay: float = 0.05
    """AdamW's decay; none on 1-D tensors, biases, tokens and position embedding."""
    warmup: float = 0.075
    """Fraction of the run over which the learning rate rises."""
    momentum: float = 0.9995
    """EMA momentum of the teacher at the start; it rises to 1 along a cosine."""
    fsr_iters: int | None = None
    """Steps with class and patch self-reinforcement; by default all."""
    precision: Literal["fp32", "tf32", "bf16"] = "tf32"
    """Of a GPU's products: fp32 exact, tf32 with factors of 10 bits, bf16 autocast of the networks with the losses in
    float32. A CPU computes fp32 for tf32."""
    deterministic: bool = True
    """The same bits on every run, also on a GPU."""
    compile: bool = False
    """Compile the encoder's blocks (torch.compile): a minute or more at the start, faster steps after it."""
    graphs: bool = False
    """Record a GPU's work for a micro-batch as a CUDA graph and replay it: faster where the host is the bottleneck."""

    # Running
    seed: int = 0
    """Every random draw is a function of (seed, micro-batch, step)."""
    eval_every: int = 2_000
    """Steps between evaluations; the last step is always evaluated."""
    log_every: int = 50
    """Steps between two records of the losses."""
    save_every: int = 500
    """Steps between two checkpoints; a killed run loses at most that many."""
    workers: int = 4
    """Data loading processes of each process."""
    pictures: int = 4
    """Validation images drawn in TensorBoard at each evaluation."""

    def __post_init__(self) -> None:
        def check(name: str, allowed: bool, rule: str) -> None:
            if not allowed:
                raise UserError(f"{name} must be {rule}, got {getattr(self, name)}")

        for field in (
            "num_classes",
            "depth",
            "embed_dim",
            "heads",
            "patch_size",
            "crop_size",
            "local_crop_size",
            "cls_depth",
        ):
            value = getattr(self, field)
            check(field, value is None or value >= 1, "at least 1")
        for field in ("out_dim", "decoder_width", "decoder_dilation", "projector_hidden", "projector_bottleneck"):
            check(field, getattr(self, field) >= 1, "at least 1")
        for field in ("iterations", "batch_size", "ranks", "eval_every", "log_every", "save_every"):
            check(field, getattr(self, field) >= 1, "at least 1")
        for field in ("local_crops", "workers", "pictures", "seed"):
            check(field, getattr(self, field) >= 0, "at least 0")
        check("num_classes", 2 <= self.num_classes <= 255, "between 2 and 255, background included")
        check("depth", self.depth is None or self.depth >= 3, "at least 3: aux features are the third-last block's")
        check("crop_size", self.crop_size % self.patch_size == 0, f"a multiple of the patch size {self.patch_size}")
        for field in ("w_class", "w_patch", "w_aff", "w_seg", "w_reg", "weight_decay"):
            check(field, math.isfinite(getattr(self, field)) and getattr(self, field) >= 0, "at least 0")
        for field in ("lr", "head_lr_factor", "cls_lr_factor", "student_temp"):
            check(field, math.isfinite(getattr(self, field)) and getattr(self, field) > 0, "above 0")
        for field in ("warmup", "fsr_from", "aff_from", "seg_from", "reg_from", "drop_path"):
            check(field, 0 <= getattr(self, field) < 1, "in [0, 1)")
        for field in ("momentum", "bkg_threshold", "low_threshold", "high_threshold"):
            check(field, 0 <= getattr(self, field) <= 1, "in [0, 1]")
        check(
            "low_threshold", self.low_threshold <= self.high_threshold, f"at most high_threshold {self.high_threshold}"
        )
        check("uncertain", 0 <= self.uncertain[0] < self.uncertain[1] <= 1, "two rising numbers in [0, 1]")
        for field in ("crop_area", "local_crop_area"):
            low, high = getattr(self, field)
            check(field, 0 < low <= high <= 1, "two rising numbers in (0, 1]")
        timm_or_blur = self.use_aa or self.use_gauss
        check("augment", self.augment == "workers" or not timm_or_blur, "workers where use_aa or use_gauss is on")
        check("teacher_temp", min(self.teacher_temp) > 0, "above 0")
        check("cam_scales", len(self.cam_scales) > 0 and min(self.cam_scales) > 0, "one or more numbers above 0")
        check("mask_ratio", 0 < self.mask_ratio <= 1, "in (0, 1]")
        check(
            "block_size",
            self.block_size >= self.patch_size
            and self.block_size % self.patch_size == 0
            and self.crop_size % self.block_size == 0,
            f"a multiple of the patch size {self.patch_size} that divides the crop size {self.crop_size} "
            f"(allowed: {', '.join(map(str, self.block_sizes()))})",
        )
        check("fsr_iters", self.fsr_iters is None or self.fsr_iters >= 1, "at least 1")

    def block_sizes(self) -> list[int]:
        """The values of block_size that this crop and patch allow."""
        multiples = range(self.patch_size, self.crop_size + 1, self.patch_size)
        return [size for size in multiples if self.crop_size % size == 0]

    def process_counts(self) -> list[int]:
        """Numbers of processes that can share the micro-batches of a step equally."""
        return [processes for processes in range(1, self.ranks + 1) if self.ranks % processes == 0]

    def micro_batches(self, processes: int) -> int:
        """Micro-batches of a step on each of so many processes. Raises UserError if they cannot share them equally."""
        if self.ranks % processes:
            allowed = ", ".join(map(str, self.process_counts()))
            raise UserError(
                f"the number of processes must divide the {self.ranks} micro-batches of a step (--ranks), "
                f"got {processes}; allowed: {allowed}"
            )
        return self.ranks // processes

    @property
    def masked_blocks(self) -> int:
        """Blocks of a view that its mask hides."""
        return math.ceil(self.mask_ratio * (self.crop_size // self.block_size) ** 2)

    @property
    def masked_patches(self) -> int:
        """Patches of a view that its mask hides."""
        return self.masked_blocks * (self.block_size // self.patch_size) ** 2 if self.use_mim else 0

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises."""
        return round(self.warmup * self.iterations)

    @property
    def teacher_temp_steps(self) -> int:
        """Steps over which the teacher's temperature rises."""
        return self.iterations // 8

    @property
    def self_reinforcement_steps(self) -> int:
        """Steps with class and patch self-reinforcement."""
        return self.iterations if self.fsr_iters is None else self.fsr_iters

    def masks_at_random(self, step: int) -> bool:
        """Whether the mask of step `step` (from 0) ignores the CAM: the first fifth of the run."""
        return step + 1 <= self.iterations // 5

    def loss_weights(self, step: int) -> dict[str, float]:
        """Weight of every loss term at step `step`, counted from 0."""

        def since(fraction: float) -> bool:
            return step + 1 > round(fraction * self.iterations)

        reinforced = since(self.fsr_from) and step < self.self_reinforcement_steps
        return {
            "cls_top": 1.0,
            "cls_aux": 1.0,
            "class": self.w_class * reinforced,
            "patch": self.w_patch * reinforced,
            "aff": self.w_aff * since(self.aff_from),
            "seg": self.w_seg * since(self.seg_from),
            "reg": self.w_reg * since(self.reg_from),
        }

    @property
    def cores(self) -> int:
        """Processor cores that a process keeps busy."""
        return self.workers + 1

    def from_anywhere(self) -> "TrainConfig":
        """The same with absolute paths: jobs do not work in the folder of their caller."""
        lists = self.list_folder.absolute() if self.list_folder else None
        is_file = self.pretrained not in ("timm", "none")
        pretrained = str(Path(self.pretrained).absolute()) if is_file else self.pretrained
        return dataclasses.replace(
            self, data_folder=self.data_folder.absolute(), list_folder=lists, pretrained=pretrained
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        fields = dataclasses.asdict(self)
        kinds = {Path: str, tuple: list}
        return {
            name: next((convert(value) for kind, convert in kinds.items() if isinstance(value, kind)), value)
            for name, value in fields.items()
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "TrainConfig":
        """The inverse of `to_json`. Raises UserError for a field that does not exist.

        Version 0.1.0 wrote no `ranks`: its global batch was that of the processes that happened to run. Where nothing
        tells how many there were (`fsr.run.Run.config` knows where to look), `ranks` is the preset's.
        """
        hints = typing.get_type_hints(cls)
        if "ranks" not in fields and fields.get("dataset") in PRESETS:
            fields = fields | {"ranks": PRESETS[fields["dataset"]]().ranks}
            fields.pop("accumulate", None)
        unknown = sorted(set(fields) - set(hints))
        if unknown:
            raise UserError(f"a training configuration has no field {', '.join(unknown)}; allowed: {', '.join(hints)}")
        values = {}
        for name, value in fields.items():
            if isinstance(value, list):
                value = tuple(value)
            elif isinstance(value, str) and name in ("data_folder", "list_folder"):
                value = Path(value)
            values[name] = value
        return cls(**values)


def voc(data_folder: Path = Path("data")) -> TrainConfig:
    """PASCAL VOC 2012 as published: 4 GPUs x 2 images, 20 000 steps."""
    return TrainConfig(dataset="voc", data_folder=data_folder)


def coco(data_folder: Path = Path("data")) -> TrainConfig:
    """MS COCO 2014 as published: 4 GPUs x 2 images, 80 000 steps."""
    return TrainConfig(
        dataset="coco",
        data_folder=data_folder,
        train_set="train",
        num_classes=81,
        high_threshold=0.65,
        bkg_threshold=0.45,
        iterations=80_000,
        warmup=1_500 / 80_000,
        aff_from=0.15,
        eval_every=4_000,
    )


def synthetic(data_folder: Path = Path("data/synthetic")) -> TrainConfig:
    """The synthetic data set, from scratch, in about three minutes on 2 cores."""
    return TrainConfig(
        dataset="synthetic",
        data_folder=data_folder,
        train_set="train",
        num_classes=9,
        backbone="vit_tiny_patch16_224",
        pretrained="none",
        patch_size=8,
        embed_dim=96,
        depth=4,
        heads=3,
        weight_init="fan_in",
        decoder_width=128,
        decoder_dilation=2,
        projector_hidden=256,
        projector_bottleneck=64,
        out_dim=512,
        drop_path=0.0,
        crop_size=96,
        crop_area=(0.5, 1.0),
        cam_scales=(1.0, 0.5),
        block_size=16,
        high_threshold=0.5,
        low_threshold=0.25,
        bkg_threshold=0.35,
        fsr_from=0.5,  # from step 0, the targets of an untrained teacher lowered the scores (docs/results.md)
        aff_from=0.2,
        seg_from=0.3,
        reg_from=0.3,
        iterations=360,
        batch_size=8,
        ranks=1,
        precision="fp32",
        lr=2e-3,
        head_lr_factor=1.0,
        momentum=0.98,
        eval_every=180,
        log_every=10,
        save_every=60,
        workers=1,
    )


PRESETS = {"voc": voc, "coco": coco, "synthetic": synthetic}
