"""A study in PostgreSQL instead of the journal: a real server, and a password that shows nowhere."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from method_checkout import surroundings, sweep_command

from fsr.errors import UserError
from launch.state.storage import open_storage

METHOD = Path(__file__).parent / "launch_stub.py"
PASSWORD = "s3cret:p@ss"
FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
REQUIRED = bool(os.environ.get("FSR_REQUIRE_DAEMONS"))

pytestmark = pytest.mark.skipif(
    not REQUIRED and not (FOUND and os.getuid() == 0 and shutil.which("runuser") and shutil.which("openssl")),
    reason="PostgreSQL's server or openssl is not installed (Debian: apt-get install postgresql), or this is not root",
)


@pytest.fixture(scope="module")
def folder():
    """The folder of a server of our own, with its certificate."""
    folder = Path(tempfile.mkdtemp(prefix="fsr_postgres_"))
    shutil.chown(folder, "postgres")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def url(folder):
    """URL of an empty database on that server."""
    programs, data = FOUND[-1].parent, folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)

    def postgres(*command):
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    postgres(programs / "initdb", "-D", data, "-U", "fsr", "-A", "scram-sha-256", "--pwfile", folder / "password")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    pair = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    postgres("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *pair)
    encrypted = f"-c ssl=on -c ssl_key_file={folder}/key.pem -c ssl_cert_file={folder}/cert.pem"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 {encrypted}"
    postgres(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    yield f"postgresql+psycopg://fsr:{PASSWORD.replace(':', '%3A').replace('@', '%40')}@127.0.0.1:{port}/postgres"
    postgres(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def sweep(tmp_path, *options, **variables):
    (tmp_path / "data").mkdir(exist_ok=True)
    places = ["--data_folder", tmp_path / "data", "--runs", tmp_path / "runs", "--cluster", "local"]
    command = [*sweep_command(METHOD), "--study", "smoke", "--iterations", "20", *places, *options]
    answer = subprocess.run(command, capture_output=True, text=True, **surroundings(METHOD, **variables), timeout=120)
    return answer.returncode, answer.stdout + answer.stderr


def test_a_study_in_postgresql_is_swept_topped_up_and_its_password_is_written_nowhere(url, tmp_path):
    code, output = sweep(tmp_path, "--trials", "4", FSR_STORAGE=url)
    assert code == 0, output
    code, more = sweep(tmp_path, "--trials", "6", FSR_STORAGE=url)
    assert code == 0, more
    trials = optuna.load_study(study_name="smoke", storage=url).trials
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)
    assert not (tmp_path / "runs" / "smoke" / "journal.log").exists()
    secrets = (PASSWORD, url.split("fsr:")[1].split("@")[0])
    written = [file.read_bytes() for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    for secret in secrets:
        assert secret not in output + more
        assert not any(secret.encode() in content for content in written)
    assert b"postgresql+psycopg://fsr:***@" in (tmp_path / "runs" / "smoke" / "study.json").read_bytes()

    code, output = sweep(tmp_path, "--trials", "6")
    assert code == 2
    assert "was launched with the storage postgresql+psycopg://fsr:***@" in output


@pytest.mark.parametrize(
    "host, authority, answer",
    [
        ("localhost", "cert.pem", None),
        ("127.0.0.1", "cert.pem", "does not match host name"),  # another server than the one that was asked for
        ("localhost", "other.pem", "certificate verify failed"),  # one that our authority does not know
    ],
)
def test_a_server_is_asked_for_its_certificate(url, folder, tmp_path, monkeypatch, host, authority, answer):
    other = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-keyout", tmp_path / "key.pem"]
    subprocess.run(["openssl", "req", *other, "-out", tmp_path / "other.pem"], check=True, stderr=subprocess.DEVNULL)
    file = (folder if authority == "cert.pem" else tmp_path) / authority
    address = url.replace("127.0.0.1", host)
    monkeypatch.setenv("FSR_STORAGE", f"{address}?sslmode=verify-full&sslrootcert={file}")
    if answer is None:
        storage = open_storage(tmp_path, database=True)
        with storage._storage._backend.engine.connect() as connection:
            assert connection.exec_driver_sql("select ssl from pg_stat_ssl where pid = pg_backend_pid()").scalar()
        return
    with pytest.raises(UserError) as refused:
        open_storage(tmp_path, database=True)
    assert answer in str(refused.value)
    assert "cret" not in str(refused.value)


def test_a_server_that_is_not_there_is_one_sentence_without_the_password(tmp_path):
    started = time.monotonic()
    code, output = sweep(tmp_path, FSR_STORAGE="postgresql+psycopg://fsr:hidden@127.0.0.1:1/postgres")
    assert code == 2
    assert "the storage postgresql+psycopg://fsr:***@127.0.0.1:1/postgres cannot be opened" in output
    assert "hidden" not in output
    assert "Traceback" not in output
    assert time.monotonic() - started < 30
