"""The cluster file as people write it: what it cannot mean is refused; a typo never trains on a login node."""

import os

import pytest

from fsr.errors import UserError
from launch.slurm.resources import Resources


@pytest.fixture(autouse=True)
def no_file_of_my_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)


def resolved(tmp_path, content):
    file = tmp_path / "cluster.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Resources(cluster_file=file).resolved()


@pytest.mark.parametrize(
    "content, sentence",
    [
        ('clutser = "slurm"', "has an unknown option clutser (nearest: cluster); allowed: cluster, gpus"),
        ('Cluster = "slurm"', "has an unknown option Cluster (nearest: cluster)"),
        ('TIME-LIMIT = "60"', "has an unknown option TIME-LIMIT (nearest: time_limit)"),
        ('time-limit = "60"', "has an unknown option time-limit (nearest: time_limit)"),
        ('[slurm]\npartition = "gpu"', "has an unknown option slurm"),
        ('[sweep.slurm]\npartition = "gpu"', "has an unknown option sweep"),
        ('[cluster]\nname = "slurm"', "cluster must be a text, got {'name': 'slurm'}"),
        ('cluster = ["slurm"]', "cluster must be a text, got ['slurm']"),
        ('cluster = "Slurm"', "cluster must be one of auto, slurm, local, debug, got 'Slurm'"),
        ('cluster = ""', "cluster must be one of auto, slurm, local, debug, got ''"),
        ("cluster = true", "cluster must be a text, got True"),
        ("cluster = slurm", "is no TOML"),
        ("cluster =", "is no TOML"),
        ('cluster = "local"\ncluster = "slurm"', "is no TOML: Cannot overwrite a value"),
        ("partition = 5", "partition must be a text, got 5"),
        ('nodes = "2"', "nodes must be a whole number, got '2'"),
        ("nodes = 2.0", "nodes must be a whole number, got 2.0"),
        ("nodes = nan", "nodes must be a whole number, got nan"),
        ("nodes = true", "nodes must be a whole number, got True"),
        ("nodes = -1", "nodes must be from 1 to 100000, got -1"),
        ("gpus = inf", "gpus must be a whole number, or type and number, got inf"),
        ("gpus = 10000000000", "gpus must be from 0 to 100000, got 10000000000"),
        ('gpus = "a100:99999999999"', "gpus must be a number of GPUs"),
        (f"gpus = {'9' * 5000}", "is no TOML"),
        ("signal_before_s = 0", "signal_before_s must be from 1 to 65535, got 0"),
        ("signal_before_s = 1e30", "signal_before_s must be a whole number, got 1e+30"),
        ('sbatch = "mem=64G"', "sbatch must be a table of names and values"),
        ('[sbatch.mem]\nsize = "64G"', "sbatch.mem must be a text, a number or true"),
        ("[sbatch]\nmem = 1.5", "sbatch.mem must be a text, a number or true"),
        (b"partition = 'gr\xfcn'", "is no TOML: 'utf-8' codec can't decode byte 0xfc"),
        ('cluster = "local"'.encode("utf-16"), "is no TOML"),
        (b"\0\0\0\0", "is no TOML"),
        ("sbatch = " + "[" * 5000, "is no TOML"),
    ],
)
def test_a_file_that_cannot_be_meant_so(tmp_path, content, sentence):
    with pytest.raises(UserError) as raised:
        resolved(tmp_path, content)
    assert sentence in str(raised.value)
    assert str(tmp_path / "cluster.toml") in str(raised.value)


@pytest.mark.parametrize("content", ["", "\n# nothing yet\n", '\ufeffcluster = "local"\r\n'])
def test_a_file_that_says_little(tmp_path, content):
    assert resolved(tmp_path, content).cluster == "local"


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "folder": "it is a folder",
        "pipe": "it is a FIFO",
        "loop": "there is no cluster file",
        "none": "there is no cluster file",
        "x" * 300: "there is no cluster file",
    }.items():
        with pytest.raises(UserError, match=words):
            Resources(cluster_file=tmp_path / name).resolved()


def test_the_file_at_home_may_not_be_a_link_to_nothing(tmp_path):
    (tmp_path / ".config" / "fsr").mkdir(parents=True)
    (tmp_path / ".config" / "fsr" / "cluster.toml").symlink_to("nothing")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Resources().resolved()
