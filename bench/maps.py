"""How far two libraries' maps are apart, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HOW = ("positive", "signed", "either sign")


def unit(maps: npt.NDArray[np.floating], how: str = "positive") -> npt.NDArray[np.float64]:
    """Return `(batch, height, width)` with each map divided by its largest absolute value.

    Args:
        maps: any scale.
        how: "positive": only the positive part is kept, so the result is 0..1; else all of it: -1..1.
    """
    values = np.asarray(maps, np.float64)
    values = np.maximum(values, 0) if how == "positive" else values
    peaks = np.abs(values).max(axis=(1, 2), keepdims=True)
    return values / np.where(peaks > 0, peaks, 1)


def difference(
    some: Sequence[npt.NDArray[np.floating]], others: Sequence[npt.NDArray[np.floating]], how: str = "positive"
) -> float:
    """Return the largest difference of any cell of any map, both on the scale of :func:`unit`.

    Args:
        some: maps.
        others: as many, of the same shapes.
        how: "positive" parts, "signed" maps, or signed maps of which each has "either sign".

    Raises:
        ValueError: the libraries' maps are of different numbers or shapes, or `how` is not known.
    """
    if how not in HOW:
        raise ValueError(f"how='{how}' is not one of {HOW}.")
    pairs = list(zip(some, others, strict=True))
    for one, other in pairs:
        if one.shape != other.shape:
            raise ValueError(f"Maps of shapes {one.shape} and {other.shape} are not of the same layer.")
    signs = (1, -1) if how == "either sign" else (1,)
    return max(
        min(float(np.abs(own - sign * their).max()) for sign in signs)
        for one, other in pairs
        for own, their in zip(unit(one, how), unit(other, how), strict=True)
    )
