"""Export carries everything: what a checkpoint leaves open of its network is asked for, or of no matter."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
import timm
import torch
from inference import complaint, infer
from tiny import flags, tiny_config

from fsr.checkpoint import TrainState, load_network, load_trained, save_best
from fsr.config import TrainConfig, synthetic, voc
from fsr.errors import UserError
from fsr.export import main as export
from fsr.models.encoder import plain_vit
from fsr.models.network import Network
from fsr.released import UNTOLD
from fsr.run import Run
from fsr.train import main as train

UNUSUAL = {
    **{"patch_size": 16, "block_size": 16, "crop_size": 32, "embed_dim": 24, "heads": 4, "depth": 4, "cls_depth": 1},
    **{"decoder_dilation": 3, "decoder_width": 12, "projector_hidden": 20, "projector_bottleneck": 6, "out_dim": 14},
    **{"bkg_threshold": 0.4, "high_threshold": 0.6, "low_threshold": 0.2, "iterations": 2, "eval_every": 2},
}
INFERENCE = ("--crf", "false", "--pseudo_labels", "par", "--save_logits", "true")


def files_of(folder: Path) -> dict[str, bytes]:
    """What an inference wrote, without where it was made."""
    left_out = ("settings.json", "scores.json", "cam_quality.json")
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in left_out]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_what_is_exported_infers_bit_for_bit_what_its_run_does_in_an_empty_folder(synthetic_folder, tmp_path, capsys):
    """Heads and decoder dilation were lost, and another network was computed without a word."""
    run = Run(tmp_path / "run")
    train([*flags(tiny_config(synthetic_folder, **UNUSUAL)), "--run_folder", str(run.folder)])
    export([str(run.best_file), str(tmp_path / "exported")])
    (tmp_path / "empty").mkdir()
    alone = (tmp_path / "exported/student.pth").rename(tmp_path / "empty/student.pth")
    moved = run.checkpoint_file.rename(tmp_path / "empty/checkpoint.pt")  # without its config.json
    results = {
        file: infer("synthetic", file, synthetic_folder, tmp_path / f"out_{file.name}", *INFERENCE)
        for file in (run.best_file, alone, moved)
    }
    written = {file: files_of(tmp_path / f"out_{file.name}") for file in results}
    assert written[alone] == written[run.best_file] == written[moved]
    assert len({json.dumps(result["scores"]) for result in results.values()}) == 1

    bare = tmp_path / "empty/bare.pth"
    torch.save(dict(torch.load(alone, weights_only=True)), bare)
    wanted = ("synthetic", bare, synthetic_folder, tmp_path / "bare", *INFERENCE)
    told = complaint(capsys, *wanted)
    assert "no" in told and all(f"--{name} " in told for name in ("heads", "decoder_dilation", "bkg_threshold"))
    assert not (tmp_path / "bare" / "settings.json").exists()
    given = [word for name in (*UNTOLD, *THRESHOLDS) for word in (f"--{name}", UNUSUAL[name])]
    infer(*wanted, *given)
    assert files_of(tmp_path / "bare") == written[alone]


THRESHOLDS = ("bkg_threshold", "high_threshold", "low_threshold")
# Another value of each field that the rule below finds none for.
OTHER = {
    **{"dataset": "synthetic", "data_folder": Path("elsewhere"), "list_folder": Path("lists"), "backbone": "test_vit"},
    **{
        "pretrained": "none",
        "patch_size": 8,
        "embed_dim": 24,
        "heads": 4,
        "crop_size": 48,
        "block_size": 32,
        "aux_layer": 2,
    },
    **{"low_threshold": 0.1, "uncertain": (0.1, 0.9), "fsr_iters": 3, "augment": "device", "local_crop_size": 32},
    **{"mask_ratio": 0.5, "train_set": "train", "val_set": "train", "num_classes": 9, "graphs": False},
    **{"high_threshold_start": 0.9},
}
SMALL = {"embed_dim": 16, "depth": 3, "heads": 2, "crop_size": 32, "block_size": 16, "cls_depth": 1}
SMALL |= {"decoder_width": 8, "projector_hidden": 12, "projector_bottleneck": 6, "out_dim": 10}
BASE = dataclasses.replace(voc(), pretrained="none", **SMALL)


def other_value(field: dataclasses.Field) -> object:
    """A value of a field that differs from that of BASE."""
    if field.name in OTHER:
        return OTHER[field.name]
    value, kind = getattr(BASE, field.name), typing.get_type_hints(TrainConfig)[field.name]
    if typing.get_origin(kind) is typing.Literal:
        return next(one for one in typing.get_args(kind) if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    assert isinstance(value, tuple), f"give another value of the new field {field.name} in OTHER"
    return tuple(one / 2 for one in value)


def computed(network: Network) -> list[torch.Tensor]:
    """Everything that inference reads off a network."""
    image = torch.linspace(-1, 1, 3 * 48 * 64).view(1, 3, 48, 64)
    seen = network.encoder(image)
    return [network.decoder(seen.top), network.top_cam(seen.top), network.aux_cam(seen.aux), *network.classify(seen)]


class Noting:
    """A configuration that notes which of its fields are asked for."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.asked = config, set()

    def __getattr__(self, name: str) -> object:
        self.asked.add(name)
        return getattr(self.config, name)


