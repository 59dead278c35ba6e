"""A planted truth for maps.

For layers: where one tile of the input is changed, and nothing else, the layer must change most. What a map's cell stands for is
asked of the model itself, by cause and effect, so that nothing of how a layer's output was read can answer for it: rows taken for
columns, windows that were not put back, a class token taken for a place move the answer. For pixels: a model that sees one tile
only has its evidence there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import seewhy
from architectures.members import TWELVE, Member, Size
from seewhy.maps.registry import _ENTRIES

DRAWS = 12
"""Changed images in all: with fewer tiles each is changed several times, since what an untrained model makes of one is chance."""


def misplaced(model: Any, size: Size, tiles: Size = TWELVE, target: Any = None) -> list[str]:
    """Return, for each tile whose own map does not peak in it, which tile it is and which one has the peak.

    The input is cut into tiles (rows, columns), and each is changed alone. A cell's answer to a tile is the squared change of
    its activations; divided by its answers to all tiles, since a place that answers much answers to everything. The map is made
    by `seewhy.explain` with no layer and no layout named and laid on the pixels; its brightest pixel must be in the tile.
    """
    images, places = changed(size, tiles, DRAWS // (tiles[0] * tiles[1]))
    with planted_change(len(places)):
        maps = seewhy.Explainer(model, batch_size=len(images))(images, target, method="planted-change")[
            : len(places) + 1
        ]
    found = [np.unravel_index(why.heatmap.argmax(), why.heatmap.shape) for why in maps[1:]]
    at = [next(tile for tile, (rows, columns) in places.items() if y in rows and x in columns) for y, x in found]
    return [f"{tile} seen at {seen}" for tile, seen in zip(places, at, strict=True) if tile != seen]


def changed(size: Size, tiles: Size, draws: int = 1) -> tuple[Tensor, dict[tuple[int, int], tuple[range, range]]]:
    """Return an image and, behind it, its versions with one tile changed each, several times; and which pixels the tiles have."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(3, *size, generator=generator)
    cuts = [
        [length * number // count for number in range(count + 1)] for length, count in zip(size, tiles, strict=True)
    ]
    places = {
        (row, column): (range(cuts[0][row], cuts[0][row + 1]), range(cuts[1][column], cuts[1][column + 1]))
        for row in range(tiles[0])
        for column in range(tiles[1])
    }
    versions = [whole]
    for rows, columns in [*places.values()] * draws:
        version = whole.clone()
        tile = version[:, rows.start : rows.stop, columns.start : columns.stop]
        tile.copy_(torch.randn(tile.shape, generator=generator))
        versions.append(version)
    return torch.stack(versions), places


@contextmanager
def planted_change(tiles: int) -> Iterator[None]:
    """Register the method that sees the change of so many tiles; it is unknown again afterwards."""

    @seewhy.method(
        "planted-change", needs=seewhy.Needs.ACTIVATIONS, class_specific=False, signed=False, source="these tests"
    )
    def _change(rec: seewhy.Recording) -> Tensor:
        """How much each cell changed from the first sample of the batch, as a share of how much it changes for all of them."""
        change = (rec.activations[1:] - rec.activations[:1]).square().sum(1)
        change = change.unflatten(0, (-1, tiles))
        whole = change.flatten(2).sum(2).clamp_min(torch.finfo(torch.float32).tiny)
        shares = (change / whole[:, :, None, None]).mean(0)
        found = shares / shares.sum(0)
        return torch.cat([torch.zeros_like(found[:1]), *[found] * len(change)])

    try:
        yield
    finally:
        del _ENTRIES["planted-change"]


class Gated(nn.Module):
    """A model that sees one tile of its input only."""

    def __init__(self, model: nn.Module, size: Size, tile: tuple[range, range]) -> None:
        super().__init__()
        rows, columns = tile
        mask = torch.zeros(size, dtype=torch.bool)
        mask[rows.start : rows.stop, columns.start : columns.stop] = True
        self.model = model
        self.register_buffer("mask", mask)

    def forward(self, images: Tensor) -> Any:
        return self.model(torch.where(self.mask, images, 0.5))  # not 0, where some normalisations have no derivative


def check(member: Member) -> None:
    """Assert that a member is explained rightly with no layer and no layout named: layers, gradients and perturbation."""
    model = member.build()
    assert misplaced(model, member.size, member.tiles) == []
    images, places = changed(member.size, member.tiles)
    rows, columns = tile = places[0, 1]
    inside = np.zeros(member.size, bool)
    inside[rows.start : rows.stop, columns.start : columns.stop] = True
    segments = np.zeros(member.size, int)
    for number, (down, across) in enumerate(places.values()):
        segments[down.start : down.stop, across.start : across.stop] = number
    ask = seewhy.Explainer(Gated(model, member.size, tile))
    layer = ask(images[0], method="grad-cam")
    assert np.ptp(layer.raw) > 1e-6 * np.abs(layer.raw).max() > 0
    assert {finding.code for finding in layer.diagnosis} <= {"all-negative", "mostly-negative"}
    gradient = ask(images[0], method="saliency").raw
    assert np.ptp(gradient[inside]) > 0
    assert np.abs(gradient[~inside]).max() <= 1e-6 * np.abs(gradient).max()
    hidden = ask(images[0], method="feature-ablation", segments=segments, baseline=0.0).raw
    assert np.abs(hidden[~inside]).max() <= 0.01 * np.abs(hidden[inside]).min()
