"""No way to write a password into a storage's URL shows it."""

import pytest

import launch.sweep
from fsr.errors import UserError
from launch.state import database_storage
from launch.state.storage import check_url, open_storage
from launch.state.storage_url import secrets_of, without_password

SHOWN = {
    "postgresql://me:secret@host/db": "postgresql://me:***@host/db",
    "postgresql+psycopg://me:se:cret@host:5432/db": "postgresql+psycopg://me:***@host:5432/db",
    "postgresql://me:se%40cret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se%2Fcret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se/cret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se?cret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se#cret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se%cret@host/db": "postgresql://me:***@host/db",
    "postgresql://me:se%25cret@host/db": "postgresql://me:***@host/db",
    "postgresql://:secret@host/db": "postgresql://:***@host/db",
    "postgresql://me:secret@[::1]:5432/db": "postgresql://me:***@[::1]:5432/db",
    "postgresql://me:secret@one,two/db?sslmode=verify-full": "postgresql://me:***@one,two/db?sslmode=verify-full",
    "postgresql://me@host/db?password=secret": "postgresql://me@host/db?password=***",
    "postgresql://host/db?user=me&password=se%40cret": "postgresql://host/db?password=***&user=me",
    "postgresql://host/db?PASSWORD=secret": "postgresql://host/db?PASSWORD=***",
    "postgresql://host/db?password=secret&password=secret2": "postgresql://host/db?password=***",
    "postgresql://me@host/db?passfile=secret": "postgresql://me@host/db?passfile=***",
    "postgresql://me@host/db?sslkey=secret&sslpassword=secret": "postgresql://me@host/db?sslkey=***&sslpassword=***",
    "mysql+pymysql://me:secret@host/db?passwd=secret": "mysql+pymysql://me:***@host/db?passwd=***",
    "postgresql://me@host/db": "postgresql://me@host/db",
    "postgresql://me@host/db?sslmode=verify-full": "postgresql://me@host/db?sslmode=verify-full",
    "sqlite:////tmp/study.db": "sqlite:////tmp/study.db",
    "sqlite:////tmp/my:own@home/study.db": "sqlite:////tmp/my:own@home/study.db",
}
REFUSED = {
    "postgresql+psycopg://me:se@cret@host:5432/db": "postgresql+psycopg:…",
    "postgresql://me:s@ecret/x@host/db": "postgresql:…",
    "postgresql://me/x:secret@host/db": "postgresql:…",
    "postgresql://host/db?password=s@ecret": "postgresql:…",
    "postgresql:/me:secret@host/db": "postgresql:…",
    "postgresql:me:secret@host/db": "postgresql:…",
    "postgresql://me:secret/db": "postgresql:…",
    "redis://me:secret@host": "redis://me:***@host",
    "secret": "***",
    "": "***",
    "://me:secret@host/db": "***",
}


@pytest.mark.parametrize("url", SHOWN)
def test_passwords_are_not_shown(url):
    assert without_password(url) == SHOWN[url]
    assert without_password(SHOWN[url]) == SHOWN[url]  # what stands in study.json is shown again
    assert bool(secrets_of(url)) == ("***" in SHOWN[url])
    check_url(url)


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_understood_is_refused_without_its_password(url):
    with pytest.raises(UserError) as refused:
        check_url(url)
    hint = "; write each @ of a name or password as %40" if "@" in url and "redis" not in url else ""
    assert str(refused.value).endswith(f"got {REFUSED[url]}{hint}")
    assert "ecret" not in str(refused.value)


@pytest.mark.parametrize("said", ["no: {}", "first line\nthen {}", ""])
@pytest.mark.parametrize("secret", ["s3 cret", "s3+cret", "s3%20cret"])
def test_an_error_of_the_driver_does_not_tell_the_password(tmp_path, monkeypatch, said, secret):
    def fail(*_):
        raise OSError(said.format(secret))

    monkeypatch.setattr(database_storage, "RDBStorage", fail)
    monkeypatch.setenv("FSR_STORAGE", "postgresql://me:s3%20cret@host/db?sslpassword=s3+cret")
    with pytest.raises(UserError) as refused:
        open_storage(tmp_path, database=True)
    shown = "postgresql://me:***@host/db?sslpassword=***"
    assert str(refused.value) == f"the storage {shown} cannot be opened: OSError"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("url", [url for url, shown in SHOWN.items() if "***" in shown])
def test_a_password_on_the_command_line_is_refused(tmp_path, monkeypatch, capsys, url):
    monkeypatch.delenv("FSR_STORAGE", raising=False)
    with pytest.raises(SystemExit) as end:
        launch.sweep.main(
            ["--study", "smoke", "--data_folder", str(tmp_path), "--runs", str(tmp_path), "--storage", url]
        )
    said = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert said.startswith("error: --storage must not hold a password") and said.count("\n") == 1
    assert "ecret" not in said
    assert list(tmp_path.iterdir()) == []
