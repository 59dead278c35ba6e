"""Correlations of maps with what the model says: closed forms on linear models, loops on a network, and who shares runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.measures.trials import Weighted, tried
from tests.small_models import SmallNet
from torch import Tensor, nn

import seewhy
from seewhy.measures import Trial, find_metric
from seewhy.measures.correlations import (
    Redrawn,
    Shifted,
    faithfulness_correlation,
    faithfulness_estimate,
    infidelity,
    monotonicity,
    monotonicity_correlation,
    sensitivity_n,
)
from seewhy.measures.removal import Singly, Squares, Subsets, cells_of

CORRELATIONS = ("faithfulness-correlation", "sensitivity-n", "faithfulness-estimate")


def _linear(generator: torch.Generator, fill: float = 0.0) -> tuple[Weighted, Tensor, Tensor]:
    """Return a linear model, inputs, and the exact contributions `(batch, *space)` to class 0 over a fill."""
    model = Weighted(torch.randn((3, 2, 8, 12), generator=generator))
    images = torch.rand((2, 2, 8, 12), generator=generator)
    return model, images, ((images - fill) * model.weights[0]).sum(1).detach()


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("cells", [4, None])
def test_the_terms_of_a_linear_model_correlate_fully_at_any_scale(
    name: str, cells: int | None, generator: torch.Generator
) -> None:
    model, images, terms = _linear(generator, 0.5)
    maps = torch.stack([terms, 7 * terms, -terms], 1)
    found = find_metric(name).function(tried(model, images, maps, logits=True), cells=cells, fill=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, -1.0]] * 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_a_map_that_is_the_same_everywhere_has_no_correlation(name: str, generator: torch.Generator) -> None:
    model, images, _ = _linear(generator)
    found = find_metric(name).function(tried(model, images, torch.ones(2, 1, 8, 12), logits=True), cells=None, fill=0)
    assert found.isnan().all()


@pytest.mark.parametrize("name", ["sensitivity-n", "faithfulness-correlation", "infidelity"])
def test_all_maps_of_an_input_share_the_runs(name: str, generator: torch.Generator) -> None:
    model, images, terms = _linear(generator)
    counts = []
    for number in (1, 6):
        trial = tried(model, images, terms[:, None].expand(-1, number, -1, -1), logits=True)
        find_metric(name).function(trial, fill=0)
        counts.append(trial.runs)
    assert counts[0] == counts[1] > 100


@pytest.mark.parametrize("unit", [1.0, 5.0])
@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_is_none_for_the_terms_and_derivatives_of_a_linear_model(
    unit: float, scaled: bool, generator: torch.Generator
) -> None:
    model, images, terms = _linear(generator, 0.5)
    slopes = model.weights[0].sum(0).detach().expand(2, -1, -1)
    for perturbation, maps in (("square", terms), ("noise", slopes)):
        trial = tried(model, images, unit * maps[:, None], logits=True)
        found = infidelity(trial, perturbation=perturbation, scaled=scaled, fill=0.5)
        if scaled or unit == 1:
            torch.testing.assert_close(found, torch.zeros(2, 1), atol=1e-6, rtol=0)
        else:
            assert (found > 0.1).all()


def test_infidelity_without_scale_is_the_mean_square_of_what_is_missed(generator: torch.Generator) -> None:
    model, images, terms = _linear(generator)
    squares = Squares(0.25, 30)
    trial = tried(model, images, 3 * terms[:, None], logits=True)
    for row in range(2):
        sets = squares((8, 12), trial.generator(row))
        missed = [2 * float(terms[row].double()[sets.places(range(n, n + 1))[0]].sum()) for n in range(30)]
        found = infidelity(trial, runs=30, scaled=False, fill=0)[row, 0]
        assert found.item() == pytest.approx(np.mean(np.square(missed)), rel=1e-4)


def test_scaled_infidelity_is_at_the_least_over_all_scales(generator: torch.Generator) -> None:
    model, images, terms = _linear(generator)
    noisy = terms + torch.randn(terms.shape, generator=generator) / 2
    best = infidelity(tried(model, images, noisy[:, None], logits=True), fill=0)
    for scale in (0.5, 0.8, 1.0, 1.2):
        trial = tried(model, images, scale * noisy[:, None], logits=True)
        assert (infidelity(trial, scaled=False, fill=0) >= best - 1e-6).all()
        torch.testing.assert_close(infidelity(trial, fill=0), best)


def test_a_map_of_nothing_foretells_nothing(generator: torch.Generator) -> None:
    model, images, _ = _linear(generator)
    trial = tried(model, images, torch.zeros(2, 1, 8, 12), logits=True)
    assert torch.equal(infidelity(trial, fill=0), infidelity(trial, fill=0, scaled=False))


@pytest.fixture
def tried_net(generator: torch.Generator) -> tuple[nn.Module, Trial]:
    torch.manual_seed(0)
    images, maps = torch.randn((2, 3, 12, 16), generator=generator), torch.randn((2, 2, 12, 16), generator=generator)
    model = SmallNet().eval()
    return model, tried(model, images, maps)


def _asked(model: nn.Module, image: Tensor, *, likely: bool = False) -> float:
    """One run: class 0's score, or its probability, in float64."""
    with torch.no_grad():
        output = model.double()(image.double()[None])[0]
    return float(output.softmax(0)[0] if likely else output[0])


