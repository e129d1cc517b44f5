"""A GPU that was asked for and is not there is an error; where nobody asked for one, the CPU is taken."""

import os
import subprocess
import sys

import pytest
import torch
from inference import infer
from tiny import flags, tiny_config

from fsr import distributed, promised_gpu
from fsr.errors import LostGpuError, UserError

PROMISES = ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", promised_gpu.FSR_GPUS, *promised_gpu.OF_SLURM)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes torch see so many GPUs, with these environment variables and no other promise."""
    for name in PROMISES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(promised_gpu, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(promised_gpu, "DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def given(gpus=0, **variables):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return given


PROMISED = [
    {"CUDA_VISIBLE_DEVICES": "0"},
    {"CUDA_VISIBLE_DEVICES": "GPU-8f3a,-1"},
    {"SLURM_STEP_GPUS": "0"},
    {"SLURM_JOB_GPUS": "2,3"},
    {"GPU_DEVICE_ORDINAL": "0"},
    {"FSR_GPUS": "1"},
    {"FSR_GPUS": "4", "CUDA_VISIBLE_DEVICES": "NoDevFiles"},
]
NOT_PROMISED = [
    {},
    {"CUDA_VISIBLE_DEVICES": ""},
    {"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": "0"},
    {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
    {"FSR_GPUS": "0"},
    {"SLURM_STEP_GPUS": ""},
]


@pytest.mark.parametrize("variables", PROMISED)
def test_a_gpu_that_was_promised_and_is_not_there_is_the_nodes_fault(machine, variables):
    machine(**variables)
    name, value = next(iter(variables.items()))
    with pytest.raises(
        LostGpuError, match=rf"{name}={value.removesuffix(',-1')} promises a GPU, but torch .* sees none"
    ):
        distributed.own_device()


@pytest.mark.parametrize("variables", NOT_PROMISED)
def test_where_nobody_promised_a_gpu_the_cpu_is_taken(machine, variables):
    machine(**variables)
    assert distributed.own_device() == torch.device("cpu")


@pytest.mark.parametrize(
    "version",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\nGCC 12.2.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.54.03  Release Build  (dvs-builder@U22)",
    ],
)
def test_the_error_names_driver_wheel_and_devices(machine, tmp_path, version):
    machine(SLURM_JOB_GPUS="0")
    with pytest.raises(LostGpuError, match=r"no NVIDIA driver and no device /dev/nvidia\*;"):
        distributed.own_device()
    (tmp_path / "version").write_text(version)
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    with pytest.raises(LostGpuError) as error:
        distributed.own_device()
    devices = f"{tmp_path}/nvidia0, {tmp_path}/nvidia1"
    assert f"(built for CUDA 13.0) sees none, with NVIDIA driver 535.54.03 and the devices {devices};" in str(
        error.value
    )


def test_no_node_helps_against_a_cpu_build_of_torch(machine, monkeypatch):
    machine(SLURM_JOB_GPUS="0")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="a CPU build"):
        distributed.own_device()


@pytest.mark.parametrize(
    "gpus, variables, number",
    [
        (1, {}, 0),
        (4, {"LOCAL_RANK": "3"}, 3),
        (4, {"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}, 3),
        (1, {"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "0"}, 0),  # --gpus-per-task=1 in a cgroup
        (1, {"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "3"}, 0),  # --gpu-bind=single:1
        (1, {"LOCAL_RANK": "0"}, 0),
    ],
)
def test_a_rank_takes_its_own_gpu(machine, gpus, variables, number):
    machine(gpus, **variables)
    assert distributed.own_device() == torch.device("cuda", number)


@pytest.mark.parametrize(
    "gpus, variables, error, said",
    [
        (
            1,
            {"LOCAL_RANK": "3"},
            UserError,
            "rank 3 of this node, counted from 0, needs a GPU of its own, but torch sees 1",
        ),
        (2, {"LOCAL_RANK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, UserError, "rank 2 .* sees 2; allowed"),
        (
            1,
            {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
            LostGpuError,
            "sees 1 of CUDA_VISIBLE_DEVICES=0,1, with",
        ),
    ],
)
def test_a_rank_without_a_gpu_of_its_own_is_told(machine, gpus, variables, error, said):
    machine(gpus, **variables)
    with pytest.raises(error, match=said):
        distributed.own_device()


def test_training_and_inference_end_with_one_sentence_and_the_code_of_a_broken_node(
    machine, synthetic_folder, checkpoint, voc, tmp_path, capsys
):
    machine(CUDA_VISIBLE_DEVICES="0")
    with pytest.raises(SystemExit) as end:
        infer("voc", checkpoint, voc, tmp_path / "out", "--num_classes", 9)
    assert end.value.code == 75
    assert "error: CUDA_VISIBLE_DEVICES=0 promises a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out" / "settings.json").exists()
    command = [
        sys.executable,
        "-m",
        "fsr.train",
        *flags(tiny_config(synthetic_folder)),
        "--run_folder",
        tmp_path / "run",
    ]
    nowhere = os.environ | {"CUDA_VISIBLE_DEVICES": "99"}
    answer = subprocess.run(command, capture_output=True, text=True, env=nowhere)
    assert answer.returncode == (75 if torch.backends.cuda.is_built() else 2)
    assert (
        "\nerror: CUDA_VISIBLE_DEVICES=99 promises a GPU" in f"\n{answer.stderr}" and "Traceback" not in answer.stderr
    )
    assert not (tmp_path / "run").exists()
