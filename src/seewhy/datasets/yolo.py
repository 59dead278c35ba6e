"""YOLO's text files: a line a thing, `class x y width height`, the middle and size as parts of the picture's."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy.datasets.marks import Boxed, boxed
from seewhy.errors import MetricError

_BOX = 5
_SLACK = 0.01  # an edge may stand over the picture's by what tools round


def yolo_boxes(text: str, where: str, shape: tuple[int, ...], classes: Sequence[str] = ()) -> list[Boxed]:
    """Return the boxes of one picture.

    A sixth number (a confidence) is left out; of an outline, `class x y x y x y ...`, the box around it is taken.

    Args:
        text: the file's.
        where: its name.
        shape: `(height, width)`.
        classes: the classes' names in order; none: numbers are all that is known.

    Raises:
        MetricError: a line is something else.
    """
    high, wide = shape
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        try:
            kind, numbers = int(float(words[0])), [float(word) for word in words[1:]]
        except (ValueError, OverflowError):
            numbers = []
        edges = _edges(numbers)
        known = numbers if len(numbers) > _BOX else (*edges, *numbers[_BOX - 1 :])  # an outline's points are edges
        if not edges or not all(-_SLACK <= number <= 1 + _SLACK for number in known):
            raise MetricError(
                f"{where} has a line that is none of YOLO's: '{line[:80]}'. Expected: class x y width height, as parts of the "
                "picture, 0 to 1."
            )
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
        named = 0 <= kind < len(classes)
        name = classes[kind] if named else str(kind)
        found.append(boxed(left * wide, top * high, right * wide, bottom * high, name, where, named=named))
    return found


def _edges(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return left, top, right and bottom of a box or an outline, as parts of the picture; none of what is neither."""
    if len(numbers) in (_BOX - 1, _BOX):
        x, y, width, height = numbers[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(numbers) < 6 or len(numbers) % 2:
        return ()
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)