# What a network of this program is made of besides what a bare state dict tells or is asked for: of no matter in
# evaluation mode, without a mask and with weights of its own.
TRAINING = {"drop_path", "cls_attends", "cls_aggregation", "use_mim", "weight_init", "pretrained"}
SHAPES = {"patch_size", "embed_dim", "depth", "cls_depth", "num_classes", "crop_size", "decoder_width", "out_dim"}
SHAPES |= {"projector_hidden", "projector_bottleneck", "backbone"}
AS_RELEASED = {"aux_layer"}  # unless it is said


def test_a_network_is_made_of_nothing_that_a_bare_state_dict_could_lose():
    """Fails for a new field of the network: it has to be told by shapes, or asked for (the next test says which)."""
    noting = Noting(BASE)
    computed(Network(noting).eval())
    assert noting.asked == SHAPES | set(UNTOLD) | TRAINING | AS_RELEASED


@pytest.mark.slow
@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_field_is_carried_and_of_a_bare_state_dict_told_by_shapes_or_asked_for_or_of_no_matter(field, tmp_path):
    config = dataclasses.replace(BASE, **{field.name: other_value(field)})
    torch.manual_seed(0)
    network = Network(config).eval()
    state = network.state_dict()
    torch.save({"student": state, "teacher": state, "config": config.to_json(), "scores": {}}, tmp_path / "best.pt")
    export([str(tmp_path / "best.pt"), str(tmp_path / "out")])

    carried, found = load_network(tmp_path / "out/student.pth")
    places = {"data_folder": Path("data"), "list_folder": None}
    assert found == dataclasses.replace(config, **places)
    assert all(map(torch.equal, computed(carried), computed(network)))

    torch.save(dict(state), tmp_path / "bare.pth")
    told = {name: getattr(config, name) for name in ("backbone", *AS_RELEASED, *UNTOLD)}
    asked, _ = load_network(tmp_path / "bare.pth", None, "voc", told)
    assert all(map(torch.equal, computed(asked), computed(network)))
    for name in UNTOLD:
        with pytest.raises(UserError, match=f"do not tell {name}; .* has --{name} [0-9]+"):
            load_network(tmp_path / "bare.pth", None, "voc", told | {name: None})


