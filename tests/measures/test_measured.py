"""What is said of values over several images: of those that are not there for every one, and how sure their mean is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from tests.measures.trials import Weighted, tried
from torch import Tensor

import seewhy
from seewhy.measured import Measured
from seewhy.measures import Wants, find_metric
from seewhy.measures.statistics import interval, tail_of


def test_a_map_is_compared_with_random_ones_over_the_same_images() -> None:
    """Better on each image where both have a value, and worse by means over different ones; and the other way round."""
    values, random = np.array([0.9, 0.2, np.nan]), np.array([np.nan, 0.1, 0.8])
    for better, beats in (("higher", True), ("lower", False)):
        row = Measured("m", "map", better, values, random, random)
        assert row.beats_random is beats
    empty = Measured("m", "map", "higher", np.array([1.0, np.nan]), np.array([np.nan, 0.0]), random)
    assert not empty.beats_random  # nothing in common


@pytest.mark.parametrize("number", [6, 8, 12])
def test_intervals_of_few_values_hold_the_mean_as_often_as_they_say(number: int) -> None:
    drawn = np.random.default_rng(number).normal(size=(400, number))
    held = []
    for seed, values in enumerate(drawn):
        low, high = interval(values, seed=seed) or (math.nan, math.nan)
        held.append(low <= 0 <= high)
    assert 0.91 <= np.mean(held) <= 0.97


def test_an_interval_is_that_of_percentiles_as_far_out_as_students_t() -> None:
    for number in (6, 20):
        reach = math.sqrt(number / (number - 1)) * stats.t(number - 1).isf(0.025)
        assert tail_of(number, 0.95) == pytest.approx(math.erfc(reach / math.sqrt(2)) / 2, rel=1e-9)
    assert tail_of(6, 0.95) == pytest.approx(0.00243, abs=1e-5)  # t of 5 degrees of freedom is 2.5706
    assert tail_of(100_000, 0.95) == pytest.approx(0.025, abs=1e-5)
    values = np.random.default_rng(0).exponential(size=9)
    means = values[np.random.default_rng(3).integers(9, size=(2000, 9))].mean(1)
    assert interval(values, seed=3) == pytest.approx(np.quantile(means, [tail_of(9, 0.95), 1 - tail_of(9, 0.95)]))


def test_five_values_have_no_interval() -> None:
    assert interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])) is None
    assert interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan, 6.0])) is not None


class Failing(Weighted):
    """Answers NaN about some inputs."""

    def __init__(self, weights: Tensor, fails: Callable[[Tensor], Tensor]) -> None:
        super().__init__(weights)
        self.fails = fails

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).masked_fill(self.fails(images)[:, None], torch.nan)


ASKING = [each.name for each in seewhy.metrics() if Wants.SCORE in each.wants and Wants.REMADE not in each.wants]


@pytest.mark.parametrize("name", ASKING)
def test_where_the_model_says_nan_no_metric_has_a_value(name: str) -> None:
    image = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    maps = torch.rand((1, 2, 16, 16), generator=torch.Generator().manual_seed(1))
    weights = torch.full((2, 3, 16, 16), 0.01) * torch.tensor([1.0, -1.0])[:, None, None, None]
    model = Failing(weights, lambda images: (images != image).flatten(1).any(1))
    assert find_metric(name).function(tried(model, image, maps)).isnan().all()


@pytest.mark.parametrize("name", ["monotonicity", "effective-complexity", "sensitivity-n", "increase-in-confidence"])
def test_a_single_nan_is_no_judgement(name: str) -> None:
    image = 1 + 0.1 * torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    maps = torch.cat([torch.linspace(0.9, 1, 8), torch.zeros(8)]).expand(1, 1, 16, 16)
    weights = torch.ones(2, 1, 16, 16) * torch.tensor([0.01, 0.0])[:, None, None, None]
    half = Failing(weights, lambda images: (images.flatten(1).mean(1) - 0.5).abs() < 0.1)  # of which about half is left
    assert find_metric(name).function(tried(half, image, maps)).isnan().all()
    assert find_metric(name).function(tried(Weighted(weights), image, maps)).isfinite().all()
