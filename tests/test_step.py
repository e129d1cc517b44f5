"""The fast training step against the reference step, and a step in micro-batches."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from reference_step import reference_losses

from fsr.arithmetic import use_arithmetic
from fsr.config import TrainConfig, voc
from fsr.ema import update_teacher
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.optim import build_optimizer, set_learning_rates
from fsr.schedules import teacher_momentum
from fsr.step import Batch, named, step_losses

STEPS = 50


@pytest.fixture
def config() -> TrainConfig:
    """A run of 50 steps in which every loss counts; the first ten mask at random."""
    return dataclasses.replace(
        voc(),
        pretrained="none",
        weight_init="fan_in",
        embed_dim=32,
        depth=4,
        heads=2,
        num_classes=6,
        crop_size=64,
        block_size=16,
        patch_size=8,
        decoder_width=16,
        decoder_dilation=2,
        projector_hidden=48,
        projector_bottleneck=16,
        out_dim=64,
        drop_path=0.0,
        iterations=STEPS,
        lr=3e-4,
        momentum=0.9,
    )


def pictures(count: int, size: int) -> torch.Tensor:
    """Smooth pictures with some grain, as the networks take them: [count, 3, size, size].

    Their levels lie .7 above whole numbers, where neither truncation nor the lattice hangs on a last bit.
    """
    coarse = F.interpolate(torch.rand(count, 3, 5, 5), size=(size, size), mode="bicubic")
    levels = (255 * (coarse + 0.02 * torch.randn(count, 3, size, size))).clamp(0, 254).round() + 0.7
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return (levels / 255 - mean) / deviation


def labels_of(batch: int, classes: int) -> torch.Tensor:
    """One or two classes an image."""
    return F.one_hot(torch.randint(classes, (batch, 2)), classes).amax(1).float()


def batch_of(images: int) -> Batch:
    """Views and labels of some images."""
    return Batch(pictures(images, 64), pictures(images, 64), labels_of(images, 5), [])


class Side:
    """A student and a teacher that learn by one of the two steps."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        torch.manual_seed(0)
        self.student = Network(config).train()
        self.teacher = Network(config).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.optimizer = build_optimizer(self.student, config)
        self.reinforcement = SelfReinforcement(config.out_dim)
        self.centres = {"class": torch.zeros(config.out_dim), "patch": torch.zeros(config.out_dim)}

    def learn(self, losses: dict[str, torch.Tensor], step: int) -> None:
        set_learning_rates(self.optimizer, step, self.config)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.reinforcement.update_centres()
        self.optimizer.step()
        update_teacher(self.teacher, self.student, teacher_momentum(step, self.config.momentum, STEPS))


def test_fifty_steps_have_the_losses_of_the_reference_step(config):
    fast, reference = Side(config), Side(config)
    draw = torch.Generator().manual_seed(0)
    counted = set()
    for step in range(STEPS):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=draw)))
        batch, noise = batch_of(2), block_noise(2, config)
        ours = step_losses(fast.student, fast.teacher, fast.reinforcement, batch, noise, step, config)
        theirs = reference_losses(
            reference.student, reference.teacher, reference.centres, batch[:3], noise, step, config
        )
        weights = config.loss_weights(step)
        for name, loss in theirs.items():
            if name == "reg" and not weights["reg"]:
                continue  # the fast step does not make it then
            counted.add(name)
            assert ours[name].item() == pytest.approx(loss.item(), rel=1e-4), (step, name)
        fast.learn(ours, step)
        reference.learn(theirs, step)
    assert counted == {"loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg"}
    assert fast.reinforcement.patch_centre.flatten() == pytest.approx(reference.centres["patch"], rel=1e-4, abs=1e-6)


def test_an_image_without_any_class_is_background(config):
    side, batch = Side(config), batch_of(2)
    batch = batch._replace(labels=torch.zeros_like(batch.labels))
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch, block_noise(2, config), 49, config)
    assert all(loss.isfinite() for loss in losses.values())


def test_the_cams_own_classes_get_their_ids_back():
    label = torch.tensor([[[0, 1, 2], [255, 2, 1]]])
    assert torch.equal(named(label, torch.tensor([[3, 19]])), torch.tensor([[[0, 4, 20], [255, 20, 4]]]))


def test_a_batch_splits_into_micro_batches_of_one_size():
    batch = batch_of(6)._replace(local_crops=[torch.arange(6.0), 10 + torch.arange(6.0)], most_classes=2)
    micro_batches = list(batch.split(3))
    assert torch.equal(torch.cat([part.view2 for part in micro_batches]), batch.view2)
    assert [crop.tolist() for crop in micro_batches[1].local_crops] == [[2, 3], [12, 13]]
    assert [len(part.labels) for part in micro_batches] == [2, 2, 2]


def test_attention_is_written_out_only_for_the_bf16_backward_of_a_cpu(config, monkeypatch):
    encoder, calls = Network(config).encoder, []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *q, **o: calls.append(1) or fused(*q, **o))
    blocks = {}
    for bf16 in (False, True):
        for gradient in (False, True):
            calls.clear()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16), torch.set_grad_enabled(gradient):
                encoder(pictures(1, 64))
            blocks[bf16, gradient] = len(calls)
    assert blocks == {(False, False): 4, (False, True): 4, (True, False): 4, (True, True): 0}


@pytest.mark.slow
@pytest.mark.parametrize("drop_path", [0.0, 0.1])
def test_compiled_blocks_take_the_same_step(config, drop_path):
    config = dataclasses.replace(config, drop_path=drop_path)
    batch, noise = batch_of(2), block_noise(2, config)
    losses = []
    for compiled in (False, True):
        side = Side(config)
        for network in (side.student, side.teacher) if compiled else ():
            network.encoder.compile_blocks()
        torch.manual_seed(1)
        losses.append(step_losses(side.student, side.teacher, side.reinforcement, batch, noise, 49, config))
        losses[-1]["loss"].backward()
    for name, loss in losses[0].items():
        assert losses[1][name].item() == pytest.approx(loss.item(), rel=1e-4), name


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"noise_filter_from": 0.0, "w_contrast": 0.5}])
def test_no_step_makes_the_host_wait_for_the_gpu(config, options):
    config = dataclasses.replace(config, **options)
    use_arithmetic(config.precision, deterministic=config.deterministic)
    side = Side(config)
    for network in (side.student, side.teacher, side.reinforcement):
        network.cuda()
    batch, noise = batch_of(2), block_noise(2, config).cuda()
    batch = Batch(*(images.cuda() for images in batch[:3]), [], most_classes=2)
    for step in (48, 49):  # in the first, tables that are kept are made
        torch.cuda.set_sync_debug_mode("error" if step == 49 else "default")
        try:
            losses = step_losses(side.student, side.teacher, side.reinforcement, batch, noise, step, config)
            side.learn(losses, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.use_deterministic_algorithms(False)
