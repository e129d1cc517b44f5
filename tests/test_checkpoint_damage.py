"""A damaged checkpoint is never taken for a whole one: the run resumes from the one before, or is refused."""

import os
import random
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from test_released import _Touch
from tiny import flags, tiny_config

from fsr.checkpoint import TrainState, load_file, load_network
from fsr.errors import UserError
from fsr.export import export
from fsr.infer import main as infer
from fsr.models.pretrained import load_pretrained
from fsr.run import Run
from fsr.train import main as train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def original(synthetic_folder, tmp_path_factory):
    """A run that was stopped with two checkpoints, of the steps 5 and 8."""
    run = Run(tmp_path_factory.mktemp("damage") / "run")
    config = tiny_config(synthetic_folder)
    state = TrainState(config, CPU)
    run.start(config)
    for step in (5, 8):
        for parameter in state.student.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        state.optimizer.step()
        state.step = step
        state.save(run)
    torch.save(torch.load(run.checkpoint_file, weights_only=True), run.folder / "unchecked.pt")
    return run, config


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original[0].folder, tmp_path / "run")
    return Run(tmp_path / "run")


def resumed(run, config):
    """The step from which a run resumes."""
    state = TrainState(config, CPU)
    assert state.resume(run, CPU)
    return state.step


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def rewritten(change):
    """A damage that leaves a whole file of torch's, as other programs write them."""

    def damage(file):
        content = torch.load(file, weights_only=True)
        torch.save(change(content), file)

    return damage


def with_weight(name, value):
    def change(content):
        del content["checksum"]
        content[name] |= {key: value(tensor) for key, tensor in list(content[name].items())[:1]}
        return content

    return change


def folder_in_place(file):
    file.unlink()
    file.mkdir()


def fifo_in_place(file):
    file.unlink()
    os.mkfifo(file)


def link_in_place(to):
    def damage(file):
        file.unlink()
        file.symlink_to(to)

    return damage


