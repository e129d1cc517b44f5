"""What a run costs: counted as torch's counter counts a real step, measured here, and by arithmetic elsewhere."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fsr.config import coco, synthetic, voc
from fsr.cost import Cost, cost_of, main
from fsr.data.transforms import denormalise
from fsr.flops import inference_flops, kinds_of_steps, mean_flops, parameters, step_flops
from fsr.gpu_hours import H100_LINES, PEAKS, TFLOP, GpuWork, micro_batch_ms
from fsr.inference.multi_scale import multi_scale_inference
from fsr.models.network import Network

ROOT = Path(__file__).parent.parent
SIZE, SCALES = (50, 37), (1.0, 1.25, 1.5)


@pytest.fixture
def benchmark(monkeypatch):
    """benchmarks/train_step.py, which steps for real."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    path = list(sys.path)
    import train_step

    sys.path[:] = path
    return train_step


@pytest.mark.slow
def test_a_step_has_the_operations_that_the_benchmark_counts(benchmark, tmp_path):
    """Torch's counter over a real step, optimizer and all, in the benchmark's two kinds of step."""
    config = dataclasses.replace(tiny_config(tmp_path), drop_path=0.0, iterations=20_000)
    counted = benchmark.count_flops(benchmark.Trained(config))
    assert config.masks_at_random(benchmark.RANDOM) and not config.masks_at_random(benchmark.UNCERTAIN)
    ours = step_flops(config, [benchmark.UNCERTAIN, benchmark.RANDOM])
    assert sum(ours[benchmark.UNCERTAIN].values()) == counted["fp32"] > 0
    assert sum(ours[benchmark.RANDOM].values()) == counted["fp32, random masks"]
    assert "CAM of view 2" not in ours[benchmark.RANDOM] and "other" not in ours[benchmark.UNCERTAIN]
    # Nothing that was cached meanwhile is without content.
    assert denormalise(torch.zeros(1, 3, 2, 2)).mean().item() == pytest.approx(114.5, abs=1)


@pytest.mark.slow
def test_local_crops_belong_to_the_student_and_a_run_without_masks_makes_one_cam_less(tmp_path):
    config = tiny_config(tmp_path, local_crop_size=32)
    changes = ({}, {"local_crops": 2}, {"use_mim": False})
    plain, crops, unmasked = (step_flops(dataclasses.replace(config, **change), [9])[9] for change in changes)
    more = {part for part in plain if crops[part] > plain[part]}
    assert more == {"student", "projector of the student", "backward"}
    assert "CAM of view 2" in plain and "CAM of view 2" not in unmasked


def test_an_inference_has_the_operations_of_multi_scale_inference(tmp_path):
    config = tiny_config(tmp_path)
    network, labels = Network(config).eval(), torch.zeros(1, 8)
    labels[0, 1] = 1
    for scale, flops in inference_flops(config, SIZE, SCALES).items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            multi_scale_inference(network, torch.zeros(1, 3, SIZE[1], SIZE[0]), labels, (scale,))
        assert flops == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert sum(parameters(config).values()) == sum(one.numel() for one in network.parameters())


@pytest.mark.slow
def test_options_of_other_methods_are_counted_in_the_part_that_does_them(tmp_path):
    config = tiny_config(tmp_path)
    on = {"w_swap": 0.05, "w_contrast": 0.5, "w_seco": 0.1, "cam_source": "aux_then_top", "contrast_side": 2}
    last = config.iterations - 1
    without, having = (step_flops(one, [last])[last] for one in (config, dataclasses.replace(config, **on)))
    assert without.keys() == having.keys() and "other" not in having
    assert {part for part in having if having[part] > without[part]} == {*having} - {"CAM of view 1"}


def test_the_kinds_of_steps_are_those_of_the_schedule():
    assert kinds_of_steps(voc()) == {0: 2000, 2000: 2000, 4000: 16_000}
    kinds = kinds_of_steps(synthetic())
    assert sum(kinds.values()) == 360 and len(kinds) == 4
    changing = dataclasses.replace(voc(), cam_source="aux_then_top")
    assert kinds_of_steps(changing) == {0: 2000, 2000: 2000, 4000: 6000, 10_000: 10_000}
    assert mean_flops({0: {"a": 1}, 5: {"a": 2, "b": 2}}, {0: 5, 5: 15}) == pytest.approx(3.25)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "tflop"), [(voc, 27.21), (coco, 27.4)])
