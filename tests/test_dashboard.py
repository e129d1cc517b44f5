"""A study in optuna-dashboard, as a browser shows it, and what cannot be shown, in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from method_checkout import surroundings, sweep_command
from served import opened, served
from slurm_cluster import ROOT, TESTS, wait_for

from analysis.dashboard import main
from launch.state.storage import open_storage

METHOD = TESTS / "launch_stub.py"
DASHBOARD = [sys.executable, ROOT / "analysis" / "dashboard.py"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of studies with six trials of smoke, whose method counts steps."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "data").mkdir()
    command = [*sweep_command(METHOD), "--study", "smoke", "--iterations", "20", "--cluster", "local"]
    places = ["--data_folder", folder / "data", "--runs", folder / "runs"]
    subprocess.run([*command, *places], check=True, stdout=subprocess.DEVNULL, **surroundings(METHOD))
    return folder / "runs"


@pytest.fixture
def refused(capsys, monkeypatch):
    """Exit code and output of a dashboard that does not start."""
    monkeypatch.delenv("FSR_STORAGE", raising=False)

    def ended(*options):
        with pytest.raises(SystemExit) as end:
            main([str(option) for option in options])
        return end.value.code, "".join(capsys.readouterr())

    return ended


def see(browser, url, path, *words):
    """Open a page and wait until it has all these words."""
    with opened(browser, url, path) as page:
        wait_for(lambda: all(word in page.execute_script("return document.body.innerText") for word in words), 40)


def test_it_shows_a_study_of_the_journal_and_its_trials(runs, browser, tmp_path):
    with served([*DASHBOARD, "--study", "smoke", "--runs", runs], tmp_path / "log") as url:
        see(browser, url, "dashboard", "smoke")
        see(browser, url, "dashboard/studies/0/trials", *(f"Trial {number}" for number in range(6)), "mask_ratio")
        line = (tmp_path / "log").read_text()
        assert line == f"{url}dashboard/studies/0   (Ctrl-C ends it)\n"


def test_it_listens_to_this_machine_only(runs, refused, tmp_path):
    with served([*DASHBOARD, "--study", "smoke", "--runs", runs], tmp_path / "log") as url:
        port = f"{int(url.rstrip('/').rpartition(':')[2]):04X}"
        sockets = [
            line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
        ]
        listening = [words[1] for words in sockets if words[3] == "0A" and words[1].endswith(f":{port}")]
        assert listening == [f"0100007F:{port}"]
        code, output = refused("--study", "smoke", "--runs", runs, "--port", int(port, 16))
        assert (code, output) == (2, f"error: port {int(port, 16)}: Address already in use; name another with --port\n")


def test_a_study_that_is_not_there_is_one_sentence(runs, refused):
    sentence = f"error: there is no study in {runs}/nonsense; name its folder's parent with --runs\n"
    assert refused("--study", "nonsense", "--runs", runs) == (2, sentence)
    assert not (runs / "nonsense").exists()
    (runs / "lost").mkdir()
    (runs / "lost" / "study.json").write_text("{}")
    assert refused("--study", "lost", "--runs", runs) == (2, "error: the storage has no study lost\n")
    sentence = "error: a study's name consists of a-z, 0-9, _ and -, got '../smoke'\n"
    assert refused("--study", "../smoke", "--runs", runs) == (2, sentence)


def test_a_study_in_a_database_is_found_by_the_variable(runs, refused, browser, tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.copy_study(from_study_name="smoke", from_storage=open_storage(runs / "smoke"), to_storage=url)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "study.json").write_text(json.dumps({"storage": url}))
    options = ["--study", "smoke", "--runs", tmp_path]
    assert refused(*options) == (2, f"error: the study is stored in {url}; set FSR_STORAGE to its URL\n")
    with served([*DASHBOARD, *options], tmp_path / "log", env=os.environ | {"FSR_STORAGE": url}) as address:
        see(browser, address, "dashboard/studies/1/trials", *(f"Trial {number}" for number in range(6)))
