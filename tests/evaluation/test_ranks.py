"""Ranks: closed forms, scipy's tests as peers, and data of which it is known what can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seewhy.evaluation.ranks import LEAST, LEVEL, beaten, chances, holm, ranks


def _three(pictures: int = 40) -> np.ndarray:
    """Maps A and B of the same worth, C worse, on pictures that differ far more than the maps do."""
    generator = np.random.default_rng(0)
    pictures_own = generator.normal(0, 5, (pictures, 1))
    return pictures_own + generator.normal(0, 0.1, (pictures, 3)) - np.array([0, 0, 0.3])


def test_what_is_within_noise_shares_a_rank_and_what_is_worse_does_not() -> None:
    values = _three()
    assert ranks(beaten(values, higher=True)) == [(1, 2), (1, 2), (3, 3)]
    assert ranks(beaten(values, higher=False)) == [(2, 3), (2, 3), (1, 1)]


def test_differences_are_paired() -> None:
    """The pictures' own spread, 50 times that of the maps, would hide C among the others."""
    values = _three()
    shuffled = np.random.default_rng(1).permuted(values, axis=0)
    assert ranks(beaten(shuffled, higher=True)) == [(1, 3)] * 3


def test_too_few_pictures_tell_nothing_apart() -> None:
    values = np.arange(LEAST)[:, None] + np.array([0.0, 100.0])
    assert not beaten(values[:-1], higher=True).any()
    assert ranks(beaten(values, higher=True)) == [(2, 2), (1, 1)]


def test_the_same_map_twice_is_never_told_apart() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1)).repeat(2, 1)
    assert not beaten(values, higher=True).any()


def test_pictures_without_a_value_are_left_out_of_the_pairs_that_lack_it() -> None:
    values = _three(40)
    holes = values.copy()
    holes[::3, 1] = np.nan
    known = np.isfinite(holes[:, 1])
    expected = chances(np.stack([values[known, 0] - values[known, 1]], 1))
    found = chances(np.stack([holes[:, 0] - holes[:, 1], holes[:, 0] - holes[:, 2]], 1))
    assert found[0] == pytest.approx(expected[0], abs=0.02)
    assert ranks(beaten(holes, higher=True)) == [(1, 2), (1, 2), (3, 3)]


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4])
def test_chances_are_those_of_a_paired_t_test_on_normal_differences(shift: float) -> None:
    values = np.random.default_rng(3).normal(shift, 1, (60, 1))
    assert chances(values)[0] == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, abs=0.02)


def test_few_pictures_do_not_make_differences_out_of_noise() -> None:
    """Of 300 pairs of eight pictures without a difference, at most about 5 % may be told apart (a percentile bootstrap: 11 %)."""
    noise = np.random.default_rng(0).normal(size=(300, 8))
    found = np.array([chances(own[:, None], seed=1)[0] for own in noise])
    assert (found <= LEVEL).mean() <= 0.07


def test_holm_is_his() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.4, 0.9])).tolist() == [0.8, 0.9]


def test_many_maps_can_still_be_told_apart() -> None:
    """Holm's first level is 0.05 / 435 here, which 2,000 resamples could not reach."""
    values = np.random.default_rng(0).normal(0, 0.01, (30, 30)) + np.arange(30)
    assert ranks(beaten(values, higher=True)) == [(30 - n, 30 - n) for n in range(30)]


def test_one_map_is_first() -> None:
    assert ranks(beaten(np.ones((9, 1)), higher=True)) == [(1, 1)]
