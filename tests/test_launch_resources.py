"""What a user may ask of a cluster, from flags and from a file; storage URLs and their passwords."""

import os
import pwd
import re
from dataclasses import replace

import pytest

from fsr.command import parse_flags
from fsr.config import synthetic, voc
from fsr.errors import UserError
from launch.plan import Options, plan
from launch.slurm import commands
from launch.slurm.resources import Resources
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
        ("colour = 1", "has an unknown option colour (nearest: cluster); allowed: cluster, gpus"),
        ('gpus = "four"', "gpus must be a number of GPUs, or type and number as in a100:4, got 'four'"),
        ('partition = "a b"', "--partition must be what Slurm calls one"),
        ('[sbatch]\noutput = "x"', "--sbatch cannot set output"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
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
    monkeypatch.setattr(commands, "presence", lambda: "answers")
    monkeypatch.setattr(commands, "partitions", lambda: {"main": {"Default": "YES"}})
    places = {"data_folder": tmp_path, "runs": tmp_path / "runs"}
    with pytest.raises(UserError, match="--gpus 3 on --nodes 1 makes 3 processes"):
        plan(Options(study="mask_ratio", gpus=3, **places))
    with pytest.raises(UserError, match="--gpus 3 on --nodes 1 makes 3 processes"):
        main.__wrapped__(["voc", "--run_folder", str(tmp_path / "runs"), "--gpus", "3"])
    assert not (tmp_path / "runs").exists()
    assert plan(Options(study="mask_ratio", gpus=2, **places)).base.ranks == 4
    assert plan(Options(study="mask_ratio", cluster="local", **places)).base.ranks == 4


def from_words(*arguments):
    return parse_flags(Resources, "sweep", arguments).resolved()


def test_every_sbatch_of_a_command_line_counts():
    resources = from_words("--cluster", "local", "--sbatch", "mem=1G", "--sbatch", "exclusive", "--sbatch=w=n1")
    assert resources.sbatch_options() == {"mem": "1G", "exclusive": None, "nodelist": "n1"}


def test_a_flag_that_says_the_default_goes_before_the_file(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text("nodes = 2\nsignal_before_s = 300\ncluster = 'debug'\n")
    given = ("--cluster-file", str(file), "--nodes", "1", "--signal-before-s", "120", "--cluster", "auto")
    resources = from_words(*given)
    assert (resources.nodes, resources.signal_before_s, resources.cluster) == (1, 120, "local")
    resources = from_words(*given[:2])
    assert (resources.nodes, resources.signal_before_s, resources.cluster) == (2, 300, "debug")


@pytest.mark.parametrize(
    "name, flag", [("partition", "partition"), ("q", "qos"), ("A", "account"), ("C", "constraint")]
)
def test_an_option_that_is_a_flag_is_this_flag(name, flag):
    assert getattr(Resources(cluster="local", sbatch=(f"{name}=x",)).resolved(), flag) == "x"
    same = Resources(cluster="local", sbatch=(f"{name}=x",), **{flag: "x"}).resolved()
    assert (getattr(same, flag), same.sbatch) == ("x", ())
    with pytest.raises(UserError, match=f"--{flag} y and --sbatch .*=x differ; give only one"):
        Resources(cluster="local", sbatch=(f"{name}=x",), **{flag: "y"}).resolved()


def test_the_time_limit_may_be_written_in_two_ways_that_are_the_same():
    assert Resources(cluster="local", sbatch=("time=60",), time_limit="1:00:00").resolved().time_limit == "1:00:00"
    with pytest.raises(UserError, match="--time_limit 2:00:00 and --sbatch time=60 differ"):
        Resources(cluster="local", sbatch=("t=60",), time_limit="2:00:00").resolved()
    with pytest.raises(UserError, match="--time_limit must be minutes"):
        Resources(cluster="local", sbatch=("time=soon",)).resolved()


def test_the_command_lines_option_goes_before_the_files_flag_and_the_other_way_round(tmp_path):
    resources = from_file(tmp_path, 'partition = "gpu"\ntime_limit = "60"', sbatch=("p=debug", "t=30"))
    assert (resources.partition, resources.time_limit) == ("debug", "30")
    assert from_file(tmp_path, '[sbatch]\npartition = "gpu"', partition="debug").partition == "debug"
    options = from_file(tmp_path, '[sbatch]\nmem = "64G"\nwckey = "w"', sbatch=("mem-per-cpu=2G",)).sbatch_options()
    assert options == {"wckey": "w", "mem-per-cpu": "2G"}


def test_the_file_may_hold_options_without_a_value(tmp_path):
    text = "[sbatch]\nexclusive = true\nhold = false\ncpus-per-task = 8\n"
    assert from_file(tmp_path, text).sbatch_options() == {"exclusive": None, "cpus-per-task": "8"}
    with pytest.raises(UserError, match=r"sbatch.exclude must be a text, a number or true, got \['n1'\]"):
        from_file(tmp_path, '[sbatch]\nexclude = ["n1"]')


@pytest.mark.parametrize(
    "text, flags, count, lines",
    [
        ("gpus = 4", {}, 4, {"gpus-per-node": "4"}),
        ('gpus = "a100:4"', {}, 4, {"gpus-per-node": "a100:4"}),
        ('gpus = "a100:4"', {"gpus": 2}, 2, {"gpus-per-node": "2"}),
        ("gpus = 4", {"sbatch": ("gres=gpu:a100:2",)}, 2, {"gres": "gpu:a100:2"}),
        ('[sbatch]\ngres = "gpu:a100:4"', {}, 4, {"gres": "gpu:a100:4"}),
        ('[sbatch]\ngres = "gpu:a100:4"', {"gpus": 4}, 4, {"gres": "gpu:a100:4"}),
        ('[sbatch]\ngres = "gpu:a100:4"', {"gpus": 2}, 2, {"gpus-per-node": "2"}),
        ('[sbatch]\ngres = "gpu:a100:4"', {"gpus": "h100:4"}, 4, {"gpus-per-node": "h100:4"}),
        ("[sbatch]\ngpus-per-node = 0", {"gpus": 2}, 2, {}),
        ("[sbatch]\ngpus-per-node = 0", {"gpus": "a100:2"}, 2, {}),
        ("[sbatch]\ngpus-per-task = 1", {"gpus": 2}, 2, {"gpus-per-task": "1"}),
        ("nodes = 2", {"sbatch": ("gpus-per-node=4",)}, 8, {"gpus-per-node": "4"}),
        ("gpus = 4", {"sbatch": ("gpus-per-node=0",)}, 4, {}),
    ],
)
def test_gpus_from_flags_options_and_file(tmp_path, text, flags, count, lines):
    resources = from_file(tmp_path, text, **flags)
    assert resources.gpus_for("voc") == count
    assert resources.gpu_lines(count) == lines


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ({"gpus": 4, "sbatch": ("gres=gpu:2",)}, "--gpus 4 and --sbatch gres=gpu:2 differ"),
        ({"gpus": "a100:4", "sbatch": ("gres=gpu:v100:4",)}, "both say a type"),
        ({"gpus": "a100:4", "sbatch": ("gpus-per-task=1",)}, "both say a type"),
        ({"gpus": "four"}, "--gpus must be a number of GPUs, or type and number as in a100:4, got 'four'"),
        ({"gpus": -1}, "--gpus must be from 0 to 100000, got -1"),
        ({"gpus": "a100:3", "nodes": 2}, "--gpus must be a multiple of the nodes, 2, or 0, got 3"),
        ({"sbatch": ("gpus=4",), "nodes": 2}, "say gpus-per-node"),
        ({"nodes": 0}, "--nodes must be from 1 to 100000, got 0"),
        ({"signal_before_s": 0}, "--signal_before_s must be from 1 to 65535, got 0"),
        ({"signal_before_s": 70000, "time_limit": "2-00"}, "--signal_before_s must be from 1 to 65535, got 70000"),
        ({"time_limit": "2"}, "shorter than a job may run (--time_limit: 2)"),
        ({"time_limit": "0:30", "signal_before_s": 30}, "shorter than a job may run (--time_limit: 0:30)"),
        ({"sbatch": ("time=1",)}, "shorter than a job may run (--time_limit: 1)"),
        ({"time_limit": "60", "sbatch": ("time-min=2",)}, "shorter than a job may run (--sbatch time-min: 2)"),
        ({"sbatch": ("time-min=soon",)}, "--sbatch time-min must be minutes"),
    ],
)
def test_what_contradicts_itself_is_told_in_one_sentence(flags, sentence):
    with pytest.raises(UserError) as caught:
        Resources(cluster="local", **flags).resolved()
    assert sentence in str(caught.value)


