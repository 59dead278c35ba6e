"""Maps against masks: counted by hand, loops, closed forms, and what has no value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu
from tests.measures.trials import Weighted, tried
from torch import Tensor

import seewhy
from seewhy.measures import Trial, Wants, find_metric
from seewhy.measures.controls import random_maps
from seewhy.measures.localisation import (
    iou,
    localisation_auc,
    pointing_game,
    relevance_mass_accuracy,
    top_k_intersection,
)

NAMES = [entry.name for entry in seewhy.metrics() if Wants.TRUTH in entry.wants]


def _trial(maps: Tensor, truth: Tensor | None) -> Trial:
    space = maps.shape[2:]
    return tried(Weighted(torch.ones(2, 1, *space)), torch.ones(len(maps), 1, *space), maps, truth=truth)


def _box(space: tuple[int, ...] = (10, 12), at: tuple[int, int] = (2, 3), size: tuple[int, int] = (4, 5)) -> Tensor:
    mask = torch.zeros(1, *space, dtype=torch.bool)
    mask[0, at[0] : at[0] + size[0], at[1] : at[1] + size[1]] = True
    return mask


def test_they_are_all_here() -> None:
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_itself_is_the_best_map_and_its_opposite_the_worst(name: str, generator: torch.Generator) -> None:
    mask = _box()
    best = (mask.float() * (1 + torch.rand(mask.shape, generator=generator)))[:, None]
    worst = ((~mask).float() * (1 + torch.rand(mask.shape, generator=generator)))[:, None]
    more = {"k": 20} if name == "top-k-intersection" else {}
    found = find_metric(name).function(_trial(torch.cat([best, worst], 1), mask), **more)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("name", NAMES)
def test_no_metric_asks_for_a_maps_scale(name: str, generator: torch.Generator) -> None:
    maps = torch.randn((1, 3, 10, 12), generator=generator)
    first, other = (find_metric(name).function(_trial(scale * maps, _box())) for scale in (1.0, 1e-5))
    torch.testing.assert_close(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_without_truth_and_with_none_of_it_on_the_input(name: str, generator: torch.Generator) -> None:
    maps = torch.randn((1, 2, 10, 12), generator=generator)
    with pytest.raises(seewhy.MetricError, match="give truth=, a mask or boxes"):
        find_metric(name).function(_trial(maps, None))
    assert find_metric(name).function(_trial(maps, torch.zeros(1, 10, 12, dtype=torch.bool))).isnan().all()


@pytest.mark.parametrize("name", [name for name in NAMES if "share" in find_metric(name).baseline])
def test_random_maps_get_the_masks_share(name: str, generator: torch.Generator) -> None:
    mask = _box((14, 14), (1, 2), (9, 10))
    maps = random_maps(4000, (14, 14), generator)[None]
    more = {"k": 20} if name == "top-k-intersection" else {}
    found = find_metric(name).function(_trial(maps, mask), **more).mean()
    # The highest place of smooth noise is at a border a little more often, where its hills are cut.
    assert found.item() == pytest.approx(90 / 196, abs=0.06 if name == "pointing-game" else 0.02)


def test_the_auc_of_random_maps_is_a_half(generator: torch.Generator) -> None:
    maps = random_maps(4000, (14, 14), generator)[None]
    assert localisation_auc(_trial(maps, _box((14, 14)))).mean().item() == pytest.approx(0.5, abs=0.02)


def test_auc_counts_pairs_equal_ones_half(generator: torch.Generator) -> None:
    maps = torch.randn((2, 2, 5, 6), generator=generator).round()
    truth = torch.rand((2, 5, 6), generator=generator) > 0.6
    found = localisation_auc(_trial(maps, truth))
    for row in range(2):
        for number in range(2):
            inside, outside = maps[row, number][truth[row]].tolist(), maps[row, number][~truth[row]].tolist()
            won = [float(a > b) + 0.5 * (a == b) for a in inside for b in outside]
            assert found[row, number].item() == pytest.approx(np.mean(won))
    assert localisation_auc(_trial(maps[:1], torch.ones(1, 5, 6, dtype=torch.bool))).isnan().all()


@pytest.mark.parametrize(("at", "distance"), [((2, 3), 0), ((0, 3), 2), ((0, 0), math.hypot(2, 3)), ((8, 11), 5)])
def test_pointing_game_hits_up_to_its_tolerance(at: tuple[int, int], distance: float) -> None:
    maps = torch.zeros(1, 1, 10, 12)
    maps[(0, 0, *at)] = 1
    for tolerance in range(8):
        assert pointing_game(_trial(maps, _box()), tolerance=tolerance).item() == (tolerance >= distance)


def test_a_flat_map_does_not_always_hit() -> None:
    maps = torch.zeros(1, 1, 10, 12).expand(60, 1, 10, 12)
    seeds = [
        tried(Weighted(torch.ones(2, 1, 10, 12)), torch.ones(1, 1, 10, 12), maps[:1], truth=_box(), seed=n)
        for n in range(60)
    ]
    assert 1 <= sum(pointing_game(each).item() for each in seeds) <= 30  # 10 expected
    images = torch.rand((60, 1, 10, 12), generator=torch.Generator().manual_seed(0))
    together = tried(Weighted(torch.ones(2, 1, 10, 12)), images, maps, truth=_box().expand(60, -1, -1))
    assert 1 <= pointing_game(together).sum().item() <= 30  # nor always, or never, over many images


def test_masses_are_of_what_was_asked_for() -> None:
    maps = torch.tensor([[[[3.0, -2.0], [1.0, -4.0]]]])
    truth = torch.tensor([[[True, True], [False, False]]])
    trial = _trial(maps, truth)
    expected = {"absolute": 5 / 10, "squared": 13 / 30, "positive": 3 / 4}
    for pooling, value in expected.items():
        assert relevance_mass_accuracy(trial, pooling=pooling).item() == pytest.approx(value)
    assert find_metric("energy-pointing-game").function(trial).item() == pytest.approx(3 / 4)
    assert find_metric("relevance-rank-accuracy").function(trial).item() == 1 / 2
    assert top_k_intersection(trial, k=1).item() == 1
    assert top_k_intersection(trial, k=3).item() == pytest.approx(2 / 3)
    assert top_k_intersection(trial, k=1000).item() == 1 / 2


def test_a_map_of_nothing_has_no_mass() -> None:
    trial = _trial(-torch.ones(1, 1, 10, 12), _box())
    assert find_metric("energy-pointing-game").function(trial).isnan().all()
    assert relevance_mass_accuracy(trial).item() == pytest.approx(20 / 120)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, "otsu"])
def test_iou_equals_counting(threshold: float | str, generator: torch.Generator) -> None:
    maps, truth = torch.randn((2, 2, 6, 7), generator=generator), torch.rand((2, 6, 7), generator=generator) > 0.5
    found = iou(_trial(maps, truth), threshold=threshold)
    for row in range(2):
        for number in range(2):
            values = maps[row, number].clamp_min(0)
            least = threshold_otsu(values.numpy()) if threshold == "otsu" else threshold * float(values.max())
            high = {n for n, value in enumerate(values.flatten().tolist()) if value > least}
            inside = {n for n, value in enumerate(truth[row].flatten().tolist()) if value}
            assert found[row, number].item() == pytest.approx(len(high & inside) / len(high | inside))


@pytest.mark.parametrize("threshold", [0.2, "otsu"])
def test_a_map_without_a_peak_overlaps_with_nothing(threshold: float | str) -> None:
    assert iou(_trial(torch.zeros(1, 1, 10, 12), _box()), threshold=threshold).item() == 0


@pytest.mark.parametrize("space", [(30,), (6, 7), (4, 5, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_signals_and_volumes_are_judged_as_pictures_are(name: str, space: tuple[int, ...]) -> None:
    truth = torch.zeros(1, *space, dtype=torch.bool)
    truth.view(1, -1)[0, :9] = True
    maps = truth.float()[:, None] * (1 + torch.linspace(0, 1, truth.numel()).view(1, 1, *space))
    more = {"k": 9} if name == "top-k-intersection" else {}
    assert find_metric(name).function(_trial(maps, truth), **more).item() == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pointing-game", {"tolerance": -1}, "tolerance=-1 must be at least 0"),
        ("top-k-intersection", {"k": 0}, "k=0 must be at least 1"),
        (
            "relevance-mass-accuracy",
            {"pooling": "max"},
            "pooling='max' is not known. Known: absolute, squared, positive",
        ),
        ("iou", {"threshold": 1.0}, "threshold=1.0 must be a part of the peak"),
        ("iou", {"threshold": "mean"}, "threshold='mean' must be a part of the peak"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(
    name: str, options: dict[str, object], words: str, unchecked: None
) -> None:
    with pytest.raises(seewhy.MetricError, match=words):
        find_metric(name).function(_trial(torch.ones(1, 1, 10, 12), _box()), **options)
