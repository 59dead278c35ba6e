"""Four ways of saying where a thing is say the same; what is hostile or of another picture is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import MetricError
from seewhy.datasets import Boxed, open_truth
from seewhy.targets import mask_of

SHAPE = (30, 40)
EDGES = (4.0, 6.0, 16.0, 21.0)
"""Left, top, right, bottom."""


def _yolo(folder: Path) -> Path:
    left, top, right, bottom = EDGES
    x, y, width, height = (left + right) / 80, (top + bottom) / 60, (right - left) / 40, (bottom - top) / 30
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one.txt").write_text(f"1 {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n\n")
    (folder / "classes.txt").write_text("dog\ncat\n")
    return folder


def _coco(folder: Path) -> Path:
    left, top, right, bottom = EDGES
    content = {
        "images": [{"id": 5, "file_name": "a/one.png", "width": 40, "height": 30}, {"id": 6, "file_name": "two.png"}],
        "annotations": [{"image_id": 5, "category_id": 3, "bbox": [left, top, right - left, bottom - top]}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    folder.mkdir()
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>one.png</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>7</ymin><xmax>16</xmax><ymax>21</ymax></bndbox></object></annotation>
"""


def _voc(folder: Path) -> Path:
    folder.mkdir()
    (folder / "one.xml").write_text(VOC)
    return folder


def _mask(folder: Path) -> Path:
    values = np.zeros(SHAPE, np.uint8)
    values[6:21, 4:16] = 255
    folder.mkdir()
    Image.fromarray(values).save(folder / "one.png")
    return folder


