"""A database is the same from any folder, and a worker without its URL knows what to say."""

import json

import pytest

from fsr.errors import UserError
from launch.plan import Options, storage_of
from launch.state.paths import StudyFolder
from launch.state.storage import absolute_url, check_url, database_url, open_launched


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study's folder, without its URL in the environment."""
    monkeypatch.delenv("FSR_STORAGE", raising=False)
    found = StudyFolder(tmp_path / "smoke")
    found.folder.mkdir()
    return found


def record(folder, storage):
    folder.study_file.write_text(json.dumps({"storage": storage}))


@pytest.mark.parametrize(
    "url, absolute",
    [
        ("sqlite:///study.db", "sqlite:///{here}/study.db"),
        ("sqlite:///sub/study.db?timeout=60", "sqlite:///{here}/sub/study.db?timeout=60"),
        ("sqlite+pysqlite:///study.db", "sqlite+pysqlite:///{here}/study.db"),
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
        ("postgresql+psycopg://u@h/database", "postgresql+psycopg://u@h/database"),
        ("postgresql:///database?host=/run", "postgresql:///database?host=/run"),
    ],
)
def test_a_relative_sqlite_file_is_the_one_of_the_folder_the_command_is_called_in(tmp_path, monkeypatch, url, absolute):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSR_STORAGE", raising=False)
    expected = absolute.format(here=tmp_path)
    assert absolute_url(url) == expected
    assert storage_of(Options(study="smoke", storage=url)) == expected
    check_url(expected)
    monkeypatch.setenv("FSR_STORAGE", url)
    assert storage_of(Options(study="smoke", storage=expected)) == expected  # the same, named in two ways


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", "sqlite:///file:a.db?uri=true"])
def test_a_database_that_each_process_would_have_for_itself_is_refused(url):
    with pytest.raises(UserError, match="must name SQLite's file"):
        storage_of(Options(study="smoke", storage=url))


def test_a_worker_finds_a_database_without_a_password_in_the_studys_definition(folder):
    record(folder, "sqlite:////data/study.db")
    assert database_url(folder) == "sqlite:////data/study.db"


def test_a_worker_without_the_url_of_a_database_with_a_password_says_what_is_missing(folder, monkeypatch):
    record(folder, "postgresql://fsr:***@host/db")
    with pytest.raises(UserError, match=r"stored in postgresql://fsr:\*\*\*@host/db; set FSR_STORAGE to its URL$"):
        open_launched(folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(UserError, match="Slurm did not pass it on to this job"):
        database_url(folder)


def test_another_sqlite_file_than_the_studys_is_not_made(folder, tmp_path, monkeypatch):
    record(folder, "sqlite:////data/study.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSR_STORAGE", "sqlite:///study.db")
    with pytest.raises(UserError, match=rf"FSR_STORAGE names sqlite:///{tmp_path}/study\.db"):
        open_launched(folder)
    assert not (tmp_path / "study.db").exists()


def test_a_journal_that_is_gone_is_one_sentence_and_is_not_made_again(folder):
    record(folder, "journal.log")
    with pytest.raises(UserError, match=r"journal\.log, is gone"):
        open_launched(folder)
    assert not (folder.folder / "journal.log").exists()
