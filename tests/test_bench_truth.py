"""The benchmark of truth: its table says who is best by how much, and what it measures is what it says."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.truth import in_the_race, measured, table
from PIL import Image
from tests.planted_marks import SIDE, drawn, trained

import seewhy


def _result(photograph: object, model: str = "m", **truth: float) -> dict[str, object]:
    return {
        "model": model,
        "photograph": str(photograph),
        "truth": {name: [value] * 3 for name, value in truth.items()},
    }


def _rows(told: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines() if line.startswith("| ")
    ]


def test_the_table_ranks_by_the_mean_and_compares_with_the_best_single_one() -> None:
    results = [
        _result(number, **{"auto": 0.3 + 0.01 * number, "grad-cam at x": 0.2, "saliency": 0.1 * (number == 0)})
        for number in range(7)
    ]
    told = table(results)
    assert [row[0] for row in _rows(told)] == ["map", "auto", "grad-cam at x", "saliency"]
    assert "+65% above the best single one" in told  # 0.33 over 0.2
    assert "m: grad-cam at x" in told
    low, high = (float(word) for word in told.split("95 %: ")[1].splitlines()[0].split(" to "))
    assert 0.1 <= low < 0.13 < high <= 0.16


def test_each_model_counts_alike_and_is_compared_with_its_own_best() -> None:
    few = [_result(n, "few", auto=0.4, a=0.2, b=0.1) for n in range(2)]
    many = [_result(n, "many", auto=0.2, a=0.0, b=0.2) for n in range(6)]
    told = table(few + many)
    assert _rows(told)[1:] == [
        ["auto", "0.400", "0.200", "0.300"], ["b", "0.100", "0.200", "0.150"], ["a", "0.200", "0.000", "0.100"]
    ]  # fmt: skip
    assert "auto: +50% above the best single one of each model (+100%, +0%)" in told
    assert "few: a; many: b" in told


def test_a_map_that_left_the_race_is_never_the_best_and_is_in_brackets() -> None:
    first = _result(0, auto=0.4, a=0.3, b=0.9)
    told = table([first, *(_result(n, auto=0.4, a=0.3) for n in (1, 2))])
    assert ["b", "(0.900)", "0.900"] in _rows(told)
    assert "m: a" in told


def test_only_what_is_surely_behind_leaves_the_race() -> None:
    steps = np.linspace(-0.1, 0.1, 12)
    results = [
        _result(n, **{"auto": 0.9, "best": 0.3, "near": 0.28 + step, "far": 0.1 + step, "refine-cam": 0.9})
        for n, step in enumerate(steps)
    ]
    assert in_the_race(results) == {"best", "near"}
    assert 0.2 > 3 * steps.std(ddof=1) / 12**0.5 > 0.02  # how far they are behind, and what three errors are


@pytest.mark.slow
def test_maps_that_point_at_the_mark_are_truer_than_others(tmp_path: Path) -> None:
    pictures = drawn("shape", 4, torch.Generator().manual_seed(3), with_mark=True)
    paths = []
    for number, image in enumerate(pictures.images):
        pixels = ((image.clamp(-3, 3) / 6 + 0.5) * 255).round().byte().permute(1, 2, 0).numpy()
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    ask = seewhy.Explainer(
        trained("shape"),
        preprocess={"size": (SIDE, SIDE), "fit": "squash", "mean": (0.5,) * 3, "std": (1 / 6,) * 3},
    )
    found = [measured(ask, path, other) for path, other in itertools.pairwise(paths)]
    assert {len(each) for one in found for each in one.values()} == {3}
    truths = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    assert all(-1 <= value <= 1 for value in truths.values())
    assert truths["auto"] > 0.3  # of a map that knows nothing it is below 0
    assert truths["auto"] > np.median(list(truths.values()))
    some = measured(ask, paths[0], paths[1], among={"layer-cam at 2"})
    assert {name for name in some if " at " in name} == {"layer-cam at 2"}
    assert some["layer-cam at 2"] == pytest.approx(found[0]["layer-cam at 2"], abs=1e-5)