def test_the_papers_settings_have_the_operations_of_the_results_page(preset, tflop):
    """docs/results.md: a step of ours has 27 TFLOP at batch 8."""
    cost = cost_of(preset(), (500, 375), SCALES)
    assert sum(cost.parts.values()) / 1e12 == pytest.approx(tflop, rel=0.02)
    assert cost.step < sum(cost.parts.values()) and cost.run == pytest.approx(cost.step * preset().iterations)


MEASURED_MS = {  # docs/results.md, "On a GPU", the faster host
    ("fp32", False, False, 8): 731,
    ("tf32", False, False, 8): 195,
    ("tf32", False, False, 2): 150,
    ("tf32", False, True, 8): 186,
    ("tf32", False, True, 2): 58,
    ("tf32", True, True, 8): 168,
    ("tf32", True, True, 2): 54,
    ("bf16", False, False, 8): 146,
    ("bf16", False, False, 2): 148,
    ("bf16", False, True, 8): 117,
    ("bf16", False, True, 2): 39,
    ("bf16", True, True, 8): 96,
    ("bf16", True, True, 2): 35,
}


@pytest.mark.parametrize("setting", MEASURED_MS, ids=str)
def test_the_arithmetic_gives_what_was_measured_on_an_h100(setting):
    precision, compiled, graphs, images = setting
    work = GpuWork(precision, compiled, graphs, 12)
    assert micro_batch_ms("H100", TFLOP[images], work) == pytest.approx(MEASURED_MS[setting], rel=0.05)
    page = (ROOT / "docs/results.md").read_text()
    assert f"{MEASURED_MS[setting]} ms" in page, "these figures are those of the page"


def test_slower_gpus_take_longer_and_every_precision_is_known():
    for precision, compiled in H100_LINES:
        work = GpuWork(precision, compiled, True, 12)
        times = [micro_batch_ms(gpu, 20.0, work) for gpu in ("H100", "A100", "RTX 3090")]
        assert times[0] < min(times[1:]) and (times[1] < times[2] or precision == "fp32")
    assert all(peaks.keys() == {"fp32", "tf32", "bf16"} for peaks in PEAKS.values())


FLAGS = [word for name, value in (TINY | {"iterations": 10}).items() for word in (f"--{name}", str(value))]


@pytest.mark.slow
def test_the_command_counts_measures_and_tells_the_hours(capsys):
    main(["synthetic", *FLAGS, "--image_size", "50", "37"])
    told = capsys.readouterr().out
    for word in ("projector of the student", "CAM of view 1", "backward", "1.25", "H100", "A100", "RTX 3090"):
        assert word in told


@pytest.fixture
def counted(monkeypatch):
    """No counting, which takes seconds."""
    cost = Cost({"encoder": 5}, {"student": 3}, 2.0, 720.0, {1.0: 4}, dict.fromkeys(PEAKS, 0.5))
    monkeypatch.setattr("fsr.cost.cost_of", lambda *_: cost)


@pytest.mark.slow
def test_training_and_inference_are_measured_here(counted, capsys):
    main(["synthetic", *FLAGS, "--image_size", "50", "37"])
    told = capsys.readouterr().out
    assert "Measured here: CPU, 1 threads, fp32" in told and "peak memory, GB" in told
    assert "this one" in told and "measured here: " in told


def test_without_measuring_nothing_is_computed(counted, capsys, monkeypatch):
    monkeypatch.setattr("fsr.cost.measure_training", None)
    main(["synthetic", *FLAGS, "--no-measure", "--graphs"])
    told = capsys.readouterr().out
    assert "this one" not in told and "GPU-hours" in told and "in fp32, as CUDA graphs" in told


def test_a_value_that_is_not_allowed_is_one_sentence(capsys):
    for words, wanted in (
        (["voc", "--mask_ratio", "2"], "mask_ratio must be in (0, 1], got 2.0"),
        (["voc", "--image_size", "0", "5"], "--image_size must be"),
        (["vox"], "fsr cost expects a data set as its first argument, got vox; allowed: voc, coco, synthetic"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2 and wanted in capsys.readouterr().err
