"""`prepare` that was interrupted does not look again at what it has looked at, and writes the same lists."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsr.data.check_journal import CheckJournal
from fsr.data.coco import CocoSource
from fsr.data.finding import Files, Finding
from fsr.data.prepare import main
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource

FINDING = Finding((128, 128), (1, 2), (1,), 0.25, False, (), ("image x is damaged: so",))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_of(source: VocSource) -> list[Files]:
    items = source.items("train")
    return [Files(one.name, "train", source.image_file(one.name, "train"), None) for one in items]


def test_a_finding_counts_while_its_files_are_as_they_were(synthetic_folder, cache, tmp_path):
    source = VocSource(synthetic_folder)
    images = files_of(source)
    copy = tmp_path / "x.jpg"
    copy.write_bytes(images[0].image.read_bytes())
    images[0] = images[0]._replace(image=copy)
    journal = CheckJournal(source)
    assert list(journal.noted(images[:3], [FINDING] * 3)) == [FINDING] * 3
    assert CheckJournal(source).known(images) == dict.fromkeys(images[:3], FINDING)
    os.utime(copy)  # as who writes the same number of bytes
    assert list(CheckJournal(source).known(images)) == images[1:3]
    source.class_names = source.class_names[:5]
    assert not CheckJournal(source).known(images)


def test_a_torn_line_is_looked_at_again(synthetic_folder, cache):
    source = VocSource(synthetic_folder)
    images = files_of(source)
    list(CheckJournal(source).noted(images[:4], [FINDING] * 4))
    (file,) = (cache / "fsr/checks").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    journal = CheckJournal(source)
    assert list(journal.known(images)) == images[:3]
    list(journal.noted(images[3:5], [FINDING] * 2))
    assert list(CheckJournal(source).known(images)) == images[:5]
    journal.remove()
    assert not list((cache / "fsr/checks").iterdir())


def test_without_a_cache_prepare_says_that_it_cannot_resume(synthetic_folder, cache, capsys):
    cache.write_text("a file in its place")
    source = VocSource(synthetic_folder)
    journal = CheckJournal(source)
    assert "if interrupted, prepare begins anew" in capsys.readouterr().out
    assert list(journal.noted(files_of(source)[:1], [FINDING])) == [FINDING] and not journal.known(files_of(source))
    journal.remove()


def test_after_bad_files_were_named_only_those_that_were_mended_are_looked_at(
    synthetic_folder, cache, tmp_path, capsys
):
    folder = shutil.copytree(synthetic_folder, tmp_path / "voc")
    source = VocSource(folder)
    bad, good = (source.image_file(one.name, "train") for one in source.items("train")[:2])
    bad.write_bytes(bad.read_bytes()[:900])
    with pytest.raises(SystemExit):
        main(["voc", str(folder)])
    with pytest.raises(SystemExit):
        main(["voc", str(folder)])
    told = capsys.readouterr()
    assert "50 of 50 images were looked at before" in told.out and told.out.count(f"image {bad} cannot be read") == 2
    bad.write_bytes(good.read_bytes())
    main(["voc", str(folder)])
    assert "48 of 50 images were looked at before" in capsys.readouterr().out
    main(["voc", str(folder)])
    assert "looked at before" not in capsys.readouterr().out


IMAGES = 600


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A set in COCO's layout that takes a few seconds."""
    folder = tmp_path_factory.mktemp("large")
    synthesise(folder, "coco", images=IMAGES, seed=2)
    return folder


def records(cache: Path) -> int:
    return sum(file.read_bytes().count(b'"finding"') for file in (cache / "fsr/checks").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_prepare_resumes_at_a_third(number, large, cache, tmp_path):
    command = [sys.executable, "-m", "fsr.data.prepare", "coco", str(large), "--list_folder", str(tmp_path / "lists")]
    wanted = {file.name: file.read_bytes() for file in CocoSource(large).list_folder.glob("*.txt")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while records(cache) < IMAGES / 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number) and "Traceback" not in errors, errors
    assert not (tmp_path / "lists").exists() or not list((tmp_path / "lists").glob("*.txt"))
    done = records(cache)
    assert IMAGES / 3 <= done < IMAGES
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    known = re.search(r"(\d+) of 660 images were looked at before, and have not changed since", answer.stdout)
    assert known is not None and int(known[1]) == done
    assert {file.name: file.read_bytes() for file in (tmp_path / "lists").glob("*.txt")} == wanted
    assert not list((cache / "fsr/checks").iterdir())
    remaining = subprocess.run(["pgrep", "-f", str(tmp_path / "lists")], capture_output=True, text=True)
    assert not remaining.stdout, "processes are left"
