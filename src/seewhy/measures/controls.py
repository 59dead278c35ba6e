"""Maps that know nothing of the model, which a true map must beat."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CELLS = 7
"""Cells of a random map along the shorter side: about as coarse as the last stage of most classifiers."""


def random_maps(count: int, space: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, " number *space"]:
    """Return smooth noise: normal numbers on a coarse grid, resized linearly."""
    cell = max(1, math.ceil(min(space) / CELLS))
    grid = [max(1, math.ceil(length / cell)) for length in space]
    noise = torch.randn((count, 1, *grid), generator=generator)
    return functional.interpolate(noise, size=space, mode=_LINEAR[len(space)], align_corners=False)[:, 0]


def centre_map(space: tuple[int, ...]) -> Float[Tensor, "*space"]:
    """Return a blob in the middle: a Gaussian as wide as a quarter of each side."""
    squares = torch.zeros(space)
    for axis, length in enumerate(space):
        along = (torch.arange(length) + 0.5) / length - 0.5
        squares = squares + (along**2).view(-1, *(1,) * (len(space) - 1 - axis))
    return (-squares / (2 * 0.25**2)).exp()


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
