"""Evaluating a folder: numbers by hand, going on where it stopped, what is skipped, what is refused."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.conftest import SIDE, paint
from torch import nn

import seewhy
from seewhy.evaluation import running
from seewhy.evaluation.ledger import FILE

# The model's probability of what is asked about, by hand: each colour covers half, so that its score is 2.
NOTHING = 1 / 3
WHOLE = math.exp(2) / (2 * math.exp(2) + 1)
ALONE = math.exp(2) / (math.exp(2) + 2)
WITHOUT = 1 / (math.exp(2) + 2)


def _area(*values: float) -> float:
    first, middle, last = values
    return (first / 2 + middle + last / 2) / 2


INSERTION, DELETION = _area(NOTHING, ALONE, WHOLE), _area(WHOLE, WITHOUT, NOTHING)


def _values(found: seewhy.Evaluation) -> list[object]:
    return [
        (each.picture, each.target, each.probability, judged.method, judged.layer, judged.values, judged.curves)
        for each in found.results
        for judged in each.maps
    ]


def test_numbers_are_those_by_hand(ask: seewhy.Explainer, folder: Path) -> None:
    found = seewhy.evaluate(ask, folder, "grad-cam", layers="body", fill="black", steps=2)
    assert [(each.picture, each.target) for each in found.results] == [("blue/two.png", "blue"), ("red/one.png", "red")]
    by_hand = {"insertion": INSERTION, "deletion": DELETION}
    for each in found.results:
        [cam] = [judged for judged in each.maps if not judged.control]
        assert dict(cam.values) == pytest.approx(by_hand, abs=1e-6)
        assert cam.curves["insertion"] == pytest.approx((NOTHING, ALONE, WHOLE), abs=1e-6)
        assert each.probability == pytest.approx(WHOLE, abs=1e-6)
    for metric, value in by_hand.items():
        [row] = [row for row in found.of(metric) if row.method == "grad-cam"]
        assert (row.mean, row.layer, row.pictures, row.interval) == (pytest.approx(value, abs=1e-6), "body", 2, None)
        assert {row.method for row in found.of(metric) if row.control} == {"random", "centre"}
        np.testing.assert_allclose(
            found.curves(metric)["grad-cam", "body", False],
            [NOTHING, ALONE, WHOLE] if metric == "insertion" else [WHOLE, WITHOUT, NOTHING],
            atol=1e-6,
        )
    assert found.of("insertion")[0].method == "grad-cam"
    assert found.of("deletion")[0].method == "grad-cam"


def test_layers_are_compared(ask: seewhy.Explainer, folder: Path) -> None:
    found = seewhy.evaluate(ask, folder, ["grad-cam", "saliency"], "insertion", layers=["body", "second"], steps=2)
    assert {row.name for row in found} == {
        "grad-cam body", "grad-cam second", "saliency", "control: random", "control: centre",
    }  # fmt: skip
    [saliency] = [row for row in found if row.method == "saliency"]
    assert (saliency.forwards, saliency.backwards) == (2, 1)  # what all maps share, and one run each way


def test_without_classes_what_the_model_says_is_asked_about(ask: seewhy.Explainer, folder: Path) -> None:
    paint(folder / "green.png", 1, 1)
    found = seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2)
    assert {each.picture: (each.label, each.target) for each in found.results}["green.png"] == (None, "green")


def test_a_csv_and_a_mapping_say_what_is_asked_about(ask: seewhy.Explainer, folder: Path) -> None:
    (folder.parent / "labels.csv").write_text("file,label\nred/one.png,2\nblue/two.png,Red\n")
    for classes in (folder.parent / "labels.csv", {"red/one.png": 2, "blue/two.png": "red"}):
        found = seewhy.evaluate(ask, folder, "grad-cam", "insertion", classes=classes, steps=2)
        assert [(each.picture, each.target) for each in found.results] == [
            ("red/one.png", "blue"),
            ("blue/two.png", "red"),
        ]


def test_a_second_call_goes_on_where_the_first_stopped(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        paint(folder / "red" / f"{number}.png", number % 2, 2)
    asked: list[str] = []

    def counted(_ask: object, image: str, *args: object, **more: object) -> object:
        asked.append(Path(image).name)
        return seewhy.measure(_ask, image, *args, **more)

    monkeypatch.setattr(running, "measure", counted)
    how: dict[str, object] = {"methods": ["grad-cam", "random"], "steps": 4, "out": tmp_path / "out"}
    first = seewhy.evaluate(ask, folder, limit=2, **how)
    with (tmp_path / "out" / FILE).open("a") as file:
        file.write('{"picture": "red/one.png", "dig')  # as when the machine went off while writing
    both = seewhy.evaluate(ask, folder, **how)
    assert (len(first.results), both.resumed, len(asked)) == (2, 2, 6)
    assert sorted(asked) == sorted(set(asked))
    at_once = seewhy.evaluate(ask, folder, **{**how, "out": None})
    assert _values(both) == _values(at_once)
    again = seewhy.evaluate(ask, folder, **how)
    assert (again.resumed, _values(again)) == (6, _values(at_once))
    assert [str(row) for row in again] == [str(row) for row in both]  # seconds too: nothing was done again


def test_a_picture_that_was_changed_is_measured_again(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=tmp_path / "out")
    paint(folder / "red" / "one.png", 0, 0)
    found = seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=tmp_path / "out")
    assert found.resumed == 1
    assert _values(found) == _values(seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2))


def test_results_of_other_settings_are_refused_unless_begun_anew(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path
) -> None:
    seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=tmp_path)
    with pytest.raises(seewhy.MetricError, match=r"results of other settings \(metrics, options\)"):
        seewhy.evaluate(ask, folder, "grad-cam", "deletion", steps=3, out=tmp_path)
    found = seewhy.evaluate(ask, folder, "grad-cam", "deletion", steps=3, out=tmp_path, restart=True)
    assert found.resumed == 0
    ask.model.module.head.weight.data.mul_(2)
    with pytest.raises(seewhy.MetricError, match=r"other settings \(weights\)"):
        seewhy.evaluate(ask, folder, "grad-cam", "deletion", steps=3, out=tmp_path)
    (tmp_path / FILE).write_text("something else\n")
    with pytest.raises(seewhy.MetricError, match="is no file of results that can be gone on with"):
        seewhy.evaluate(ask, folder, "grad-cam", "deletion", steps=3, out=tmp_path)


def test_a_broken_picture_is_skipped_and_told(ask: seewhy.Explainer, folder: Path) -> None:
    (folder / "blue" / "broken.png").write_bytes(b"no picture")
    classes = {"blue/broken.png": 0, "none.png": 0, "red/one.png": 0, "blue/two.png": 17}
    found = seewhy.evaluate(ask, folder, "grad-cam", "insertion", classes=classes, steps=2)
    assert [each.picture for each in found.results] == ["red/one.png"]
    assert {name: why[:20] for name, why in found.skipped.items()} == {
        "blue/broken.png": "'broken.png' is not ",
        "none.png": "There is no file '" + str(folder)[:2],
        "blue/two.png": found.skipped["blue/two.png"][:20],
    }
    with pytest.raises(seewhy.MetricError, match=r"Not one of 1 picture could be measured; the first is 'none\.png'"):
        seewhy.evaluate(ask, folder, "grad-cam", "insertion", classes={"none.png": 0})


def test_what_is_wrong_for_all_pictures_is_raised_at_once(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(seewhy.MethodError, match="No method is called 'grad-cow'"):
        seewhy.evaluate(ask, folder, "grad-cow")
    with pytest.raises(seewhy.LayerError):
        seewhy.evaluate(ask, folder, "grad-cam", layers="nowhere")
    with pytest.raises(seewhy.MetricError, match="limit=0 must be at least 1"):
        seewhy.evaluate(ask, folder, "grad-cam", limit=0)
    paint(folder / "violet" / "three.png", 0, 2)
    with pytest.raises(seewhy.MetricError, match="label 'violet' is none of the model's classes"):
        seewhy.evaluate(ask, folder, "grad-cam")
    with pytest.raises(seewhy.MetricError, match="the model's classes have none: give labels="):
        seewhy.evaluate(ask.model.module, folder, "grad-cam")


@pytest.mark.parametrize(
    ("written", "told"),
    [("0 0.25 0.5 0.5 1", {"one.png": 1.0, "two.png": 0.0}), ("2 0.75 0.5 0.5 1", {"two.png": 1.0})],
    ids=["of the first class", "of the last"],
)
def test_boxes_count_where_they_are_of_what_is_asked_about(
    ask: seewhy.Explainer, folder: Path, inside: str, written: str, told: dict[str, float], tmp_path: Path
) -> None:
    """With names only the boxes of the label's; the caller may say otherwise; without names all."""
    marks = tmp_path / "marks"
    marks.mkdir()
    for name in ("one", "two"):
        (marks / f"{name}.txt").write_text(written)
    how: dict[str, object] = {"layers": "body", "truth": marks, "how": {"view": "positive"}, "steps": 2}
    unnamed = seewhy.evaluate(ask, folder, "grad-cam", **how)
    assert {row.metric for row in unnamed} >= {"insertion", "deletion", inside}  # it is one of the usual, with truth
    (marks / "classes.txt").write_text("red\ngreen\nblue\n")
    named = seewhy.evaluate(ask, folder, "grad-cam", **how)
    wanted = ["one.png"] if written[0] == "0" else ["two.png"]
    assert [each.picture.rpartition("/")[2] for each in named.results if each.has_truth] == wanted
    assert (named.with_truth, unnamed.with_truth) == (1, 2)
    assert {row.pictures for row in named.of(inside)} == {1}
    anyhow = seewhy.evaluate(ask, folder, "grad-cam", matches=lambda kind, name: kind == "red" or name != "red", **how)
    assert anyhow.with_truth == (2 if written[0] == "0" else 1)
    # bilinear upsampling spreads a map of two columns, 1 and 0, over eight: by hand 1 1 .875 .625 | .375 .125 0 0
    [cam] = [row for row in named.of(inside) if row.method == "grad-cam"]
    assert cam.mean == pytest.approx(3.5 / 4, abs=1e-6)