def _without(image: Tensor, places: Tensor, fill: float) -> Tensor:
    edited = image.clone()
    for y in range(places.shape[0]):
        for x in range(places.shape[1]):
            if places[y, x]:
                edited[:, y, x] = fill
    return edited


def _slowly(
    model: nn.Module, trial: Trial, draw: Subsets | Singly, *, likely: bool = False
) -> list[list[list[list[float]]]]:
    """Return for each image and map the pairs (sum over a set, drop without it), a set and a run at a time."""
    model, found = model.double(), []
    for row, image in enumerate(trial.images):
        sets = draw(tuple(image.shape[1:]), trial.generator(row))
        whole = _asked(model, image, likely=likely)
        places = [sets.places(range(n, n + 1))[0] for n in range(len(sets.members))]
        drops = [whole - _asked(model, _without(image, each, 0.5), likely=likely) for each in places]
        found.append(
            [
                [[float(own.double()[each].sum()), drop] for each, drop in zip(places, drops, strict=True)]
                for own in trial.maps[row]
            ]
        )
    return found


def test_faithfulness_correlation_equals_a_slow_implementation(tried_net: tuple[nn.Module, Trial]) -> None:
    model, trial = tried_net
    found = faithfulness_correlation(trial, runs=30, part=0.3, cells=4, fill=0.5)
    pairs = _slowly(model, trial, Subsets((0.3,), 30, 4))
    expected = [[stats.pearsonr(*zip(*own, strict=True)).statistic for own in each] for each in pairs]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


