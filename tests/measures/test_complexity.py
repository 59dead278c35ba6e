"""How few places a map names: closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from tests.measures.trials import Weighted, tried
from torch import Tensor

import seewhy
from seewhy.measures import Trial
from seewhy.measures.complexity import complexity, effective_complexity, sparseness


def _trial(maps: Tensor) -> Trial:
    return tried(Weighted(torch.ones(2, 1, *maps.shape[2:])), torch.ones(len(maps), 1, *maps.shape[2:]), maps)


def _one_of(count: int) -> Tensor:
    values = torch.zeros(1, 1, 1, count)
    values[..., 2] = -3
    return values


def test_a_map_of_one_place_is_as_sparse_as_can_be_and_a_flat_one_not_at_all() -> None:
    assert sparseness(_trial(_one_of(20))).item() == pytest.approx(19 / 20)
    assert complexity(_trial(_one_of(20))).item() == 0
    assert sparseness(_trial(torch.full((1, 1, 4, 5), 0.2))).item() == pytest.approx(0, abs=1e-6)
    assert complexity(_trial(torch.full((1, 1, 4, 5), 0.2))).item() == pytest.approx(math.log(20))


def test_a_map_of_nothing_is_neither() -> None:
    for each in (sparseness, complexity):
        assert each(_trial(torch.zeros(1, 1, 4, 4))).isnan().all()


def test_they_equal_their_definitions_pair_by_pair_and_ask_for_no_scale(generator: torch.Generator) -> None:
    maps = torch.randn((2, 3, 5, 7), generator=generator)
    for factor in (1.0, -1e-6, 1e6):
        gini, entropy = sparseness(_trial(factor * maps)), complexity(_trial(factor * maps))
        for row in range(2):
            for number in range(3):
                values = maps[row, number].flatten().abs().double().tolist()
                apart = sum(abs(a - b) for a in values for b in values) / (2 * len(values) * sum(values))
                assert gini[row, number].item() == pytest.approx(apart, abs=1e-6)
                shares = [value / sum(values) for value in values]
                assert entropy[row, number].item() == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-5)


def test_effective_complexity_is_the_part_that_a_linear_model_needs() -> None:
    weights = torch.zeros(2, 1, 4, 5)
    weights[0, 0, 1] = 1  # five places of twenty, of equal weight
    images, good = torch.ones(1, 1, 4, 5), weights[:1]
    trial = tried(Weighted(weights), images, torch.cat([good, -good], 1), logits=True)
    assert effective_complexity(trial, fill=0, tolerance=0.0).tolist() == [[pytest.approx(5 / 20), 1.0]]
    assert effective_complexity(trial, fill=0, tolerance=0.41).tolist() == [
        [pytest.approx(3 / 20), pytest.approx(18 / 20)]
    ]


def test_effective_complexity_shares_the_runs_of_insertion(generator: torch.Generator) -> None:
    from seewhy.measures.curves import insertion

    images, maps = torch.rand((1, 1, 4, 4), generator=generator), torch.rand((1, 2, 4, 4), generator=generator)
    trial = tried(Weighted(torch.ones(2, 1, 4, 4)), images, maps)
    insertion(trial, steps=8, fill=0)
    before = trial.runs
    effective_complexity(trial, steps=8, fill=0)
    assert trial.runs == before + 1  # the whole input, by itself


@pytest.mark.parametrize("options", [{"steps": 0}, {"tolerance": 1.0}, {"tolerance": -0.1}])
def test_options_that_ask_for_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(seewhy.MetricError, match=r"steps=0 must be at least 1|tolerance=.* from 0 to less than 1"):
        effective_complexity(_trial(torch.ones(1, 1, 4, 4)), **options)
