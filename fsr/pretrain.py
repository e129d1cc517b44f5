"""Trains the small ViT of the preset synthetic on the pretraining split: `fsr pretrain synthetic`.

It is a run of `fsr.train` like any other, with the settings of `pretraining()`: classifiers and affinity learn, from
image-level labels. Classifiers alone gave a start that was worse than none (docs/results.md): their features mix the
patches of a body until no CAM finds it. Its flags are the fields of TrainConfig, so a variant is a flag: with
self-reinforcement on,

    fsr pretrain synthetic --w_class .1 --w_patch .1 --use_mim --fsr_from 0 --run_folder runs/pretraining_2

and `--pretrained runs/pretraining_2/encoder.safetensors` starts a run from it. A width or depth of one's own
(`--embed_dim 384 --heads 6 --depth 12 --patch_size 16`) gives a start for that ViT.
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("pretrain", torch=True)

import dataclasses
import json
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fsr.bounds import COUNT, SEED, Bounded
from fsr.command import parse_flags
from fsr.config import TrainConfig, synthetic
from fsr.data.looks import PRETRAINING
from fsr.data.synthetic import synthesise
from fsr.errors import UserError, reports_user_errors
from fsr.export import without_places
from fsr.files import write_atomically
from fsr.run import Run
from fsr.writable import check_folder

FILE = "encoder.safetensors"


def pretraining(data_folder: Path = Path("data/pretraining")) -> TrainConfig:
    """The preset synthetic on the pretraining split: classification and affinity, in 20 minutes on 2 cores."""
    return dataclasses.replace(
        synthetic(data_folder),
        num_classes=1 + len(PRETRAINING.looks),
        w_class=0.0,
        w_patch=0.0,
        w_aff=0.5,
        w_seg=0.0,
        w_reg=0.0,
        use_mim=False,
        iterations=2_400,
        batch_size=16,
        lr=1e-3,
        eval_every=2_400,
        log_every=50,
        save_every=200,
    )


@dataclass(frozen=True)
class Options(Bounded):
    """Train an encoder on the pretraining split of a data set, which is drawn first, and save it for --pretrained.

    It stands in encoder.safetensors of the run's folder, in float16. The same command resumes a run.

    Examples:
        synthetic
        synthetic --w_class .1 --w_patch .1 --use_mim --fsr_from 0 --run_folder runs/pretraining_2
    """

    what: tyro.conf.Positional[Literal["synthetic"]]
    """The data set that has such a split."""
    run_folder: Path = Path("runs/pretraining")
    """Folder of the run: configuration, metrics, checkpoints, and the encoder when it is finished."""
    images: Annotated[int, COUNT] = 4_000
    """Pictures of the split to learn from."""
    data_seed: Annotated[int, SEED] = 0
    """Of the pictures."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=pretraining)


def pretrain(options: Options) -> Path | None:
    """Draw the split where it is missing, train, write the encoder and return its file; None on other ranks.

    Exits as `fsr train` does if the run does not finish.
    """
    from fsr.train import train_to_the_end  # here, for torch takes seconds, which --help does not wait for

    config = options.config
    check_folder(options.run_folder, "--run_folder")
    Run(options.run_folder).check(config)
    synthesise(config.data_folder, images=options.images, seed=options.data_seed, split="pretraining")
    run = train_to_the_end(lambda: (config, options.run_folder))
    return None if run is None else write_encoder(run, options)


def write_encoder(run: Run, options: Options) -> Path:
    """Write the student's encoder of a finished run, with how it was made, and return the file.

    What only self-reinforcement trains is left out where the run had none. Raises UserError if the checkpoint is gone,
    or a weight has no finite value in float16.
    """
    import torch
    from safetensors.torch import save

    from fsr.checkpoint import load_trained
    from fsr.finite import not_finite
    from fsr.models.pretrained import OWN

    network, config, _ = load_trained(run.checkpoint_file, "student")
    reinforced = config.w_class > 0 or config.w_patch > 0
    state = network.encoder.state_dict()
    halved = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in state.items()
        if reinforced or not name.startswith(OWN)
    }
    wrong = not_finite(halved)
    if wrong:
        raise UserError(f"{run.checkpoint_file} has weights that float16 does not hold: {', '.join(wrong)}")
    last, result = run.starts()[-1], run.result() or {}
    told = {
        "command": shlex.join(["fsr", "pretrain", *last["command"][1:]]),
        "date": last["started"],
        "commit": str(last["git_commit"]),
        "versions": ", ".join(f"{name} {version}" for name, version in last["versions"].items()),
        "machine": f"{platform.machine()}, {last['device']}",
        "heads": str(network.encoder.heads),
        "seed": str(config.seed),
        "data": f"pretraining split, {options.images} images, seed {options.data_seed}",
        "config": json.dumps(without_places(config)),
        "result": json.dumps(result),
    }
    file = run.folder / FILE
    write_atomically(file, save(halved, told))
    return file


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    file = pretrain(parse_flags(Options, "pretrain", arguments))
    if file is not None:
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB; --pretrained {file} starts a run from it")


if __name__ == "__main__":
    main()
