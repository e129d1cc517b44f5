"""What becomes of each option of sbatch that a user gives: it replaces ours, or is refused by name with the reason."""

import math

import pytest

from fsr.errors import UserError
from launch.slurm import sbatch_options
from launch.slurm.sbatch_options import KNOWN, LETTERS, REFUSED, parse, seconds


@pytest.mark.parametrize(
    "texts, options",
    [
        (["mem=64G", "reservation=mine"], {"mem": "64G", "reservation": "mine"}),
        (["p=gpu", "t=60", "c=8", "x=n1"], {"partition": "gpu", "time": "60", "cpus-per-task": "8", "exclude": "n1"}),
        (["--mem=1G"], {"mem": "1G"}),
        (["mem_per_cpu=2G"], {"mem-per-cpu": "2G"}),
        (["exclusive"], {"exclusive": None}),
        (["exclusive=user"], {"exclusive": "user"}),
        (["hold", "nice"], {"hold": None, "nice": None}),
        (["s"], {"oversubscribe": None}),
        (["dependency=afterok:12"], {"dependency": "afterok:12"}),
        (["begin=now+1days"], {"begin": "now+1days"}),
        (["an-option-of-next-year=x"], {"an-option-of-next-year": "x"}),
    ],
)
def test_options_are_read_by_their_long_names(texts, options):
    assert parse(texts) == options
    assert parse(sbatch_options.texts(options)) == options


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_break_the_protocol_is_refused_by_name_with_the_reason(name):
    letters = [letter for letter, long_name in LETTERS.items() if long_name == name]
    for written in (name, name.replace("-", "_"), f"--{name}", *letters):
        for text in (written, f"{written}=1"):
            with pytest.raises(UserError) as caught:
                parse([text])
            assert f"--sbatch cannot set {name}: {REFUSED[name]}" in str(caught.value)


def test_every_letter_stands_for_an_option_that_is_known():
    assert set(LETTERS.values()) <= KNOWN
    assert set(REFUSED) <= KNOWN


@pytest.mark.parametrize(
    "texts, sentence",
    [
        (["outpu=x"], "takes names in full, got 'outpu=x'; allowed: output"),  # sbatch would take it for --output
        (["arr=1-9"], "allowed: array"),
        (["mem-per=1G"], "allowed: mem-per-cpu, mem-per-gpu"),
        (["mem=1G", "mem=2G"], "mem is given twice"),
        (["time=1", "t=2"], "time is given twice"),
        (["mem=1G", "mem-per-cpu=1G"], "exclude each other"),
        (["exclusive", "s"], "exclude each other"),
        (["cpus-per-task=2", "cpus-per-gpu=2"], "exclude each other"),
        (["gres=gpu:2", "gpus=2"], "both ask for GPUs"),
        (["gpus-per-node=0", "gpus-per-task=1"], "both ask for GPUs"),
        (["mem"], "must be key=value"),
        (["mem="], "must be key=value"),
        (["=1"], "must be key=value"),
        (["a b=1"], "must be key=value"),
        ([""], "must be key=value"),
        (["mem=1\n#SBATCH --wrap=x"], "a value has no quotes, backslashes and line breaks"),
        (["reservation=it's"], "a value has no quotes"),
        (['reservation="mine"'], "a value has no quotes"),
        (["reservation=a\\b"], "a value has no quotes, backslashes"),
        (["gpus-per-task=2"], "must be 1"),
        (["gpus-per-task=many"], "must be a number of GPUs"),
        (["cpus-per-task=0"], "must be a whole number from 1"),
        (["c=many"], "must be a whole number from 1"),
    ],
)
def test_what_can_be_no_option_is_told_in_one_sentence(texts, sentence):
    with pytest.raises(UserError) as caught:
        parse(texts)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text, nodes, number",
    [
        ("gres=gpu:a100:2", 1, 2),
        ("gres=gpu:a100:2", 2, 4),
        ("gres=gpu:4", 1, 4),
        ("gres=gpu", 1, 1),
        ("gres=gpu:a100", 1, 1),
        ("gres=gpu:2,nvme:100", 1, 2),
        ("gres=gpu:a100:1,gpu:v100:2", 1, 3),
        ("gres=nvme:100", 1, None),
        ("gres=none", 1, None),
        ("gpus=4", 1, 4),
        ("gpus=a100:4", 1, 4),
        ("gpus=0", 3, None),
        ("gpus-per-node=4", 2, 8),
        ("gpus-per-node=h100:4", 1, 4),
        ("gpus-per-node=0", 1, None),
        ("gpus-per-task=1", 1, None),
        ("mem=1G", 1, None),
    ],
)
def test_how_many_gpus_an_option_says(text, nodes, number):
    assert sbatch_options.number_of_gpus(parse([text]), nodes) == number


@pytest.mark.parametrize(
    "text, nodes", [("gpus=4", 2), ("gpus=many", 1), ("gpus-per-node=a100", 1), ("gres=gpu:1:2:3", 1), ("gres=gpu:", 1)]
)
def test_a_number_of_gpus_that_stays_unclear_is_refused(text, nodes):
    with pytest.raises(UserError, match=text.partition("=")[0]):
        sbatch_options.number_of_gpus(parse([text]), nodes)


@pytest.mark.parametrize(
    "texts, kind, gpus, nodes, lines",
    [
        ([], None, 8, 2, {"gpus-per-node": "4"}),
        ([], "a100", 4, 1, {"gpus-per-node": "a100:4"}),
        ([], None, 0, 1, {}),
        (["gres=gpu:a100:2"], None, 2, 1, {"gres": "gpu:a100:2"}),
        (["gres=nvme:1"], None, 2, 1, {"gres": "nvme:1", "gpus-per-node": "2"}),
        (["gres=gpu:0,nvme:1"], None, 2, 1, {"gres": "nvme:1"}),
        (["gpus=a100:4"], None, 4, 1, {"gpus": "a100:4"}),
        (["gpus-per-task=1"], None, 4, 1, {"gpus-per-task": "1"}),
        (["gpus-per-task=a100:1"], None, 4, 1, {"gpus-per-task": "a100:1"}),
        (["gpus-per-node=0"], None, 4, 1, {}),  # GPUs of which Slurm knows nothing
        (["gres=none"], None, 4, 1, {}),
    ],
)
def test_the_users_way_to_ask_for_gpus_replaces_ours(texts, kind, gpus, nodes, lines):
    assert sbatch_options.gpu_lines(parse(texts), kind, gpus, nodes) == lines


def test_a_gpu_a_task_without_a_number_of_tasks_is_refused():
    with pytest.raises(UserError, match="say --gpus"):
        sbatch_options.gpu_lines(parse(["gpus-per-task=1"]), None, 0, 1)


def test_cores_are_the_users_or_ours():
    assert sbatch_options.cores({}, 4, 0) == "4"
    assert sbatch_options.cores(parse(["c=8"]), 4, 0) == "8"
    assert sbatch_options.cores(parse(["cpus-per-gpu=8"]), 4, 2) == "8"
    with pytest.raises(UserError, match="no meaning without GPUs"):
        sbatch_options.cores(parse(["cpus-per-gpu=8"]), 4, 0)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("90", 5400),
        ("1:30", 90),
        ("1:00:00", 3600),
        ("1-0", 86400),
        ("1-02:30", 95400),
        ("1-00:00:01", 86401),
        ("0", math.inf),
        ("UNLIMITED", math.inf),
    ],
)
def test_seconds_of_a_time_limit(text, expected):
    assert seconds(text) == expected
