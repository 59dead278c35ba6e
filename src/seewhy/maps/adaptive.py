"""Derivatives along bent paths to the input: guided (past steep places) and blur (from coarse to fine); colours are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.images.blur import gaussian_blur
from seewhy.maps.held import Held, held
from seewhy.maps.paths import report_gap, spread_order
from seewhy.maps.registry import method
from seewhy.recorder import Derived, Needs, Recording, Variants

Colours = Float[Tensor, "batch image_channel *space"]


@dataclass(frozen=True)
class Guide:
    """How far each value of an input is moved in one step of a guided path.

    Attributes:
        fraction: the part of all values that are moved before the others, those with the flattest slopes.
        max_dist: how far a value may be from the straight line, as a part of its way.
    """

    fraction: float
    max_dist: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1 or not 0 <= self.max_dist <= 1:
            raise MethodError(
                f"fraction={self.fraction} must be over 0 and at most 1, and max_dist={self.max_dist} from 0 to 1."
            )

    def moved(
        self,
        along: Float[Tensor, " value"],
        ways: Float[Tensor, " value"],
        slopes: Float[Tensor, " value"],
        goal: float,
    ) -> Float[Tensor, " value"]:
        """Move the values with the flattest slopes on, until a part of the whole way is done.

        Args:
            along: how far each value is on its way from the baseline to the input, 0..1.
            ways: the length of its way.
            slopes: the size of the score's derivative by it.
            goal: the part of the sum of all ways that is done afterwards.
        """
        low, high = max(goal - self.max_dist, 0.0), min(goal + self.max_dist, 1.0)
        along = along.clamp(min=low)
        slopes = slopes.where((along < high) & (ways > 0), math.inf)  # the others have nowhere to go
        rank = int(self.fraction * (len(slopes) - 1)) + 1
        left = float((ways * (goal - along)).sum())
        while left > 0:
            chosen = (slopes <= slopes.kthvalue(rank).values) & (slopes < math.inf)
            room = float((ways * (high - along))[chosen].sum())
            if room >= left:
                return torch.where(chosen, along + (high - along) * (left / room), along)
            if room == 0:  # nothing is left to move; or the slopes are not finite
                break
            along, slopes = along.where(~chosen, high), slopes.where(~chosen, math.inf)
            left -= room
        return along


class GuidedPath:
    """A walk from a baseline to the input, for all samples of a batch: variants of the input, one a step and sample.

    Args:
        rec: the batch.
        start: what the walk begins at; see :meth:`Recording.baseline`.
        guide: how far each value goes in a step.
    """

    def __init__(self, rec: Recording, start: Held, guide: Guide) -> None:
        self._start = _wide(rec.baseline(start.value))
        self._way = _wide(rec.images) - self._start
        self._along = torch.zeros_like(self._way)
        self._guide = guide
        self.found = torch.zeros_like(self._way)
        self.goal = 0.0

    def __call__(self, sample: Recording) -> Variants:
        """Return where one sample's walk is."""
        row = sample.place
        here = (self._start[row] + self._along[row] * self._way[row]).to(sample.images)
        return Variants(1, lambda _: here[None])

    def take(self, part: Derived) -> None:
        """Walk on to the goal by the derivative here, and add what that explains."""
        along, way, gradient = self._along[part.row], self._way[part.row], part.gradients[0].to(self._way)
        moved = self._guide.moved(along.flatten(), way.abs().flatten(), gradient.abs().flatten(), self.goal)
        self.found[part.row] += (moved.view_as(along) - along) * way * gradient
        self._along[part.row] = moved.view_as(along)


