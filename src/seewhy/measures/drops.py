"""What becomes of the probability when the input is seen through the map, and what is made of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.maps.held import Held
from seewhy.measures.curves import PERCENTILES, Percentiles
from seewhy.measures.registry import Wants, metric
from seewhy.measures.road import NOISE, road
from seewhy.measures.trial import Examined, Trial
from seewhy.recorder import Variants

Values = Float[Tensor, "batch map"]

NOTHING = "dataset"
"""What the input becomes where the map is 0: zeros in the model's units, which is what all papers and peers multiply towards."""

GRAD_CAM_PLUS_PLUS = "Chattopadhay et al. 2018, arXiv:1710.11063"
ADCC = "Poppi et al. 2021, arXiv:2104.10252"


def seen(maps: Float[Tensor, "*number map"]) -> Float[Tensor, "*number map"]:
    """Return maps' positive parts divided by their peaks, over the last axis; zeros where nothing is positive."""
    high = maps.clamp(min=0)
    peak = high.amax(-1, keepdim=True)
    return torch.where(peak > 0, high / peak, torch.zeros_like(high))


@dataclass(frozen=True)
class Through:
    """For each map, the input seen through it: whole where the map is highest, nothing where it is not positive.

    Attributes:
        towards: what nothing is.
    """

    towards: Held

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image, nothing = sample.image, sample.nothing(self.towards.value)
        weights = seen(sample.maps.flatten(1)).view_as(sample.maps).to(image)

        def make(numbers: range) -> Tensor:
            return torch.lerp(nothing, image, weights[numbers.start : numbers.stop, None])

        return Variants(len(weights), make)


def _before_and_after(trial: Trial, towards: Any) -> tuple[Float[Tensor, " batch 1"], Values]:
    """Return the probability for the input, and for the input seen through each map."""
    return trial.whole()[:, None], trial.score(Through(Held(towards)))