def test_what_was_exported_alone_is_not_exported_again(exported, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        export([str(exported), str(tmp_path / "again")])
    assert end.value.code == 2 and "holds the teacher alone, not the student" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_bare_state_dict_that_nobody_explains_is_refused(tmp_path):
    torch.save(Network(BASE).state_dict(), tmp_path / "student.pth")
    expected = r"student\.pth is a bare state dict, whose shapes do not tell heads, decoder_dilation; .*"
    with pytest.raises(UserError, match=expected + r"the voc preset has --heads 12 --decoder_dilation 5"):
        load_network(tmp_path / "student.pth", dataset="voc")
    with pytest.raises(UserError, match="which 7 heads cannot share"):
        load_network(tmp_path / "student.pth", dataset="voc", told={"heads": 7, "decoder_dilation": 5})


@pytest.fixture
def exported(tmp_path):
    """What was exported of a run that knew its classes."""
    state = TrainState(dataclasses.replace(synthetic(Path("/home/me/data")), **SMALL), torch.device("cpu"), "abcdefghi")
    save_best(tmp_path / "best.pt", state, state.config, {})
    export([str(tmp_path / "best.pt"), str(tmp_path / "out")])
    return tmp_path / "out/teacher.pth"


def test_an_exported_file_tells_its_configuration_without_this_program_and_no_path_of_its_machine(exported):
    content = torch.load(exported, weights_only=True)
    carried = content._metadata["fsr"]
    assert carried["weights"] == "teacher" and carried["class_names"] == list("abcdefghi")
    assert carried["config"]["heads"] == 2 and carried["config"]["decoder_dilation"] == 2
    assert "/home/me" not in json.dumps(carried) and b"/home/me" not in exported.read_bytes()
    plain = Network(dataclasses.replace(synthetic(), **SMALL))
    assert str(plain.load_state_dict(content, strict=True)) == "<All keys matched successfully>"


def test_an_exported_file_is_known_again_inside_what_others_save(exported, tmp_path):
    torch.save({"state_dict": torch.load(exported, weights_only=True), "epoch": 3}, tmp_path / "wrapped.pth")
    trained = load_trained(tmp_path / "wrapped.pth")
    assert trained.class_names == list("abcdefghi") and trained.config.decoder_dilation == 2


def test_what_contradicts_an_exported_file_is_refused(exported):
    with pytest.raises(UserError, match=r"holds the teacher alone, not the student; "):
        load_network(exported, "student")
    load_network(exported, "teacher")
    for name, value in {"heads": 2, "decoder_dilation": 2, "backbone": "vit_tiny_patch16_224"}.items():
        with pytest.raises(UserError, match=rf"carries its configuration, which tells its {name} \(--{name} {value} "):
            load_network(exported, told={name: value})


@pytest.mark.parametrize("damage", [3, {}, {"config": {}, "class_names": [], "weights": "student"}])
def test_a_damaged_configuration_is_one_sentence(exported, damage):
    content = torch.load(exported, weights_only=True)
    content._metadata["fsr"] = damage
    torch.save(content, exported)
    with pytest.raises(UserError, match=r"teacher\.pth .*configuration") as error:
        load_network(exported)
    assert "\n" not in str(error.value)


def test_scores_of_other_classes_are_refused(voc, tmp_path, capsys):
    """As many classes of another order or of another set."""
    names = ["background", "aeroplane", "bird", "bicycle", "boat", "bottle", "bus", "car", "cat"]
    state = TrainState(tiny_config(voc), torch.device("cpu"), names)
    save_best(tmp_path / "best.pt", state, state.config, {})
    told = complaint(capsys, "voc", tmp_path / "best.pt", voc, tmp_path / "out", "--num_classes", 9)
    assert "was trained with 'bird' as class 2, but in " in told and "class 2 is 'bicycle'" in told


@pytest.mark.slow
def test_plain_vits_with_tensors_of_the_same_names_compute_the_same():
    """So no file has to tell the backbone: it is the preset's if its tensors have the same names."""
    kinds: dict[tuple[str, ...], set[tuple[object, ...]]] = {}
    for name in timm.list_models(module="vision_transformer"):
        try:
            with torch.device("meta"):
                vit = plain_vit(name, depth=3)
        except UserError:
            continue
        block = vit.blocks[0]
        arithmetic = (type(block.mlp), type(block.mlp.act), block.norm1.eps, type(block.norm1))
        kinds.setdefault(tuple(block.state_dict()), set()).add(arithmetic)
    assert len(kinds) > 3
    # Gated blocks have the same names as plain ones, but never fitting shapes.
    same = [{one for one in kind if "Glu" not in one[0].__name__} for kind in kinds.values()]
    assert all(len(kind) <= 1 for kind in same), same
