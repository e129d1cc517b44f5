"""Data, weights and pictures as people have them: each situation of tests/data_situations has its answer.

`pytest -m "" -s tests/test_data_situations.py` prints the table: situation → answer.
"""

import shutil
import sys

import pytest
from data_situations import exporters, layouts, lists, pictures, truth, weights
from data_situations.place import ROWS, Place, Situation
from real_sets import as_real

from fsr.data.synthetic import synthesise

FILES = (truth, weights, pictures, exporters, lists, layouts)
SITUATIONS: list[Situation] = [situation for file in FILES for situation in file.SITUATIONS]


def named(situation: Situation) -> str:
    """A test's name."""
    return f"{situation.row}: {situation.name}"


@pytest.fixture(scope="session")
def coco_of_sixty(tmp_path_factory):
    """A set in COCO's layout: 60 training images, 6 of val. Do not change it."""
    folder = tmp_path_factory.mktemp("coco") / "coco"
    synthesise(folder, "coco", images=60, seed=1)
    return as_real(folder)


def look(situation: Situation, place: Place, capsys) -> None:
    """Ask, print the line of the table, and compare."""
    answer = situation.ask(place)
    with capsys.disabled():
        if "-s" in sys.argv:
            words = answer.text.strip().replace(str(place.folder), "…").replace("\n", "\n      ")
            print(f"\n{situation.row:2} {ROWS[situation.row]}: {situation.name}\n    → {words}")
    assert situation.wanted in answer.text
    assert (answer.code == 2) == situation.refused, answer.text
    if situation.check is not None:
        situation.check(place)


@pytest.mark.parametrize("situation", [one for one in SITUATIONS if not one.slow], ids=named)
def test_situations_of_a_moment(situation, tmp_path, synthetic_folder, capsys):
    look(situation, Place(tmp_path, synthetic_folder, synthetic_folder), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("situation", [one for one in SITUATIONS if one.slow], ids=named)
def test_situations(situation, tmp_path, synthetic_folder, coco_of_sixty, capsys):
    look(situation, Place(tmp_path, synthetic_folder, coco_of_sixty), capsys)
    shutil.rmtree(tmp_path)


def test_each_row_has_situations():
    assert {situation.row for situation in SITUATIONS} == set(ROWS)
