"""Text files of labels and boxes, read within bounds."""

from __future__ import annotations

from pathlib import Path

from seewhy.errors import MetricError

LARGEST = 500_000_000
"""Bytes: COCO's own boxes of 118,000 pictures with their outlines are 450 MB."""


def text_of(path: Path) -> str:
    """Return a file's text.

    Raises:
        MetricError: it is too large, cannot be read, or is not UTF-8.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise MetricError(f"'{path}' is over {LARGEST:,} bytes: that is no file of labels or boxes.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MetricError(f"'{path}' cannot be read as labels or boxes: {error.strerror}. Check the path.") from error
    except ValueError as error:
        raise MetricError(
            f"'{path}' is no UTF-8 text: {error}. Labels and boxes are text; save it as UTF-8."
        ) from error
