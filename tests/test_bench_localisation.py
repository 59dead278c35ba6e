"""The benchmark of localisation: what is asked for is what COCO's box and the model agree on, and the table says of how many."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.coco_classes import KINDS, imagenet_of
from bench.localisation import CENTRE, METRICS, asked_of, measured, table
from PIL import Image
from skimage import data

import seewhy
from seewhy.datasets.truth import open_truth


@pytest.fixture(scope="module")
def ask() -> seewhy.Explainer:
    return seewhy.Explainer("efficientnet_lite0")


def _row(photograph: str, methods: str, **values: tuple[float, float]) -> dict[str, object]:
    told = {name.replace("_", " "): dict(zip(METRICS, each, strict=True)) for name, each in values.items()}
    return {"photograph": photograph, "kind": "cat", "class": 281, "methods": methods, "values": told}


def test_classes_of_imagenet_belong_to_one_kind_of_coco_and_are_what_they_say(ask: seewhy.Explainer) -> None:
    every = [index for kind in KINDS for index in imagenet_of(kind)]
    assert len(set(every)) == len(every)
    assert imagenet_of("person") == []
    for kind, name in (("zebra", "zebra"), ("toaster", "toaster"), ("bird", "black swan"), ("couch", "studio couch")):
        assert ask.model.labels is not None
        assert ask.model.labels.find(name) in imagenet_of(kind)


def test_a_thing_is_asked_for_where_the_model_sees_it_and_it_is_not_everywhere(
    ask: seewhy.Explainer, tmp_path: Path
) -> None:
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "classes.txt").write_text("cat\nzebra\nperson\n")
    (tmp_path / "cat.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.2 0.4\n")
    truths = open_truth(tmp_path, tmp_path, ["cat.png"])
    [(kind, index, edges)] = asked_of(ask, tmp_path / "cat.png", truths, 10)
    assert (kind, index) == ("cat", ask(tmp_path / "cat.png").target_index)
    assert len(edges) == 1
    found = measured(ask, tmp_path / "cat.png", index, edges, ["grad-cam", "random"])
    assert set(found) == {"grad-cam", "random", CENTRE, "random maps, mean"}
    assert found[CENTRE]["pointing-game"] == 1  # the box is in the middle
    (tmp_path / "cat.txt").write_text("0 0.5 0.5 1 1\n")
    assert not list(asked_of(ask, tmp_path / "cat.png", open_truth(tmp_path, tmp_path, ["cat.png"]), 10))


def test_the_table_takes_later_methods_in_and_counts_each_ones_things() -> None:
    rows = [
        *(_row(name, "x", x=(1, 0.6), centre_blob=(1, 0.5)) for name in "ad"),
        *(_row(name, "x", x=(0, 0.4), centre_blob=(1, 0.5)) for name in "be"),
        *(_row(name, "x", x=(1, 0.8), centre_blob=(0, 0.5)) for name in "cf"),
        _row("a", "y", y=(0, 0.9), centre_blob=(1, 0.5)),
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows).splitlines() if "|" in line][
        2:
    ]
    assert [row[:2] for row in cells] == [["y", "1"], ["x", "6"], ["centre blob", "6"]]
    assert cells[0][2:] == ["0.000", "-1.000", "0.900", "+0.400"]
    assert cells[1][2] == "0.667"
    assert cells[1][4] == "0.600"
    assert cells[1][5].startswith("+0.100 (")
    assert table(rows).endswith("6 things in 6 photographs.")
