"""A study in optuna-dashboard, as a browser shows it, and what cannot be shown, in one sentence."""

import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
from method_checkout import surroundings, sweep_command
from served import Address, NoRedirect, opened, served
from slurm_cluster import ROOT, TESTS, wait_for

import analysis.board
from analysis.dashboard import main
from analysis.guard import Guard, Server
from launch.state.storage import open_storage

METHOD = TESTS / "launch_stub.py"
DASHBOARD = [sys.executable, ROOT / "analysis" / "dashboard.py"]
BESIDE = "studies there: smoke; another folder of studies is named with --runs"
OTHER = "name another with --port, or PORT= for make"
SHOWS = b"this server only shows; to change something, start it with --writable\n"


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
    """Exit code and output of a dashboard, or a board, that does not start."""
    monkeypatch.delenv("FSR_STORAGE", raising=False)

    def ended(*options, command=main):
        with pytest.raises(SystemExit) as end:
            command([str(option) for option in options])
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
        assert line == f"{url}dashboard/studies/-1?token={url.token}   (Ctrl-C ends it)\n"


def test_it_listens_to_this_machine_only(runs, refused, tmp_path):
    with served([*DASHBOARD, "--study", "smoke", "--runs", runs], tmp_path / "log") as url:
        port = f"{url.port:04X}"
        sockets = [
            line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
        ]
        listening = [words[1] for words in sockets if words[3] == "0A" and words[1].endswith(f":{port}")]
        assert listening == [f"0100007F:{port}"]
        code, output = refused("--study", "smoke", "--runs", runs, "--port", int(port, 16))
        assert (code, output) == (2, f"error: port {int(port, 16)}: Address already in use; {OTHER}\n")


def number_of_studies(url):
    return len(json.loads(url.ask("api/studies")[1])["study_summaries"])


def test_nobody_changes_a_study_unless_it_is_writable(runs, tmp_path):
    shutil.copytree(runs / "smoke", tmp_path / "smoke")
    command = [*DASHBOARD, "--study", "smoke", "--runs", tmp_path]
    with served(command, tmp_path / "log") as url:
        assert number_of_studies(url) == 2  # and its search
        for method, path in (("DELETE", "api/studies/0"), ("PUT", "api/studies/0/note"), ("POST", "api/studies")):
            assert url.ask(path, b"{}", method) == (403, SHOWS)
        assert number_of_studies(url) == 2
    with served([*command, "--writable"], tmp_path / "log") as url:
        for who in ({"Cookie": None}, {"Origin": "http://elsewhere"}, {"Host": f"elsewhere:{url.port}"}):
            assert url.ask("api/studies/0", method="DELETE", **who)[0] in (401, 403)
        assert number_of_studies(url) == 2
        assert url.ask("api/studies/-1", method="DELETE", Origin=url.rstrip("/"))[0] == 404  # the search is a view
        assert number_of_studies(url) == 2
        assert url.ask("api/studies/0", method="DELETE", Origin=url.rstrip("/"))[0] == 204
        assert number_of_studies(url) == 0


@pytest.mark.parametrize(
    "who, status",
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),  # what ssh leads here from another port
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Cookie": None}, 401),
        ({"Cookie": "fsr_1=wrong"}, 401),
        ({"Cookie": "\\;=\x7f"}, 401),
        ({"Host": "rebound.example:8080"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_server_answers_to_its_own_browser_alone(small, who, status):
    assert small.ask(**who)[0] == status


def test_the_token_of_the_address_becomes_a_cookie(small):
    assert small.ask("a/b?token=wrong", Cookie=None)[0] == 401
    assert small.ask(f"a/b?x=1&token={small.token}", Cookie=None)[0] == 303
    request = urllib.request.Request(f"{small}//elsewhere%0d%0aX:/?x=1&token={small.token}")
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.build_opener(NoRedirect).open(request)
    assert answer.value.headers["Location"] == "/elsewhere%0D%0AX%3A/?x=1"
    assert answer.value.headers["Set-Cookie"] == f"fsr_{small.port}={small.token}; Path=/; HttpOnly; SameSite=Lax"
    answer.value.close()


@pytest.fixture(scope="module")
def small():
    """A guarded page."""

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    guard = Guard(hello)
    with Server(guard, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Address(f"http://127.0.0.1:{server.server_port}/", guard.token)
        server.shutdown()


def test_a_study_that_is_not_there_is_one_sentence(runs, refused, tmp_path):
    sentence = f"error: there is no study in {runs}/nonsense; {BESIDE}\n"
    assert refused("--study", "nonsense", "--runs", runs) == (2, sentence)
    assert not (runs / "nonsense").exists()
    nothing = "there is none beside it; another folder of studies is named with --runs"
    sentence = f"error: there is no study in {tmp_path}/nonsense; {nothing}\n"
    assert refused("--study", "nonsense", "--runs", tmp_path) == (2, sentence)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "study.json").write_text("{}")
    code, sentence = refused("--study", "lost", "--runs", tmp_path)
    assert code == 2
    assert sentence.startswith(f"error: the journal of the study, {tmp_path}/lost/journal.log, is gone; ")
    sentence = "error: a study's name consists of a-z, 0-9, _ and -, got '../smoke'\n"
    assert refused("--study", "../smoke", "--runs", runs) == (2, sentence)


def test_a_board_of_nothing_is_one_sentence(runs, refused):
    sentence = f"error: there is no study and no run in {runs}/typo; {BESIDE}\n"
    assert refused("--study", "typo", "--runs", runs, command=analysis.board.main) == (2, sentence)
    assert not (runs / "typo").exists()


def test_a_study_in_a_database_is_found_and_one_with_a_password_by_the_variable(runs, refused, browser, tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.copy_study(from_study_name="smoke", from_storage=open_storage(runs / "smoke"), to_storage=url)
    (tmp_path / "smoke").mkdir()
    options = ["--study", "smoke", "--runs", tmp_path]
    hidden = "postgresql://me:***@host/studies"
    (tmp_path / "smoke" / "study.json").write_text(json.dumps({"storage": hidden}))
    assert refused(*options) == (2, f"error: the study is stored in {hidden}; set FSR_STORAGE to its URL\n")
    (tmp_path / "smoke" / "study.json").write_text(json.dumps({"storage": url}))
    with served([*DASHBOARD, *options], tmp_path / "log") as address:
        see(browser, address, "dashboard/studies/1/trials", *(f"Trial {number}" for number in range(6)))
