"""What a training step would do on a GPU, told without one; and on one, whether it does."""

import collections
import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from tiny import tiny_config
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fsr import resize
from fsr.arithmetic import use_arithmetic
from fsr.checkpoint import TrainState
from fsr.compare import first_difference
from fsr.config import TrainConfig, voc
from fsr.data import transforms
from fsr.errors import UserError
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.losses.separate_and_conquer import SeparateAndConquer
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.refine import position_weights, refine
from fsr.run import Run
from fsr.step import Batch, step_losses
from fsr.train import train

CPU = torch.device("cpu")
# Of torch.use_deterministic_algorithms' documentation: what raises on CUDA, or takes a sort for its sums.
NONDETERMINISTIC = (
    "adaptive_max_pool2d_backward",
    "adaptive_avg_pool2d_backward",
    "avg_pool3d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_nearest2d_backward",
    "embedding_bag_dense_backward",
    "_embedding_bag_backward",
    "scatter_add",
    "scatter_reduce",
    "index_add",
    "histc",
    "bincount",
    "kthvalue",
    "median",
    "grid_sampler_2d_backward",
    "reflection_pad2d_backward",
    "replication_pad2d_backward",
)


@pytest.fixture
def arithmetic():
    """Leaves torch as it was."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


class Counted(TorchDispatchMode):
    """Counts the operations that would each launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = collections.Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        if operation.namespace == "aten" and not operation.is_view and "view" not in operation.__name__:
            self.operations[operation.__name__.split(".")[0]] += 1
        return operation(*arguments, **(keywords or {}))


def operations_of(config: TrainConfig) -> collections.Counter:
    """The operations of a step late in a run, on tensors that hold nothing: one that asks for a number is an error."""
    with torch.device("meta"):
        student, teacher = Network(config).train(), Network(config).train().requires_grad_(False)
        reinforcement = SelfReinforcement(config.out_dim)
        crops = config.batch_size * config.contrast_crops
        seco = SeparateAndConquer(config.num_classes - 1, config.projector_bottleneck, 1, crops)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"), Counted() as counted:
        for module in (student, teacher, reinforcement, seco):
            module.to_empty(device="cpu")
        views = torch.empty(config.batch_size, 3, config.crop_size, config.crop_size)
        labels, noise = torch.zeros(len(views), config.num_classes - 1), block_noise(len(views), config)
        counted.operations.clear()
        batch = Batch(views, views, labels, [], 2)
        losses = step_losses(student, teacher, reinforcement, batch, noise, 5000, config, seco=seco)
        losses["loss"].backward()
    torch.__future__.set_overwrite_module_params_on_conversion(before)
    for kept in (resize._matrix, transforms._levels, position_weights):
        kept.cache_clear()  # they hold tensors that hold nothing
    return counted.operations


@pytest.fixture(scope="module")
def launched() -> dict[str, collections.Counter]:
    """The operations of one step of the paper's run, batch 8."""
    config = dataclasses.replace(voc(), pretrained="none", batch_size=8)
    return {name: operations_of(dataclasses.replace(config, precision=name)) for name in ("tf32", "bf16")}


def test_a_step_has_no_operation_that_a_gpu_computes_another_way_each_time(launched):
    for precision, operations in launched.items():
        assert not set(operations) & set(NONDETERMINISTIC), precision


@pytest.mark.slow
def test_options_add_no_operation_that_a_gpu_computes_another_way_each_time():
    options = {"noise_filter_from": 0.0, "w_contrast": 0.5, "w_seco": 0.1}
    small = {"depth": 3, "embed_dim": 32, "heads": 2, "crop_size": 64, "cam_scales": (1.0,)}
    operations = operations_of(dataclasses.replace(voc(), pretrained="none", **small, **options))
    assert operations["searchsorted"] == 2 and operations["topk"] == 3
    assert not set(operations) & set(NONDETERMINISTIC)


def test_a_step_of_the_paper_s_run_has_at_most_three_thousand_launches(launched):
    assert 1000 < sum(launched["tf32"].values()) <= 3000  # 2 095 when this was written
    # Autocast casts what is not kept in bf16; that cost is not the step's.
    assert sum(launched["bf16"].values()) - launched["bf16"]["_to_copy"] <= 3000


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_precision_says_how_products_and_convolutions_are_rounded(arithmetic, precision, deterministic):
    use_arithmetic(precision, deterministic=deterministic)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is (precision == "tf32")
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_records_no_graphs():
    config = dataclasses.replace(voc(), pretrained="none", graphs=True)
    with pytest.raises(UserError, match="graphs must be false where there is no GPU"):
        TrainState(config, CPU)


AVERAGED = """
import torch
from fsr import distributed
distributed.join()
network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
for i, parameter in enumerate(network.parameters()):
    parameter.grad = torch.full_like(parameter, float(i + 10 * distributed.rank()))
places = [parameter.grad.data_ptr() for parameter in network.parameters()]
distributed.average_gradients(network)
for i, parameter in enumerate(network.parameters()):
    assert parameter.grad.eq(i + 5).all() and parameter.grad.data_ptr() == places[i]
distributed.stop()
"""


def test_gradients_are_averaged_over_the_ranks_in_their_place(tmp_path):
    script = tmp_path / "averaged.py"
    script.write_text(AVERAGED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.mark.slow
def test_all_blocks_are_compiled_as_one_with_drop_path():
    def graphs(depth: int, drop_path: float) -> int:
        torch.compiler.reset()
        counters.clear()
        config = dataclasses.replace(
            voc(), pretrained="none", embed_dim=32, heads=2, crop_size=64, depth=depth, drop_path=drop_path
        )
        encoder = Network(config).encoder.train()
        encoder.compile_blocks()
        encoder(torch.randn(2, 3, 64, 64)).top.sum().backward()
        return counters["stats"]["unique_graphs"]

    assert graphs(4, 0.1) == graphs(9, 0.1) == graphs(9, 0.0) == 1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "tf32"},
        {"precision": "bf16"},
        {"precision": "bf16", "graphs": True},
        {"graphs": True, "noise_filter_from": 0.4, "w_contrast": 0.5, "w_seco": 0.1, "contrast_side": 2},
    ],
)
def test_a_run_on_a_gpu_resumes_with_the_same_bits(synthetic_folder, tmp_path, changes, arithmetic):
    config = tiny_config(synthetic_folder, **changes)
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    train(config, whole)
    calls = iter(range(100))
    train(config, broken, stop_requested=lambda: next(calls) == 3)
    train(config, broken)
    assert first_difference(broken, whole) is None


@pytest.mark.gpu
def test_par_on_a_gpu_is_that_of_the_cpu():
    image, masks = torch.rand(2, 3, 40, 56), torch.rand(2, 10, 20, 28)
    on_gpu = [refine(image.cuda(), masks.cuda()) for _ in range(2)]
    torch.testing.assert_close(on_gpu[0].cpu(), refine(image, masks), rtol=1e-4, atol=1e-5)
    assert torch.equal(*on_gpu)
