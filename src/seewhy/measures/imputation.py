"""Filling removed places with the weighted mean of their neighbours: the noisy linear imputation of ROAD, without its noise.

Each removed place equals the mean of the places around it, weighted 1/6 beside and 1/12 across a corner; those are removed
places again, so that it is one sparse linear system a mask. It is solved for many masks at once by conjugate gradients, with one
cycle of multigrid as the preconditioner: ten or so rounds whatever the size, and none of it leaves the device.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

TOLERANCE = 1e-4
"""About how far a value is from the exact solution at most, as a part of the image's range (twice that on inputs of one row):
well below ROAD's noise."""

_ROUNDS = 100  # about ten are needed; this many only where no number is finite
_COARSEST = 8  # cells along the longer side, from which on smoothing alone solves
_SWEEPS = 6
_TOGETHER = 8  # masks on a CPU; more do not fit into its cache

_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_LARGEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def imputed(
    image: Float[Tensor, " channel *space"], removed: Bool[Tensor, " number *space"]
) -> Float[Tensor, "number channel *space"]:
    """Return the image with removed places made the weighted mean of their neighbours, which may be removed themselves.

    Along each axis the weights are 1, 2, 1, and the place itself has none: in a picture 1/6 for the four places beside and 1/12
    for those across a corner. At the edge the mean is of the places that are there. Where all is removed, the image's mean is
    everywhere.

    Args:
        image: with 1 to 3 spatial axes.
        removed: one mask a result.

    Returns:
        The solutions, to :data:`TOLERANCE` of the image's range; places that were not removed are untouched.

    Source: Rong et al. 2022, arXiv:2202.00449, section 5.
    """
    middle = image.mean(tuple(range(1, image.ndim)), keepdim=True)
    span = float(image.amax() - image.amin())
    if span == 0 or not math.isfinite(span):
        return torch.where(removed[:, None], middle, image)
    centred = ((image - middle) / span).float()  # rounding is relative to the values: small ones lose less
    together = _TOGETHER if image.device.type == "cpu" else len(removed)
    solved = torch.cat([_filled(centred, some) for some in torch.split(removed, together)])
    return torch.where(removed[:, None], (solved * span + middle).to(image.dtype), image)


def _filled(image: Tensor, removed: Tensor) -> Float[Tensor, "number channel *space"]:
    """Return the solutions for an image around 0, as far from the exact ones as :data:`TOLERANCE`."""
    levels = _Levels(removed, len(image))
    known = levels.padded((image * ~removed[:, None]).flatten(0, 1))
    found = _solved(levels, _neighbours(known) * levels.masks[0], len(removed))[0]
    for axis, side in enumerate(image.shape[1:], 1):
        found = found.narrow(axis, 0, side)
    return found.reshape(len(removed), *image.shape)


class _Levels:
    """The system at every resolution: which places are removed, and how much their neighbours weigh.

    A cell of a coarser level counts as removed where all that it covers is, so that what is known stays known.

    Attributes:
        dimensions: spatial axes.
        masks: from the finest on, `(1, number * channel, *grid)`, 1 where a place is removed.
        weights: `(1, 1, *grid)`, what the neighbours weigh together.
        inverses: 1 over that where a place is removed, else 0.
    """

    def __init__(self, removed: Tensor, channels: int) -> None:
        space = removed.shape[1:]
        self.dimensions = len(space)
        self._halvings = max(0, math.ceil(math.log2(max(space) / _COARSEST)))
        self._space = space
        mask = self.padded(removed.float())
        inside = self.padded(torch.ones_like(removed[:1], dtype=torch.float32))
        self.masks: list[Tensor] = []
        self.inverses: list[Tensor] = []
        self.weights: list[Tensor] = []
        for level in range(self._halvings + 1):
            if level:
                inside, outside = _LARGEST[self.dimensions](inside, 2), inside
                all_of_it = _AVERAGE[self.dimensions](mask + (1 - outside), 2) >= 1
                mask = all_of_it.float() * inside
            weights = _neighbours(inside)
            self.weights.append(weights)
            whole = mask[0].repeat_interleave(channels, 0)[None]
            self.masks.append(whole)
            self.inverses.append(whole / weights.clamp_min(1))

    def padded(self, maps: Float[Tensor, " number *space"]) -> Float[Tensor, "1 number *grid"]:
        """Return maps on a grid that can be halved down to the coarsest level, zero where it is larger."""
        unit = 2**self._halvings
        behind = [(0, -side % unit) for side in reversed(self._space)]
        return functional.pad(maps, list(itertools.chain(*behind)))[None]

    def applied(self, values: Tensor) -> Tensor:
        """Return the system's left side for values that are 0 where nothing is removed."""
        return (self.weights[0] * values).sub_(_neighbours(values)).mul_(self.masks[0])

    def cycle(self, right: Tensor, level: int = 0) -> Tensor:
        """Return about what solves the system for this right side: one smoothing, the coarser levels, one smoothing."""
        mask, inverse = self.masks[level], self.inverses[level]
        values = right * inverse
        if level == len(self.masks) - 1:
            for _ in range(_SWEEPS):
                values = _neighbours(values).add_(right).mul_(inverse)
            return values
        coarse = _neighbours(values).mul_(mask)  # what is left of the right side after the first smoothing
        for axis in range(2, right.ndim):
            coarse = _halved(coarse, axis)
        coarse = self.cycle(coarse.mul_(self.masks[level + 1]), level + 1)
        for axis in range(2, right.ndim):
            coarse = _doubled(coarse, axis)
        longer = 2.0 ** (2 - self.dimensions)  # what a step weighs where cells are twice as long
        values.add_(coarse.mul_(mask), alpha=longer)
        return _neighbours(values).add_(right).mul_(inverse)


