"""Numbers of a report: how far two answers differ, and sizes and times in words."""

from __future__ import annotations

import torch
from torch import Tensor


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a part of how far the expected numbers lie from their mean."""
    found, expected = found.float(), expected.float()
    spread = float((expected - expected.mean()).abs().max()) or float(expected.abs().max()) or 1.0
    return float((found - expected).abs().max()) / spread


def likeness(found: Tensor, expected: Tensor) -> float:
    """Return the correlation of two maps, -1 to 1; 1 where both are flat, 0 where one is."""
    one, other = found.float().flatten(), expected.float().flatten()
    one, other = one - one.mean(), other - other.mean()
    lengths = float(one.norm()), float(other.norm())
    if 0 in lengths:
        return float(lengths == (0, 0))
    return float(torch.dot(one, other)) / (lengths[0] * lengths[1])


def in_millions(count: int) -> str:
    """Return, say, "4.7 million", or the number itself where it is small."""
    return f"{count / 1e6:.1f} million" if count >= 100_000 else f"{count:,}"


def in_mebibytes(size: int) -> str:
    """Return, say, "12.7 MiB"."""
    return f"{size / 2**20:,.1f} MiB"


def in_seconds(time: float) -> str:
    """Return, say, "0.014 s", "2.3 s" or "4 min"."""
    if time >= 90:
        return f"{time / 60:,.0f} min"
    return f"{time:.2g} s" if time < 10 else f"{time:.0f} s"


def shape_of(shape: tuple[int, ...]) -> str:
    """Return, say, "1x3x224x224"."""
    return "x".join(map(str, shape)) or "one number"


def some(names: list[str], most: int = 3) -> str:
    """Return the first names as one phrase, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
