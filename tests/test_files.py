"""What the program writes keeps group and mode of its folder, and no living process's file is removed."""

import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fsr import files
from fsr.files import (
    HOST,
    atomic_file,
    create,
    is_abandoned,
    make_folder,
    open_file,
    remove_abandoned,
    unfinished,
    write_json,
)
from fsr.system_errors import disk_is_full, sentence_of

DEAD = 2**22 + 1  # no process has this number: Linux's are smaller
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root has files of several groups")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize(
    "folder, lock",
    [(0o700, 0o600), (0o755, 0o600), (0o750, 0o600), (0o770, 0o660), (0o775, 0o660), (0o2770, 0o660)],
)
def test_what_a_group_may_write_it_may_whatever_the_umask_and_else_the_umask_decides(tmp_path, umask, folder, lock):
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(folder)
    write_json(place / "a" / "b" / "target.json", 1)
    open_file(place / "a" / "metrics.jsonl", "a").close()
    os.close(create(place / "locks" / "claim.lock", os.O_RDWR | os.O_CREAT, lock=True))
    made = folder & ~umask | (folder & 0o070 if folder & 0o020 else 0)
    assert [mode(place / name) for name in ("a", "a/b", "locks")] == [made] * 3
    assert mode(place / "a/b/target.json") == mode(place / "a/metrics.jsonl") == made & 0o666
    assert mode(place / "locks/claim.lock") == lock


def test_in_a_sticky_folder_the_umask_decides(tmp_path, umask):
    tmp_path.chmod(0o1777)
    make_folder(tmp_path / "runs")
    assert mode(tmp_path / "runs") == 0o777 & ~umask


def test_a_file_that_is_there_keeps_its_mode(tmp_path):
    (tmp_path / "journal.log").write_text("1\n")
    (tmp_path / "journal.log").chmod(0o640)
    with open_file(tmp_path / "journal.log", "a") as file:
        file.write("2\n")
    assert (mode(tmp_path / "journal.log"), (tmp_path / "journal.log").read_text()) == (0o640, "1\n2\n")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_that_knows_no_modes_is_written_all_the_same(tmp_path, monkeypatch, number):
    def chmod(path, mode):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "chmod", chmod)
    write_json(tmp_path / "a" / "study.json", 1)
    assert (tmp_path / "a" / "study.json").read_text() == "1\n"


@AS_ROOT
def test_the_folders_group_is_kept_with_setgid_and_without(tmp_path):
    for name, bits in (("plain", 0o770), ("setgid", 0o2770)):
        place = tmp_path / name
        place.mkdir()
        os.chown(place, 0, 4242)
        place.chmod(bits)
        write_json(place / "a" / "study.json", 1)
        assert (place / "a").stat().st_gid == (place / "a" / "study.json").stat().st_gid == 4242
        assert mode(place / "a") == bits