@method(
    "guided-ig",
    needs=Needs.INPUT_GRADIENTS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Kapishnikov et al. 2021, arXiv:2106.09788",
    passes="2 + {steps} x (1 + 1)",
    colours="sum",
    scaling="percentile",
)
def guided_ig(
    rec: Recording, *, steps: int = 50, fraction: float = 0.25, max_dist: float = 0.02, baseline: Any = "black"
) -> Colours:
    """Integrate the derivative along a path that moves those values first by which the score changes least.

    Formula: sum over steps of d score / d x_i times the step of x_i; a step moves the flattest part of the values, each at
        most max_dist of its way from the straight line, until 1 / steps of the whole way is done.
    Options: steps, points on the path; fraction, the part of the values that are moved before the others; max_dist, 0 (the
        straight line) to 1 (any path); baseline, one or several ("black,white") to average over.
    Elsewhere: PAIR's saliency takes 200 steps by default; its release 0.2.1 does not run with NumPy 2.4. Which values go first
        hangs on differences as small as rounding, here and there: on another device the path, and so the map, may differ.
    """
    kinds = held(baseline)
    if steps < 1 or not kinds:
        raise MethodError(f"steps={steps} must be at least 1, and baseline={baseline!r} must name one.")
    guide = Guide(fraction, max_dist)
    allowed = max(1, rec.affordable(steps * len(kinds)) // len(kinds))
    found = torch.zeros_like(rec.images)
    for kind in kinds:
        path = GuidedPath(rec, kind, guide)
        for step in range(allowed):
            path.goal = (step + 1) / allowed
            rec.derive(path, path.take)
        found += path.found.to(found) / len(kinds)
    report_gap(rec, found, kinds)
    return found


@dataclass(frozen=True)
class Blurs:
    """The input, more and more blurred, in an order of which any beginning is spread over the whole.

    Attributes:
        max_sigma: the widest blur's standard deviation in pixels; 0: 50 at 224, in proportion to the longer side.
        steps: how many.
        grad_step: how much wider a blur is that is compared with each; 0: as wide as the next.
        square_root: go evenly by the square of the standard deviation, so that most are narrow.
    """

    max_sigma: float
    steps: int
    grad_step: float
    square_root: bool

    def __post_init__(self) -> None:
        numbers = (self.max_sigma, self.grad_step)
        if self.steps < 1 or not all(0 <= number < math.inf for number in numbers):
            raise MethodError(
                f"steps={self.steps} must be at least 1, max_sigma={self.max_sigma} and grad_step={self.grad_step} finite "
                "numbers, not negative."
            )

    def widest(self, space: tuple[int, ...]) -> float:
        """Return the widest blur's standard deviation in pixels."""
        return self.max_sigma or _WIDEST * max(space)

    def widths(self, space: tuple[int, ...]) -> list[tuple[float, float]]:
        """Return each blur's standard deviation, and how much wider the next one is."""
        parts = [step / self.steps for step in range(self.steps + 1)]
        sigmas = [self.widest(space) * (math.sqrt(part) if self.square_root else part) for part in parts]
        return [(sigmas[step], sigmas[step + 1] - sigmas[step]) for step in spread_order(self.steps)]

    def __call__(self, sample: Recording) -> Variants:
        """Return the blurred inputs."""
        image = sample.images
        widths = self.widths(tuple(image.shape[2:]))
        return Variants(self.steps, lambda numbers: torch.cat([_blurred(image, widths[n][0]) for n in numbers]))


@dataclass(frozen=True)
class Blurred:
    """The input, blurred as much as the last of these."""

    blurs: Blurs

    def __call__(self, sample: Recording) -> Variants:
        """Return one variant."""
        image = sample.images
        return Variants(1, lambda _: _blurred(image, self.blurs.widest(tuple(image.shape[2:]))))


@method(
    "blur-ig",
    needs=Needs.INPUT_GRADIENTS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Xu et al. 2020, arXiv:2004.03383",
    passes="2 + {steps} x (1 + 1)",
    colours="sum",
    scaling="percentile",
)
def blur_ig(
    rec: Recording, *, max_sigma: float = 0.0, steps: int = 50, grad_step: float = 0.01, square_root: bool = False
) -> Colours:
    """Integrate the derivative along the path on which the input is blurred less and less.

    Formula: - integral over s in 0..max_sigma of d score / d x at b_s times d b_s / d s; b_s is the input, blurred with a
        Gaussian of standard deviation s, black (0 in the model's units) around it. Its sum is score(x) - score(b_max_sigma).
    Options: max_sigma, the widest blur in pixels (0: 50 at 224, in proportion to the longer side); steps, points on the path;
        grad_step, the step of s for the derivative by s (0: to the next point, so that all steps add up to the whole path);
        square_root, points evenly by s^2 instead of s.
    Elsewhere: PAIR's saliency takes 100 steps by default; its `sqrt` ends at the square root of max_sigma.
    """
    blurs = Blurs(max_sigma, steps, grad_step, square_root)
    widths = blurs.widths(tuple(rec.images.shape[2:]))
    gaps = torch.tensor([gap for _, gap in widths])
    found = torch.zeros_like(rec.images)
    done = torch.zeros(len(found))

    def take(part: Derived) -> None:
        image = rec.images[part.row : part.row + 1]
        for number, gradient in zip(part.numbers.tolist(), part.gradients, strict=True):
            sigma, gap = widths[number]
            apart = grad_step or gap
            found[part.row] += gradient * _sharper(image, sigma, apart) * (gap / apart)
            done[part.row] += gaps[number]

    rec.derive(blurs, take)
    missing = (gaps.sum() / done).to(found)  # 1, unless a budget left points out
    found = found * missing.view(-1, *(1,) * (found.ndim - 1))
    difference = rec.scores - rec.score(Blurred(blurs)).values[:, 0]
    rec.report("score difference", difference)
    rec.report("completeness gap", found.flatten(1).sum(1) - difference)
    return found


_WIDEST = 50 / 224  # of the longer side, as PAIR's default is at 224 pixels


def _blurred(image: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(image, sigma, edges="zero")


def _sharper(image: Tensor, sigma: float, apart: float) -> Tensor:
    """Return how an image `(1, channel, *space)` changes when it is blurred less: `(channel, *space)`."""
    wide = _wide(image)  # the difference of two blurs that are nearly the same has few digits left
    return (_blurred(wide, sigma) - _blurred(wide, sigma + apart))[0].to(image)


def _wide(values: Tensor) -> Tensor:
    """Return the values in float64; on MPS, which has none, on the CPU."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
