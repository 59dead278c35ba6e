"""How far two libraries' maps are apart, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def unit(maps: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the positive part of `(batch, height, width)`, each map divided by its largest value: 0..1."""
    positive = np.maximum(np.asarray(maps, np.float64), 0)
    peaks = positive.max(axis=(1, 2), keepdims=True)
    return positive / np.where(peaks > 0, peaks, 1)


def difference(some: Sequence[npt.NDArray[np.floating]], others: Sequence[npt.NDArray[np.floating]]) -> float:
    """Return the largest difference of any cell of any map, 0..1, both on the scale of :func:`unit`.

    Raises:
        ValueError: the libraries' maps are of different numbers or shapes.
    """
    pairs = list(zip(some, others, strict=True))
    for one, other in pairs:
        if one.shape != other.shape:
            raise ValueError(f"Maps of shapes {one.shape} and {other.shape} are not of the same layer.")
    return max(float(np.abs(unit(one) - unit(other)).max()) for one, other in pairs)
