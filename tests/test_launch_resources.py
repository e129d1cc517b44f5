"""What a user may ask of a cluster, from flags and from a file; storage URLs and their passwords."""

from dataclasses import replace

import pytest

from fsr.config import synthetic, voc
from fsr.errors import UserError
from launch.plan import Options, plan
from launch.slurm import commands
from launch.slurm.resources import Resources
from launch.state.storage import check_url, without_password
from launch.train import main
from launch.worker.rendezvous import Rendezvous


@pytest.fixture(autouse=True)
def no_file_of_my_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)


def from_file(tmp_path, text, **flags):
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    return Resources(cluster="local", cluster_file=file, **flags).resolved()


def test_flags_go_before_the_file_and_further_options_come_together(tmp_path):
    text = 'partition = "gpu"\ngpus = 4\ntime_limit = "1-00:00:00"\n[sbatch]\nmem = "64G"\n'
    resources = from_file(tmp_path, text, partition="debug", sbatch=("reservation=mine",))
    assert (resources.partition, resources.gpus, resources.time_limit) == ("debug", 4, "1-00:00:00")
    assert resources.sbatch_options() == {"mem": "64G", "reservation": "mine"}


def test_the_file_at_home_is_found(tmp_path):
    file = tmp_path / ".config" / "fsr" / "cluster.toml"
    file.parent.mkdir(parents=True)
    file.write_text('account = "vision"')
    assert Resources(cluster="local").resolved().account == "vision"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("partition = ", "is no TOML"),
        ("colour = 1", "has an unknown option colour; allowed: cluster, gpus"),
        ('gpus = "four"', "gpus must be a whole number, got 'four'"),
        ('partition = "a b"', "--partition must be what Slurm calls one"),
        ('[sbatch]\noutput = "x"', "--sbatch cannot set output"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence.replace("[", r"\[")):
        from_file(tmp_path, text)


def test_a_run_has_a_gpu_for_each_micro_batch_or_as_many_as_share_them_equally():
    assert Resources().processes_for(voc()) == 4
    assert Resources().gpus_for(replace(voc(), ranks=8)) == 8
    assert Resources().gpus_for(synthetic()) == 0
    assert Resources().processes_for(synthetic()) == 1
    assert Resources(gpus=2).processes_for(voc()) == Resources(gpus=2, nodes=2).processes_for(voc()) == 2
    assert Resources(gpus=0, nodes=2).processes_for(replace(synthetic(), ranks=2)) == 2
    with pytest.raises(UserError) as raised:
        Resources(gpus=3).processes_for(voc())
    assert str(raised.value) == (
        "--gpus 3 on --nodes 1 makes 3 processes, which must divide the 4 micro-batches of a step (ranks); "
        "allowed: 1, 2, 4"
    )
    with pytest.raises(UserError, match="--gpus 0 on --nodes 2 makes 2 processes"):
        Resources(nodes=2).processes_for(synthetic())


def test_a_sweep_that_cannot_share_the_micro_batches_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "answers_here", lambda: True)
    places = {"data_folder": tmp_path, "runs": tmp_path / "runs"}
    with pytest.raises(UserError, match="--gpus 3 on --nodes 1 makes 3 processes"):
        plan(Options(study="mask_ratio", gpus=3, **places))
    with pytest.raises(UserError, match="--gpus 3 on --nodes 1 makes 3 processes"):
        main.__wrapped__(["voc", "--run_folder", str(tmp_path / "runs"), "--gpus", "3"])
    assert not (tmp_path / "runs").exists()
    assert plan(Options(study="mask_ratio", gpus=2, **places)).base.ranks == 4
    assert plan(Options(study="mask_ratio", cluster="local", **places)).base.ranks == 4


def test_slurm_that_is_not_there_is_an_error_only_where_it_was_asked_for():
    assert Resources().resolved().cluster == "local"
    with pytest.raises(UserError, match="no Slurm answers here"):
        Resources(cluster="slurm").resolved()


def test_a_worker_in_the_shell_of_an_allocation_is_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert Rendezvous(tmp_path).count == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # what srun adds for its tasks
    assert Rendezvous(tmp_path).count == 4


@pytest.mark.parametrize(
    "url, shown",
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:se:cr@et@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert without_password(url) == shown
    check_url(url)


def test_a_url_of_another_kind_is_refused_without_its_password():
    with pytest.raises(UserError, match=r"got redis://me:\*\*\*@host") as caught:
        check_url("redis://me:secret@host")
    assert "secret" not in str(caught.value)
