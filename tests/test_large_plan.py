"""Plans of a million trials and a hundred thousand workers: in seconds, on a screen, as the cluster's limits allow."""

import itertools
import re
import time

import pytest
from optuna.trial import TrialState, create_trial

from fsr.config import synthetic
from fsr.errors import UserError
from launch import submit, submit_dry_run, sweep
from launch.slurm import answers, batch_script, commands, job_logs, limits
from launch.slurm.answers import Limit
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.paths import StudyFolder
from launch.state.repeats import Repeats, not_there
from launch.study import Study, grid
from launch.study_check import TRIED, check_study, tried
from launch.study_grid import Grid
from launch.worker.job_spec import JobSpec

CONFIG = {"MaxArraySize": "1001", "MaxJobCount": "200000", "EnforcePartLimits": "NO"}
PARTITIONS = {
    "gpu": {
        **{"Default": "YES", "QoS": "N/A", "DefaultTime": "04:00:00", "MaxTime": "1-00:00:00"},
        "TRES": "cpu=640,mem=20000M,node=40,billing=16,gres/gpu=160",
    },
    "long": {"Default": "NO", "QoS": "part", "DefaultTime": "NONE", "MaxTime": "UNLIMITED", "TRES": "cpu=64,node=4"},
}


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm with these settings and limits, and nothing in its queue; `told` is what its accounts say."""

    def answering(config=CONFIG, of_queue=(), counts=0, told=None):
        monkeypatch.setattr(commands, "presence", lambda: "answers")
        monkeypatch.setattr(Queue, "jobs", lambda self: {})
        monkeypatch.setattr(commands, "settings", lambda: config)
        monkeypatch.setattr(commands, "submit_limits", lambda *where: list(of_queue))
        monkeypatch.setattr(commands, "jobs_that_count", lambda limit: counts)
        monkeypatch.setattr(commands, "partitions", lambda: PARTITIONS)
        monkeypatch.setattr(commands, "partition_nodes", lambda partition: {"n1"})
        monkeypatch.setattr(commands, "account_rules", lambda account: told or limits.Told(partitions=PARTITIONS))

    return answering


def test_a_million_trials_with_a_hundred_thousand_workers_are_planned_on_one_screen(slurm, tmp_path, capsys):
    slurm(of_queue=[Limit(50_000, "your account vision", ("--account=vision",), name="MaxSubmitJobs")], counts=100)
    words = ["--study", "smoke", "--dataset", "synthetic", "--data_folder", tmp_path, "--runs", tmp_path / "runs"]
    words += ["--dry_run", "--trials", "1000000", "--parallel", "100000", "--cluster", "slurm"]
    began = time.process_time()
    with pytest.raises(SystemExit) as end:
        sweep.main([str(word) for word in words])
    assert end.value.code == 0 and time.process_time() - began < 5
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert "49900 workers in 50 sbatch calls; 0 were there already" in lines
    (note,) = (line for line in lines if line.startswith("note: your account"))
    assert note == (
        "note: your account vision may have 50000 jobs in the queue: 49900 workers are started, not 100000 "
        "(MaxSubmitJobs); the same command later starts the others"
    )
    assert lines.count("#!/bin/bash") == 1
    assert "scripts 1 to 49, all the same, of 50:" in lines
    assert lines[-1] == "script 50 of 50: as the first, with #SBATCH --array=0-850%851"
    first = lines.index("#!/bin/bash")
    assert first <= 20 and len(lines) < 40 + 80
    assert "limit of an array: 1001 workers (MaxArraySize)" in lines
    assert "limit of the queue: 50000 jobs of your account vision (MaxSubmitJobs), 100 are there" in lines
    assert "limit of the queue: 199999 jobs of all users of the cluster together (MaxJobCount), 100 are there" in lines
    assert (
        "limit of time: 04:00:00 a job (DefaultTime of partition gpu); then it is requeued, and its trial resumes"
        in (lines)
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "config, size",
    [
        ({"MaxArraySize": "1001"}, (1001, "MaxArraySize")),
        ({"MaxArraySize": "4000001"}, (5000, "their logs share a folder")),
        (
            {"MaxArraySize": "1001", "SchedulerParameters": "bf_interval=1,max_array_tasks=300"},
            (300, "max_array_tasks of SchedulerParameters"),
        ),
        ({}, None),
    ],
)
def test_an_array_is_as_large_as_the_cluster_and_a_folder_of_logs_allow(config, size):
    assert limits.array_size(config) == size


def test_the_jobs_of_a_whole_cluster_are_counted_only_where_they_may_matter(slurm, tmp_path, monkeypatch):
    slurm({"MaxArraySize": "1001", "MaxJobCount": "20000"}, counts=19_000)
    asked = []
    monkeypatch.setattr(commands, "jobs_that_count", lambda limit: asked.append(limit.filters) or 19_000)
    assert submit.prepare(StudyFolder(tmp_path), 1_900, Resources()).workers == 1_900 and asked == []
    large = submit.prepare(StudyFolder(tmp_path), 3_000, Resources())
    assert large.workers == 999 and asked == [("--states=all",)]
    assert large.notes == [
        "all users of the cluster together may have 19999 jobs in the queue: 999 workers are started, not 3000 "
        "(MaxJobCount); the same command later starts the others"
    ]


ASSOCIATIONS = answers.rows(
    """\
