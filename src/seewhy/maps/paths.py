"""Derivatives along a path from "nothing there" to the input: integrated gradients and its relatives; colours are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.held import Held, held
from seewhy.maps.registry import method
from seewhy.recorder import Derived, Needs, Recording, Variants

Colours = Float[Tensor, "batch image_channel *space"]


def _legendre(steps: int) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


def _riemann(steps: int, offset: float) -> tuple[list[float], list[float]]:
    return [(step + offset) / steps for step in range(steps)], [1 / steps] * steps


def _trapezoid(steps: int) -> tuple[list[float], list[float]]:
    if steps < 2:
        raise MethodError(f"rule='trapezoid' needs at least 2 steps, not {steps}.")
    gap = 1 / (steps - 1)
    return [step * gap for step in range(steps)], [gap / 2 if step in (0, steps - 1) else gap for step in range(steps)]


QUADRATURES: dict[str, Callable[[int], tuple[list[float], list[float]]]] = {
    "gauss-legendre": _legendre,
    "middle": partial(_riemann, offset=0.5),
    "left": partial(_riemann, offset=0.0),
    "right": partial(_riemann, offset=1.0),
    "trapezoid": _trapezoid,
}
"""From a number of steps to nodes and weights on 0..1."""


@dataclass(frozen=True)
class Line:
    """Points on the straight lines from baselines to the input, in an order of which any beginning is spread over the line.

    Attributes:
        baselines: what the lines begin at; see :meth:`Recording.baseline`.
        steps: points a line.
        rule: the quadrature.
    """

    baselines: tuple[Held, ...]
    steps: int
    rule: str

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return each point's baseline's number, place on the line 0..1, and weight; the weights' sum is 1."""
        if self.rule not in QUADRATURES:
            raise MethodError(
                f"rule='{self.rule}' is not known.{did_you_mean(self.rule, QUADRATURES)} Known: {', '.join(QUADRATURES)}."
            )
        if self.steps < 1:
            raise MethodError(f"steps={self.steps} must be at least 1.")
        nodes, weights = QUADRATURES[self.rule](self.steps)
        order = torch.tensor(spread_order(self.steps))
        count = len(self.baselines)
        which = torch.arange(count).repeat(self.steps)
        along = torch.tensor(nodes)[order].repeat_interleave(count)
        return which, along, torch.tensor(weights)[order].repeat_interleave(count) / count

    def __call__(self, sample: Recording) -> Variants:
        """Return the points."""
        which, along, _ = self.points()
        image = sample.images[0]
        starts = torch.cat([sample.baseline(kind.value) for kind in self.baselines])
        which, along = which.to(image.device), _as_column(along, image)

        def make(numbers: range) -> Tensor:
            part = slice(numbers.start, numbers.stop)
            start = starts[which[part]]
            return start + along[part] * (image - start)

        return Variants(len(which), make)


@dataclass(frozen=True)
class Baseline:
    """The input with nothing there."""

    kinds: tuple[Held, ...]

    def __call__(self, sample: Recording) -> Variants:
        """Return one variant a baseline."""
        return Variants(
            len(self.kinds),
            lambda numbers: torch.cat([sample.baseline(self.kinds[number].value) for number in numbers]),
        )


@method(
    "integrated-gradients",
    needs=Needs.INPUT_GRADIENTS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Sundararajan et al. 2017, arXiv:1703.01365",
    passes="2 + {steps} x (1 + 1)",
    colours="sum",
    scaling="percentile",
)
def integrated_gradients(
    rec: Recording, *, steps: int = 50, baseline: Any = "black", rule: str = "gauss-legendre"
) -> Colours:
    """Average the derivative along the line from a baseline to the input, times the difference of the two.

    Formula: (x - b) * integral over a in 0..1 of d score / d x at b + a (x - b); its sum is score(x) - score(b).
    Options: steps, points on the line; baseline, one or several ("black,white") to average over; rule, the quadrature:
        gauss-legendre, middle, left, right, trapezoid.
    Elsewhere: captum's default baseline is zero in the model's units (here "dataset").
    """
    kinds = _beginnings(baseline)
    line = Line(kinds, steps, rule)
    which, _, weights = (each.to(rec.images.device) for each in line.points())
    total = torch.zeros(len(kinds), *rec.images.shape, device=rec.images.device)
    mass = torch.zeros(total.shape[:2], device=rec.images.device)

    def take(part: Derived) -> None:
        own, lines = weights[part.numbers], which[part.numbers]
        total[:, part.row].index_add_(0, lines, part.gradients * _as_column(own, part.gradients[0]))
        mass[:, part.row].index_add_(0, lines, own)

    rec.derive(line, take)
    # Each line's mean by the weights of those of its points that were run: a budget may leave some out, or whole lines.
    means = total / mass.clamp_min(torch.finfo(mass.dtype).tiny).view(*mass.shape, *(1,) * (rec.images.ndim - 1))
    differences = torch.stack([rec.images - rec.baseline(kind.value) for kind in kinds])
    found = (differences * means).sum(0) / _as_column((mass > 0).sum(0), rec.images[0])
    report_gap(rec, found, kinds)
    return found