@pytest.mark.parametrize("written", [_yolo, _coco, _voc, _mask])
def test_yolo_coco_voc_and_masks_say_the_same(tmp_path: Path, written: Callable[[Path], Path]) -> None:
    truth = open_truth(written(tmp_path / "truth"), tmp_path)
    found = truth.of("a/one.png", SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[6:21, 4:16] = True
    if isinstance(found, list):
        [box] = found
        assert box == Boxed(EDGES, "cat", named=True)
        np.testing.assert_array_equal(mask_of(box.edges, SHAPE), expected)
    else:
        np.testing.assert_array_equal(mask_of(found, SHAPE), expected)
    assert truth.of("three.png", SHAPE) is None


def test_yolos_classes_without_names_are_numbers_and_outlines_are_boxed(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("3 0.5 0.5 0.5 0.2 0.9\n0 0.1 0.2 0.5 0.2 0.5 0.8\n")
    assert open_truth(tmp_path, tmp_path).of("one.png", (10, 20)) == [
        Boxed((5.0, 4.0, 15.0, 6.0), "3", named=False),
        Boxed((2.0, 2.0, 10.0, 8.0), "0", named=False),
    ]


def test_beside_the_pictures_no_picture_is_a_mask(tmp_path: Path) -> None:
    _mask(tmp_path / "pictures")
    assert open_truth(tmp_path / "pictures", tmp_path / "pictures").of("one.png", SHAPE) is None


def test_what_is_said_of_a_picture_changes_its_digest(tmp_path: Path) -> None:
    truth = open_truth(_yolo(tmp_path / "truth"), tmp_path)
    before = truth.digest("a/one.png")
    (tmp_path / "truth" / "a" / "one.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert truth.digest("a/one.png") not in (before, "")
    assert truth.digest("two.png") == ""


BOMB = """<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>"""
OUTSIDE = """<!DOCTYPE foo [<!ENTITY x SYSTEM "file:///etc/passwd">]>"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (VOC.replace("?>\n", f"?>{BOMB}\n").replace("cat", "&b;"), "declares a document type"),
        (VOC.replace("?>\n", f"?>{OUTSIDE}\n").replace("cat", "&x;"), "declares a document type"),
        (VOC.replace("cat", "&undeclared;"), "cannot be read as XML"),
        (VOC.replace("utf-8", "no-such-code").replace("</annotation>", ""), "cannot be read as XML"),
        ("<a>" * 200 + "</a>" * 200, "over 50 elements in each other"),
        (VOC.replace("<width>40", "<width>30"), "about a picture of 30 x 30 pixels, and this one has 40 x 30"),
        (VOC.replace("<xmax>16</xmax>", ""), "none of Pascal VOC's files"),
        (VOC.replace("<xmax>16</xmax>", "<xmax>2</xmax>"), "has a box without an inside: left 4.0, top 6.0, right 2.0"),
        (VOC.replace("<xmax>16</xmax>", "<xmax>nan</xmax>"), "has a box without an inside"),
    ],
)
def test_hostile_and_wrong_voc_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    _voc(tmp_path / "truth")
    (tmp_path / "truth" / "one.xml").write_text(text)
    with pytest.raises(MetricError, match=told):
        open_truth(tmp_path / "truth", tmp_path).of("one.png", SHAPE)


@pytest.mark.parametrize(
    "line",
    [
        "0 .05 .5 .9 .2",
        "0 .5 .95 .2 .9",
        "0 .5 .5 .2 -2.2",
        "0 .1 .1 .2 nan .1 .2 .3 .4",
        "0 .5 .5 .2 .2 7",
        "0 10 10 5 5",
        "cat 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1",
        "0 nan 0.5 0.1 0.1",
        "1e999 0 0 0 0",
    ],
)
def test_lines_that_are_none_of_yolos_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "one.txt").write_text(line)
    with pytest.raises(MetricError, match="has a line that is none of YOLO's"):
        open_truth(tmp_path, tmp_path).of("one.png", SHAPE)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}', "[" * 100_000]
)
def test_json_that_is_no_coco_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(MetricError, match="is no COCO file of boxes"):
        open_truth(tmp_path / "boxes.json", tmp_path)


@pytest.mark.parametrize(
    ("where", "at"), [("images", r"images\[0\]"), ("annotations", r"annotations\[0\]")], ids=["size", "box"]
)
def test_numbers_that_no_computer_has_are_told_with_their_place(tmp_path: Path, where: str, at: str) -> None:
    content = json.loads(_coco(tmp_path / "truth").read_text())
    content[where][0].update({"width": 10**400} if where == "images" else {"bbox": [10**400, 1, 2, 3]})
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(MetricError, match=rf"is no COCO file of boxes: OverflowError .*, in {at}\. Expected"):
        open_truth(tmp_path / "boxes.json", tmp_path)


def test_a_box_that_stands_over_the_edge_by_what_tools_round_is_cut_off_there(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("0 0.095 0.5 0.2 1.01\n")
    assert open_truth(tmp_path, tmp_path).of("one.png", (10, 200)) == [Boxed((0.0, 0.0, 39.0, 10.0), "0", named=False)]


def test_a_folder_that_tells_of_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(
        MetricError, match=r"has the name of a picture, as 'one\.txt', \.xml or a mask for 'a/one\.png'"
    ):
        open_truth(tmp_path, tmp_path / "pictures", ["a/one.png", "x" * 300 + ".png"])
    assert open_truth(tmp_path, tmp_path / "pictures", ["a/one.png", "b/other.png"]).of("a/one.png", SHAPE) is None


@pytest.mark.parametrize("written", [_yolo, _coco, _voc, _mask])
def test_a_bare_name_is_taken_where_one_picture_has_it(tmp_path: Path, written: Callable[[Path], Path]) -> None:
    truth = written(tmp_path / "truth")
    names = ["a/one.png", "b/one.png"]
    if written in (_yolo, _coco):  # by path: nothing is said of the other
        assert open_truth(truth, tmp_path, names).of("a/one.png", SHAPE)
        assert open_truth(truth, tmp_path, names).of("b/one.png", SHAPE) is None
    else:
        for name in names:
            with pytest.raises(
                MetricError, match=r"tells of 'one(\.png)?' without a folder, which may be '[ab]/one.png'"
            ):
                open_truth(truth, tmp_path, names).of(name, SHAPE)
            assert open_truth(truth, tmp_path, [name, "a/other.png"]).of(name, SHAPE)


def test_of_coco_a_bare_name_that_two_pictures_have_is_refused(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "train/two.png"}],
        "annotations": [{"image_id": number, "bbox": [1, 1, 2, 2]} for number in (1, 2)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    truth = open_truth(tmp_path / "boxes.json", tmp_path, ["a/one.png", "b/one.png", "a/two.png"])
    with pytest.raises(MetricError, match=r"'one.png' without a folder, which may be 'a/one.png' or 'b/one.png'"):
        truth.of("a/one.png", SHAPE)
    assert truth.of("a/two.png", SHAPE) == [Boxed((1.0, 1.0, 3.0, 3.0))]


def test_of_coco_crowds_and_boxes_without_an_inside_are_left_out(tmp_path: Path) -> None:
    path = _coco(tmp_path / "truth")
    content = json.loads(path.read_text())
    content["annotations"] += [
        {"image_id": 5, "category_id": 3, "bbox": [1, 1, 0, 5]},
        {"image_id": 5, "category_id": 3, "bbox": [1, 1, 5, 0]},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
    ]
    path.write_text(json.dumps(content))
    assert open_truth(path, tmp_path).of("a/one.png", SHAPE) == [Boxed(EDGES, "cat")]


@pytest.mark.parametrize("ending", [".txt", ".xml"])
def test_what_is_said_of_one_picture_is_read_within_bounds(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"one{ending}").write_bytes(b" " * 1_000_001)
    truth = open_truth(tmp_path, tmp_path)
    with pytest.raises(MetricError, match="over 1,000,000 bytes"):
        truth.of("one.png", SHAPE)
    with pytest.raises(MetricError, match="over 1,000,000 bytes"):
        truth.digest("one.png")


def test_truth_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _voc(tmp_path / "truth")
    truth = open_truth(tmp_path / "truth", tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(MetricError, match="cannot be read as labels or boxes: Permission denied"):
        truth.digest("one.png")


def test_vocs_text_in_many_pieces_is_one(tmp_path: Path) -> None:
    """Each reference is a piece of text of its own to the parser."""
    _voc(tmp_path / "truth")
    (tmp_path / "truth" / "one.xml").write_text(VOC.replace("cat", "&#99;a&#116;"))
    assert open_truth(tmp_path / "truth", tmp_path).of("one.png", SHAPE) == [Boxed(EDGES, "cat")]


def test_coco_of_another_size_and_what_is_no_truth_at_all_are_refused(tmp_path: Path) -> None:
    truth = open_truth(_coco(tmp_path / "truth"), tmp_path)
    with pytest.raises(MetricError, match="about a picture of 40 x 30 pixels, and this one has 30 x 40"):
        truth.of("a/one.png", SHAPE[::-1])
    with pytest.raises(MetricError, match="There is no truth at"):
        open_truth(tmp_path / "none", tmp_path)
    (tmp_path / "boxes.csv").write_text("")
    with pytest.raises(MetricError, match="is no truth: give a folder"):
        open_truth(tmp_path / "boxes.csv", tmp_path)
