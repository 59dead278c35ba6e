"""ROAD: places are removed by filling them from around, so that neither an edge nor a colour tells the model where they were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.measures.curves import PERCENTILES, Percentiles, parts_of
from seewhy.measures.imputation import imputed
from seewhy.measures.registry import metric
from seewhy.measures.trial import Examined, Trial
from seewhy.recorder import Variants

Values = Float[Tensor, "batch map"]

NOISE = 0.01
"""The standard deviation of the noise on what was filled, in units of the model's input."""

SOURCE = "Rong et al. 2022, arXiv:2202.00449"


@dataclass(frozen=True)
class Imputed:
    """For each map and part, the input with that part of the places filled from around.

    Result `map * len(parts) + n` is that of part n. All variants of one input have the same noise.

    Attributes:
        parts: of all places, between 0 and 1.
        highest: whether the highest places are removed, rather than the lowest.
        noise: the standard deviation, in units of the model's input.
    """

    parts: tuple[float, ...]
    highest: bool
    noise: float

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image = sample.image
        ranks = sample.ranks.to(image.device)
        places, number = ranks[0].numel(), len(self.parts)
        counts = torch.tensor([min(max(1, round(part * places)), places - 1) for part in self.parts])
        noise = self.noise * torch.randn(image.shape, generator=sample.generator).to(image)

        def make(numbers: range) -> Tensor:
            each = torch.tensor(numbers)
            most = counts[each % number].to(image.device).view(-1, *(1,) * (ranks.ndim - 1))
            order = ranks[(each // number).to(image.device)]
            removed = order < most if self.highest else order >= places - most
            return imputed(image, removed) + noise * removed[:, None]

        return Variants(len(ranks) * number, make)


@metric("road", better="higher", range=(-0.5, 0.5), source=SOURCE, baseline="0", passes="2 a percentile")
def road(trial: Trial, *, percentiles: Percentiles = PERCENTILES, noise: float = NOISE) -> Values:
    """How much more the probability bears the loss of the lowest places than that of the highest, filled from around.

    Formula: the mean over p of (P(target | the lowest p per cent removed) - P(target | the highest p per cent removed)) / 2.
        Removed places are the weighted mean of their neighbours, 1/6 beside and 1/12 across a corner, removed ones among them,
        plus normal noise. The range is for probabilities: of a target that has none P is its score.
    Options: percentiles, how much is removed; noise, its standard deviation in units of the model's input.
    Elsewhere: pytorch-grad-cam's ROADCombined has the same; its percentile p keeps p per cent, so that its most and least
        relevant first take 20 where 80 is said here. Where a map has the same value at many places, it removes all or none of
        them. Quantus' ROAD is the part of many images that are still recognised at each percentage.
    """
    return (
        road_lerf(trial, percentiles=percentiles, noise=noise) - road_morf(trial, percentiles=percentiles, noise=noise)
    ) / 2


@metric("road-morf", better="lower", range=(0.0, 1.0), source=SOURCE, passes="1 a percentile")
def road_morf(trial: Trial, *, percentiles: Percentiles = PERCENTILES, noise: float = NOISE) -> Values:
    """The target's probability without the highest places, filled from around: most relevant first.

    Formula: the mean over p of P(target | the highest p per cent removed), filled as in road.
        The range is for probabilities: of a target that has none P is its score.
    Options: as of road, which shares its runs.
    Elsewhere: pytorch-grad-cam subtracts the whole input's.
    """
    return _mean(trial, percentiles, noise, highest=True)


@metric("road-lerf", better="higher", range=(0.0, 1.0), source=SOURCE, passes="1 a percentile")
def road_lerf(trial: Trial, *, percentiles: Percentiles = PERCENTILES, noise: float = NOISE) -> Values:
    """The target's probability without the lowest places, filled from around: least relevant first.

    Formula: the mean over p of P(target | the lowest p per cent removed), filled as in road.
        The range is for probabilities: of a target that has none P is its score.
    Options: as of road, which shares its runs.
    Elsewhere: pytorch-grad-cam subtracts the whole input's.
    """
    return _mean(trial, percentiles, noise, highest=False)


def _mean(trial: Trial, percentiles: Percentiles, noise: float, *, highest: bool) -> Values:
    if not noise >= 0:
        raise MetricError(f"noise={noise} must be 0 or more: a standard deviation in units of the model's input.")
    parts = parts_of(percentiles)
    found = trial.score(Imputed(parts, highest, float(noise)))
    return found.view(len(found), -1, len(parts)).mean(2)
