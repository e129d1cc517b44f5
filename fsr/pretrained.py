"""Fetches pretrained weights: `fsr pretrained fetch voc`, where there is a network, for nodes without one.

They lie in Hugging Face's cache (`HF_HOME`), where timm has put them, too. Training reads them from there. Those of the
preset synthetic, which `fsr pretrain synthetic` made, come with the program.
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("pretrained", torch=True)

import hashlib
import re
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import huggingface_hub
import tyro
from huggingface_hub import constants

from fsr.command import call
from fsr.config import PRESETS, STARTS, TrainConfig
from fsr.errors import UnreadableError, UserError, reports_user_errors
from fsr.next_command import next_command

# Within these seconds the hub has to answer a run or a sweep, or there is no network; somebody who fetches has time.
QUICK_S, PATIENT_S = 4.0, 30.0
_FILE = "model.safetensors"
SYNTHETIC = Path(__file__).with_name("pretrained_synthetic.safetensors")


def hub_file(backbone: str) -> tuple[str, str | None, str]:
    """Repository, revision and name of the file that timm loads for a backbone. Raises UserError if there is none."""
    import timm  # takes seconds, and a sweep that trains from scratch needs none of them

    try:
        known = timm.models.get_pretrained_cfg(backbone) if timm.is_model(backbone.split(".")[0]) else None
    except RuntimeError as error:  # of a tag that the model does not have
        raise UserError(f"backbone {backbone}: {error}") from error
    if known is None or not known.hf_hub_id:
        raise UserError(f"timm has no pretrained weights for backbone {backbone}; name a file with --pretrained FILE")
    repository, _, revision = known.hf_hub_id.partition("@")
    return repository, revision or None, known.hf_hub_filename or _FILE


def cached_file(backbone: str) -> Path | None:
    """Where the weights of a backbone lie; None where they are missing, or only a part of them is there."""
    repository, revision, name = hub_file(backbone)
    found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def weights_file(config: TrainConfig) -> Path | None:
    """The file that `config.pretrained` names, be it there or not; None for `none`, and where timm's is missing."""
    named = {"none": None, "synthetic": SYNTHETIC}
    if config.pretrained == "timm":
        return cached_file(config.backbone)
    return named[config.pretrained] if config.pretrained in named else Path(config.pretrained)


def require_weights(config: TrainConfig) -> None:
    """Return when the pretrained weights that `config` names are on this machine; timm's are fetched if they can be.

    Raises UserError if they are not there, in a few seconds where there is no network.
    """
    file = weights_file(config)
    if config.pretrained == "timm" and file is None:
        try:
            fetch_weights(config.backbone, QUICK_S)
        except UserError as error:
            raise UnreadableError(how_to_fetch(config, str(error))) from error
    elif file is not None and not file.exists():
        raise UnreadableError(f"pretrained must be {', '.join(STARTS)} or a file, and {file} does not exist")


def how_to_fetch(config: TrainConfig, reason: str) -> str:
    """That the weights are missing, where they must lie, and what puts them there."""
    return (
        f"the pretrained weights of {config.backbone} must lie in {constants.HF_HUB_CACHE} ({reason}): "
        f"run {fetch_command(config)} where there is a network, such as the login node, with the same HF_HOME, "
        "or name a file with --pretrained FILE"
    )


def fetch_command(config: TrainConfig) -> str:
    """The command that fetches the weights that `config` names."""
    preset = PRESETS[config.dataset]()
    is_presets = (preset.backbone, preset.pretrained) == (config.backbone, config.pretrained)
    return f"`{next_command('pretrained', 'fetch', config.dataset if is_presets else config.backbone)}`"


def fetch_weights(backbone: str, answer_s: float = PATIENT_S) -> Path:
    """Download the weights of a backbone into the cache, unless they are there and whole, and return their place.

    Raises UserError if that cannot be done, or if the hub does not answer in time.
    """
    repository, revision, name = hub_file(backbone)
    there = cached_file(backbone)
    if there is not None and _is_whole(there):
        return there
    _ask(repository, revision, name, answer_s)
    again = there is not None
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, name, revision=revision, force_download=again))
    except Exception as error:
        raise UserError(f"{repository}/{name} cannot be fetched: {_reason(error)}") from error
    if not _is_whole(path):
        path.resolve().unlink()
        raise UserError(
            f"{repository}/{name} was fetched, but its SHA-256 is not the one that the hub names; try again"
        )
    return path


def _ask(repository: str, revision: str | None, name: str, answer_s: float) -> None:
    """Raise UserError if the hub does not answer. A name server that is silent can hold a process for a minute."""
    problems: list[Exception] = []
    answered = threading.Event()

    def ask() -> None:
        url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
        try:
            huggingface_hub.get_hf_file_metadata(url, timeout=answer_s)
        except Exception as error:
            problems.append(error)
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(answer_s):
        raise UserError(f"{constants.ENDPOINT} does not answer within {answer_s:g} s")
    if problems:
        raise UserError(f"{constants.ENDPOINT} cannot be asked: {_reason(problems[0])}") from problems[0]


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache is what the hub named: a large file is called by its SHA-256."""
    blob = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", blob.name):
        return True
    found = hashlib.sha256()
    with open(blob, "rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest() == blob.name


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return next(iter(str(error).splitlines()), "").partition(". ")[0] or type(error).__name__


def fetch(
    action: Annotated[tyro.conf.Positional[Literal["fetch"]], tyro.conf.arg(metavar="fetch")],
    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|BACKBONE")],
) -> None:
    """Put the pretrained weights of a preset's backbone, or of another ViT of timm, where training looks for them.

    Examples:
        fetch voc
        fetch vit_small_patch16_224

    Args:
        action: The one thing that this command does.
        what: voc or coco; or a backbone, such as vit_base_patch16_224.
    """
    print(fetch_weights(PRESETS[what]().backbone if what in PRESETS else what))


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    call(fetch, "pretrained", sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
