"""Bad values of flags: each is refused in a sentence that names the flag."""

from situations.situation import Check, Situation, either, refused, works
from situations.words import (
    BOARD,
    COMPARE,
    DASHBOARD,
    DOCTOR,
    EXPORT,
    FIGURES,
    GALLERY,
    INFERENCE,
    LAUNCHED_INFER,
    LAUNCHED_TRAIN,
    LOAD,
    PREPARE,
    PRETRAIN,
    REPORT,
    STATUS,
    SWEEP,
    SYNTHETIC,
    TINY,
    TRAIN,
    changed,
)

KIND = "bad flag"
FLOATS = (
    *("drop_path", "high_threshold", "low_threshold", "bkg_threshold", "mask_ratio", "w_class", "w_patch", "w_aff"),
    *("w_seg", "w_reg", "fsr_from", "aff_from", "seg_from", "reg_from", "student_temp", "lr", "head_lr_factor"),
    *("cls_lr_factor", "weight_decay", "warmup", "momentum", "w_swap", "swap_from", "high_threshold_start"),
    "uncertain_from",
)
PAIRS = ("crop_area", "local_crop_area", "uncertain", "teacher_temp", "cam_scales")
WHOLE = ("iterations", "batch_size", "ranks", "eval_every", "log_every", "save_every", "crop_size", "embed_dim", "seed")
ABSURD = {
    "out_dim": "1000000000000",
    "decoder_width": "100000000",
    "embed_dim": "100000000",
    "depth": "1000000000",
    "batch_size": "1000000000000",
    "crop_size": "80000000",
    "seed": "99999999999999999999999999",
    "iterations": "99999999999999999999999999",
    "num_classes": "1000000",
    "heads": "7",
    "decoder_dilation": "1000000000",
    "teacher_temp": "1e-300 1e300",
    "cam_scales": "1e300",
    "pictures": "99999999999999999999999999",
}
# Flag and value of each command, with the words that the sentence must hold (the flag, if none are given).
TRAINS = (
    ("--cls_aggregation", "median"),
    ("--aux_layer", "0"),
    ("--aux_layer", "1000"),
    ("--uncertain_from", "1.1"),
    ("--backbone", "no_such_vit"),
    ("--backbone", "resnet18"),
    ("--pretrained", "{here}/missing.pth"),
    ("--pretrained", "{data}"),
    ("--pretrained", "{checkout}/fsr/train.py"),
    ("--train_set", "no_such_list", "no_such_list"),
    ("--train_set", "../../../../../etc/passwd", "passwd"),
    ("--val_set", "", "list"),
    ("--val_set", "{here}/x", "{here}/x"),
    ("--data_folder", "{here}/nowhere", "nowhere"),
    ("--data_folder", "{checkout}/fsr/train.py", "train.py"),
    ("--data_folder", "", "data"),
    ("--list_folder", "{here}/nowhere", "nowhere"),
    ("--precision", "fp8"),
    ("--weight_init", "xavier"),
    ("--augment", "gpu"),
    ("--threshold_rule", "gmm"),
    ("--high_threshold_start", "0.1"),
    ("--pseudo_label_from", "both"),
    ("--cam_source", "top_then_aux"),
    ("--use_mim", "perhaps"),
    ("--patch_size", "0"),
    ("--patch_size", "7", "patch size 7"),
    ("--block_size", "33"),
    ("--num_classes", "3"),
    ("--num_classes", "300"),
    ("--crop_area", "0.9 0.1"),
    ("--crop_area", "0.5"),
    ("--uncertain", "0.7 0.2"),
    ("--graphs", "true"),
    ("--compile", "maybe"),
    ("--momentums", "0.5"),
    ("--lr", "1e-5 1e-4", "1e-4"),
    ("--lr", "fast"),
    ("--iterations", "0"),
    ("--iterations", "1.5"),
    ("--iterations", "1e3"),
    ("--workers", "-1"),
)
INFERS = (
    ("--scales", "nan"),
    ("--scales", "inf"),
    ("--scales", "0"),
    ("--scales", "-1 1"),
    ("--scales", "1.0 nan"),
    ("--scales", "100"),
    ("--scales", "1e-9"),
    ("--scales", ""),
    ("--bkg_threshold", "nan"),
    ("--high_threshold", "inf"),
    ("--low_threshold", "-1"),
    ("--low_threshold", "1.0", "low_threshold"),
    ("--batch_size", "0"),
    ("--batch_size", "1.5"),
    ("--workers", "-1"),
    ("--workers", "two"),
    ("--threads", "0"),
    ("--shards", "0"),
    ("--shards", "-5"),
    ("--shard", "1"),
    ("--shard", "nan"),
    ("--report_images", "0"),
    ("--num_classes", "1"),
    ("--num_classes", "21"),
    ("--num_classes", "1000"),
    ("--heads", "0"),
    ("--heads", "7"),
    ("--infer_set", "../val"),
    ("--infer_set", "no_such_list", "no_such_list"),
    ("--infer_set", ""),
    ("--weights", "best"),
    ("--precision", "int8"),
    ("--crf", "sometimes"),
    ("--pseudo_labels", "all"),
    ("--checkpoint", "{here}/missing.pt", "missing.pt"),
    ("--checkpoint", "{data}", "data"),
    ("--checkpoint", "{checkout}/fsr/train.py", "train.py"),
    ("--checkpoint", "", "checkpoint"),
    ("--data_folder", "{here}/nowhere", "nowhere"),
    ("--list_folder", "{here}/nowhere", "nowhere"),
    ("--nosuchflag", "1"),
)
SWEEPS = (
    ("--study", "no_such_study", "no_such_study"),
    ("--study", "../smoke", "../smoke"),
    ("--study", "", "study"),
    ("--study", "os", "'os'"),
    ("--study", "smoke\n", "study"),
    ("--dataset", "imagenet"),
    ("--trials", "0"),
    ("--trials", "-3"),
    ("--trials", "many"),
    ("--trials", "nan"),
    ("--parallel", "0"),
    ("--parallel", "1.5"),
    ("--iterations", "0"),
    ("--iterations", "inf"),
    ("--iterations", "3", "iterations"),
    ("--repeat", "0"),
    ("--best", "0"),
    ("--best", "most"),
    ("--seed", "-1", "seed"),
    ("--seed", "99999999999999999999999999", "seed"),
    ("--seed", "7", "seed"),
    ("--storage", "redis://localhost", "--storage"),
    ("--storage", "sqlite:///", "--storage"),
    ("--storage", "postgresql://me:secret@host/db", "--storage"),
    ("--storage", "not a url", "--storage"),
    ("--storage", "", "--storage"),
    ("--keep", "some"),
    ("--cluster", "cloud"),
    ("--cluster", "slurm", "slurm"),
    ("--gpus", "many"),
    ("--gpus", "-1"),
    ("--gpus", "nan"),
    ("--nodes", "0"),
    ("--nodes", "-2"),
    ("--partition", "a b"),
    ("--partition", "x;rm -rf /"),
    ("--account", "$(id)"),
    ("--time_limit", "soon"),
    ("--time_limit", "-5"),
    ("--signal_before_s", "0"),
    ("--signal_before_s", "100000"),
    ("--sbatch", "array=1-5", "array"),
    ("--sbatch", "=", "sbatch"),
    ("--sbatch", "wrap=ls", "wrap"),
    ("--cluster_file", "{here}/missing.toml", "missing.toml"),
    ("--cluster_file", "{data}", "data"),
    ("--data_folder", "{here}/nowhere", "nowhere"),
    ("--runs", "{checkout}/fsr/train.py", "train.py"),
    ("--nosuchflag", "1"),
)
READERS = (
    ("status", STATUS, ("--study", "no_such_study", "no_such_study")),
    ("status", STATUS, ("--study", "../smoke", "../smoke")),
    ("status", STATUS, ("--study", "", "study")),
    ("status", STATUS, ("--runs", "{here}/nowhere", "nowhere")),
    ("status", STATUS, ("--runs", "{checkout}/fsr/train.py", "train.py")),
    ("status", STATUS, ("--watch", "3", "3")),
    ("status", STATUS, ("--nosuchflag", "1")),
    ("doctor", DOCTOR, ("--study", "no_such_study", "no_such_study")),
    ("doctor", DOCTOR, ("--study", "a/b", "a/b")),
    ("doctor", DOCTOR, ("--runs", "{checkout}/fsr/train.py", "train.py")),
    ("doctor", DOCTOR, ("--nosuchflag", "1")),
    ("load", LOAD, ("--study", "no_such_study", "no_such_study")),
    ("load", LOAD, ("--study", "Smoke", "Smoke")),
    ("load", LOAD, ("--runs", "{here}/nowhere", "nowhere")),
    ("load", LOAD, ("--nosuchflag", "1")),
    ("figures", FIGURES, ("--study", "no_such_study", "no_such_study")),
    ("figures", FIGURES, ("--score", "no/such_score", "no/such_score")),
    ("figures", FIGURES, ("--score", "causes", "causes")),
    ("figures", FIGURES, ("--score", "", "score")),
    ("compare", COMPARE, ("--study", "no_such_study", "no_such_study")),
    ("compare", COMPARE, ("--runs", "{here}/nowhere", "nowhere")),
    ("compare", COMPARE[:3], ("--runs", "{states}", "study")),
    ("report", REPORT, ("--study", "no_such_study", "no_such_study")),
    ("report", REPORT, ("--nosuchflag", "1")),
    ("board", BOARD, ("--study", "no_such_study", "no_such_study")),
    ("board", BOARD, ("--port", "-1")),
    ("board", BOARD, ("--port", "70000")),
    ("board", BOARD, ("--port", "http")),
    ("dashboard", DASHBOARD, ("--study", "no_such_study", "no_such_study")),
    ("dashboard", DASHBOARD, ("--port", "-1")),
    ("dashboard", DASHBOARD, ("--port", "70000")),
    ("dashboard", DASHBOARD, ("--port", "1.5")),
    ("gallery", GALLERY, ("--images", "0", "images")),
    ("gallery", GALLERY, ("--images", "-2", "images")),
    ("gallery", GALLERY, ("--first", "-1", "first")),
    ("gallery", GALLERY, ("--first", "1000", "first")),
    ("gallery", GALLERY, ("--run", "{here}/nowhere", "nowhere")),
    ("gallery", GALLERY, ("--run", "{data}", "best.pt")),
    ("gallery", GALLERY, ("--data_folder", "{here}/nowhere", "nowhere")),
    ("gallery", GALLERY, ("--out", "{here}/gallery.xyz", "gallery.xyz")),
    ("gallery", GALLERY, ("--out", "", "out")),
    ("synthetic", SYNTHETIC, ("--images", "0")),
    ("synthetic", SYNTHETIC, ("--images", "-4")),
    ("synthetic", SYNTHETIC, ("--images", "nan")),
    ("synthetic", SYNTHETIC, ("--seed", "-1")),
    ("synthetic", SYNTHETIC, ("--seed", "1.5")),
    ("synthetic", SYNTHETIC, ("--format", "cityscapes")),
    ("synthetic", SYNTHETIC, ("--split", "training")),
    ("synthetic", SYNTHETIC, ("--nosuchflag", "1")),
    ("pretrain", PRETRAIN, ("--images", "0")),
    ("pretrain", PRETRAIN, ("--data_seed", "-1")),
    ("pretrain", PRETRAIN, ("--data_folder", "{data}", "data")),
    ("pretrain", PRETRAIN, ("--data_folder", "{checkout}/fsr/train.py", "train.py")),
    ("pretrain", PRETRAIN, ("--iterations", "0")),
    ("pretrain", PRETRAIN, ("--dataset", "imagenet")),
    ("pretrain", PRETRAIN, ("--nosuchflag", "1")),
    ("prepare", PREPARE[:2], ("imagenet", "{data}", "imagenet")),
    ("prepare", PREPARE[:2], ("voc", "{here}/nowhere", "nowhere")),
    ("prepare", PREPARE[:2], ("coco", "{data}", "data")),
    ("prepare", PREPARE[:2], ("voc", "{coco}", "coco")),
    ("prepare", PREPARE[:2], ("voc", "{checkout}/fsr/train.py", "train.py")),
    ("prepare", PREPARE[:2], ("voc", "", "data")),
    ("prepare", PREPARE, ("--write_masks", "", "write_masks")),
    ("export", EXPORT[:2], ("{here}/missing.pt", "{out}", "missing.pt")),
    ("export", EXPORT[:2], ("{data}", "{out}", "data")),
    ("export", EXPORT[:2], ("{checkout}/fsr/train.py", "{out}", "train.py")),
    ("export", EXPORT[:2], ("", "{out}", "checkpoint")),
    ("export", EXPORT, ("--nosuchflag", "1")),
)
INCOMPLETE = {
    "train": ("-m", "fsr.train"),
    "train without a run folder": ("-m", "fsr.train", "synthetic", *TINY),
    "train on an unknown data set": ("-m", "fsr.train", "imagenet", "--run_folder", "{out}"),
    "infer": ("-m", "fsr.infer"),
    "infer without a checkpoint": ("-m", "fsr.infer", "voc", "--data_folder", "{data}"),
    "export": ("-m", "fsr.export"),
    "synthetic": ("-m", "fsr.data.synthetic"),
    "pretrain": ("-m", "fsr.pretrain"),
    "prepare": ("-m", "fsr.data.prepare"),
    "sweep": ("{checkout}/launch/sweep.py",),
    "status": ("{checkout}/launch/status.py",),
    "launch train": ("{checkout}/launch/train.py",),
    "launch infer": ("{checkout}/launch/infer.py",),
    "load": ("{checkout}/analysis/load.py",),
    "compare": ("{checkout}/analysis/compare.py",),
    "report": ("{checkout}/analysis/report.py",),
    "board": ("{checkout}/analysis/board.py",),
    "dashboard": ("{checkout}/analysis/dashboard.py",),
    "figures": ("{checkout}/analysis/figures.py",),
    "gallery": ("{checkout}/analysis/gallery.py",),
}
CLUSTER_FILES = {
    "no TOML": "partition = = gpu",
    "a list": "[[partition]]",
    "not UTF-8": b"partition = '\xff\xfe'",
    "zeros": bytes(100),
    "a typo": "partitoin = 'gpu'",
    "a typo in cluster": "clusters = 'slurm'",
    "an unknown cluster": "cluster = 'cloud'",
    "a cluster in capitals": "cluster = 'SLURM'",
    "capitals": "Partition = 'gpu'",
    "a number for a text": "partition = 5",
    "a text for a number": "nodes = 'two'",
    "a boolean": "nodes = true",
    "a negative number": "nodes = -1",
    "a fraction": "nodes = 1.5",
    "NaN": "nodes = nan",
    "a date": "time_limit = 2020-01-01",
    "a table for a text": "[partition]\nname = 'gpu'",
    "a nested table": "[sbatch.mem]\nper = 5",
    "a list of options": "sbatch = ['mem=5G']",
    "an option that breaks the protocol": "[sbatch]\narray = '1-3'",
    "an option that is a list": "[sbatch]\nmem = ['1G']",
    "an option that is NaN": "[sbatch]\nmem = nan",
    "a time that is none": "time_limit = 'soon'",
    "GPUs that are none": "gpus = 'many of them'",
    "a negative number of GPUs": "gpus = -4",
    "what only a call can say": "renew_code = true",
    "a table of clusters": "[cluster]\nname = 'slurm'",
    "a partition with a command": "partition = 'x; rm -rf /'",
    "another file's table": "[tool.ruff]\nline-length = 120",
}


