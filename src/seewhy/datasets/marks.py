"""A box around a thing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seewhy.errors import MetricError
from seewhy.images import size_words

DIGITS = 2
"""Of a pixel: tools round what they write, and a box must not grow by a pixel for it."""


@dataclass(frozen=True)
class Boxed:
    """A thing in a picture.

    Attributes:
        edges: left, top, right, bottom in pixels of the upright picture; right and bottom one past the last.
        kind: the thing's class: its name, or its number in words; None where it has none.
        named: whether `kind` is a name.
    """

    edges: tuple[float, float, float, float]
    kind: str | None = None
    named: bool = True


def boxed(
    left: float, top: float, right: float, bottom: float, kind: str | None, where: str, *, named: bool = True
) -> Boxed:
    """Return a box, its edges rounded to hundredths of a pixel.

    Raises:
        MetricError: edges that are no numbers, or in the wrong order.
    """
    edges = (left, top, right, bottom)
    if not all(math.isfinite(edge) for edge in edges) or left >= right or top >= bottom:
        raise MetricError(
            f"{where} has a box without an inside: left {left}, top {top}, right {right}, bottom {bottom}."
        )
    return Boxed(tuple(round(edge, DIGITS) for edge in edges), kind, named)  # type: ignore[arg-type]


def check_size(width: float, height: float, shape: tuple[int, ...], where: str) -> None:
    """Refuse boxes of a picture of another size.

    Raises:
        MetricError: it is.
    """
    if (height, width) != tuple(shape):
        raise MetricError(
            f"{where} is about a picture of {width:g} x {height:g} pixels, and this one has {size_words(shape)} (upright). Give "
            "boxes of the picture as it is."
        )
