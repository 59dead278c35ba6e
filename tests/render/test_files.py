"""Writing: every ending holds what it should, HTML is escaped, and a failure leaves no half file."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.comparison import Comparison
from seewhy.diagnosis import Finding
from seewhy.errors import RenderError
from seewhy.explanation import Prediction
from seewhy.images import Geometry

RAW = np.array([[1, -0.5], [0, 0.25]], np.float32)


@pytest.mark.parametrize(
    ("ending", "kind"), [("png", "PNG"), ("PNG", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_a_picture_file_holds_the_overlay_and_its_legend(make, tmp_path: Path, ending: str, kind: str) -> None:
    why = make(RAW, size=(400, 300))
    why.save(tmp_path / f"cat.why.{ending}")
    with Image.open(tmp_path / f"cat.why.{ending}") as picture:
        assert picture.format == kind
        assert picture.height > 400
        expected = np.asarray(why.overlay(), int)
        assert (
            np.abs(
                np.asarray(picture.convert("RGB"), int)[:400, -300 - (picture.width - 300) // 2 :][:, :300] - expected
            ).mean()
            < 4
        )


def test_a_picture_without_a_legend_is_the_overlay_alone(make, tmp_path: Path) -> None:
    why = make(RAW, size=(40, 30))
    why.save(tmp_path / "plain.png", legend=False, opacity=0.3)
    with Image.open(tmp_path / "plain.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(why.overlay(opacity=0.3)))


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_file(make, tmp_path: Path, ending: str, start: bytes) -> None:
    make(RAW).save(tmp_path / f"a.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(start)


def test_npz_holds_the_arrays_and_the_facts(make, tmp_path: Path) -> None:
    why = make(RAW, geometry=Geometry.identity((4, 8)).cropped((0, 2), (4, 4)))
    why.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["raw"], RAW)
        np.testing.assert_array_equal(stored["heatmap"], why.heatmap)
        np.testing.assert_array_equal(stored["seen"], why.seen)
        assert json.loads(str(stored["facts"]))["target"] == "tabby"


def test_json_holds_everything_in_plain_types(make, tmp_path: Path) -> None:
    raw = RAW.copy()
    raw[1, 0] = np.nan
    flagged = (Finding("flat", "It is flat.", "Try another."),)
    why = make(
        raw, prediction=(Prediction(0, "age", 3.0, float("nan")),), diagnosis=flagged, notes=("a note",),
        options={"samples": 3, "baseline": np.zeros(2)},
    )  # fmt: skip
    why.save(tmp_path / "a.json")
    # JSON has no NaN: a strict reader must take it.
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found["raw"] == [[1, -0.5], [None, 0.25]]
    assert found["prediction"] == [
        {"index": 0, "name": "age", "score": 3.0, "probability": None, "means": "probability"}
    ]
    assert found["options"] == {"samples": 3, "baseline": "[0. 0.]"}
    assert found["diagnosis"] == [{"code": "flat", "message": "It is flat.", "remedy": "Try another."}]
    assert (found["image"], found["method"], found["layers"], found["notes"]) == (
        "cat.jpg",
        "grad-cam",
        ["body"],
        ["a note"],
    )


EVIL = "<script>alert('&\"')</script>"


@pytest.mark.parametrize("field", ["name", "target", "method", "model", "layers", "notes", "diagnosis", "prediction"])
def test_all_words_are_escaped_in_html(make, tmp_path: Path, field: str) -> None:
    values = {
        "layers": (EVIL,),
        "notes": (EVIL,),
        "diagnosis": (Finding("flat", EVIL, EVIL),),
        "prediction": (Prediction(0, EVIL, 1.0, 1.0),),
    }
    why = make(RAW, **{field: values.get(field, EVIL)})
    why.save(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    for text in (page, why._repr_html_()):
        assert "<script" not in text
        assert re.search(r"alt='[^']*'", text)
    if field != "model":  # it stands in the picture's legend
        assert "&lt;script&gt;alert(&#x27;&amp;&quot;&#x27;)&lt;/script&gt;" in page


def test_an_html_page_is_one_piece_and_says_what_is_known(make, tmp_path: Path) -> None:
    why = make(RAW, diagnosis=(Finding("flat", "It is flat.", "Try another."),))
    why.save(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    [data] = re.findall(r"src='data:image/png;base64,([^']+)'", page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"
    assert re.findall(r"(?:href|src)='(?!data:)", page) == []
    for words in ("<td>tabby</td>", "70.0%", "grad-cam", "channels-first, grid 2x2", "It is flat. Try another."):
        assert words in page


def test_where_a_probability_has_no_meaning_html_shows_the_score(make) -> None:
    text = make(RAW, prediction=(Prediction(0, "age", 3.25, float("nan")),))._repr_html_()
    assert "3.25" in text
    assert "nan" not in re.sub("base64,[^']*", "", text)


@pytest.mark.parametrize("raw", [RAW, np.ones(7), np.ones((2, 3, 4))], ids=["picture", "signal", "volume"])
def test_a_notebook_shows_every_map_and_the_facts(make, raw) -> None:
    why = make(raw, **({} if raw.ndim == 2 else {"image": None}))
    assert Image.open(io.BytesIO(why._repr_png_())).format == "PNG"
    assert "<img" in why._repr_html_()
    assert "grad-cam" in why._repr_html_()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "pdf", "svg", "html"])
def test_a_grid_is_written_in_every_form(make, tmp_path: Path, ending: str) -> None:
    start = {
        "png": b"\x89PNG",
        "jpg": b"\xff\xd8",
        "webp": b"RIFF",
        "pdf": b"%PDF",
        "svg": b"<?xml",
        "html": b"<!doctype",
    }
    Comparison([make(RAW), make(RAW, method="cam")]).save(tmp_path / f"grid.{ending}")
    assert (tmp_path / f"grid.{ending}").read_bytes().startswith(start[ending])


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.bmp", "ends in '.bmp'. Known endings"), ("a", "'a' has no ending"), ("no/a.png", "Check the folder")],
)
def test_a_file_that_cannot_be_written_is_told_and_not_begun(make, tmp_path: Path, name: str, told: str) -> None:
    for what in (make(RAW), Comparison([make(RAW), make(RAW, method="cam")])):
        with pytest.raises(RenderError) as caught:
            what.save(tmp_path / name)
        assert told in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["png", "html"])
def test_an_empty_comparison_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(RenderError, match="no explanation"):
        Comparison([]).save(tmp_path / f"a.{ending}")