@dataclass(frozen=True)
class RandomPoints:
    """Random points on the lines from random baselines to noisy copies of the input."""

    baselines: tuple[Held, ...]
    samples: int
    spread: float

    def __post_init__(self) -> None:
        if self.samples < 1 or not (self.spread >= 0 and math.isfinite(self.spread)):
            raise MethodError(
                f"samples={self.samples} must be at least 1 and spread={self.spread} a finite number, not negative."
            )

    def draws(self, sample: Recording) -> tuple[Tensor, Tensor]:
        """Return each point's baseline's number and place on the line."""
        which = torch.randint(len(self.baselines), (self.samples,), generator=sample.generator)
        return which, torch.rand(self.samples, generator=sample.generator)

    def ends(self, sample: Recording) -> Callable[[range], tuple[Tensor, Tensor]]:
        """Return a function from points' numbers to where their lines begin and end, `(number, channel, *space)` each."""
        image = sample.images[0]
        starts = torch.cat([sample.baseline(kind.value) for kind in self.baselines])
        which, _ = self.draws(sample)
        sigma = self.spread * (image.max() - image.min())
        seeds = torch.randint(2**31, (self.samples,), generator=sample.generator).tolist()

        def made(numbers: range) -> tuple[Tensor, Tensor]:
            noise = [torch.randn(image.shape, generator=torch.Generator().manual_seed(seeds[n])) for n in numbers]
            return starts[which[numbers.start : numbers.stop].to(image.device)], image + sigma * torch.stack(noise).to(
                image
            )

        return made

    def __call__(self, sample: Recording) -> Variants:
        """Return the points."""
        ends = self.ends(sample)
        sample.generator.manual_seed(sample.seed)
        along = _as_column(self.draws(sample)[1], sample.images[0])

        def make(numbers: range) -> Tensor:
            start, end = ends(numbers)
            return start + along[numbers.start : numbers.stop] * (end - start)

        return Variants(self.samples, make)


@method(
    "gradient-shap",
    needs=Needs.INPUT_GRADIENTS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Lundberg & Lee 2017, arXiv:1705.07874; Erion et al. 2021, arXiv:1906.10670",
    passes="2 + {samples} x (1 + 1)",
    colours="sum",
    scaling="percentile",
)
def gradient_shap(
    rec: Recording, *, samples: int = 50, baseline: Any = "black,white,blur,noise", spread: float = 0.0
) -> Colours:
    """Average the derivative at random points between random baselines and the input, times the difference of the two.

    Formula: mean over n of (x_n - b_n) * d score / d x at b_n + a_n (x_n - b_n), with a_n uniform in 0..1.
    Options: samples, random points; baseline, what is drawn from, several by commas; spread, the standard deviation of noise
        on the input, as a part of its range.
    """
    kinds = _beginnings(baseline)
    points = RandomPoints(kinds, samples, spread)
    found = torch.zeros_like(rec.images)
    count = torch.zeros(len(rec.images), device=rec.images.device)
    ends = [points.ends(rec.row(row)) for row in range(len(rec.images))]

    def take(part: Derived) -> None:
        numbers = part.numbers.tolist()
        start, end = ends[part.row](range(numbers[0], numbers[-1] + 1))
        found[part.row] += ((end - start) * part.gradients).sum(0)
        count[part.row] += len(numbers)

    rec.derive(points, take)
    found = found / count.view(-1, *(1,) * (rec.images.ndim - 1))
    report_gap(rec, found, kinds)
    return found


def _beginnings(baseline: Any) -> tuple[Held, ...]:
    if kinds := held(baseline):
        return kinds
    raise MethodError("baseline= is empty: give at least one, such as 'black'.")


def report_gap(rec: Recording, attributions: Colours, kinds: tuple[Held, ...]) -> None:
    """Tell how far the sum of attributions is from the difference of scores between input and baselines (completeness)."""
    scores = rec.score(Baseline(kinds))  # of as many as the budget allows
    difference = rec.scores - scores.values.sum(1) / scores.known.sum(1)
    rec.report("score difference", difference)
    rec.report("completeness gap", attributions.flatten(1).sum(1) - difference)


def spread_order(count: int) -> list[int]:
    """Return 0..count-1 in an order of which any beginning is spread evenly: by their digits in base two, reversed."""
    bits = max(1, (count - 1).bit_length())
    reversed_digits = (int(format(number, f"0{bits}b")[::-1], 2) for number in range(1 << bits))
    return [number for number in reversed_digits if number < count]


def _as_column(values: Tensor, like: Tensor) -> Tensor:
    """Return `(number, 1, ..., 1)` on the device of a `(channel, *space)` tensor."""
    return values.to(like).view(-1, *(1,) * like.ndim)
