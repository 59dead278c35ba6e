"""How what the model says falls while whole regions go, those with the highest mean of the map first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.images.regions import as_segments, superpixels
from seewhy.maps.held import Held
from seewhy.measures.registry import Wants, metric
from seewhy.measures.removal import squares
from seewhy.measures.trial import Asked, Examined, Trial
from seewhy.recorder import Variants

Values = Float[Tensor, "batch map"]


@dataclass(frozen=True)
class WithoutRegions:
    """For each map, the input without its highest 1, 2, 3, ... regions.

    A region is as high as the map's mean over it. Result `map * n + k - 1` is that without k of them, n the most.

    Attributes:
        regions: for each sample `(*space)`, which region a place is in: 0, 1, 2, ...
        most: no more of them than this are removed; None: all.
        fill: what is put there.
    """

    regions: Held
    most: int | None
    fill: Held

    def steps(self, row: int) -> int:
        """Return how many are removed from a sample at most."""
        count = int(self.regions.value[row].max()) + 1
        return count if self.most is None else min(self.most, count)

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image, nothing = sample.image, sample.nothing(self.fill.value)
        regions, steps = self.regions.value[sample.row], self.steps(sample.row)
        ranks = _ranks(sample.maps, regions, sample.generator)

        def make(numbers: range) -> Tensor:
            each = torch.tensor(numbers)
            gone = ranks[each // steps] <= (each % steps)[:, None]
            return torch.where(gone[:, regions].to(image.device)[:, None], nothing, image)

        return Variants(len(ranks) * steps, make)


def _ranks(maps: Tensor, regions: Tensor, generator: torch.Generator) -> Int[Tensor, " map region"]:
    """Return each region's rank by each map's mean over it, 0 the highest; the same means are in a random order."""
    flat = maps.detach().cpu().double().flatten(1)
    sizes = torch.bincount(regions.flatten())
    means = flat.new_zeros(len(flat), len(sizes)).index_add_(1, regions.flatten(), flat) / sizes
    mixed = torch.randperm(len(sizes), generator=generator)
    order = mixed[means[:, mixed].argsort(dim=1, descending=True, stable=True)]
    return torch.empty_like(order).scatter_(1, order, torch.arange(len(sizes)).expand_as(order))


def _curves(trial: Trial, probe: WithoutRegions, of: Asked) -> list[Float[Tensor, "map step"]]:
    """Return each sample's scores without 1, 2, ... regions; samples may have different numbers of them."""
    found, maps = trial.score(probe, of), trial.maps.shape[1]
    return [own[: maps * probe.steps(row)].view(maps, -1) for row, own in enumerate(found)]


@metric(
    "aopc",
    better="higher",
    range=(-math.inf, math.inf),
    source="Samek et al. 2016, arXiv:1509.06321",
    passes="{steps}",
)
def aopc(trial: Trial, *, side: int = 9, steps: int = 100, fill: Any = "blur") -> Values:
    """How far the score that is explained falls, on average, while the highest squares are replaced, one after the other.

    Formula: the sum over k = 0..L of s(x) - s(x without its highest k squares), over L + 1; L = steps, or all squares there are.
    Options: side, of a square, in places; steps, how many are replaced at most; fill, what is put there.
    Elsewhere: the paper fills with values drawn evenly. Quantus' region perturbation gives the falls of k = 1..L themselves, cuts
        its squares around the middle, and goes by sums, which puts the smaller ones at the edge behind.
    """
    if side < 1 or steps < 1:
        raise MetricError(f"side={side} and steps={steps} must be at least 1.")
    grid = squares(trial.images.shape[2:], side)
    probe = WithoutRegions(Held([grid] * len(trial.images)), steps, Held(fill))
    curves = _curves(trial, probe, "score")
    return torch.stack(
        [(full - own).sum(1) / (own.shape[1] + 1) for full, own in zip(trial.whole("score"), curves, strict=True)]
    )


@metric(
    "irof",
    better="higher",
    range=(-math.inf, 1.0),
    source="Rieger & Hansen 2020, arXiv:2003.08747",
    wants=Wants.SCORE | Wants.PROBABILITY,
    passes="{segments}",
)
def irof(trial: Trial, *, segments: Any = 64, fill: Any = "blur") -> Values:
    """The area over the target's probability, as a part of the whole input's, while superpixels are removed, highest first.

    Formula: 1 - the integral over k/L in 0..1 of P(target | x without its highest k of L superpixels) / P(target | x), trapezium
        rule.
    Options: segments, about how many superpixels, or a label for each of the input's places; fill, what is put there.
    Elsewhere: the paper fills with the mean colour. Quantus' area begins with the first superpixel removed, goes from 1 to L and
        is not divided by L; it takes one channel only, and in a batch adds half a step where an image has fewer superpixels.
    """
    if isinstance(segments, int):
        regions = [superpixels(image.detach().cpu(), segments) for image in trial.images]
    else:
        regions = [as_segments(segments, trial.images.shape[2:])] * len(trial.images)
    whole = trial.whole()
    areas = []
    for full, own in zip(
        whole, _curves(trial, WithoutRegions(Held(regions), None, Held(fill)), "probability"), strict=True
    ):
        curve = torch.cat([torch.ones(len(own), 1), own / full], 1)
        areas.append(1 - torch.trapezoid(curve, dx=1 / own.shape[1], dim=1))
    return torch.stack(areas).where(whole[:, None] > 0, torch.nan)
