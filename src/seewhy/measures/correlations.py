"""How well what a map says of parts of the input agrees with what the model says without them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.maps.held import Held
from seewhy.measures.agreement import pearson, spearman
from seewhy.measures.curves import steps_of
from seewhy.measures.cut import Cut
from seewhy.measures.registry import metric
from seewhy.measures.removal import Draw, Removed, Singly, Squares, Subsets, cells_of
from seewhy.measures.trial import Asked, Examined, Trial
from seewhy.recorder import Variants

Values = Float[Tensor, "batch map"]

LARGEST = 0.8
"""The largest part of all features that sensitivity-n removes, as in its paper."""


@metric(
    "faithfulness-correlation",
    better="higher",
    range=(-1.0, 1.0),
    source="Bhatt et al. 2020, arXiv:2005.00631",
    baseline="0",
    passes="{runs}",
)
def faithfulness_correlation(
    trial: Trial, *, runs: int = 100, part: float = 0.2, cells: int | None = 14, fill: Any = "blur"
) -> Values:
    """Whether random parts of the input on which a map is higher are those without which the score falls more.

    Formula: the Pearson correlation, over random sets S of one size, of the map's sum over S and score(x) - score(x without S).
    Options: runs, how many sets; part, their size, as a part of all features; cells, features along the shorter side, squares
        (None: single places, which hardly change an input of many places); fill, what is put there.
    Elsewhere: Quantus draws sets of values, a place's channels apart, and its "black" is the lowest value of the input. With one
        channel, cells=None and a number to fill with it is the same.
    """
    draw = Subsets((_checked_part("part", part),), _checked_runs(runs, 2), cells)
    return pearson(_sums(trial, draw), _drops(trial, draw, fill))


@metric(
    "sensitivity-n",
    better="higher",
    range=(-1.0, 1.0),
    source="Ancona et al. 2018, arXiv:1711.06104",
    baseline="0",
    passes="{sizes} x {runs}",
)
def sensitivity_n(
    trial: Trial, *, sizes: int = 8, runs: int = 16, cells: int | None = 14, fill: Any = "blur"
) -> Values:
    """Faithfulness correlation for sets of n features, the mean over n from few to most of them.

    Formula: the mean over n of the Pearson correlation, over random sets S of n features, of the map's sum over S and
        score(x) - score(x without S); n goes to 80 % of all features in equal steps.
    Options: sizes, how many n; runs, sets of each; cells and fill as in faithfulness-correlation.
    Elsewhere: Quantus 0.6.0 draws no sets: it removes features one after the other, highest first, and correlates over images.
    """
    if sizes < 1:
        raise MetricError(f"sizes={sizes} must be at least 1.")
    parts = tuple(LARGEST * (n + 1) / sizes for n in range(sizes))
    draw = Subsets(parts, _checked_runs(runs, 2), cells)
    sums, drops = (
        each.reshape(*each.shape[:2], sizes, runs) for each in (_sums(trial, draw), _drops(trial, draw, fill))
    )
    found = pearson(sums, drops).nanmean(2)  # without sizes at which all sums are alike
    return found.masked_fill(drops.isnan().flatten(2).any(2), torch.nan)


@metric(
    "infidelity",
    better="lower",
    range=(0.0, math.inf),
    source="Yeh et al. 2019, arXiv:1901.09392",
    passes="{runs}",
)
def infidelity(
    trial: Trial,
    *,
    runs: int = 100,
    perturbation: Literal["square", "noise"] = "square",
    side: float = 0.25,
    spread: float = 0.2,
    scaled: bool = True,
    fill: Any = "blur",
) -> Values:
    """How far the change of the score that a map foretells is from the one that comes, squared, over random changes.

    Formula: E over I of (b I·map - (score(x) - score(x - I)))². For squares I·map is the map's sum over the square, so that
        the map must be in the unit of the score; for noise I is the same in all channels of a place, so that the map must be a
        derivative. b is 1, or with scaled the number for which the value is least, which makes any unit do.
    Options: runs, how many changes; perturbation, "square" (a random square is filled) or "noise" (normal, everywhere); side,
        of the squares, as a part of the shorter side; spread, of the noise, in the unit of the model's input; scaled; fill.
        With scaled the sign is not judged: a map and its negative get the same, as b may be negative.
    Elsewhere: Captum scales where it is told `normalize=True`, and divides I by x for maps that were multiplied by it.
        Quantus 0.6.0 goes over the input square by square and leaves those before removed.
    """
    if perturbation not in ("square", "noise"):
        raise MetricError(f"perturbation='{perturbation}' is not known. Known: square, noise.")
    if perturbation == "noise":
        shift = Shifted(_checked_runs(runs, 1), spread)
        drops = trial.whole("score")[:, None] - trial.score(shift, "score")
        foretold = torch.stack([shift.products(trial.sample(row)) for row in range(len(trial.maps))])
        drops = drops[:, None].expand_as(foretold)
    else:
        draw = Squares(_checked_part("side", side), _checked_runs(runs, 1))
        foretold, drops = _sums(trial, draw), _drops(trial, draw, fill)
    if scaled:
        squares = (foretold**2).sum(2, keepdim=True)
        best = (foretold * drops).sum(2, keepdim=True) / squares
        foretold = foretold * best.where(squares > 0, 0.0)
    return ((foretold - drops) ** 2).mean(2).float()


@metric(
    "faithfulness-estimate",
    better="higher",
    range=(-1.0, 1.0),
    source="Alvarez-Melis & Jaakkola 2018, arXiv:1806.07538",
    baseline="0",
    passes="{cells}²",
)
def faithfulness_estimate(trial: Trial, *, cells: int | None = 14, fill: Any = "blur") -> Values:
    """Whether the features on which a map is higher are those without which the probability falls more, one at a time.

    Formula: the Pearson correlation, over all features i, of the map's sum over i and P(target | x) - P(target | x without i).
    Options: cells, features along the shorter side, squares (None: single places, one run each); fill, what is put there.
    Elsewhere: Quantus removes several features at once that are next to each other in the map's order, not in the picture.
    """
    draw = Singly(cells)
    return pearson(_sums(trial, draw), _drops(trial, draw, fill, "probability"))


@metric(
    "monotonicity",
    better="higher",
    range=(0.0, 1.0),
    source="Arya et al. 2019, arXiv:1909.03012",
    passes="{steps}",
)
def monotonicity(trial: Trial, *, steps: int = 20, fill: Any = "blur") -> Values:
    """The part of steps at which the probability does not fall while places are put in, lowest first.

    Formula: with p_k = P(target | the lowest k/steps of all places, else the fill), the part of k = 1..steps with
        p_k >= p_(k-1).
    Options: steps, how many; fill, what the input is without them.
    Elsewhere: AIX360 and Quantus say whether all steps are so: here 1, or less.
    """
    parts = steps_of(steps)
    without = trial.score(Cut(parts, keeps=False, fill=Held(fill)))  # the lowest are what is left without the highest
    rising = without.view(len(without), -1, steps + 1).flip(2)
    steps_up = rising.diff(dim=2)
    return (steps_up >= 0).float().masked_fill(steps_up.isnan(), torch.nan).mean(2)


@metric(
    "monotonicity-correlation",
    better="higher",
    range=(-1.0, 1.0),
    source="Nguyen & Martínez 2020, arXiv:2007.07584",
    baseline="0",
    passes="{cells}² x {runs}",
)
def monotonicity_correlation(trial: Trial, *, cells: int | None = 7, runs: int = 8) -> Values:
    """Whether features on which a map is larger are those whose redrawing changes the score more, by rank.

    Formula: the Spearman correlation, over all features i, of |the map's sum over i| and E (score(x) - score(x with i
        redrawn))², where each place of i gets the colours of a random place of x.
    Options: cells, features along the shorter side, squares (None: single places); runs, how often each is redrawn.
    Elsewhere: Quantus redraws values evenly between the lowest and the highest of the input, for features in the map's order.
    """
    redrawn = Redrawn(cells, _checked_runs(runs, 1))
    changes = trial.whole("score")[:, None] - trial.score(redrawn, "score")
    spread = (changes.double() ** 2).view(len(changes), -1, runs).mean(2)
    sums = _sums(trial, Singly(cells)).abs()
    return spearman(sums, spread[:, None].expand_as(sums))


@dataclass(frozen=True)
class Shifted:
    """The input less normal noise, which is the same in all channels of a place.

    Attributes:
        runs: how many.
        spread: the noise's standard deviation, in the unit of the input.
    """

    runs: int
    spread: float

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        noise = self._noise(sample).to(sample.image)
        return Variants(self.runs, lambda numbers: sample.image - noise[numbers.start : numbers.stop, None])

    def products(self, sample: Examined) -> Float[Tensor, "map number"]:
        """Return what each map foretells: the sum of noise times map, float64."""
        return sample.maps.double().flatten(1) @ self._noise(sample).double().flatten(1).T

    def _noise(self, sample: Examined) -> Float[Tensor, " number *space"]:
        shape = (self.runs, *sample.image.shape[1:])
        return self.spread * torch.randn(shape, generator=sample.generator)


@dataclass(frozen=True)
class Redrawn:
    """The input with one cell's places taken from random places of the same input; run `cell * runs + n` is its n-th.

    Attributes:
        cells: along the shorter side; None: every place is one.
        runs: how often each.
    """

    cells: int | None
    runs: int

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image = sample.image
        features = cells_of(tuple(image.shape[1:]), self.cells).to(image.device)
        places = features.numel()
        sources = torch.randint(places, (self.runs, places), generator=sample.generator).to(image.device)

        def make(numbers: range) -> Tensor:
            which = torch.tensor(list(numbers), device=image.device)
            others = image.flatten(1)[:, sources[which % self.runs]].transpose(0, 1).reshape(len(which), *image.shape)
            inside = features == (which // self.runs).view(-1, *(1,) * features.ndim)
            return torch.where(inside[:, None], others, image)

        return Variants((int(features.max()) + 1) * self.runs, make)


def _drops(trial: Trial, draw: Draw, fill: Any, of: Asked = "score") -> Float[Tensor, "batch map number"]:
    """Return how far what the model says falls without each set, the same for all maps, float64."""
    found = trial.whole(of)[:, None].double() - trial.score(Removed(draw, Held(fill)), of).double()
    return found[:, None].expand(-1, trial.maps.shape[1], -1)


def _sums(trial: Trial, draw: Draw) -> Float[Tensor, "batch map number"]:
    """Return the maps' sums over the sets that :func:`_drops` removes, float64."""
    space = tuple(trial.images.shape[2:])
    return torch.stack([draw(space, trial.generator(row)).sums(maps) for row, maps in enumerate(trial.maps)])


def _checked_runs(runs: int, least: int) -> int:
    if runs < least:
        raise MetricError(f"runs={runs} must be at least {least}.")
    return runs


def _checked_part(name: str, part: float) -> float:
    if not 0 < part < 1:
        raise MetricError(f"{name}={part} must be between 0 and 1: it is a part of the whole.")
    return part
