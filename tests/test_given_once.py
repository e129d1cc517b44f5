"""Several studies on a command line mean all of them; where one makes sense, a second is refused."""

import pytest
from studies import add_trial, new_study

import analysis.board
import analysis.dashboard
import analysis.figures
import analysis.load
import launch.doctor
import launch.status
import launch.sweep
from analysis.load import named
from analysis.report import default_page
from fsr.command import read_words
from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.flags import flags_of
from fsr.inference.config import InferConfig
from launch import infer_study_options
from launch.state.paths import StudyFolder
from launch.sweep_options import Options


@pytest.mark.parametrize(
    "words", [["--study", "a", "b"], ["--study", "a", "--study", "b"], ["--study=a", "--study", "b", "a"]]
)
def test_both_ways_to_name_several_studies_mean_all(words, tmp_path):
    for name in ("a", "b"):
        add_trial(new_study(tmp_path / "runs", name)[1], 0.4)
    analysis.load.main([*words, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    lines = (tmp_path / "trials.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["a", "b"]


def test_a_name_is_needed_and_counts_once():
    assert named(["a b", "c", "a"]) == ["a", "b", "c"]
    for nothing in ((), ("",)):
        with pytest.raises(UserError, match="name at least one study with --study"):
            named(nothing)


@pytest.mark.parametrize(
    "command",
    [launch.status, launch.sweep, launch.doctor, analysis.board, analysis.dashboard],
    ids=lambda c: c.__name__,
)
def test_a_second_study_is_refused_where_one_makes_sense(command, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--study", "a", "--study", "b"])
    assert end.value.code == 2
    assert "error: --study is given twice, as a and b; give it once" in capsys.readouterr().err


def test_a_flag_that_is_given_twice_is_refused_unless_it_takes_several():
    read_words(flags_of(TrainConfig), ["--lr", "1", "--weight-decay", "2", "--lr=1"])
    read_words(flags_of(Options), ["--sbatch", "mem=1G", "--sbatch", "qos=x"])
    with pytest.raises(UserError, match="--data_folder is given twice, as a and b; give it once"):
        read_words(flags_of(TrainConfig), ["--data-folder", "a", "--data_folder", "b"])
    with pytest.raises(UserError, match=r"--uncertain is given twice, as \.2 \.7 and \.2 \.8"):
        read_words(flags_of(TrainConfig), ["--uncertain", ".2", ".7", "--uncertain", ".2", ".8"])


def test_a_page_of_several_studies_takes_no_single_ones_place(tmp_path):
    folders = [StudyFolder(tmp_path / name) for name in ("a", "b")]
    assert default_page(folders[:1]) == tmp_path / "a" / "report.html"
    assert default_page(folders) == tmp_path / "report_a+b.html"
    many = [StudyFolder(tmp_path / f"study_number_{number}") for number in range(40)]
    assert len(default_page(many).name) < 60
    assert default_page(many) != default_page(many[1:])


def test_a_flag_that_takes_several_needs_one():
    for words in (["--scales"], ["--scales", "--crf"]):
        with pytest.raises(UserError, match="--scales takes one or more values, got none"):
            read_words(flags_of(InferConfig), words)
    with pytest.raises(UserError, match="--infer_set takes one or more values, got none"):
        infer_study_options.parse(["--study", "a", "--infer_set"])


def test_a_word_too_many_behind_a_study_is_answered_with_the_help_of_its_inference(capsys):
    with pytest.raises(UserError, match=r"Unrecognized options: voc \(all flags: .*infer --study NAME --help\)"):
        infer_study_options.parse(["voc", "--study", "a"])
    with pytest.raises(SystemExit):
        infer_study_options.parse(["--study", "a", "--help"])
    assert capsys.readouterr().out.count("--study NAME") >= 1