def test_boxes_of_what_the_model_predicts_are_found_by_its_name(
    ask: seewhy.Explainer, folder: Path, inside: str, tmp_path: Path
) -> None:
    paint(folder / "red" / "one.png", 0, 0)
    paint(folder / "blue" / "two.png", 2, 2)
    (tmp_path / "boxes.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "two.png"}],
                "annotations": [
                    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 8]},
                    {"image_id": 2, "category_id": 1, "bbox": [0, 0, 4, 8]},
                ],
                "categories": [{"id": 1, "name": "Red"}],
            }
        )
    )
    found = seewhy.evaluate(ask, folder, "grad-cam", inside, classes="predicted", truth=tmp_path / "boxes.json")
    assert [each.picture for each in found.results] == ["red/one.png"]
    assert found.skipped["blue/two.png"].startswith("Nothing is marked in it of what is asked about")


def test_a_mask_is_a_truth(ask: seewhy.Explainer, folder: Path, inside: str) -> None:
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:, :4] = 255
    (folder / "masks" / "red").mkdir(parents=True)
    Image.fromarray(values).save(folder / "masks" / "red" / "one.png")
    found = seewhy.evaluate(ask, folder, "grad-cam", inside, truth=folder / "masks", layers="body")
    assert [each.picture for each in found.results] == ["red/one.png"]  # the folder of masks is no class
    [cam] = [row for row in found if row.method == "grad-cam"]
    assert cam.mean == pytest.approx(3.5 / 4, abs=1e-6)


