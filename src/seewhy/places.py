"""Where a map is high, in words of the input: stretches of a signal, blocks of a volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Interval:
    """A stretch of a signal, in samples; stop is one past the last.

    Attributes:
        start, stop: its ends.
        share: the part of the map's whole positive mass that lies in it, 0..1.
    """

    start: int
    stop: int
    share: float


@dataclass(frozen=True)
class Block:
    """The smallest block around a connected region of a map of any number of axes, in the input's own axis order.

    Attributes:
        start, stop: its ends along each axis; stop is one past the last.
        share: the part of the map's whole positive mass that lies in the region itself, 0..1.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    share: float


def connected(
    positive: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], least: float
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], float]]:
    """Yield start, stop and share of each connected region, the largest share first.

    Args:
        positive: the map, not negative.
        mask: where it is high, of the same shape, with 1 to 3 axes.
        least: regions with a smaller share are left out.
    """
    from skimage.measure import label, regionprops

    axes = mask.ndim
    labels = label(mask)
    labels, values = (labels[None], positive[None]) if axes == 1 else (labels, positive)  # it measures 2 or 3 axes
    total = float(values.sum()) or 1.0
    found = []
    for region in regionprops(labels):
        share = round(float(values[region.slice][region.image].sum()) / total, 4)
        sides = region.slice[-axes:]
        found.append((tuple(side.start for side in sides), tuple(side.stop for side in sides), share))
    yield from sorted((each for each in found if each[2] >= least), key=lambda each: -each[2])
