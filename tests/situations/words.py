"""The commands of the project, as words that a situation adds to."""

from collections.abc import Sequence

from situations.stock import INFER, SEARCH

STUDY = ("--study", "smoke", "--runs", "{runs}")
STATUS = ("{checkout}/launch/status.py", *STUDY)
DOCTOR = ("{checkout}/launch/doctor.py", *STUDY)
LOAD = ("{checkout}/analysis/load.py", *STUDY, "--out", "{out}")
FIGURES = ("{checkout}/analysis/figures.py", *STUDY, "--out", "{out}")
COMPARE = ("{checkout}/analysis/compare.py", "--study", "smoke", "--study", "momentum", "--runs", "{states}")
REPORT = ("{checkout}/analysis/report.py", *STUDY, "--out", "{out}")
BOARD = ("{checkout}/analysis/board.py", *STUDY)
DASHBOARD = ("{checkout}/analysis/dashboard.py", *STUDY)
GALLERY = ("{checkout}/analysis/gallery.py", "--run", "{run}", "--out", "{here}/gallery.png", "--images", "1")
SWEEP = ("{checkout}/launch/sweep.py", *SEARCH, "--runs", "{runs}", "--data_folder", "{data}")
RUNS_INFER = ("-m", "fsr.infer", "synthetic", "--checkpoint", "{run}/best.pt", "--data_folder", "{data}", *INFER)
INFERENCE = (*RUNS_INFER, "--output_folder", "{out}")
LAUNCHED_INFER = ("{checkout}/launch/infer.py", *INFERENCE[2:], "--cluster", "local")
EXPORT = ("-m", "fsr.export", "{run}/best.pt", "{out}")
SYNTHETIC = ("-m", "fsr.data.synthetic", "{out}", "--images", "2")
PRETRAIN = ("-m", "fsr.pretrain", "synthetic", "--run_folder", "{out}", "--images", "2", "--data_folder", "{here}/p")
PREPARE = ("-m", "fsr.data.prepare", "voc", "{data}")
PREPARE_COCO = ("-m", "fsr.data.prepare", "coco", "{coco}")
# The smallest run (tests/tiny.py).
TINY = (
    *("--data_folder", "{data}", "--patch_size", "8", "--embed_dim", "16", "--depth", "3", "--heads", "2"),
    *("--decoder_width", "8", "--projector_hidden", "16", "--projector_bottleneck", "8", "--out_dim", "16"),
    *("--crop_size", "32", "--block_size", "8", "--batch_size", "2", "--save_every", "5", "--pictures", "1"),
    *("--workers", "0", "--fsr_from", "0.0", "--drop_path", "0.1", "--iterations", "10", "--eval_every", "4"),
    *("--log_every", "3"),
)
TRAIN = ("-m", "fsr.train", "synthetic", *TINY, "--run_folder", "{out}")
RESUME = ("-m", "fsr.train", "synthetic", *TINY, "--run_folder", "{half}")
AGAIN = ("-m", "fsr.train", "synthetic", *TINY, "--run_folder", "{run}")
LAUNCHED_TRAIN = ("{checkout}/launch/train.py", "synthetic", *TINY, "--run_folder", "{out}", "--cluster", "local")
LAUNCHED_RESUME = ("{checkout}/launch/train.py", "synthetic", *TINY, "--run_folder", "{half}", "--cluster", "local")


def changed(words: Sequence[str], flag: str, *values: str) -> list[str]:
    """A command line with other values of a flag, which may not be given twice, in the place of its one value."""
    places = {place for place, word in enumerate(words) if word == flag}
    return [*(word for place, word in enumerate(words) if not {place, place - 1} & places), flag, *values]
