"""What is said of values over several images: of those that are not there for every one, and how sure their mean is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from seewhy.measured import Measured
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
