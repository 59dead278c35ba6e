"""The score when parts of the input are hidden: occlusion, RISE, feature ablation. They need nothing but scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.images.regions import as_segments, superpixels
from seewhy.maps.backprop import resized
from seewhy.maps.held import Held
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording, Variants

Map = Float[Tensor, " batch *space"]
Window = tuple[slice, ...]


@dataclass(frozen=True)
class Windows:
    """The input with one window at a time hidden, in a seeded random order, so that any beginning is spread over the input.

    Attributes:
        window: its side in pixels; 0: a seventh of the input's shorter side.
        stride: from one window to the next, in pixels; 0: half the window.
        baseline: what is put there.
    """

    window: int
    stride: int
    baseline: Held

    def places(self, space: tuple[int, ...]) -> list[Window]:
        """Return the windows, row by row; the last one of an axis may reach over the edge, where it is cut."""
        side = self.window or max(1, round(min(space) / 7))
        step = self.stride or max(1, side // 2)
        if side < 1 or step < 1 or step > side:
            raise MethodError(
                f"window={self.window} and stride={self.stride} must be 1 or more; the stride at most the window ({side})."
            )
        starts = [range(0, max(0, math.ceil((length - side) / step)) * step + 1, step) for length in space]
        return [tuple(slice(at, at + side) for at in corner) for corner in product(*starts)]

    def __call__(self, sample: Recording) -> Variants:
        """Return the inputs; result n is the n-th window of :meth:`places`."""
        image, nothing = sample.images[0], sample.baseline(self.baseline.value)[0]
        places = self.places(tuple(image.shape[1:]))
        order = torch.randperm(len(places), generator=sample.generator)

        def make(numbers: range) -> Tensor:
            images = image.expand(len(numbers), *image.shape).clone()
            for edited, number in zip(images, numbers, strict=True):
                window = (slice(None), *places[int(order[number])])
                edited[window] = nothing[window]
            return images

        return Variants(len(places), make, order.argsort())


@method(
    "occlusion",
    needs=Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Zeiler & Fergus 2013, arXiv:1311.2901",
    passes="1 + 0; a forward a window, 169 at 224 pixels",
)
def occlusion(rec: Recording, *, window: int = 0, stride: int = 0, baseline: Any = "dataset") -> Map:
    """Hide one window after the other; a pixel's value is the mean loss of score over the windows that cover it.

    Formula: mean over windows w that cover a place of score(x) - score(x with w hidden).
    Options: window, its side in pixels (0: a seventh of the shorter side); stride, from one to the next (0: half the window);
        baseline, what is put there: black, mean, blur, noise, dataset, a number, a picture.
    """
    windows = Windows(window, stride, Held(baseline))
    places = windows.places(tuple(rec.images.shape[2:]))
    scores = rec.score(windows)
    lost = (rec.scores[:, None] - scores.values) * scores.known
    total, count = torch.zeros_like(rec.images[:, 0]), torch.zeros_like(rec.images[:, 0])
    for number, place in enumerate(places):
        where = (slice(None), *place)
        column = (-1, *(1,) * len(place))
        total[where] += lost[:, number].view(column)
        count[where] += scores.known[:, number].view(column)
    return total / count.clamp_min(1)


@dataclass(frozen=True)
class RandomMasks:
    """The input seen through random smooth masks, the same for every sample.

    Attributes:
        masks: how many.
        cells: cells along the shorter side, each seen or not.
        keep: the chance that a cell is seen.
        baseline: what is seen where a mask is 0.
        seed: for the masks.
    """

    masks: int
    cells: int
    keep: float
    baseline: Held
    seed: int

    def made(self, numbers: range, space: tuple[int, ...], device: torch.device) -> Float[Tensor, "number 1 *space"]:
        """Return some of the masks: a grid of cells seen or not, resized linearly and moved by less than a cell."""
        cell = math.ceil(min(space) / self.cells)
        grid = [math.ceil(length / cell) + 1 for length in space]
        seen, corners = [], []
        for number in numbers:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            seen.append(torch.rand(grid, generator=generator) < self.keep)
            shift = [int(torch.randint(cell, (), generator=generator)) for _ in space]
            corners.append(tuple(slice(at, at + length) for at, length in zip(shift, space, strict=True)))
        large = resized(torch.stack(seen)[:, None].to(device, torch.float32), tuple(cells * cell for cells in grid))
        return torch.stack([mask[(slice(None), *corner)] for mask, corner in zip(large, corners, strict=True)])

    def __call__(self, sample: Recording) -> Variants:
        """Return the masked inputs."""
        image, nothing = sample.images[0], sample.baseline(self.baseline.value)[0]
        space, device = tuple(image.shape[1:]), image.device
        return Variants(self.masks, lambda numbers: nothing + self.made(numbers, space, device) * (image - nothing))


@method(
    "rise",
    needs=Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Petsiuk et al. 2018, arXiv:1806.07421",
    passes="1 + 0; {masks} forwards",
)
def rise(
    rec: Recording,
    *,
    masks: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    baseline: Any = "dataset",
    centred: bool = True,
) -> Map:
    """Average random masks, each weighted by the score of the input seen through it.

    Formula: sum over n of (score(x * M_n) - mean score) M_n / (N keep).
    Options: masks, how many; cells, along the shorter side; keep, the chance that a cell is seen; baseline, what is seen where
        a mask is 0; centred, take the mean score off first, so that 0 means no influence.
    Elsewhere: the paper does not centre, so that its maps have an offset of about the mean score; its order is the same.
    """
    if masks < 1 or cells < 1 or not 0 < keep < 1:
        raise MethodError(f"masks={masks} and cells={cells} must be at least 1, and keep={keep} between 0 and 1.")
    drawn = RandomMasks(masks, cells, keep, Held(baseline), rec.seed)
    scores = rec.score(drawn)
    count = scores.known.sum(1, keepdim=True).clamp_min(1)
    mean = (scores.values * scores.known).sum(1, keepdim=True) / count
    weights = (scores.values - mean * centred) * scores.known / (count * keep)
    space = tuple(rec.images.shape[2:])
    found = torch.zeros_like(rec.images[:, 0])
    for at in range(0, masks, _AT_ONCE):
        numbers = range(at, min(at + _AT_ONCE, masks))
        shown = drawn.made(numbers, space, found.device)[:, 0].flatten(1)
        found += (weights[:, numbers.start : numbers.stop] @ shown).view_as(found)
    return found


_AT_ONCE = 16
"""Masks that are made again at once for the sum."""


@dataclass(frozen=True)
class WithoutSegment:
    """The input with one segment at a time hidden.

    Attributes:
        count: how many superpixels, where no segments are given.
        segments: a segmentation of the input; see :func:`seewhy.images.regions.as_segments`.
        baseline: what is put there.
    """

    count: int
    segments: Held
    baseline: Held

    def of(self, image: Float[Tensor, " channel *space"]) -> Tensor:
        """Return the segments' numbers `(*space)`, 0 to n - 1."""
        if self.segments.value is None:
            return superpixels(image, self.count).to(image.device)
        return as_segments(self.segments.value, tuple(image.shape[1:])).to(image.device)

    def __call__(self, sample: Recording) -> Variants:
        """Return the inputs; result n is segment n's; the largest come first."""
        image, nothing = sample.images[0], sample.baseline(self.baseline.value)[0]
        segments = self.of(image)
        order = segments.flatten().bincount().argsort(descending=True, stable=True).cpu()

        def make(numbers: range) -> Tensor:
            chosen = order[numbers.start : numbers.stop].to(image.device).view(-1, *(1,) * image.ndim)
            return torch.where(segments == chosen, nothing, image)

        return Variants(len(order), make, order.argsort())


@method(
    "feature-ablation",
    needs=Needs.SCORE,
    class_specific=True,
    signed=True,
    source="github.com/pytorch/captum, FeatureAblation",
    passes="1 + 0; a forward a segment, about {count}",
)
def feature_ablation(rec: Recording, *, count: int = 64, segments: Any = None, baseline: Any = "blur") -> Map:
    """Hide one superpixel, or one segment of your own, after the other; its value is the loss of score.

    Formula: score(x) - score(x with the segment hidden), at every place of the segment.
    Options: count, how many superpixels; segments, your own instead: an array of whole numbers or a label image of the model's
        input; baseline, what is put there.
    """
    if count < 1:
        raise MethodError(f"count={count} must be at least 1.")
    hidden = WithoutSegment(count, Held(segments), Held(baseline))
    scores = rec.score(hidden)
    lost = (rec.scores[:, None] - scores.values) * scores.known
    return torch.stack([own[hidden.of(image)] for own, image in zip(lost, rec.images, strict=True)])