def test_sensitivity_n_equals_a_slow_implementation(tried_net: tuple[nn.Module, Trial]) -> None:
    model, trial = tried_net
    found = sensitivity_n(trial, sizes=4, runs=10, cells=4, fill=0.5)
    pairs = _slowly(model, trial, Subsets((0.2, 0.4, 0.8 * 0.75, 0.8), 10, 4))
    expected = [
        [
            np.mean([stats.pearsonr(*zip(*own[n : n + 10], strict=True)).statistic for n in range(0, 40, 10)])
            for own in each
        ]
        for each in pairs
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


def test_faithfulness_estimate_equals_a_slow_implementation(tried_net: tuple[nn.Module, Trial]) -> None:
    model, trial = tried_net
    found = faithfulness_estimate(trial, cells=4, fill=0.5)
    pairs = _slowly(model, trial, Singly(4), likely=True)
    expected = [[stats.pearsonr(*zip(*own, strict=True)).statistic for own in each] for each in pairs]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


def test_monotonicity_equals_a_slow_implementation(tried_net: tuple[nn.Module, Trial]) -> None:
    model, trial = tried_net
    found = monotonicity(trial, steps=8, fill=0.5)
    model, expected = model.double(), torch.zeros(2, 2)
    for row, image in enumerate(trial.images):
        for number, own in enumerate(trial.maps[row]):
            lowest = own.flatten().argsort()
            chances = []
            for step in range(9):
                put_back = torch.zeros(own.numel(), dtype=torch.bool)
                put_back[lowest[: own.numel() * step // 8]] = True
                chances.append(_asked(model, _without(image, ~put_back.view(own.shape), 0.5), likely=True))
            expected[row, number] = np.mean([chances[n + 1] >= chances[n] for n in range(8)])
    torch.testing.assert_close(found, expected)


def test_monotonicity_of_a_linear_models_positive_terms_is_full(generator: torch.Generator) -> None:
    model, images = (
        Weighted(torch.rand((2, 1, 4, 4), generator=generator)),
        torch.rand((1, 1, 4, 4), generator=generator),
    )
    trial = tried(model, images, torch.randn((1, 3, 4, 4), generator=generator), logits=True)
    assert torch.equal(monotonicity(trial, steps=16, fill=0), torch.ones(1, 3))
    assert torch.equal(
        monotonicity(tried(model, -images, trial.maps, logits=True), steps=16, fill=0), torch.zeros(1, 3)
    )


def test_monotonicity_correlation_equals_a_slow_implementation(tried_net: tuple[nn.Module, Trial]) -> None:
    model, trial = tried_net
    found = monotonicity_correlation(trial, cells=3, runs=5)
    model, features = model.double(), cells_of((12, 16), 3)
    expected = torch.zeros(2, 2)
    for row, image in enumerate(trial.images):
        made = Redrawn(3, 5)(trial.sample(row)).make(range(12 * 5))
        whole, changes = _asked(model, image), []
        for cell in range(12):
            drawn = made[cell * 5 : cell * 5 + 5]
            assert (drawn == image)[:, :, features != cell].all()
            colours = {tuple(colour) for colour in image.flatten(1).T.tolist()}
            assert all(tuple(colour) in colours for each in drawn for colour in each[:, features == cell].T.tolist())
            changes.append(np.mean([(whole - _asked(model, each)) ** 2 for each in drawn]))
        for number, own in enumerate(trial.maps[row]):
            sums = [abs(float(own[features == cell].sum())) for cell in range(12)]
            expected[row, number] = stats.spearmanr(sums, changes).statistic
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_noise_is_the_same_in_all_channels_and_as_wide_as_asked(generator: torch.Generator) -> None:
    images = torch.randn((1, 3, 20, 20), generator=generator)
    trial = tried(Weighted(torch.ones(2, 3, 20, 20)), images, images[:, :1])
    noise = images - Shifted(50, 0.2)(trial.sample(0)).make(range(50))
    torch.testing.assert_close(noise[:, :1].expand(-1, 3, -1, -1), noise, atol=1e-5, rtol=0)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)


def test_cells_are_squares_that_cover_the_input() -> None:
    assert cells_of((4, 6), 2).tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert cells_of((2, 3), None).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert cells_of((5,), 2).tolist() == [0, 0, 1, 1, 2]
    assert cells_of((2, 2), 14).flatten().tolist() == [0, 1, 2, 3]
    assert cells_of((2, 2, 4), 1).unique().tolist() == [0, 1]


def test_subsets_have_the_sizes_asked_for_and_squares_are_inside(generator: torch.Generator) -> None:
    sets = Subsets((0.25, 0.5), 6, None)((4, 4), generator)
    assert sets.members.sum(1).tolist() == [4] * 6 + [8] * 6
    assert len({tuple(each.tolist()) for each in sets.members}) > 6
    squares = Squares(0.5, 200)((6, 9), generator).places(range(200))
    assert (squares.sum((1, 2)) == 9).all()
    assert squares.any(0).all()  # every place is in one of them


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("faithfulness-correlation", {"runs": 1}, "runs=1 must be at least 2"),
        ("faithfulness-correlation", {"part": 1.0}, "part=1.0 must be between 0 and 1"),
        ("faithfulness-correlation", {"cells": 0}, "cells=0 must be at least 1, or None"),
        ("sensitivity-n", {"sizes": 0}, "sizes=0 must be at least 1"),
        ("infidelity", {"side": 0}, "side=0 must be between 0 and 1"),
        ("infidelity", {"perturbation": "circle"}, "perturbation='circle' is not known. Known: square, noise"),
        ("monotonicity", {"steps": 0}, "steps=0 must be at least 1"),
        ("monotonicity-correlation", {"runs": 0}, "runs=0 must be at least 1"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(
    name: str, options: dict[str, object], words: str, generator: torch.Generator, unchecked: None
) -> None:
    model, images, terms = _linear(generator)
    with pytest.raises(seewhy.MetricError, match=words):
        find_metric(name).function(tried(model, images, terms[:, None]), **options)
