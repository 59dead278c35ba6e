"""Maps that know nothing of the model, which a true map must beat."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

CELLS = 7
"""Cells of a random map along the shorter side: about as coarse as the last stage of most classifiers."""


def random_maps(count: int, space: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, " number *space"]:
    """Return smooth noise: normal numbers on a coarse grid, resized linearly, of which each map shows another cut.

    A grid that ended with the map would have its peaks at the borders, where they are not smoothed: whatever is in the middle of
    the picture would then be hit more rarely than by chance.
    """
    cell = max(1, math.ceil(min(space) / CELLS))
    grid = [math.ceil(length / cell) + 3 for length in space]
    noise = torch.randn((count, 1, *grid), generator=generator)
    size = [cells * cell for cells in grid]
    wide = functional.interpolate(noise, size=size, mode=_LINEAR[len(space)], align_corners=False)[:, 0]
    begins = torch.randint(cell, 2 * cell, (count, len(space)), generator=generator).tolist()
    cuts = [tuple(slice(at, at + length) for at, length in zip(begin, space, strict=True)) for begin in begins]
    return torch.stack([each[cut] for each, cut in zip(wide, cuts, strict=True)])


def centre_map(space: tuple[int, ...]) -> Float[Tensor, "*space"]:
    """Return a blob in the middle: a Gaussian as wide as a quarter of each side."""
    squares = torch.zeros(space)
    for axis, length in enumerate(space):
        along = (torch.arange(length) + 0.5) / length - 0.5
        squares = squares + (along**2).view(-1, *(1,) * (len(space) - 1 - axis))
    return (-squares / (2 * 0.25**2)).exp()


def shuffled(values: Shaped[Tensor, "*grid"], generator: torch.Generator) -> Shaped[Tensor, "*grid"]:
    """Return a map whose tiles, up to about 64 in all, lie elsewhere at random: as coarse as it, and knowing nothing."""
    shape = values.shape
    tiles = _tiles(shape)
    count = math.prod(tiles)
    moved = torch.randperm(count, generator=generator)
    while count > 1 and torch.equal(moved, torch.arange(count)):  # not the map itself, which knows all
        moved = torch.randperm(count, generator=generator)
    places = torch.meshgrid(*(torch.arange(length) for length in shape), indexing="ij")
    own = [place * count // length for place, count, length in zip(places, tiles, shape, strict=True)]
    number = own[0]
    for tile, count in zip(own[1:], tiles[1:], strict=True):
        number = number * count + tile
    other, source = moved[number], []
    for place, tile, count, length in reversed(list(zip(places, own, tiles, shape, strict=True))):
        there = other % count
        other = other // count
        begin = (-(-there * length // count), -(-tile * length // count))  # of a tile: its first cell, rounded up
        last = -(-(there + 1) * length // count) - 1
        source.append(torch.minimum(begin[0] + place - begin[1], last))  # tiles may differ by a cell
    return values[tuple(reversed(source))]


def elsewhere(
    image: Shaped[Tensor, " channel *space"], generator: torch.Generator
) -> Shaped[Tensor, " channel *space"]:
    """Return a picture whose patches lie elsewhere at random, all channels together."""
    order = shuffled(torch.arange(image[0].numel()).view(image.shape[1:]), generator)
    return image.flatten(1)[:, order.flatten().to(image.device)].view(image.shape)


def tile_count(shape: tuple[int, ...]) -> int:
    """Return how many tiles a map of this shape is shuffled in."""
    return math.prod(_tiles(shape))


def _tiles(shape: tuple[int, ...]) -> list[int]:
    return [min(length, _TILES[len(shape)]) for length in shape]


_TILES = {1: 64, 2: 8, 3: 4}
"""Along each axis, by how many axes there are."""
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
