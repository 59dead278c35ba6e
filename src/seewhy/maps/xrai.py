"""XRAI: segments of several sizes, ranked by the attribution that each adds to those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.images.regions import multiscale_segments
from seewhy.maps.paths import integrated_gradients
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
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
    attributions = (coloured.sum(1) if colours == "sum" else coloured.amax(1)).cpu().double().numpy()
    fewest = max(1, round(min_pixel_diff * min(1.0, attributions[0].size / _PIXELS)))
    found = []
    for image, values in zip(rec.images.cpu(), attributions, strict=True):
        order, gains = ranked(values, [mask.numpy() for mask in multiscale_segments(image)], fewest)
        found.append((gains if shown == "gain" else by_gain(gains))[order])
    return torch.from_numpy(np.stack(found)).to(rec.images)


def ranked(values: Array, segments: Sequence[npt.NDArray[np.bool_]], fewest: int) -> tuple[Numbers, Array]:
    """Add segments to a region greedily, the one with the largest mean over its new pixels first.

    Args:
        values: attributions `(*space)`.
        segments: masks `(*space)`; they may overlap, and need not cover everything.
        fewest: segments with fewer new pixels are dropped.

    Returns:
        Which addition each pixel came with, `(*space)`, and the mean of each addition. What none covered is one more, the last.
    """
    flat = values.ravel()
    members = [mask.ravel().nonzero()[0] for mask in segments]
    count, total = np.array([len(each) for each in members]), np.array([flat[each].sum() for each in members])
    holders = _holders(members, flat.size)
    order = np.full(flat.size, -1)
    gains: list[np.floating[Any]] = []
    while len(left := (count >= fewest).nonzero()[0]):
        best = left[(total[left] / count[left]).argmax()]
        new = members[best][order[members[best]] < 0]
        order[new] = len(gains)
        gains.append(flat[new].mean())
        # Each pixel is new only once, so that all of this together costs one pass over the segments.
        holder, held = holders(new)
        count = count - np.bincount(holder, minlength=len(members))
        total = total - np.bincount(holder, flat[held], len(members))
    if (rest := order < 0).any():
        order[rest] = len(gains)
        gains.append(flat[rest].mean())
    return order.reshape(values.shape), np.array(gains)


def _holders(members: Sequence[Numbers], pixels: int) -> Callable[[Numbers], tuple[Numbers, Numbers]]:
    """Return a function from pixels to all pairs of a segment and one of the pixels that it holds."""
    pixel = np.concatenate(members)
    owner = np.repeat(np.arange(len(members)), [len(each) for each in members])[np.argsort(pixel, kind="stable")]
    counts = np.bincount(pixel, minlength=pixels)
    begins = np.cumsum(counts) - counts  # where each pixel's segments begin in `owner`

    def pairs(chosen: Numbers) -> tuple[Numbers, Numbers]:
        many = counts[chosen]
        offsets = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        return owner[np.repeat(begins[chosen], many) + offsets], np.repeat(chosen, many)

    return pairs


def by_gain(gains: Array) -> Array:
    """Return each region's rank: 1 for the smallest gain."""
    ranks: Array = np.argsort(np.argsort(gains, kind="stable")).astype(np.float64) + 1
    return ranks