def flag(command: str, words: tuple[str, ...], bad: tuple[str, ...], **options: object) -> Situation:
    """A command with a flag and a value that is to be refused."""
    name, value, *said = bad
    values = (
        value.split(" ") if value and name not in ("--data_folder", "--study", "--storage", "--partition") else [value]
    )
    if name == "--write_masks":
        values = []
    must = said or [name.lstrip("-")]
    return Situation(
        name=f"{command} {name} {value!r}",
        kind=KIND,
        words=changed(words, name, *values),
        expects=refused(*must),
        **options,
    )


def situations() -> list[Situation]:
    """All of them."""
    found = [flag("train", TRAIN, (f"--{name}", value)) for name in FLOATS for value in ("nan", "inf", "-1")]
    found += [
        flag("train", TRAIN, (f"--{name}", value)) for name in PAIRS for value in ("nan nan", "0.3 nan", "0.3 inf")
    ]
    found += [flag("train", TRAIN, (f"--{name}", value)) for name in WHOLE for value in ("nan", "-1")]
    # It may be too much for the memory, or for the time; whichever is said, it is said at once.
    for name, value in ABSURD.items():
        found.append(
            Situation(
                name=f"train --{name} {value}",
                kind="absurd value",
                words=changed(TRAIN, f"--{name}", *value.split(" ")),
                expects=absurd(name),
                limits={"RLIMIT_AS": 8 << 30},
                interrupt_s=12 if name in ("iterations", "pictures") else None,
                limit_s=30,
            )
        )
    too_many = Situation(
        name="train --workers 1000000000",
        kind="absurd value",
        words=changed(TRAIN, "--workers", "1000000000"),
        expects=refused("workers"),
        user=4007,
        limits={"RLIMIT_NPROC": 40},  # or it would be the machine's end
        limit_s=30,
    )
    found += [too_many, *(flag("train", TRAIN, bad) for bad in TRAINS)]
    found += [flag("launch train", LAUNCHED_TRAIN, (f"--{n}", v)) for n in ("lr", "momentum") for v in ("nan", "inf")]
    found += [
        flag("launch train", LAUNCHED_TRAIN, bad) for bad in SWEEPS if bad[0] in ("--gpus", "--nodes", "--sbatch")
    ]
    found += [flag("launch train", LAUNCHED_TRAIN, bad) for bad in SWEEPS if bad[0] in ("--cluster", "--time_limit")]
    found += [flag("infer", INFERENCE, bad) for bad in INFERS]
    found += [flag("launch infer", LAUNCHED_INFER, bad) for bad in INFERS[::4]]
    found += [flag("launch infer", LAUNCHED_INFER, ("--parallel", value)) for value in ("0", "nan")]
    found += [flag("sweep", SWEEP, bad, needs=["runs"], untouched=["{runs}/smoke/study.json"]) for bad in SWEEPS]
    found += [
        flag(command, words, bad, needs=["data"] if command == "prepare" else []) for command, words, bad in READERS
    ]
    for name, words in INCOMPLETE.items():
        found.append(Situation(name=f"no more than: {name}", kind=KIND, words=words, expects=refused()))
        short = words if name.count(" ") < 2 else ()
        if short:
            asks = Situation(name=f"{name} --help", kind=KIND, words=[*words, "--help"], expects=works("usage"))
            found.append(asks)
    for name, content in CLUSTER_FILES.items():
        text = content if isinstance(content, bytes) else content.encode()
        for command, words in (("sweep", SWEEP), ("launch train", LAUNCHED_TRAIN)):
            found.append(
                Situation(
                    name=f"{command}: the cluster file holds {name}",
                    kind="bad cluster file",
                    words=[*words, "--cluster_file", "{here}/cluster.toml"],
                    prepare=cluster_file(text),
                    expects=either(refused("cluster.toml"), refused("--")),
                    needs=["runs"],
                )
            )
    return found


def absurd(name: str) -> Check:
    """It is refused, or the loss is said not to be finite; a long run is stopped by the one who started it."""
    checks = [refused(name), refused("memory", codes=(1, 2)), refused("finite", codes=(1, 2))]
    if name in ("iterations", "pictures", "decoder_dilation"):
        checks.append(works(codes=(0, 130)))
    return either(*checks)


def cluster_file(text: bytes) -> object:
    """The set-up that writes a cluster file."""
    return lambda place: (place["here"] / "cluster.toml").write_bytes(text)
