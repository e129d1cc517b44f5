"""What an inference writes and reads back: whole, or named and answered again; never counted as something else."""

import json
import os
import random
import re
from pathlib import Path

import pytest
from inference import complaint, infer

from fsr.errors import UserError
from fsr.inference.image_record import line_of, record_of
from fsr.inference.journal import DoneImages, Journal, Results
from fsr.inference.totals import Totals
from fsr.json_file import DamagedError

COUNTS = {"segmentation": [0, 90, 10, 10], "crf": [0, 100], "cam": [5, 60, 40, 40], "aux_cam": [1, 100]}
RECORD = {"name": "2007_000032", "iou": 0.734521, "classes": [1, 15], "counts": COUNTS | {"pseudo_labels": [0, 70]}}
FLAGS = ("--num_classes", 9, "--crf", "false")


def test_a_record_reads_back_as_it_was_written():
    for record in (RECORD, {"name": "a"}, {"name": "Füße", "skipped": "image x\ny"}, RECORD | {"iou": None}):
        line = line_of(record)
        assert line.endswith(b"\n") and b"\n" not in line[:-1]
        assert record_of(line, "") == record


def test_every_flipped_bit_of_a_line_is_found():
    line = line_of(RECORD)
    for bit in range(8 * (len(line) - 1)):
        damaged = bytearray(line)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = record_of(bytes(damaged), "line 3 of J")
        except DamagedError as error:
            assert str(error).startswith("line 3 of J ") and "\n" not in str(error)
            continue
        assert found == RECORD, bit


def old(**changes) -> bytes:
    """A line of version 0.1.0, without a checksum."""
    return json.dumps(RECORD | changes).encode()


IMPOSSIBLE = {
    "": "it is empty",
    "\0\0\0": "it holds 3 zeros",
    "{": "it is not JSON",
    "[]": "it is [], not an object",
    '{"iou": 1}': "name is missing",
    '{"name": "a", "colour": 1}': "colour is unknown",
    '{"name": "a"}': "it has neither a checksum nor counts",
    '{"name": "a", "iou": 0.5, "classes": [1]}': "it has neither a checksum nor counts",
    old(name=3): "name is 3, not str",
    old(name="../a"): "has the name '../a', which is a path",
    old(iou=1.5): "an IoU of 1.5 cannot be",
    old(iou=float("nan")): "iou is NaN, not a finite number",
    old(classes=["a"]): 'is "a", not int',
    old(counts={"segmentation": [0]}): "counts of segmentation must be pairs",
    old(counts={"segmentation": [0, 1.5]}): "counts of segmentation must be pairs",
    old(counts={"segmentation": [0, True]}): "counts of segmentation must be pairs",
    old(counts={"segmentation": 7}): "counts of segmentation must be pairs",
    old(counts={"others": [0, 1]}): "counts of others must be pairs",
    old(counts={"segmentation": [-1, 5]}): "counts of segmentation cannot be of an image",
    old(counts={"segmentation": [0, -5]}): "counts of segmentation cannot be of an image",
    old(counts={"segmentation": [0, 0]}): "counts of segmentation cannot be of an image",
    old(counts={"segmentation": [3, 5, 3, 5]}): "counts of segmentation cannot be of an image",
    old(counts={"segmentation": [0, 10**12]}): "counts of segmentation cannot be of an image",
    old(counts=COUNTS | {"cam": [0, 99]}): "its counts are of different numbers of pixels",
    old(counts=COUNTS | {"pseudo_labels": [0, 101]}): "its counts are of different numbers of pixels",
}


@pytest.mark.parametrize("number", range(len(IMPOSSIBLE)))
def test_a_line_that_no_inference_writes_is_damaged(number):
    line, sentence = list(IMPOSSIBLE.items())[number]
    with pytest.raises(DamagedError, match=re.escape(sentence)) as raised:
        record_of(line if isinstance(line, bytes) else line.encode(), "line 1 of J")
    assert str(raised.value).startswith("line 1 of J ")


def test_lines_of_an_older_version_are_read():
    assert record_of(old(), "") == RECORD


def test_counts_of_more_classes_than_there_are_are_refused():
    with pytest.raises(UserError, match="the record of image a counts pixels of more than 2 classes"):
        Totals(2, 0.5).add([{"name": "a", "counts": {"segmentation": [4, 1]}}])