||long||||||
me||long|30|20|cpu=100||2-00:00:00
me|gpu||25|||gres/gpu=4|
you|||1||||
""",
    limits.ASSOCIATION,
)
ACCOUNTS = answers.rows("root||||\ntop|root|90|40|gres/gpu=24\nvision|top|||\nsound|top|||\n", limits.ACCOUNT)
QOS = answers.rows(
    "normal||||||||\nlong||gres/gpu=16,cpu=40||||||1-12:00:00\nbig|9||||||cpu=4|\npart|||||7|||\n", limits.QOS
)
TOLD = limits.Told("me", "vision", ASSOCIATIONS, ACCOUNTS, QOS, PARTITIONS)


def lowest(worker, partition=None, qos=None):
    return [(one.workers, one.words) for one in TOLD.rules(partition, qos).ceilings(worker)]


def test_what_runs_at_once_is_what_account_qos_and_partition_allow():
    worker = {"cpu": 8, "gres/gpu": 4}
    assert lowest(worker, "gpu", "normal") == [
        (1, "4 gres/gpu of your account vision, 4 a worker (MaxTRES)"),
        (6, "24 gres/gpu of all users of account top together, 4 a worker (GrpTRES)"),
        (25, "25 jobs of your account vision (MaxJobs)"),  # of the partition, which goes before that of all
        (40, "40 jobs of all users of account top together (GrpJobs)"),
        (40, "160 gres/gpu in partition gpu, 4 a worker (TRES)"),
        (80, "640 cpu in partition gpu, 8 a worker (TRES)"),
    ]
    of_qos = lowest(worker, "long", None)  # the partition's QOS, and the user's default one
    assert of_qos[:3] == [
        (4, "16 gres/gpu of you in QOS long, 4 a worker (MaxTRESPU)"),
        (5, "40 cpu of you in QOS long, 8 a worker (MaxTRESPU)"),
        (6, "24 gres/gpu of all users of account top together, 4 a worker (GrpTRES)"),
    ]
    assert (7, "7 jobs of all users together in QOS part (GrpJobs)") in of_qos
    assert (20, "20 jobs of your account vision (GrpJobs)") in of_qos
    assert lowest(worker, "gpu", "big")[0] == (0, "4 cpu a job in QOS big, 8 a worker (MaxTRES)")
    assert (9, "9 jobs of you in QOS big (MaxJobsPU)") in lowest(worker, "gpu", "big")  # before the association's
    assert not any("gres" in words for _, words in lowest({"cpu": 1, "gres/gpu": 0}, "gpu", "normal"))


def test_without_accounts_the_partition_alone_limits():
    rules = limits.Told(partitions=PARTITIONS).rules(None, None)
    assert [one.workers for one in rules.ceilings({"cpu": 8, "gres/gpu": 4})] == [40, 80]
    assert limits.Told().rules(None, None).ceilings({"cpu": 8}) == []


@pytest.mark.parametrize(
    "partition, qos, asked, soonest",
    [
        (None, "normal", None, ("04:00:00", "DefaultTime of partition gpu")),
        ("gpu", "normal", "10:00:00", ("10:00:00", "asked for")),
        ("gpu", "normal", "2-00:00:00", ("1-00:00:00", "MaxTime of partition gpu")),
        ("long", None, None, ("1-12:00:00", "MaxWall of QOS long")),
        ("long", "normal", None, ("2-00:00:00", "MaxWall of your account vision")),
    ],
)
def test_how_long_a_job_runs_is_what_ends_it_first(partition, qos, asked, soonest):
    first = TOLD.rules(partition, qos).durations(asked)[0]
    assert (first.limit, first.words) == soonest


def test_a_time_limit_that_no_job_may_have_is_told():
    durations = TOLD.rules("gpu", "normal").durations("2-00:00:00")
    assert submit_dry_run.duration_line(durations, "2-00:00:00", CONFIG) == (
        "limit of time: 1-00:00:00 a job (MaxTime of partition gpu), less than --time_limit 2-00:00:00: Slurm refuses "
        "such a job, or lets it wait for ever (EnforcePartLimits NO)"
    )
    assert "runs until no trial is left" in submit_dry_run.duration_line([], None, CONFIG)


def test_accounts_above_limit_the_queue_too_and_the_jobs_of_all_below_count():
    above = [(row, limits.below(row["Account"], ACCOUNTS)) for row in limits.above("vision", ACCOUNTS)]
    rows = answers.rows("|vision|||50|\nme|vision||||\n", answers.ASSOCIATION)
    found = answers.submit_limits(rows, [], "me", "vision", None, None, {}, above)
    assert [(limit.number, limit.whose, limit.filters) for limit in found] == [
        (90, "all users of account top together", ("--account=top,vision,sound",)),
        (50, "all users of account vision together", ("--account=vision",)),
    ]
    assert limits.below("root", ACCOUNTS) == ["root", "top", "vision", "sound"]
    assert [row["Account"] for row in limits.above("vision", ACCOUNTS)] == ["vision", "top", "root"]


def test_a_worker_takes_cores_of_each_rank_and_gpus_of_its_kind():
    config = synthetic()
    assert submit_dry_run.worker_resources(Resources(gpus="a100:4"), config) == {
        "cpu": 4 * config.cores,
        "gres/gpu": 4,
        "gres/gpu:a100": 4,
    }
    assert submit_dry_run.worker_resources(Resources(nodes=2, sbatch=("cpus-per-task=3",)), config)["cpu"] == 6


def submitted(folder, sizes, monkeypatch, room, words="sbatch: error: AssocMaxSubmitJobLimit"):
    """What `submit` submits where there is room for so many jobs, and the sizes that were tried."""
    left, tries, numbers = [room], [], itertools.count(100)

    def sbatch(text, file):
        size = int(re.search(r"--array=0-(\d+)%", text)[1]) + 1
        tries.append(size)
        if size > left[0]:
            raise UserError(f"sbatch refuses {file}: {words}")
        left[0] -= size
        return str(next(numbers))

    monkeypatch.setattr(batch_script, "sbatch", sbatch)
    submission = submit.Submission(sizes, 0, [], [])
    folder.folder.mkdir(exist_ok=True)
    folder.identity_file.write_text('{"id": "1a2b3c4d"}')
    spec = JobSpec(kind="study", folder=str(folder.folder), config=synthetic().to_json(), code="0" * 12)
    return submission, submit.submit(submission, spec, Resources(), synthetic()), tries


def test_where_slurm_refuses_the_number_of_jobs_as_many_are_submitted_as_it_takes(tmp_path, monkeypatch):
    submission, ids, tries = submitted(StudyFolder(tmp_path / "smoke"), [1001, 1001, 1001, 998], monkeypatch, 1300)
    assert submission.workers == 1300 and len(ids) == len(submission.sizes) and len(tries) <= 25
    (note,) = submission.notes
    assert note.startswith("1300 workers are started, not 4001, and the same command later starts the others: sbatch")
    assert "AssocMaxSubmitJobLimit" in note
    assert job_logs.last_arrays(StudyFolder(tmp_path / "smoke")) == ids


def test_where_slurm_refuses_for_another_reason_what_is_submitted_stays(tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path / "smoke")
    submission, ids, tries = submitted(
        folder, [10, 20, 5], monkeypatch, 15, "sbatch: error: Zero Bytes were transmitted"
    )
    assert (submission.sizes, ids, tries) == ([10], ["100"], [10, 20])
    with pytest.raises(UserError, match="Zero Bytes"):
        submitted(folder, [20], monkeypatch, 0, "sbatch: error: Zero Bytes were transmitted")
    with pytest.raises(UserError, match="AssocMaxSubmitJobLimit"):
        submitted(folder, [20], monkeypatch, 0)


def test_logs_of_large_arrays_have_a_folder_of_their_own_and_are_found_there(slurm, tmp_path):
    slurm()
    folder = StudyFolder(tmp_path / "smoke")
    assert not submit.prepare(folder, 100, Resources()).logs_apart
    submission = submit.prepare(folder, 101, Resources())
    (text,) = submit.scripts(submission, folder, Resources(), synthetic())
    assert f"log={folder.slurm}/$SLURM_ARRAY_JOB_ID/${{job}}_0_log" in text and 'mkdir -p "${log%/*}"' in text
    assert folder.job_log("7_3") == folder.slurm / "7_3_0_log.err"
    folder.array_logs("7").mkdir(parents=True)
    assert folder.job_log("7_3") == folder.slurm / "7" / "7_3_0_log.err"
    folder.job_log("7_3").write_text("no such disk\n")
    left = job_logs.left_without_work(folder, ["7"], [])
    assert left.ids == ["7_3"] and left.lines == ["no such disk"]
    for number in range(1001):
        (folder.slurm / f"1_{number}_0_log.out").touch()
    assert submit.prepare(folder, 1, Resources()).logs_apart  # a folder of many sweeps is full enough


def test_scripts_that_are_the_same_are_shown_once():
    assert list(submit_dry_run.script_lines(["a\nb"])) == ["the script:", "a\nb"]
    assert list(submit_dry_run.script_lines([])) == []
    assert list(submit_dry_run.script_lines(["a\nb", "a\nb", "a\nc"])) == [
        "scripts 1 to 2, all the same, of 3:",
        "a\nb",
        "script 3 of 3: as the first, with c",
    ]


def cells_in_order(choices):
    """All cells, made and sorted: the first choices, each other alone, then the most changes first."""
    cells = [dict(zip(choices, cell, strict=True)) for cell in itertools.product(*choices.values())]

    def order(cell):
        changed = sum(value != choices[name][0] for name, value in cell.items())
        return changed if changed <= 1 else 2 + len(cell) - changed

    return sorted(cells, key=order)


@pytest.mark.parametrize("sizes", [[], [1], [3], [1, 1], [2, 3], [3, 1, 2], [4, 3, 2, 2]])
def test_a_grid_counts_off_the_cells_that_sorting_all_would_give(sizes):
    choices = {f"n{place}": list(range(size)) for place, size in enumerate(sizes)}
    cells, expected = Grid(choices), cells_in_order(choices)
    assert list(cells) == expected and len(cells) == len(expected)
    assert cells[-1] == expected[-1] and cells[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        cells[len(expected)]


def ten_to_the_sixth():
    fields = {"w_class": 1.0, "w_patch": 1.0, "w_seg": 0.1, "w_reg": 0.05, "w_aff": 0.2, "ema_momentum": 0.9}
    known = {name for name in synthetic().to_json()}
    names = [name for name in fields if name in known][:5]
    values = {name: [getattr(synthetic(), name) + place / 1000 for place in range(10)] for name in names}
    values["seed"] = list(range(10))
    return Study(name="smoke", trials=10, **grid(values))


def test_a_grid_of_a_million_cells_is_checked_in_a_second_and_takes_no_memory():
    study, base = ten_to_the_sixth(), synthetic()
    began = time.process_time()
    assert study.size(base) == len(study.known_params(base)) == 10**6
    assert check_study(study, base) == [f"of the study's 1000000 known settings, {TRIED} were tried"]
    assert study.known_params(base)[999_999] and study.all_params(base, 10**6)[0] == study.known_params(base)[0]
    assert time.process_time() - began < 10


def test_known_settings_are_all_tried_up_to_500_then_the_first_and_some_of_the_others():
    assert tried(TRIED) == list(range(TRIED))
    some = tried(10**6)
    assert len(some) == len(set(some)) == TRIED and some[:250] == list(range(250)) and some[-1] > 990_000


def trial(params, **attributes):
    return create_trial(
        state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=attributes, values=None
    )


def test_repeats_of_a_large_grid_are_counted_without_being_made():
    cells = Grid({"a": range(100), "b": range(100)})
    trials = [trial(cells[0]), trial(cells[5])]
    for number, one in enumerate(trials):
        one.number = number
    left = sum(1 for _ in not_there(cells, trials))
    assert left == 9_998
    repeats = Repeats.of_all(trials, range(1, 6), to_come=left)
    assert repeats.number_missing(trials) == 50_000
    assert str(repeats) == "10000 settings with seeds 1 to 5"


def test_many_seeds_and_settings_are_looked_up_not_searched():
    """Searched among each other, these would take half a minute."""
    trials = [trial({"a": number}) for number in range(1_000)]
    trials += [trial({"a": number}, seed=seed, repeats=number) for seed in range(1, 6) for number in range(1_000)]
    for number, one in enumerate(trials):
        one.number = number
    began = time.process_time()
    repeats = Repeats.of_all(trials, range(1, 7))
    assert len(repeats.missing(trials)) == 1_000
    assert time.process_time() - began < 2
