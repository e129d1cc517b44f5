"""What lists, annotations and journals call an image is a name, never a path; lists are read as people write them."""

import json
import shutil

import pytest
from real_sets import as_real
from tiny import source_of, tiny_config

from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import read_annotations
from fsr.data.lists import Item, read_list
from fsr.data.names import check_name, image_name
from fsr.data.prepare import main as prepare
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes, voc_names
from fsr.errors import UserError
from fsr.inference.image_record import record_of

NO_NAMES = {
    "": "is empty",
    ".": "begins with '.'",
    "..": "begins with '.'",
    ".hidden": "begins with '.'",
    "-rf": "begins with '-'",
    "/etc/passwd": "is a path",
    "../../x": "is a path",
    "a/b": "is a path",
    "a\\b": "is a path",
    "C:x": "is a path",
    "a b": "holds a space",
    "a\0b": "holds a sign that is not printed",
    "a\nb": "holds a sign that is not printed",
    "a\x1b[2Jb": "holds a sign that is not printed",
    "a\x7f": "holds a sign that is not printed",
    "a\u202egpj": "holds a sign that is not printed",  # turns the direction of writing
    "a\udcff": "holds a sign that is not printed",
    "x" * 129: "is longer than 128 bytes",
    "ü" * 65: "is longer than 128 bytes",
}


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_and_shown_escaped(name):
    with pytest.raises(UserError) as raised:
        check_name(name, "line 3 of list L")
    told = str(raised.value)
    assert told.startswith("line 3 of list L has the name '") and NO_NAMES[name] in told
    assert told.isprintable() and len(told) < 300


@pytest.mark.parametrize("name", ["2007_000032", "COCO_val2014_000000000042", "a.b", "x" * 128, "Füße", "día-1", "鳥"])
def test_names_of_any_alphabet_are_names(name):
    assert check_name(name, "") == name


@pytest.mark.parametrize(
    "word",
    [
        "2007_000032",
        "2007_000032.jpg",
        "2007_000032.JPG",
        "/JPEGImages/2007_000032.jpg",
        "JPEGImages/2007_000032.jpg",
        "/data/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpeg",
        "/SegmentationClassAug/2007_000032.png",
        "JPEGImages/train2014/2007_000032.jpg",
    ],
)
def test_a_path_to_a_picture_of_the_set_names_it(word):
    assert image_name(word, "") == "2007_000032"


@pytest.mark.parametrize(
    "word", ["/etc/passwd", "../JPEGImages/x.jpg", "/JPEGImages/../x.jpg", "images/x.jpg", "a/.jpg"]
)
def test_any_other_path_is_none(word):
    with pytest.raises(UserError, match="is a path"):
        image_name(word, "line 1")


