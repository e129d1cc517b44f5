"""The notebooks in JupyterLab: on this machine only, with a token, and with a kernel that finds the project."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from slurm_cluster import wait_for
from studies import new_study

from analysis.lab import FLAGS, FOLDER, check_port, main, register_kernel
from fsr.errors import UserError


def test_the_kernel_is_this_python_with_this_project(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    spec = json.loads((register_kernel() / "kernel.json").read_text())
    assert (tmp_path / "kernels" / "fsr" / "kernel.json").exists()
    assert spec["argv"][0] == sys.executable
    assert spec["env"] == {"PYTHONPATH": str(FOLDER.parent)}


def test_it_starts_on_this_machine_only_with_what_was_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("STUDY", "")
    monkeypatch.setenv("RUNS", "")
    new_study(tmp_path / "runs")
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.extend(words))
    main(["--study", "smoke", "--runs", str(tmp_path / "runs"), "--port", "0"])
    assert started[:3] == [sys.executable, "-m", "jupyterlab"]
    assert "--ServerApp.ip=127.0.0.1" in started and not [word for word in started if "token" in word]
    assert (os.environ["STUDY"], os.environ["RUNS"]) == ("smoke", str(tmp_path / "runs"))
    with pytest.raises(SystemExit) as end:
        main(["--study", "typo", "--runs", str(tmp_path / "runs")])
    assert end.value.code == 2
    assert "studies there: smoke" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="Address already in use; name another with --port"):
            check_port(taken.getsockname()[1])


@pytest.mark.slow
def test_jupyterlab_answers_whoever_knows_the_token_alone(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "analysis.lab", "--runs", tmp_path, "--port", str(port)]
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(lambda: "token=" in (tmp_path / "log").read_text(), 90)
        (address,) = set(re.findall(r"http://127\.0\.0\.1\S+token=\w+", (tmp_path / "log").read_text()))
        token = address.partition("token=")[2]
        page = f"http://127.0.0.1:{port}/api/kernelspecs"
        with urllib.request.urlopen(f"{page}?token={token}") as answer:
            assert "fsr" in json.load(answer)["kernelspecs"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(page)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        where = {line.split()[1].partition(":")[0] for line in listening.splitlines() if f":{port:04X} " in line[:60]}
        assert where == {"0100007F"}
    finally:
        server.terminate()
        server.wait(30)


def test_every_flag_is_one_that_jupyterlab_knows():
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.labapp import LabApp

    for flag in FLAGS:
        owner, dot, name = flag.removeprefix("--").partition("=")[0].partition(".")
        if dot and owner in ("LabApp", "ServerApp"):
            assert {"LabApp": LabApp, "ServerApp": ServerApp}[owner].class_traits().get(name), flag
