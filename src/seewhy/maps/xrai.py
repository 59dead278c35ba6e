"""XRAI: segments of several sizes, ranked by the attribution that each adds to those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.images.regions import multiscale_segments
from seewhy.maps.paths import integrated_gradients
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording

Map = Float[Tensor, " batch *space"]

_PIXELS = 224 * 224  # the size that the smallest number of new pixels is meant for
_COLOURS = ("sum", "max")
_SHOWN = ("gain", "rank")


@method(
    "xrai",
    needs=Needs.INPUT_GRADIENTS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Kapishnikov et al. 2019, arXiv:1906.02825",
    passes="3 + {steps} x 2 x (1 + 1)",
)
def xrai(
    rec: Recording,
    *,
    steps: int = 50,
    baseline: Any = "black,white",
    min_pixel_diff: int = 50,
    colours: str = "sum",
    shown: str = "gain",
) -> Map:
    """Rank segments of several sizes by their mean integrated gradients, counting only the pixels that are new.

    Formula: again and again, the segment with the largest mean of A over its pixels outside M is added to M, and those pixels
        get that mean; A is integrated gradients, averaged over the baselines. The map's sum is that of A.
    Options: steps, points a baseline; baseline, one or several by commas; min_pixel_diff, segments with fewer new pixels are
        dropped, of 224 x 224 (of fewer pixels in proportion); colours, how A's become one: sum, or max as PAIR has it; shown,
        gain (that mean), or rank (1 for the region with the smallest gain).
    Elsewhere: PAIR's saliency takes the largest of A's colours, so that its map has another sum; its baselines are the
        input's own smallest and largest value.
    """
    for name, word, known in (("colours", colours, _COLOURS), ("shown", shown, _SHOWN)):
        if word not in known:
            raise MethodError(
                f"xrai: {name}='{word}' is not known.{did_you_mean(word, known)} Known: {', '.join(known)}."
            )
    if min_pixel_diff < 1:
        raise MethodError(f"xrai: min_pixel_diff={min_pixel_diff} must be at least 1.")
    coloured = integrated_gradients(rec, steps=steps, baseline=baseline)
    attributions = (coloured.sum(1) if colours == "sum" else coloured.amax(1)).cpu().double()
    fewest = max(1, round(min_pixel_diff * min(1.0, attributions[0].numel() / _PIXELS)))
    found = []
    for image, values in zip(rec.images, attributions, strict=True):
        order, gains = ranked(values.flatten(), _flat(multiscale_segments(image.cpu())), fewest)
        found.append((gains if shown == "gain" else by_gain(gains))[order].view_as(values))
    return torch.stack(found).to(rec.images)


def ranked(
    values: Float[Tensor, " pixel"], segments: Bool[Tensor, "segment pixel"], fewest: int
) -> tuple[Int[Tensor, " pixel"], Float[Tensor, " region"]]:
    """Add segments to a region greedily, the one with the largest mean over its new pixels first.

    Args:
        values: attributions.
        segments: they may overlap, and need not cover everything.
        fewest: segments with fewer new pixels are dropped.

    Returns:
        Which addition each pixel came with, and the mean of each addition. What no addition covered is one more, the last.
    """
    count, total = _sums(segments, values)
    free = torch.ones(len(values), dtype=torch.bool)
    order, gains = torch.zeros(len(values), dtype=torch.long), []
    while (eligible := count >= fewest).any():
        best = int(torch.where(eligible, total / count, -torch.inf).argmax())
        new = (segments[best] & free).nonzero()[:, 0]
        order[new] = len(gains)
        gains.append(values[new].mean())
        free[new] = False
        # Each pixel is new only once, so that all of this together costs one pass over the segments.
        fewer, less = _sums(segments[:, new], values[new])
        count, total = count - fewer, total - less
    if free.any():
        order[free] = len(gains)
        gains.append(values[free].mean())
    return order, torch.stack(gains)


def by_gain(gains: Float[Tensor, " region"]) -> Float[Tensor, " region"]:
    """Return each region's rank, the largest for the largest gain, 1 for the smallest."""
    return gains.argsort(stable=True).argsort().double() + 1


def _sums(
    segments: Bool[Tensor, "segment pixel"], values: Float[Tensor, " pixel"]
) -> tuple[Int[Tensor, " segment"], Float[Tensor, " segment"]]:
    """Return each segment's number of pixels and the sum of their values."""
    owner, pixel = segments.nonzero(as_tuple=True)
    return owner.bincount(minlength=len(segments)), owner.bincount(values[pixel], minlength=len(segments))


def _flat(masks: Sequence[Bool[Tensor, " *space"]]) -> Bool[Tensor, "segment pixel"]:
    return torch.stack([mask.flatten() for mask in masks])
