"""The prepared lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import source_of

from fsr.config import synthetic
from fsr.data.lists import Item, read_list, write_list
from fsr.data.loaders import multi_hot
from fsr.errors import UserError
from fsr.next_command import next_command

names = st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)
classes = st.sets(st.integers(1, 80)).map(lambda ids: tuple(sorted(ids)))


@settings(max_examples=20)
@given(st.lists(st.builds(Item, names, classes), min_size=1, max_size=20, unique_by=lambda item: item.name))
def test_lists_read_back_as_they_were_written(tmp_path_factory, items):
    file = tmp_path_factory.getbasetemp() / "list.txt"
    write_list(file, items)
    assert read_list(file, 81, "") == items


@given(classes)
def test_labels_are_one_exactly_at_the_classes_of_the_image(class_ids):
    labels = multi_hot(Item("a", class_ids), 81)
    assert labels.shape == (80,)
    assert tuple(int(index) + 1 for index in labels.nonzero()) == class_ids
    assert labels.sum() == len(class_ids)


def test_a_missing_list_names_the_command_that_makes_it(synthetic_folder):
    source = source_of(synthetic(synthetic_folder))
    with pytest.raises(UserError) as raised:
        source.items("minival")
    file = synthetic_folder / "VOCdevkit/VOC2012/ImageSets/fsr/minival.txt"
    assert str(raised.value) == (
        f"list {file} is missing; make it with `{next_command('prepare', 'voc', synthetic_folder)}`"
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("b 1, 2", "line 2 of list LIST must read `NAME` or `NAME 1,15`, got 'b 1, 2'"),
        ("b one", "line 2 of list LIST must read `NAME` or `NAME 1,15`, got 'b one'"),
        ("b 9", "line 2 of list LIST has class 9; with num_classes 9 it must be 1 to 8"),
        ("b 0", "line 2 of list LIST has class 0; with num_classes 9 it must be 1 to 8"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, sentence):
    file = tmp_path / "train.txt"
    file.write_text(f"a 1\n{line}\nc 2\n")
    with pytest.raises(UserError) as raised:
        read_list(file, 9, "")
    assert str(raised.value) == sentence.replace("LIST", str(file))


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "train.txt").touch()
    with pytest.raises(UserError, match="is empty"):
        read_list(tmp_path / "train.txt", 9, "")


def test_a_missing_data_set_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no synthetic set; make it with `.*fsr synthetic "):
        source_of(synthetic(tmp_path))