def test_a_notice_longer_than_the_partitions_own_limit_is_refused(monkeypatch):
    monkeypatch.setattr(commands, "presence", lambda: "answers")
    rows = {
        "short": {"DefaultTime": "00:02:00", "MaxTime": "1-00:00:00", "Default": "YES"},
        "long": {"DefaultTime": "NONE", "MaxTime": "UNLIMITED"},
    }
    monkeypatch.setattr(commands, "partitions", lambda: rows)
    for partition in (None, "short", "long,short"):
        with pytest.raises(UserError, match="shorter than a job may run"):
            Resources(partition=partition).resolved()
    assert Resources(partition="long").resolved().cluster == "slurm"
    assert Resources(partition="short", time_limit="60").resolved().time_limit == "60"


def test_a_home_that_is_not_there_or_cannot_be_entered_holds_no_cluster_file(monkeypatch, tmp_path):
    for home in ("/nowhere", "/dev/null", "", "relative"):
        monkeypatch.setenv("HOME", home)
        assert Resources(cluster="local").resolved().account is None

    def forbidden(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", forbidden)
        patch.setattr(os, "stat", forbidden)
        assert Resources(cluster="local").resolved().account is None


def unknown_user(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_a_user_without_a_name_has_no_cluster_file_and_no_known_limit(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown_user)
    assert Resources(cluster="local").resolved().account is None
    monkeypatch.setattr(commands, "settings", lambda: {"AccountingStorageType": "accounting_storage/slurmdbd"})
    assert commands.submit_limits(None, None, None) == []


def test_a_cluster_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / ".config" / "fsr" / "cluster.toml").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read: it is a folder, not a regular file"):
        Resources(cluster="local").resolved()


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
