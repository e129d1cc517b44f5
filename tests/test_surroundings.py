"""Every command in odd surroundings: it works, or it ends with one sentence; no traceback, no escapes, no hang."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from method_checkout import overlaid
from tiny import flags as tiny_flags
from tiny import tiny_config

from analysis import gallery, load
from fsr import train
from fsr.data import synthetic
from fsr.distributed import STORE_FILE, join, own_number
from fsr.errors import UserError, reports_user_errors
from fsr.files import write_atomically
from fsr.writable import check_file, check_folder
from launch import sweep

ROOT = Path(__file__).parent.parent
LIMIT_S = 120

COMMANDS = {
    "status": "launch/status.py --study smoke --runs {swept}",
    "doctor": "launch/doctor.py --runs {swept}",
    "sweep": "launch/sweep.py --study smoke --cluster local --dry-run --runs {out} --data-folder {data}",
    "launch infer": "launch/infer.py voc --cluster local --checkpoint {nothing} --data_folder {data}",
    "prepare": "-m fsr.data.prepare voc {data} --list_folder {out}",
    "synthetic": "-m fsr.data.synthetic {out} --images 3",
    "load": "analysis/load.py --study smoke --runs {swept} --out {out}",
    "figures": "analysis/figures.py --study smoke --runs {swept} --out {out}",
    "export": "-m fsr.export {checkpoint} {out}",
    "train": "-m fsr.train {tiny} --run_folder {out}",
    "infer": "-m fsr.infer voc --checkpoint {checkpoint} --data_folder {voc} --num_classes 9 --output_folder {out}",
    "gallery": "analysis/gallery.py --run {run} --images 1 --out {out}/gallery.png",
}
MISTAKES = ("launch infer",)  # a command that ends with its mistake


@dataclass(frozen=True)
class Surroundings:
    """How a command is started; `shell` is a line in which "$@" is the command."""

    shell: str = 'exec "$@"'
    codes: tuple[int, ...] = (0,)
    variables: dict[str, str | None] = field(default_factory=dict)
    says: str = ""
    only: tuple[str, ...] = tuple(COMMANDS)


STRANGER = "setpriv --reuid 12345 --regid 12345 --clear-groups"
WORDS_OF_TORCHRUN = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"), "first")
WORDS_OF_SLURM = dict.fromkeys(
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS"), "many"
)
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
RANKED = ("train", "infer")
SURROUNDINGS = {
    "nothing odd": Surroundings(),
    "standard output closed": Surroundings('exec "$@" >&-'),
    "all closed": Surroundings('exec "$@" >&- 2>&- <&-'),
    "standard error closed": Surroundings('exec "$@" 2>&-'),
    "head": Surroundings('"$@" | head -n 1; exit ${PIPESTATUS[0]}', (0, 141)),
    "nobody reads": Surroundings('"$@" | true; exit ${PIPESTATUS[0]}', (0, 141)),
    "a full output": Surroundings('exec "$@" >/dev/full', (0, 2), says="standard output cannot be written"),
    "full errors": Surroundings('exec "$@" 2>/dev/full', (0, 2)),
    "a dumb terminal": Surroundings(variables={"TERM": "dumb", "COLUMNS": "1", "LANG": "C"}),
    "ascii": Surroundings(variables={"PYTHONIOENCODING": "ascii"}),
    "a bare C locale": Surroundings(variables=BARE),
    "no home": Surroundings(variables={"HOME": None}),
    "a home that is not there": Surroundings(variables={"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}),
    "an unknown user": Surroundings(f'exec {STRANGER} "$@"', (0, 2), variables={"HOME": None}),
    "few open files": Surroundings('ulimit -n 24; exec "$@"', (0, 2)),
    "no more processes": Surroundings(f'ulimit -u 1; exec {STRANGER} "$@"', (2,), says="threads"),
    "little memory": Surroundings('ulimit -v 300000; exec "$@"', (2,), says="memory"),
    "words of torchrun": Surroundings(variables=WORDS_OF_TORCHRUN, codes=(2,), says="RANK", only=RANKED),
    "words of Slurm": Surroundings(variables=WORDS_OF_SLURM),
    "words for threads": Surroundings(variables={"OMP_NUM_THREADS": "x"}),
    "no such GPU": Surroundings(variables={"CUDA_VISIBLE_DEVICES": "none,7"}, codes=(0, 2, 75)),
    "a deleted folder": Surroundings('mkdir gone; cd gone; rmdir ../gone; exec "$@"', (2,), says="folder"),
    "no temporary folder": Surroundings(variables={"TMPDIR": "/proc/nowhere"}),
    "an odd path of modules": Surroundings(variables={"PYTHONPATH": f"{ROOT}:/nowhere:/etc/passwd::%"}),
}


@pytest.fixture(scope="session")
def places(synthetic_folder, voc, checkpoint, swept, tmp_path_factory):
    """What stands for the names in commands, but for {out}."""
    return {
        "swept": swept,
        "data": synthetic_folder,
        "voc": voc,
        "checkpoint": checkpoint,
        "nothing": tmp_path_factory.mktemp("nothing") / "best.pt",
        "run": next((swept / "smoke").glob("trial_*/best.pt")).parent,
        "tiny": shlex.join(tiny_flags(tiny_config(synthetic_folder, iterations=2, eval_every=2))),
    }


def words_of(command: str, places: dict[str, Path], out: Path) -> list[str]:
    """Program and arguments of a command."""
    words = [sys.executable]
    for word in COMMANDS[command].split():
        if word == "{tiny}":
            words += shlex.split(str(places["tiny"]))
        else:
            words.append(word.format(**places, out=out))
    if words[1] != "-m":
        words[1] = str(ROOT / words[1])
    return words


def environment(changes: dict[str, str | None]) -> dict[str, str]:
    """The environment with these changes; None takes a variable away."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "COLUMNS"))}
    changed = left | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes
    return {name: value for name, value in changed.items() if value is not None}


