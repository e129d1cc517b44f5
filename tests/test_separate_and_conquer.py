"""Separate and conquer against loops: its loss, prototypes and queue, and runs in which it is on."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_contrast import plain_crops, small
from test_step import Side, batch_of
from tiny import tiny_config

from fsr.cam import multi_scale_cams
from fsr.checkpoint import load_file
from fsr.compare import first_difference
from fsr.losses.separate_and_conquer import QUEUE_STEPS, SeparateAndConquer
from fsr.masking import block_noise
from fsr.run import Run
from fsr.step import step_losses
from fsr.tensor_file import write_tensors
from fsr.train import train

TESTS = Path(__file__).parent
ON = {"w_seco": 0.2, "contrast_crops": 2, "contrast_side": 2}
CLASSES, WIDTH, CROPS, MICRO_BATCHES = 4, 6, 5, 3


def unit(*shape: int, draw: torch.Generator) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=draw), dim=-1)


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


class Plain:
    """The same in loops: a dictionary of prototypes and a list of (embedding, tag) for a queue."""

    def __init__(self) -> None:
        self.prototypes, self.queue = {}, []

    def loss(self, student: torch.Tensor, tags: torch.Tensor) -> float:
        by_prototype, by_queue = [], []
        for z, c in zip(student, tags.tolist(), strict=True):
            if c in self.prototypes:
                scores = {k: math.exp(dot(z, p) / 0.5) for k, p in self.prototypes.items()}
                by_prototype.append(-math.log(scores[c] / sum(scores.values())))
            others = [(math.exp(dot(z, q) / 0.5), tag) for q, tag in self.queue if tag]
            each = [-math.log(score / sum(s for s, _ in others)) for score, tag in others if c and tag == c]
            if each:
                by_queue.append(sum(each) / len(each))
        return sum(sum(part) / len(part) for part in (by_prototype, by_queue) if part)

    def update(self, seen: list[tuple[torch.Tensor, int]]) -> None:
        for c in {tag for _, tag in seen if tag}:
            mean = torch.stack([z for z, tag in seen if tag == c]).mean(0)
            moved = 0.9 * self.prototypes[c] + 0.1 * mean if c in self.prototypes else mean
            self.prototypes[c] = moved / moved.norm()
        self.queue = [*self.queue, *seen][-QUEUE_STEPS * MICRO_BATCHES * CROPS :]


def test_loss_prototypes_and_queue_are_those_of_loops_over_many_steps():
    draw = torch.Generator().manual_seed(0)
    ours, plain = SeparateAndConquer(CLASSES, WIDTH, MICRO_BATCHES, CROPS), Plain()
    assert not ours(unit(CROPS, WIDTH, draw=draw), unit(CROPS, WIDTH, draw=draw), torch.ones(CROPS).long())
    for step in range(QUEUE_STEPS + 4):
        seen = []
        for _ in range(MICRO_BATCHES):
            student, teacher = unit(CROPS, WIDTH, draw=draw), unit(CROPS, WIDTH, draw=draw)
            tags = torch.randint(CLASSES if step > 5 else 2, (CROPS,), generator=draw)  # 4 is never seen
            loss = ours(student, teacher, tags)
            assert loss.item() == pytest.approx(plain.loss(student, tags), rel=1e-4), step
            seen += zip(teacher, tags.tolist(), strict=True)
        ours.update(MICRO_BATCHES)
        plain.update(seen)
    assert set(plain.prototypes) == {1, 2, 3}
    for c, prototype in plain.prototypes.items():
        torch.testing.assert_close(ours.prototypes[c - 1], prototype)
    assert not ours.prototypes[3].any()
    torch.testing.assert_close(ours.queue, torch.stack([z for z, _ in plain.queue]))
    assert ours.tags.tolist() == [tag for _, tag in plain.queue]


def test_only_tagged_crops_of_the_student_have_a_gradient():
    draw = torch.Generator().manual_seed(0)
    ours = SeparateAndConquer(CLASSES, WIDTH, 1, 3)
    tags = torch.tensor([1, 0, 2])
    ours(unit(3, WIDTH, draw=draw), unit(3, WIDTH, draw=draw), tags)
    ours.update()
    student, teacher = (unit(3, WIDTH, draw=draw).requires_grad_() for _ in range(2))
    ours(student, teacher, tags).backward()
    assert (student.grad != 0).any(1).tolist() == [True, False, True]
    assert teacher.grad is None


def test_the_step_tags_crops_by_the_label_of_their_middle():
    config = small(w_seco=0.3, high_threshold=0.5)
    side, batch = Side(config), batch_of(2)
    seen = []

    class Noted(SeparateAndConquer):
        def forward(self, student, teacher, tags):
            seen.append((student, teacher, tags))
            return super().forward(student, teacher, tags)

    seco = Noted(5, 16, 1, 8)
    torch.manual_seed(3)
    noise = block_noise(2, config)
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch, noise, 30, config, seco=seco)
    torch.manual_seed(3)
    block_noise(2, config)
    draws = torch.rand(2, 64)
    aux_cam = multi_scale_cams(side.student, batch.view2, config.cam_scales)[1]
    value, best = (F.interpolate(aux_cam, size=(8, 8), mode="bilinear") * batch.labels[:, :, None, None]).max(1)
    label = best + 1
    label[value <= 0.5] = 255
    label[value <= 0.25] = 0
    student, teacher, tags = seen[0]
    for i in range(2):
        middles = sorted(range(64), key=lambda p, i=i: (0 < label[i].flatten()[p] < 255, draws[i, p]), reverse=True)[:4]
        wanted = [int(label[i].flatten()[p]) for p in middles]
        assert tags.unflatten(0, (2, 4))[i].tolist() == [tag if 0 < tag < 255 else 0 for tag in wanted]
        as_uncertain = torch.where((label[i] > 0) & (label[i] < 255), 255, 1)
        crops, _ = plain_crops(batch.view2[i], as_uncertain, draws[i], config)
        with torch.no_grad():
            for network, embedded in ((side.student, student), (side.teacher, teacher)):
                token = network.encoder.class_token(network.encoder(crops[:4]).last)
                theirs = F.normalize(network.projector.mlp(token), dim=1)
                torch.testing.assert_close(embedded.unflatten(0, (2, 4))[i].detach(), theirs)
    assert tags.any()
    assert losses["seco"] == 0  # nothing to compare with yet
    seco.update()
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch, noise, 30, config, seco=seco)
    others = sum(config.loss_weights(30)[name] * losses[name] for name in losses if name not in ("seco", "loss"))
    assert losses["loss"].item() == pytest.approx((others + 0.3 * losses["seco"]).item())


@pytest.mark.slow
def test_a_run_with_it_resumes_bit_identically_also_on_prototypes_and_queue(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, ranks=2, high_threshold=0.3, w_contrast=0.5, **ON)
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    assert train(config, whole) == "finished"
    calls = iter(range(100))
    assert train(config, broken, stop_requested=lambda: next(calls) == 6) == "stopped"
    assert train(config, broken) == "finished"
    assert first_difference(broken, whole) is None
    assert [record for record in whole.metrics() if "train/loss" in record][-1]["train/seco"] > 0
    state = load_file(whole.checkpoint_file)["seco"]
    assert set(state) == {"prototypes", "queue", "tags"}
    assert state["prototypes"].any() and state["tags"].any()


def test_a_checkpoint_that_lacks_its_prototypes_is_told_to_be_damaged(synthetic_folder, tmp_path, capsys):
    config = tiny_config(synthetic_folder, iterations=2, eval_every=2, log_every=1, **ON)
    run = Run(tmp_path)
    assert train(config, run, stop_requested=iter([False, True]).__next__) == "stopped"
    content = load_file(run.checkpoint_file)
    del content["seco"]
    with run.checkpoint_file.open("wb") as file:
        write_tensors(content, file)
    assert train(config, run) == "finished"
    assert "does not fit its network: it lacks prototypes, queue, tags; resuming from" in capsys.readouterr().err


@pytest.mark.slow
def test_ranks_that_share_the_micro_batches_learn_the_same(synthetic_folder, tmp_path):
    changes = {"ranks": 4, "iterations": 6, "log_every": 1, "high_threshold": 0.3, "seco_from": 0.0} | ON
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    found = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        run = Run(tmp_path / str(processes))
        script = [TESTS / "ddp_run.py", synthetic_folder, run.folder, "0", json.dumps(changes)]
        subprocess.run([*command, *map(str, script)], check=True, env=environment, capture_output=True, timeout=300)
        found.append((run.metrics(), load_file(run.checkpoint_file)))
    (alone, state), (shared, other) = found
    for record, twin in zip(alone, shared, strict=True):
        for name in (name for name in record if name.startswith("train/")):
            assert twin[name] == pytest.approx(record[name], rel=1e-3, abs=1e-6), (record["step"], name)
    for name, tensor in state["seco"].items():
        torch.testing.assert_close(other["seco"][name], tensor, rtol=1e-3, atol=1e-4)