def test_damaged_lines_are_named_once_and_their_images_are_not_done(tmp_path, capsys):
    results = Results(tmp_path)
    journal = Journal(results, 0, 1)
    for name in "abcd":
        journal.append({"name": name})
    journal.close()
    file = results.journals()[0]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:-5] + lines[2] + b"\0" * 9 + b"\n" + lines[3])
    done = DoneImages(results)
    done.update()
    assert done.answered == {"a", "d"}
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" is damaged")[0] for line in told] == [f"line 2 of {file}", f"line 3 of {file}"]
    assert all(line.endswith("; an image that no other line has is answered again") for line in told)
    done.update()
    assert capsys.readouterr().err == ""
    assert [record["name"] for record in results.records()] == ["a", "d"]


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
def test_what_is_no_journal_is_one_sentence(tmp_path, kind):
    results = Results(tmp_path)
    results.journal_folder.mkdir()
    kind(results.journal_folder / "0000_of_0001.jsonl")
    with pytest.raises(UserError, match=r"journal .*0000_of_0001.jsonl cannot be read: it is a"):
        DoneImages(results).update()
    with pytest.raises(UserError, match=r"journal .*0000_of_0001.jsonl cannot be read: it is a"):
        Journal(results, 0, 1)


def test_a_damaged_line_is_answered_again_and_the_scores_are_the_same(voc, checkpoint, tmp_path, capsys):
    whole = infer("voc", checkpoint, voc, tmp_path, *FLAGS)
    journal = tmp_path / "images/0000_of_0001.jsonl"
    content = journal.read_bytes()
    place = content.index(b'"segmentation":[') + 19  # a digit that would count
    journal.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for file in (tmp_path / "crf").glob("*"):
        file.unlink()
    (tmp_path / "scores.json").unlink()
    capsys.readouterr()
    assert infer("voc", checkpoint, voc, tmp_path, *FLAGS) == whole
    assert f"line 1 of {journal} is damaged: its checksum is another one" in capsys.readouterr().err
    assert len(journal.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("content", [b"", b"{", bytes(50), b"[]", b'{"settings": 3, "provenance": {}}', b"\xff\xfe"])
def test_damaged_settings_are_one_sentence(voc, checkpoint, tmp_path, capsys, content):
    (tmp_path / "settings.json").write_bytes(content)
    assert f"{tmp_path}/settings.json is damaged: " in complaint(capsys, "voc", checkpoint, voc, tmp_path, *FLAGS)


def test_of_two_first_starts_with_different_settings_one_wins_and_the_other_says_so(tmp_path):
    first, second = Results(tmp_path), Results(tmp_path)
    first.check({"crf": True})
    second.check({"crf": False})
    first.start({"crf": True})
    with pytest.raises(UserError, match="holds results with crf True, not False; choose another --output_folder"):
        second.start({"crf": False})
    assert first.made()["settings"] == {"crf": True}


def test_results_without_settings_are_of_nobody(voc, checkpoint, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0000_of_0001.jsonl").write_bytes(line_of({"name": "2012_000024"}))
    told = complaint(capsys, "voc", checkpoint, voc, tmp_path, *FLAGS)
    assert f"{tmp_path} holds results, but no settings.json" in told


def test_a_report_whose_cam_maps_are_gone_is_one_sentence(voc, checkpoint, tmp_path, capsys):
    infer("voc", checkpoint, voc, tmp_path, *FLAGS)
    maps = next((tmp_path / "cam_maps").iterdir())
    maps.unlink()
    os.mkfifo(maps)
    told = complaint(capsys, "voc", checkpoint, voc, tmp_path, *FLAGS, "--report", "true")
    assert f"image {maps} cannot be read: it is a FIFO" in told


@pytest.mark.slow
def test_no_mutated_journal_gives_other_scores(tmp_path):
    """3 000 journals with a flipped bit, a hole, a doubled or a torn line: what is read is what was written."""
    results = Results(tmp_path)
    journal = Journal(results, 0, 1)
    records = {f"n{i}": RECORD | {"name": f"n{i}", "iou": i / 50} for i in range(20)}
    for record in records.values():
        journal.append(record)
    journal.close()
    file: Path = results.journals()[0]
    content, read = file.read_bytes(), 0
    for seed in range(3000):
        draw = random.Random(seed)
        damaged, place = bytearray(content), draw.randrange(len(content))
        length = draw.choice([1, 1, 40, 4000])
        if seed % 4 == 0:
            damaged[place] ^= 1 << draw.randrange(8)
        elif seed % 4 == 1:
            damaged[place : place + length] = bytes(len(damaged[place : place + length]))
        elif seed % 4 == 2:
            damaged[place:place] = content[place : place + length]
        else:
            del damaged[place : place + length]
        file.write_bytes(damaged)
        for record in results.records():
            assert record == records[record["name"]]
            read += 1
    print(f"{read} of {3000 * 20} records read, none another")