def unsound(out: str, errors: str) -> str | None:
    """What no output may hold."""
    for sign in ("Traceback (most", "Exception ignored", "Fatal Python", "terminate called", "\x1b"):
        if sign in out + errors:
            return f"{sign!r} in {(out + errors)[-1500:]}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_odd_surroundings(command, surroundings, places, tmp_path):
    odd = SURROUNDINGS[surroundings]
    if command not in odd.only:
        pytest.skip("nothing to do with it")
    if STRANGER in odd.shell:
        others_may_enter(tmp_path)
    out = tmp_path / "out"
    line = ["bash", "-c", odd.shell, "bash", *words_of(command, places, out)]
    answer = subprocess.run(
        line,
        capture_output=True,
        cwd=tmp_path,
        env=environment(odd.variables),
        timeout=LIMIT_S,
        text=True,
        errors="surrogateescape",
    )
    codes = (2, 141) if command in MISTAKES else odd.codes
    assert unsound(answer.stdout, answer.stderr) is None
    assert answer.returncode in codes, (answer.returncode, answer.stderr[-1500:])
    closed = "2>" in odd.shell
    if answer.returncode == 2 and not closed:
        assert len(re.findall("^error: ", answer.stderr, re.MULTILINE)) == 1, answer.stderr[-1500:]
        if command not in MISTAKES:
            assert odd.says in answer.stderr


def others_may_enter(folder: Path) -> None:
    """Let other users work in a folder."""
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(0o777 if above == folder else above.stat().st_mode | 0o055)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", (0.05, 0.15, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0))
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_any_moment(command, after_s, places, tmp_path):
    process = subprocess.Popen(
        words_of(command, places, tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment({}),
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT_S)
    if after_s < 0.1 and process.returncode in (1, -2):
        return  # Python itself was just starting
    assert unsound(out, errors) is None
    assert process.returncode in (0, 130, *((2,) if command in MISTAKES else ())), errors[-1500:]


def file_above(folder):
    (folder / "file").touch()
    return folder / "file" / "out", "is a file, not a folder"


def dangling_link(folder):
    (folder / "link").symlink_to("nothing")
    return folder / "link" / "out", "is a link to nothing, which is not there"


def looping_link(folder):
    (folder / "link").symlink_to("link")
    return folder / "link", "a link that leads in a circle"


def long_name(folder):
    return folder / ("é" * 130), "a name may have 255 bytes"


def long_path(folder):
    return folder.joinpath(*["x" * 200] * 25), "a path 4096"


def place_of_the_system(folder):
    return Path("/proc/out"), "cannot be written|has no right"


PLACES = (file_above, dangling_link, looping_link, long_name, long_path, place_of_the_system)


@pytest.mark.parametrize("check", [check_folder, check_file])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_place_that_cannot_be_written(place, check, tmp_path):
    path, words = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s)--out .*({words})|{words}"):
        check(path, "--out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"--out .*file is a file, not a folder"):
        check_folder(tmp_path / "file", "--out")
    with pytest.raises(UserError, match="is a folder; name a file to write"):
        check_file(tmp_path, "--out")
    for device in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match="is no regular file"):
            check_file(device, "--out")


@pytest.mark.parametrize("name", ["a b", "a\nb", "[red]a[", "日本", "a\udcff", "é" * 120])
def test_a_place_with_an_odd_name_is_a_place(name, tmp_path):
    check_folder(tmp_path / name / "deeper", "--out")
    check_file(tmp_path / name, "--out")
    write_atomically(tmp_path / name / name, b"x")
    check_file(tmp_path / name / name, "--out")
    check_folder(tmp_path / name, "--out")
    assert [path.name for path in (tmp_path / name).iterdir()] == [name]


