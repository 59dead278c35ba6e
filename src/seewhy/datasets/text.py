"""Files of labels and boxes, read within bounds."""

from __future__ import annotations

from pathlib import Path

from seewhy.errors import MetricError

LARGEST = 500_000_000
"""Bytes: COCO's own boxes of 118,000 pictures with their outlines are 450 MB."""

LARGEST_OF_ONE = 1_000_000
"""Bytes of what is said of one picture: a box is 100 in Pascal VOC's words, an outline a few thousand."""


def bytes_of(path: Path, largest: int = LARGEST) -> bytes:
    """Return a file's content.

    Raises:
        MetricError: it is too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise MetricError(f"'{path}' cannot be read as labels or boxes: {error.strerror}. Check the path.") from error
    if len(content) > largest:
        raise MetricError(f"'{path}' is over {largest:,} bytes: that is no file of labels or boxes.")
    return content


def text_of(path: Path, largest: int = LARGEST) -> str:
    """Return a file's text.

    Raises:
        MetricError: it is too large, cannot be read, or is not UTF-8.
    """
    try:
        return bytes_of(path, largest).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except ValueError as error:
        raise MetricError(
            f"'{path}' is no UTF-8 text: {error}. Labels and boxes are text; save it as UTF-8."
        ) from error