def test_metrics_of_localisation_need_truth(ask: seewhy.Explainer, folder: Path, inside: str) -> None:
    with pytest.raises(seewhy.MetricError, match=r"\(share-inside\) need truth="):
        seewhy.evaluate(ask, folder, "grad-cam", inside)


def test_tables_hold_every_number(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    found = seewhy.evaluate(ask, folder, ["grad-cam", "random"], "insertion", fill="black", steps=2, out=tmp_path / "o")
    with (tmp_path / "o" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4
    cam = [row for row in rows if row["method"] == "grad-cam"]
    assert [(row["picture"], row["target"], row["index"]) for row in cam] == [
        ("blue/two.png", "blue", "2"), ("red/one.png", "red", "0"),
    ]  # fmt: skip
    assert [float(row["value"]) for row in cam] == pytest.approx([INSERTION] * 2, abs=1e-6)
    with (tmp_path / "o" / "summary.csv").open(newline="") as file:
        summary = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in summary] == [row.mean for row in found]
    assert {row["low"] for row in summary} == {""}  # two pictures have no interval


def test_no_text_is_a_formula_in_a_spreadsheet(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    paint(folder / "=1+1.png", 0, 2)
    seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=tmp_path / "o")
    with (tmp_path / "o" / "results.csv").open(newline="") as file:
        assert {row["picture"] for row in csv.DictReader(file)} == {"'=1+1.png", "blue/two.png", "red/one.png"}


def test_names_that_are_no_utf8_are_measured_and_written(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    try:
        paint(folder / "red" / name, 0, 2)
    except OSError:
        pytest.skip("this file system has no such names")
    how: dict[str, object] = {"methods": "grad-cam", "metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    for resumed in (0, 3):
        found = seewhy.evaluate(ask, folder, **how)
        assert (len(found.results), found.resumed) == (3, resumed)
    assert r"red/\udcff.png" in (tmp_path / "o" / "results.csv").read_text(encoding="utf-8")
    assert (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_the_pictures_own_folder_is_no_place_for_results(ask: seewhy.Explainer, folder: Path) -> None:
    with pytest.raises(seewhy.MetricError, match="is the folder of the pictures"):
        seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=folder / "red" / "..")
    assert not (folder / FILE).exists()


def test_parquet_holds_what_the_csv_does(ask: seewhy.Explainer, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=2, out=tmp_path / "o")
    with (tmp_path / "o" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = parquet.read_table(tmp_path / "o" / "results.parquet").to_pylist()
    assert [row["value"] for row in found] == [float(row["value"]) for row in rows]
    assert [row["picture"] for row in found] == [row["picture"] for row in rows]


def test_the_report_escapes_names_and_stands_by_itself(folder: Path, tmp_path: Path, ask: seewhy.Explainer) -> None:
    hostile = "<img src=x onerror=alert(1)>.png"
    (folder / "red" / hostile).write_bytes(b"no picture")
    model = ask.model.with_(name="<script>alert(2)</script>")
    found = seewhy.evaluate(seewhy.Explainer(model), folder, "grad-cam", steps=2, out=tmp_path / "o")
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert list(found.skipped) == [f"red/{hostile}"]
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "red/&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert page.count("src='data:image/png;base64,") == 2
    assert "http" not in page
    for name in ("bars.png", "curves.png"):
        with Image.open(tmp_path / "o" / name) as picture:
            assert min(picture.size) > 150


def test_a_metric_of_a_probability_is_refused_once_where_the_model_has_none(folder: Path) -> None:
    torch.manual_seed(0)
    plain = {"size": (SIDE, SIDE), "fit": "squash", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    ask = seewhy.Explainer(nn.Conv2d(3, 3, 1).eval(), preprocess=plain, labels=["red", "green", "blue"])
    with pytest.raises(seewhy.MetricError, match="average-drop is about a probability, and the target"):
        seewhy.evaluate(ask, folder, "saliency", ["insertion", "average-drop"], fill="black", steps=2)
    found = seewhy.evaluate(ask, folder, "saliency", ["insertion"], fill="black", steps=2)
    assert len(found.results) == 2