def test_a_full_and_a_read_only_disk_are_named(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        check_folder(disk / "out", "--out")
        (disk / "filler").write_bytes(bytes(64 * 1024))
        with pytest.raises(UserError, match=f"{disk} cannot be written: no space is left"):
            check_folder(disk / "out", "--out")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(UserError, match=f"{disk} cannot be written, as .* mounted read-only"):
            check_file(disk / "out.html", "--out")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("place", (file_above, long_name), ids=lambda place: place.__name__)
def test_a_command_refuses_its_place_before_it_works(place, tmp_path, capsys, monkeypatch):
    path, _ = place(tmp_path)
    monkeypatch.setattr("fsr.data.synthetic.draw_scene", None)
    with pytest.raises(SystemExit) as end:
        synthetic.main([str(path), "--images", "3"])
    told = capsys.readouterr().err
    assert (end.value.code, told.count("\n")) == (2, 1) and told.startswith("error: ")
    for main, arguments in (
        (load.main, ["--study", "smoke", "--runs", str(tmp_path), "--out", str(path)]),
        (sweep.main, ["--study", "smoke", "--cluster", "local", "--data-folder", str(tmp_path), "--runs", str(path)]),
        (train.main, ["synthetic", "--data_folder", str(tmp_path), "--run_folder", str(path)]),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        told = capsys.readouterr().err
        assert (end.value.code, told.count("\n")) == (2, 1) and told.startswith("error: "), (main, told)
        assert "data" not in told.replace(str(tmp_path), ""), (main, told)


SHORTAGES = {
    "not enough memory": (MemoryError(), ImportError("x.so: failed to map segment from shared object")),
    "no more files can be opened": (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x"),),
    "no more processes or threads": (RuntimeError("can't start new thread"), BlockingIOError(11, os.strerror(11))),
    "no temporary file can be made": (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),),
    "/x cannot be used: Not a directory": (NotADirectoryError(errno.ENOTDIR, "x", "/x"),),
}


@pytest.mark.parametrize("words", SHORTAGES)
def test_what_a_machine_does_not_give_is_one_sentence(words, capsys):
    for error in SHORTAGES[words]:

        @reports_user_errors
        def main(error: BaseException = error) -> None:
            raise error

        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err
        assert end.value.code == 2 and words in told and told.count("\n") == 1


def test_ctrl_c_ends_a_command_quietly_and_a_mistake_of_the_program_is_none_of_the_users():
    @reports_user_errors
    def main(error: BaseException) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        main(KeyboardInterrupt())
    assert end.value.code == 130
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "x", "/nowhere"), RuntimeError("x")):
        with pytest.raises(type(error)):
            main(error)


def test_every_command_begins_before_its_imports():
    files = [file for room in ("fsr", "launch", "analysis") for file in (ROOT / room).rglob("*.py")]
    commands = [file for file in files if "@reports_user_errors" in (text := file.read_text()) and "__main__" in text]
    begin = r'"""\n\nif __name__ == "__main__":\n(    .*\n|\n)*?    from fsr import beginning\n\n    beginning.begin\('
    late = [file.name for file in commands if not re.search(begin, file.read_text())]
    assert sorted(late) == ["after_crash.py", "watchdog.py"]  # of a job: the batch script reads their answers


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["first", "-1", "1.0", "", "9" * 30])
def test_ranks_that_are_no_numbers(variable, value, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert own_number() == (1, 2)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"the variable {variable} must be a whole number from"):
        own_number()


def test_a_rank_beyond_the_ranks(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match=r"RANK must be a whole number from 0 to 1, .* and is '2'"):
        own_number()
    monkeypatch.delenv("RANK")
    with pytest.raises(UserError, match=r"RANK must be .* is not set"):
        own_number()


def test_what_a_command_starts_has_the_streams_that_it_lacked():
    check = "[sys.executable, '-c', 'import os; os.fstat(0), os.fstat(1)']"
    program = (
        f'from fsr import beginning; beginning.begin("train"); import subprocess, sys; subprocess.check_call({check})'
    )
    subprocess.run(["bash", "-c", '"$@" <&- >&-', "bash", sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_store_that_is_a_folder_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv(STORE_FILE, str(tmp_path))
    with pytest.raises(UserError, match=f"the variable {STORE_FILE} must name a file"):
        join()


@pytest.mark.parametrize("flags, said", [(("--out", "x.xyz"), "a PNG file"), (("--first", "99"), "below 2")])
def test_a_gallery_of_nothing_is_a_sentence(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path)
    monkeypatch.setattr(gallery, "load_network", lambda _: (None, config))
    monkeypatch.setattr(gallery, "open_source", lambda *_: SimpleNamespace(items=lambda _: [1, 2]))
    with pytest.raises(SystemExit):
        gallery.main(overlaid(["--run", "run", "--out", "x.png"], flags))
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