def _solved(levels: _Levels, right: Tensor, number: int) -> Tensor:
    """Return the systems' solutions by conjugate gradients; each stops by itself, so that none depends on its neighbours."""

    def each(values: Tensor) -> Tensor:
        return values.view(number, -1)

    def product(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).flatten(2).sum(2).view(1, -1, *(1,) * levels.dimensions)

    values, left = torch.zeros_like(right), right
    guess = levels.cycle(left)
    direction, step = guess, product(left, guess)
    for _ in range(_ROUNDS):
        # The preconditioned residual is nearly the error itself.
        going = (each(guess).abs().amax(1) > TOLERANCE).repeat_interleave(right.shape[1] // number)
        if not bool(going.any()):
            break
        image = levels.applied(direction)
        length = step / product(direction, image).clamp_min(1e-30) * going.view_as(step)
        values.addcmul_(direction, length)
        left = left.addcmul(image, length, value=-1)
        guess = levels.cycle(left)
        following = product(left, guess)
        direction = guess.addcmul(direction, following / step.clamp_min(1e-30))
        step = following
    return values + guess


def _neighbours(values: Tensor) -> Tensor:
    """Return the sums of the places around each place, times 1, 2 or 4 ...: 1, 2, 1 along each axis, without the place itself.

    The weights are whole numbers, so that what is the same everywhere is balanced without rounding.
    """
    found = values
    for axis in range(2, values.ndim):
        last = values.shape[axis] - 1
        wider = found + found
        wider.narrow(axis, 1, last).add_(found.narrow(axis, 0, last))
        wider.narrow(axis, 0, last).add_(found.narrow(axis, 1, last))
        found = wider
    return found.sub_(values, alpha=2 ** (values.ndim - 2))


def _halved(values: Tensor, axis: int) -> Tensor:
    """Return the transpose of :func:`_doubled`."""
    pairs = values.unflatten(axis, (-1, 2))  # type: ignore[no-untyped-call]
    before, after = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
    last = before.shape[axis] - 1
    found: Tensor = (before + after).mul_(0.75)
    found.narrow(axis, 0, last).add_(before.narrow(axis, 1, last), alpha=0.25)
    found.narrow(axis, 0, 1).add_(before.narrow(axis, 0, 1), alpha=0.25)
    found.narrow(axis, 1, last).add_(after.narrow(axis, 0, last), alpha=0.25)
    found.narrow(axis, last, 1).add_(after.narrow(axis, last, 1), alpha=0.25)
    return found


def _doubled(values: Tensor, axis: int) -> Tensor:
    """Return values at twice the resolution along an axis, linear between the cells' centres, constant beyond the last."""
    last = values.shape[axis] - 1
    shape = list(values.shape)
    shape[axis : axis + 1] = [last + 1, 2]
    pairs = (values * 0.75).unsqueeze(axis + 1).expand(shape).contiguous()
    before, after = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
    before.narrow(axis, 1, last).add_(values.narrow(axis, 0, last), alpha=0.25)
    before.narrow(axis, 0, 1).add_(values.narrow(axis, 0, 1), alpha=0.25)
    after.narrow(axis, 0, last).add_(values.narrow(axis, 1, last), alpha=0.25)
    after.narrow(axis, last, 1).add_(values.narrow(axis, last, 1), alpha=0.25)
    return pairs.flatten(axis, axis + 1)