@metric(
    "average-drop",
    better="lower",
    range=(0.0, 1.0),
    source=GRAD_CAM_PLUS_PLUS,
    wants=Wants.SCORE | Wants.PROBABILITY,
    passes="1",
)
def average_drop(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """Which part of the probability is lost when the input is seen through the map.

    Formula: max(0, P - P') / P, with P' the probability for towards + w (x - towards), w the map's positive part over its peak.
    Options: towards, what the input becomes where the map is 0.
    Elsewhere: torchcam scales maps from their lowest to their highest value before they are resized, and adds 1e-7 to P.
    """
    before, after = _before_and_after(trial, towards)
    return ((before - after).clamp(min=0) / before).where(before > 0, torch.nan)


@metric("increase-in-confidence", better="higher", range=(0.0, 1.0), source=GRAD_CAM_PLUS_PLUS, passes="1")
def increase_in_confidence(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """Whether the probability rises when the input is seen through the map: over several images, how often.

    Formula: 1 where P' > P, else 0; P and P' as of average-drop.
    Options: as of average-drop, which shares its run.
    """
    before, after = _before_and_after(trial, towards)
    return (after > before).float().masked_fill((after - before).isnan(), torch.nan)


@metric(
    "average-gain",
    better="higher",
    range=(0.0, 1.0),
    source="Zhang et al. 2023, arXiv:2301.07002",
    wants=Wants.SCORE | Wants.PROBABILITY,
    passes="1",
)
def average_gain(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """Which part of what the probability lacks is gained when the input is seen through the map.

    Formula: max(0, P' - P) / (1 - P); P and P' as of average-drop.
    Options: as of average-drop, which shares its run.
    """
    before, after = _before_and_after(trial, towards)
    return ((after - before).clamp(min=0) / (1 - before)).where(before < 1, torch.nan)


@metric("confidence-change", better="higher", range=(-1.0, 1.0), source=GRAD_CAM_PLUS_PLUS, passes="1")
def confidence_change(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """How much the probability changes when the input is seen through the map.

    Formula: P' - P, as of average-drop. The range is for probabilities: of a target that has none P is its score.
    Options: as of average-drop, which shares its run.
    Elsewhere: pytorch-grad-cam's CamMultImageConfidenceChange, with whatever score it is given.
    """
    before, after = _before_and_after(trial, towards)
    return after - before


@metric("drop-in-confidence", better="lower", range=(0.0, 1.0), source=GRAD_CAM_PLUS_PLUS, passes="1")
def drop_in_confidence(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """How much of the probability is lost when the input is seen through the map, in probability itself.

    Formula: max(0, P - P'), as of average-drop, but not divided by P. The range is for probabilities: of a target
        that has none P is its score.
    Options: as of average-drop, which shares its run.
    Elsewhere: pytorch-grad-cam's DropInConfidence, with whatever score it is given.
    """
    return (-confidence_change(trial, towards=towards)).clamp(min=0)


@metric("cam-complexity", better="lower", range=(0.0, 1.0), source=ADCC, wants=Wants.MAPS)
def cam_complexity(trial: Trial) -> Values:
    """How much of the input the map shows: the mean of its positive part over its peak.

    Formula: the mean of w, as of average-drop.
    Elsewhere: "complexity" in the paper and in pytorch-grad-cam; here that is the entropy of Bhatt et al.
    """
    return seen(trial.maps.flatten(2)).mean(2)


@metric(
    "coherency",
    better="higher",
    range=(0.0, 1.0),
    source=ADCC,
    wants=Wants.REMADE,
    baseline="none",
    passes="1 x the method's",
)
def coherency(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """How like the map is to the one that the same method makes of the input seen through the map.

    Formula: (1 + r) / 2, with r Pearson's correlation of w and w', the maps' positive parts over their peaks; NaN where one of
        them is the same everywhere.
    Options: towards, as of average-drop. adcc and arcc share its maps.
    Elsewhere: pytorch-grad-cam adds 1e-8 to the denominator, so that a blank map gets 0.5.
    """
    own = seen(trial.maps.double().flatten(2))
    again = trial.once(("seen again", Held(towards)), lambda: _seen_again(trial, towards))
    found = torch.stack([own, seen(again.double().flatten(2))])
    apart = found - found.mean(3, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(apart, dim=3)
    r = (apart[0] * apart[1]).sum(2) / lengths.prod(0)
    return ((1 + r) / 2).where((lengths > 0).all(0), torch.nan).float()


def _seen_again(trial: Trial, towards: Any) -> Float[Tensor, "batch map *space"]:
    """Return each map's method's map of the input seen through that map."""
    probe = Through(Held(towards))
    inputs = [probe(trial.sample(row)) for row in range(len(trial.images))]
    each = [
        trial.remade.of_images(torch.cat([own.make(range(number, number + 1)) for own in inputs]))[:, number]
        for number in range(trial.maps.shape[1])
    ]
    return torch.stack(each, 1)


@metric(
    "adcc",
    better="higher",
    range=(0.0, 1.0),
    source=ADCC,
    wants=Wants.SCORE | Wants.REMADE | Wants.PROBABILITY,
    baseline="none",
    passes="1 + 1 x the method's",
)
def adcc(trial: Trial, *, towards: Any = NOTHING) -> Values:
    """Whether a map is coherent, small and loses little of the probability, all at once.

    Formula: the harmonic mean of coherency, 1 - cam-complexity and 1 - average-drop; 0 where one of them is.
    Options: towards, as of average-drop.
    """
    return _harmonic(
        coherency(trial, towards=towards), 1 - cam_complexity(trial), 1 - average_drop(trial, towards=towards)
    )


@metric(
    "arcc",
    better="higher",
    range=(0.0, 1.0),
    source="pytorch-grad-cam 1.5.7; arXiv:2605.14641 (2026)",
    wants=Wants.SCORE | Wants.REMADE | Wants.PROBABILITY,
    baseline="none",
    passes="2 a percentile + 1 x the method's",
)
def arcc(
    trial: Trial, *, percentiles: Percentiles = PERCENTILES, noise: float = NOISE, towards: Any = NOTHING
) -> Values:
    """Whether a map is coherent, small and in the right order by ROAD, all at once.

    Formula: the harmonic mean of coherency, 1 - cam-complexity and 2 road clipped to 0..1; 0 where one of them is.
    Options: percentiles and noise, as of road; towards, as of average-drop.
    Elsewhere: pytorch-grad-cam adds 1e-8 to each denominator.
    """
    order = (2 * road(trial, percentiles=percentiles, noise=noise)).clamp(0, 1)
    return _harmonic(coherency(trial, towards=towards), 1 - cam_complexity(trial), order)


def _harmonic(*values: Values) -> Values:
    """Return the harmonic mean of values that are not negative; one that is 0 makes it 0."""
    found: Tensor = 1 / torch.stack([1 / each for each in values]).mean(0)
    return found