@pytest.fixture
def entered_by_all():
    """A folder for other users: pytest's own let nobody in."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@AS_ROOT
def test_who_is_not_of_the_folders_group_gives_his_own_group_nothing(entered_by_all):
    place = entered_by_all / "shared"
    place.mkdir()
    os.chown(place, 4001, 4242)
    place.chmod(0o770)
    script = f"from fsr.files import write_json; from pathlib import Path; write_json(Path({str(place)!r}) / 'a', 1)"
    python = ["setpriv", "--reuid=4001", "--regid=4001", "--clear-groups", sys.executable, "-c"]
    if subprocess.run([*python, "import fsr.files"], cwd="/").returncode:
        pytest.skip("other users cannot start Python, or read this checkout")
    subprocess.run([*python, script], check=True, cwd="/")
    assert ((place / "a").stat().st_gid, mode(place / "a")) == (4001, 0o600)


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ALL = 2**32 - 1


def test_a_default_acl_says_it_all(tmp_path, umask):
    entries = [(1, 7, ALL), (2, 7, 4001), (4, 0, ALL), (0x10, 7, ALL), (0x20, 0, ALL)]
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", acl(*entries))
    except OSError:
        pytest.skip("this file system has no ACLs")
    write_json(tmp_path / "a" / "study.json", 1)
    for path in (tmp_path / "a", tmp_path / "a" / "study.json"):
        kept = os.getxattr(path, "system.posix_acl_access")
        assert (2, 7, 4001) in list(struct.iter_unpack("<HHI", kept[4:]))
    assert mode(tmp_path / "a" / "study.json") == 0o660  # the mask: the user of the ACL may read and write


def test_the_mask_of_an_acl_is_not_taken_for_the_groups_rights(tmp_path):
    entries = [(1, 7, ALL), (2, 7, 4001), (4, 0, ALL), (0x10, 7, ALL), (0x20, 0, ALL)]
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", acl(*entries))
    except OSError:
        pytest.skip("this file system has no ACLs")
    assert mode(tmp_path) == 0o770
    write_json(tmp_path / "study.json", 1)
    assert mode(tmp_path / "study.json") == 0o600


def test_only_what_a_process_that_is_gone_had_not_finished_is_removed(tmp_path):
    users = [tmp_path / name for name in (".notes.2024", ".backup.1", ".part", "a.part", ".a.b.part", ".x.pt.123")]
    dead = tmp_path / f".checkpoint.pt.{HOST}.{DEAD}.0.part"
    living = [unfinished(tmp_path / "checkpoint.pt"), tmp_path / f".best.pt.{HOST}.1.0.part"]
    elsewhere, old = tmp_path / ".best.pt.othernode.77.0.part", tmp_path / ".best.pt.othernode.78.0.part"
    for path in (*users, dead, *living, elsewhere, old):
        path.touch()
    os.utime(old, (1, 1))
    folder = tmp_path / f".1234.{HOST}.{DEAD}.1.part"
    (folder / "fsr").mkdir(parents=True)
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*users, *living, elsewhere])


def test_an_unfinished_file_of_the_same_name_is_never_followed_or_shared(tmp_path):
    names = {unfinished(tmp_path / "a") for _ in range(3)}
    assert len(names) == 3 and all(not is_abandoned(name) for name in names)
    with atomic_file(tmp_path / "a") as one, atomic_file(tmp_path / "a") as two:
        one.write(b"one")
        two.write(b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_long_name_still_fits(tmp_path):
    write_json(tmp_path / ("n" * 250), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 250]


def test_a_process_of_another_user_exists(monkeypatch):
    def kill(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert files.process_exists(7)


def test_a_full_disk_is_said_with_the_file_and_what_is_free(tmp_path):
    error = None
    try:
        with atomic_file(tmp_path / "study.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as raised:
        error = raised
    assert disk_is_full(error)
    assert sentence_of(error).startswith(f"{tmp_path / 'study.json'} cannot be written: no space is left in {tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), lambda path: path.write_text("mine")])
def test_what_stands_in_a_folders_place_is_named(tmp_path, make):
    make(tmp_path / "locks")
    with pytest.raises(NotADirectoryError) as raised:
        files.write_atomically(tmp_path / "locks" / "bad_nodes" / "n1", b"x")
    assert str(tmp_path / "locks") in sentence_of(raised.value)
    assert os.path.lexists(tmp_path / "locks") and len(list(tmp_path.iterdir())) == 1


def test_a_library_that_meets_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised, files.atomic_file(tmp_path / "checkpoint.pt"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")
    assert raised.value.filename == str(tmp_path / "checkpoint.pt")
    with pytest.raises(RuntimeError, match="another"), files.atomic_file(tmp_path / "checkpoint.pt"):
        raise RuntimeError("another")


def chained(outer, inner):
    try:
        try:
            raise inner
        except type(inner):
            raise outer  # noqa: B904, the context is what is tested
    except type(outer) as error:
        return error


@pytest.mark.parametrize(
    "error, full",
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"), True),
        (RuntimeError("writing: Disk quota exceeded"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (ValueError("No space left on device"), False),
        (chained(RuntimeError("basic_ios::clear"), OSError(errno.ENOSPC, "x")), True),
        (chained(RuntimeError("other"), ValueError("x")), False),
        (chained(RuntimeError("unexpected pos 64 vs 0"), OSError(errno.EFBIG, "File too large")), False),
    ],
)
def test_a_full_disk_is_known_by_what_the_error_comes_of(error, full):
    assert disk_is_full(error) is full


def test_other_errors_have_no_sentence_of_the_system():
    assert sentence_of(FileNotFoundError(errno.ENOENT, "x", "/nowhere")) is None
    assert sentence_of(ValueError("x")) is None
    assert "mounted read-only" in sentence_of(OSError(errno.EROFS, "x", "/nowhere"))
    assert "which belongs to root:root with mode" in sentence_of(PermissionError(errno.EACCES, "x", "/proc/1/mem"))


def test_a_limit_of_file_sizes_is_said():
    assert "(ulimit -f)" in sentence_of(chained(RuntimeError("unexpected pos"), OSError(errno.EFBIG, "File too large")))