DAMAGES = {
    "a bit at the start": lambda file: file.write_bytes(flipped(file.read_bytes(), 100)),
    "a bit of a weight": lambda file: file.write_bytes(flipped(file.read_bytes(), file.stat().st_size // 2)),
    "a bit of the index": lambda file: file.write_bytes(flipped(file.read_bytes(), file.stat().st_size - 100)),
    "a bit of the checksum": lambda file: file.write_bytes(flipped(file.read_bytes(), file.stat().st_size - 1)),
    "the checksum is gone": lambda file: file.write_bytes(file.read_bytes()[:-20] + b"\0\0"),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-5000]),
    "zeros": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "a folder": folder_in_place,
    "a FIFO": fifo_in_place,
    "a link to nothing": link_in_place("nowhere/at/all"),
    "a link to itself": link_in_place("checkpoint.pt"),
    "a list": rewritten(lambda content: [1, 2]),
    "another dictionary": rewritten(lambda content: {"student": 3}),
    "a pickle that runs": lambda file: torch.save({"student": _Touch(file.with_name("ran"))}, file),
    "a float64 weight": rewritten(with_weight("student", torch.Tensor.double)),
    "a weight of another shape": rewritten(with_weight("teacher", lambda tensor: tensor[..., None])),
    "a NaN weight": rewritten(with_weight("teacher", lambda tensor: tensor * float("nan"))),
    "a weight that is no tensor": rewritten(with_weight("student", torch.Tensor.tolist)),
    "a step that is no number": rewritten(lambda content: content | {"step": "8"}),
    "no optimizer": rewritten(lambda content: content | {"optimizer": {}}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(original, run, damage, capsys):
    DAMAGES[damage](run.checkpoint_file)
    assert resumed(run, original[1]) == 5
    told = capsys.readouterr().err.splitlines()[-1]
    assert str(run.checkpoint_file) in told and "resuming from checkpoint.previous.pt" in told
    assert os.path.lexists(run.folder / "checkpoint.damaged_1.pt") and not os.path.lexists(run.checkpoint_file)
    assert not (run.folder / "ran").exists()
    assert resumed(run, original[1]) == 5  # again, from what is left


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_another_checkpoint_one_sentence_says_so_and_nothing_is_moved(original, run, damage):
    DAMAGES[damage](run.checkpoint_file)
    run.previous_checkpoint_file.unlink()
    with pytest.raises(UserError, match=r"checkpoint \S+checkpoint\.pt ") as error:
        resumed(run, original[1])
    assert "\n" not in str(error.value)
    assert os.path.lexists(run.checkpoint_file)


def test_a_checkpoint_without_a_checksum_is_read_and_that_is_said_once(original, run, capsys):
    content = torch.load(run.checkpoint_file, weights_only=True)
    del content["checksum"]
    torch.save(content, run.checkpoint_file)
    assert resumed(run, original[1]) == resumed(run, original[1]) == 8
    assert capsys.readouterr().err.count("was written without a checksum") == 1


def test_every_flipped_bit_is_noticed(original, run):
    whole = run.checkpoint_file.read_bytes()
    draw = random.Random(0)
    for place in (*range(0, len(whole), len(whole) // 40), *draw.sample(range(len(whole)), 20), *range(-24, 0)):
        run.checkpoint_file.write_bytes(flipped(whole, place % len(whole)))
        with pytest.raises(UserError, match="cannot be read"):
            load_file(run.checkpoint_file)


def test_a_runs_own_checkpoint_takes_no_other_heads(run):
    with pytest.raises(UserError, match=r"whose configuration tells its heads \(--heads 4 must be left out\)"):
        load_network(run.checkpoint_file, told={"heads": 4})


def test_any_program_that_reads_torchs_files_reads_ours(original):
    content = torch.load(original[0].checkpoint_file, weights_only=True, mmap=True)
    assert content["step"] == 8


def best_of(run, config, folder):
    """A best.pt, and the weights in the released format."""
    from fsr.checkpoint import save_best

    state = TrainState(config, CPU)
    state.resume(run, CPU)
    save_best(folder / "best.pt", state, config, {})
    export(folder / "best.pt", folder / "exported")
    return folder / "best.pt", folder / "exported" / "student.pth"


def test_inference_refuses_damaged_weights_in_one_sentence(original, run, tmp_path, capsys):
    config = original[1]
    best, exported = best_of(run, config, tmp_path)
    assert load_network(best)[1].num_classes == config.num_classes
    for file in (best, exported):
        whole = file.read_bytes()
        damages = {
            "damaged": lambda file, whole=whole: file.write_bytes(flipped(whole, len(whole) // 2)),
            "cannot be read": lambda file: file.write_bytes(b""),
            "folder": folder_in_place,
        }
        for words, damage in damages.items():
            damage(file)
            with pytest.raises(SystemExit) as end:
                arguments = ("--data_folder", config.data_folder, "--output_folder", tmp_path / "out")
                infer(["synthetic", "--checkpoint", str(file), *map(str, arguments)])
            told = capsys.readouterr().err
            assert end.value.code == 2 and words in told and str(file) in told and told.count("\n") == 1, told
            assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor * float("nan"), "NaN or infinity in encoder.cls_token"),
        (lambda tensor: tensor + float("inf"), "NaN or infinity in encoder.cls_token"),
        (lambda tensor: tensor.to(torch.int32), "another kind: encoder.cls_token strided int32 cpu"),
        (lambda tensor: tensor.to_sparse(), "another kind: encoder.cls_token sparse_coo"),
        (lambda tensor: tensor[..., :0], "encoder.cls_token"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(original, run, tmp_path, change, words):
    for file in best_of(run, original[1], tmp_path):
        content = torch.load(file, weights_only=True)
        content.pop("checksum", None)
        state = content.get("student", content)
        state["encoder.cls_token"] = change(state["encoder.cls_token"])
        torch.save(content, file)
        with pytest.raises(UserError) as error:
            load_network(file, dataset="synthetic")
        assert words.split(": ")[-1].split(" in ")[-1] in str(error.value), error.value


def test_a_checkpoint_whose_run_tells_no_configuration_is_one_sentence(run):
    run.config_file.unlink()
    content = torch.load(run.checkpoint_file, weights_only=True)
    del content["config"], content["checksum"]
    torch.save(content, run.checkpoint_file)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        load_network(run.checkpoint_file)


def test_pretrained_weights_that_are_no_numbers_are_refused_by_name(original, run, tmp_path, capsys):
    config, file = original[1], tmp_path / "vit.pth"
    encoder = TrainState(config, CPU).student.encoder.state_dict()
    encoder["norm.weight"] = encoder["norm.weight"] * float("nan")
    torch.save(encoder, file)
    with pytest.raises(SystemExit) as end:
        train([*flags(config, pretrained=file), "--run_folder", str(tmp_path / "new")])
    assert end.value.code == 2 and "norm.weight" in capsys.readouterr().err
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="holds no tensors by name"):
        load_pretrained(TrainState(config, CPU).student.encoder, replace(config, pretrained=str(file)))


def mutations(whole, draw, torn, marker):
    """Ways to damage the bytes of a checkpoint; what `torn` makes are the bytes of a whole file with other content."""
    size = len(whole)

    def bits():
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 1, 2, 8, 100))):
            content[draw.randrange(size)] ^= 1 << draw.randrange(8)
        return bytes(content)

    def cut():
        return whole[: draw.choice((0, 1, draw.randrange(size), size - draw.randrange(1, 200)))]

    def swapped():
        length = draw.choice((1, 16, 512, 4096))
        one, other = draw.randrange(size - length), draw.randrange(size - length)
        content = bytearray(whole)
        part = content[one : one + length]
        content[one : one + length] = content[other : other + length]
        content[other : other + length] = part
        return bytes(content)

    def zeros():
        length, content = draw.choice((1, 64, 512, 4096, 65536)), bytearray(whole)
        start = draw.randrange(size)
        content[start : start + length] = bytes(len(content[start : start + length]))
        return bytes(content)

    def inserted():
        place = draw.randrange(size + 1)
        return whole[:place] + draw.randbytes(draw.choice((1, 2, 8, 512))) + whole[place:]

    def removed():
        place, length = draw.randrange(size), draw.choice((1, 2, 8, 512))
        return whole[:place] + whole[place + length :]

    def others():
        return torn(
            draw.choice(([1, 2], {"student": {}}, 3, "text", None, {"student": _Touch(marker)}, _Touch(marker)))
        )

    def without_checksum():  # and damaged, like a file of an earlier version
        content = bytearray(whole[:-20] + b"\0\0")
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(content)

    return [bits, cut, swapped, zeros, inserted, removed, others, without_checksum]


KINDS = ("bits", "cut", "swapped", "zeros", "inserted", "removed", "others", "without_checksum")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_checkpoints_never_crash_and_never_give_another_state(original, run, tmp_path, capsys, kind):
    """250 a kind through the real load: the state is bit by bit that of the previous checkpoint, or it is refused."""
    config, draw, marker = original[1], random.Random(kind), tmp_path / "ran"
    whole, previous = run.checkpoint_file.read_bytes(), run.previous_checkpoint_file.read_bytes()
    before = torch.load(run.previous_checkpoint_file, weights_only=True)

    def torn(content):
        torch.save(content, tmp_path / "torn.pt")
        return (tmp_path / "torn.pt").read_bytes()

    (mutate,) = [mutate for mutate in mutations(whole, draw, torn, marker) if mutate.__name__ == kind]
    state, counts = TrainState(config, CPU), Counter()
    while counts.total() < 250:
        content = mutate()
        if content == whole:
            continue
        for file in run.folder.glob("checkpoint*"):
            file.unlink()
        run.checkpoint_file.write_bytes(content)
        alone = counts.total() % 3 == 0
        if not alone:
            run.previous_checkpoint_file.write_bytes(previous)
        try:
            assert state.resume(run, CPU)
            assert state.step == 5
            assert_state(state._content(), before)
            counts["resumed from the previous one"] += 1
        except UserError as error:
            assert alone and "\n" not in str(error), error
            counts["refused"] += 1
    assert not marker.exists()
    with capsys.disabled():
        print(f"\n{kind}: {dict(counts)}", flush=True)


def assert_state(content, wanted):
    for part in ("student", "teacher", "reinforcement"):
        assert all(torch.equal(content[part][name], tensor) for name, tensor in wanted[part].items())
    for number, moments in wanted["optimizer"]["state"].items():
        found = content["optimizer"]["state"][number]
        assert all(torch.equal(found[name], tensor) for name, tensor in moments.items())
