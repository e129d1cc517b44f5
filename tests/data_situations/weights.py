"""Rows 4, 12 and 15: pretrained files, weights without a network, checkpoints away from home."""

import dataclasses
import shutil
from collections.abc import Callable
from unittest import mock

import torch
from huggingface_hub import constants
from test_foreign_checkpoints import CONFIG as RUN_CONFIG
from test_foreign_checkpoints import WRAPPED
from test_pretrained_files import CONFIG, LOADS, REFUSED

from data_situations.place import Answer, Place, Situation, tried
from fsr.checkpoint import load_network
from fsr.config import voc
from fsr.models.encoder import Encoder
from fsr.models.network import Network
from fsr.models.pretrained import load_pretrained
from fsr.pretrained import require_weights
from fsr.released import UNTOLD

NOWHERE = "http://127.0.0.1:9"  # the port of discard, where nobody listens


def pretrained(make: Callable[[], object]) -> Callable[[Place], Answer]:
    """An encoder takes a pretrained file."""

    def ask(place: Place) -> Answer:
        torch.save(make(), place.folder / "weights.pth")
        config = dataclasses.replace(CONFIG, pretrained=str(place.folder / "weights.pth"))
        return tried(lambda: load_pretrained(Encoder(config), config))

    return ask


def offline(ask: Callable[[], object]) -> Callable[[Place], Answer]:
    """Without a network, and with an empty cache."""

    def answer(place: Place) -> Answer:
        with (
            mock.patch.object(constants, "HF_HUB_CACHE", str(place.folder / "hub")),
            mock.patch.object(constants, "HF_TOKEN_PATH", str(place.folder / "token")),
            mock.patch.object(constants, "ENDPOINT", NOWHERE),
            mock.patch.object(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOWHERE + "/{repo_id}/resolve/{revision}/{filename}"
            ),
        ):
            return tried(ask)

    return answer


def wrapped(how: str) -> Callable[[Place], Answer]:
    """A network in what another program puts around it."""

    def ask(place: Place) -> Answer:
        torch.save(WRAPPED[how](Network(RUN_CONFIG).state_dict()), place.folder / "student.pth")
        told = {name: getattr(RUN_CONFIG, name) for name in UNTOLD}
        return tried(lambda: load_network(place.folder / "student.pth", dataset="voc", told=told) and "loaded")

    return ask


def away_from_home(with_config: bool) -> Callable[[Place], Answer]:
    """A run's checkpoint.pt in another folder, with its config.json or without, which it needs no more."""

    def ask(place: Place) -> Answer:
        place.prepare()
        assert place.train().code == 0
        (place.folder / "away").mkdir()
        shutil.copy(place.folder / "run/checkpoint.pt", place.folder / "away")
        if with_config:
            shutil.copy(place.folder / "run/config.json", place.folder / "away")
        return tried(lambda: load_network(place.folder / "away/checkpoint.pt") and "loaded")

    return ask


SITUATIONS = [
    *(Situation(4, name, pretrained(make), "") for name, make in LOADS.items()),
    *(Situation(4, name, pretrained(make), wanted[0], True) for name, (make, wanted) in REFUSED.items()),
    Situation(12, "a run of the preset voc", offline(lambda: require_weights(voc())), "fsr pretrained fetch voc", True),
    Situation(
        12,
        "another backbone",
        offline(lambda: require_weights(dataclasses.replace(voc(), backbone="test_vit"))),
        "fetch test_vit",
        True,
    ),
    Situation(
        12, "no weights wanted", offline(lambda: require_weights(dataclasses.replace(voc(), pretrained="none"))), ""
    ),
    *(Situation(15, f"{name}", wrapped(name), "loaded") for name in WRAPPED),
    Situation(15, "checkpoint.pt without its folder", away_from_home(False), "loaded"),
    Situation(15, "checkpoint.pt with its config.json", away_from_home(True), "loaded"),
]