TEXT = "a 1\nb.c 2,3\nd\n"
ITEMS = [Item("a", (1,)), Item("b.c", (2, 3)), Item("d", ())]
FORMS = {
    "UTF-8": TEXT.encode(),
    "with a mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "PowerShell": TEXT.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16 from its other end": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "Windows": TEXT.replace("\n", "\r\n").encode(),
    "old Macintosh": TEXT.replace("\n", "\r").encode(),
    "blank lines": TEXT.replace("\n", "\n\n \t\n").encode(),
    "no last end": TEXT.rstrip("\n").encode(),
    "tabs": TEXT.replace(" ", "\t").encode(),
    "pairs": b"/JPEGImages/a.jpg /SegmentationClassAug/a.png 1\nb.c.jpg b.c.png 2,3\nd.JPG\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_one_meaning_is_read(tmp_path, form):
    (tmp_path / "train.txt").write_bytes(FORMS[form])
    assert read_list(tmp_path / "train.txt", 9, "") == ITEMS


BAD_LISTS = {
    "latin-1": ("a\nä\n".encode("latin-1"), "line 2 of list LIST is no text in UTF-8"),
    "UTF-16 without its mark": ("a\nb\n".encode("utf-16-le"), "line 1 of list LIST has the name 'a\\x00'"),
    "half of a UTF-16": ("a\nb\n".encode("utf-16")[:-1], "line 2 of list LIST is no text in UTF-16"),
    "twice": (b"a 1\nb 1\na 1\n", "line 3 of list LIST has the image 'a' again, which is in line 1"),
    "twice by a path": (b"a 1\nJPEGImages/a.jpg 1\n", "line 2 of list LIST has the image 'a' again"),
    "wrong pair": (b"/JPEGImages/a.jpg /SegmentationClass/b.png\n", "has the image 'a' with the mask of 'b'"),
    "a path": (b"a 1\n../a 1\n", "line 2 of list LIST has the name '../a', which is a path"),
    "an escape": (b"a 1\n\x1b]0;x\x07 1\n", "line 2 of list LIST has the name '\\x1b]0;x\\x07', which holds"),
    "zeros": (bytes(40), "line 1 of list LIST has the name '\\x00"),
    "VOC's lists by class": (b"a  1\nb -1\n", "line 2 of list LIST must read `NAME` or `NAME 1,15`, got 'b -1'"),
    "a number of a thousand digits": (b"a " + b"1" * 1000, "line 1 of list LIST must read"),
    "blank": (b"\n \n", "list LIST is empty"),
}


@pytest.mark.parametrize("what", BAD_LISTS)
def test_any_other_list_is_named_with_its_line(tmp_path, what):
    content, sentence = BAD_LISTS[what]
    file = tmp_path / "train.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_list(file, 9, "make it")
    told = str(raised.value)
    assert sentence.replace("LIST", str(file)) in told
    assert told.isprintable() and len(told) < 600


@pytest.fixture
def voc(synthetic_folder, tmp_path):
    return VocSource(as_real(shutil.copytree(synthetic_folder, tmp_path / "voc")))


def test_voc_lists_are_read_by_the_same_rules(voc, capsys):
    file = voc.root / "ImageSets/Segmentation/train.txt"
    names = file.read_text().split()
    pairs = "".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\r\n" for name in names)
    file.write_bytes(pairs.encode("utf-16"))
    assert voc_names(voc)["train"] == names
    for content, sentence in (
        (f"{names[0]} -1\n", f"line 1 of list {file} must read `NAME` or `IMAGE MASK`, got '{names[0]} -1'"),
        ("../x\n", f"line 1 of list {file} has the name '../x', which is a path"),
        ("", f"list {file} is empty"),
    ):
        file.write_text(content)
        with pytest.raises(SystemExit):
            prepare(["voc", str(voc.root.parents[1])])
        told = capsys.readouterr().err
        assert told.startswith(f"error: {sentence}") and told.count("\n") == 1


def test_a_mask_whose_name_is_none_is_in_no_list(voc):
    (voc.augmented_masks / "\x1b[31m.png").touch()
    with pytest.raises(UserError, match=r"a mask in .* has the name '\\x1b\[31m', which holds a sign"):
        voc_names(voc)


@pytest.mark.parametrize(
    "file_name", ["../COCO_train2014_000000000001.jpg", "/etc/passwd", "x\x1b[2J.jpg", "", ".jpg", 7]
)
def test_coco_names_are_names(tmp_path, file_name):
    synthesise(tmp_path, "coco", images=2)
    source = CocoSource(tmp_path)
    content = json.loads(source.annotation_file("train").read_text())
    content["images"][1]["file_name"] = file_name
    source.annotation_file("train").write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        read_annotations(source, "train")
    number = content["images"][1]["id"]
    assert f"image {number} in {source.annotation_file('train')} " in str(raised.value)
    assert str(raised.value).isprintable()


def test_the_folder_where_a_coco_image_lies_may_stand_before_its_name(tmp_path):
    synthesise(tmp_path, "coco", images=2)
    source = CocoSource(tmp_path)
    expected = read_annotations(source, "train").keys()
    content = json.loads(source.annotation_file("train").read_text())
    for image in content["images"]:
        image["file_name"] = f"train2014/{image['file_name']}"
    source.annotation_file("train").write_text(json.dumps(content))
    assert read_annotations(source, "train").keys() == expected


@pytest.mark.parametrize("name", ["COCO_.._1", "COCO_train2014_x", "COCO_train2014_1_2", "2012_000001", "COCO_/_1"])
def test_the_folder_of_a_coco_image_is_that_of_a_year(tmp_path, name):
    synthesise(tmp_path, "coco", images=2)
    with pytest.raises(UserError, match="a COCO image is named like COCO_train2014_000000000009"):
        CocoSource(tmp_path).image_file(name, "train")


@pytest.mark.parametrize("name", ["../x", "/x", "", "a\0"])
def test_a_journal_names_no_path(name):
    with pytest.raises(UserError, match=r"line 1 of J has the name "):
        record_of(json.dumps({"name": name}).encode(), "line 1 of J")


OBJECT = "<object><name>{}</name></object>"
XMLS = {
    "a namespace": f'<annotation xmlns="http://voc">{OBJECT}</annotation>'.format("bird").encode(),
    "a namespace with prefix": b'<v:annotation xmlns:v="http://v"><v:object><v:name>bird</v:name></v:object></v:annotation>',
    "UTF-16": f'<?xml version="1.0"?><annotation>{OBJECT}</annotation>'.format("bird").encode("utf-16"),
    "latin-1": '<?xml version="1.0" encoding="ISO-8859-1"?><annotation><owner>Jürgen</owner>'.encode("latin-1")
    + f"{OBJECT}</annotation>".format("bird").encode(),
    "a mark": b"\xef\xbb\xbf" + f"<annotation>{OBJECT}</annotation>".format(" bird\n").encode(),
}


@pytest.mark.parametrize("what", XMLS)
def test_an_xml_says_the_same_in_any_encoding_and_namespace(voc, what):
    (voc.root / "Annotations/2012_000000.xml").write_bytes(XMLS[what])
    assert voc_classes(voc, "2012_000000", None) == (3,)


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
BAD_XMLS = {
    "a billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l11;</annotation>'.encode(),
    "a file": b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
    "laughs in UTF-16": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l11;</annotation>'.encode("utf-16"),
    "other bytes": b'<?xml version="1.0"?><annotation>\xff</annotation>',
    "an unknown encoding": b'<?xml version="1.0" encoding="klingon"?><annotation/>',
    "two bytes a sign": b'<?xml version="1.0" encoding="gb2312"?><annotation/>',
    "nothing": b"",
    "half": b"<annotation><object>",
    "a page": b"<html><object><name>bird</name></object></html>",
    "no name": b"<annotation><object/></annotation>",
    "an escape": f"<annotation>{OBJECT}</annotation>".format("&#x9b;31m").encode(),
}


@pytest.mark.parametrize("what", BAD_XMLS)
def test_any_other_xml_is_one_sentence(voc, what):
    file = voc.root / "Annotations/2012_000000.xml"
    file.write_bytes(BAD_XMLS[what])
    with pytest.raises(UserError) as raised:
        voc_classes(voc, "2012_000000", None)
    assert str(raised.value).startswith(f"annotation {file} ") and str(raised.value).isprintable()


def test_an_xml_without_objects_is_that_of_an_empty_picture(voc):
    file = voc.root / "Annotations/2012_000000.xml"
    file.write_text("<annotation></annotation>")
    ground_truth = voc.ground_truth("2012_000000", "train", None)
    assert voc_classes(voc, "2012_000000", 0 * ground_truth) == ()
    with pytest.raises(UserError, match=rf"{file} has no object, but the mask of its image the class [1-8]"):
        voc_classes(voc, "2012_000000", ground_truth)


def test_a_list_without_labels_is_for_a_test_set_alone(synthetic_folder, tmp_path):
    config = tiny_config(shutil.copytree(synthetic_folder, tmp_path / "voc"))
    source = source_of(config)
    names = "".join(f"{item.name}\n" for item in source.items("train"))
    (source.list_folder / "train.txt").write_text(names)
    (source.list_folder / "test.txt").write_text(names)
    with pytest.raises(UserError, match=r"list .*train.txt has no labels"):
        source.items("train")
    assert len(source.items("test")) == 24
