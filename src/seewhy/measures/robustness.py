"""How much a map changes when the input hardly does."""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.measures.registry import Wants, metric
from seewhy.measures.trial import Trial

Values = Float[Tensor, "batch map"]


_change = partial(
    metric,
    better="lower",
    range=(0.0, math.inf),
    wants=Wants.REMADE,
    baseline="none",
    passes="{runs} x the method's",
)
"""Registers a metric of how much a map changes near the input."""


@_change("max-sensitivity", source="Yeh et al. 2019, arXiv:1901.09392")
def max_sensitivity(trial: Trial, *, runs: int = 10, radius: float = 0.1) -> Values:
    """The most that a map changes under a little noise on the input, as a part of its length.

    Formula: max over x' of |map(x') - map(x)| / |map(x)|, Euclidean; each value of x' is drawn evenly from x ± radius.
    Options: runs, how many x'; radius, in the unit of the model's input.
    Elsewhere: the paper does not divide by |map(x)|; Captum and Quantus do, since maps of different methods have no unit.
    """
    _, changes = _near(trial, runs, radius)
    return changes.amax(2)


@_change("avg-sensitivity", source="Yeh et al. 2019, arXiv:1901.09392")
def avg_sensitivity(trial: Trial, *, runs: int = 10, radius: float = 0.1) -> Values:
    """How much a map changes under a little noise on the input, on average, as a part of its length.

    Formula: the mean over x' of |map(x') - map(x)| / |map(x)|, Euclidean; each value of x' is drawn evenly from x ± radius.
    Options: as of max-sensitivity, which shares its runs.
    """
    _, changes = _near(trial, runs, radius)
    return changes.mean(2)


@_change("local-lipschitz", source="Alvarez-Melis & Jaakkola 2018, arXiv:1806.08049")
def local_lipschitz(trial: Trial, *, runs: int = 10, radius: float = 0.1) -> Values:
    """The most that a map changes for each unit that the input does, nearby, as a part of the map's length.

    Formula: max over x' of |map(x') - map(x)| / (|map(x)| |x' - x|), Euclidean; each value of x' is drawn evenly from x ± radius.
    Options: as of max-sensitivity, which shares its runs.
    Elsewhere: the paper and Quantus do not divide by |map(x)|: maps of different methods cannot be compared then.
    """
    distances, changes = _near(trial, runs, radius)
    return (changes / distances[:, None]).amax(2)


def _near(trial: Trial, runs: int, radius: float) -> tuple[Float[Tensor, "batch run"], Float[Tensor, "batch map run"]]:
    """Return how far noisy inputs are from the input, and their maps from its maps, relative to their length.

    Raises:
        MetricError: no run, no noise, or maps that cannot be made again.
    """
    if runs < 1 or not radius > 0:
        raise MetricError(f"runs={runs} must be at least 1, and radius={radius} more than 0.")

    def make() -> tuple[Tensor, Tensor]:
        remade = trial.remade
        generators = [trial.generator(row) for row in range(len(trial.images))]
        distances, changes = [], []
        for _ in range(runs):
            even = torch.stack([torch.rand(trial.images.shape[1:], generator=each) for each in generators])
            noise = (radius * (2 * even - 1)).to(trial.images)
            moved = remade.of_images(trial.images + noise)
            distances.append(noise.flatten(1).float().norm(dim=1).cpu())
            changes.append((moved - trial.maps).flatten(2).norm(dim=2))
        lengths = trial.maps.flatten(2).norm(dim=2, keepdim=True)
        lengths = lengths.where(lengths > 0, torch.nan)  # a map of nothing has no change to be a part of
        return torch.stack(distances, 1), torch.stack(changes, 2) / lengths

    return trial.once(("near", runs, radius), make)
