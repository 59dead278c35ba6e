"""A part of the picture as a caller gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture, and what is asked about it, as a target.

    Attributes:
        part: a boolean array of the original picture's (or volume's) spatial shape; a box (left, top, right, bottom) in its
            pixels, right and bottom one past the last; or the path of a mask: a picture that is bright in the region, at least
            half as bright as where it is brightest.
        of: a class index or name, "A-vs-B", "probability:NAME", or "up" and "down" where there is one score a place. None: the
            class that the model predicts at most of it.
    """

    part: Any
    of: Any = None
