"""Inputs without parts that are drawn with no look at any map, so that all maps of an input share the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.maps.held import Held
from seewhy.measures.trial import Examined
from seewhy.recorder import Variants


@dataclass(frozen=True, eq=False)
class Sets:
    """Some sets of an input's features.

    Attributes:
        features: `(*space)`, which feature each place belongs to.
        members: `(number, feature)`, which features are in each set.
    """

    features: Int[Tensor, " *space"]
    members: Bool[Tensor, " number feature"]

    def places(self, numbers: range) -> Bool[Tensor, " number *space"]:
        """Return the places of some of the sets."""
        return self.members[numbers.start : numbers.stop][:, self.features]

    def sums(self, maps: Float[Tensor, " map *space"]) -> Float[Tensor, " map number"]:
        """Return the sum of each map over each set, float64."""
        flat = maps.detach().cpu().double().flatten(1)
        each = flat.new_zeros(len(flat), self.members.shape[1]).index_add_(1, self.features.flatten(), flat)
        return each @ self.members.double().T


@runtime_checkable
class Draw(Protocol):
    """Draws sets of features of an input of any shape. Hashable."""

    def __hash__(self) -> int: ...

    def __call__(self, space: tuple[int, ...], generator: torch.Generator) -> Sets:
        """Return the sets."""


@dataclass(frozen=True)
class Subsets:
    """Random sets of cells, of some sizes.

    Attributes:
        parts: the sizes, as parts of all cells, in 0..1; at least one cell.
        runs: sets of each size.
        cells: along the shorter side; None: every place is one.
    """

    parts: tuple[float, ...]
    runs: int
    cells: int | None

    def __call__(self, space: tuple[int, ...], generator: torch.Generator) -> Sets:
        """Return the sets, those of one size after the other."""
        features = cells_of(space, self.cells)
        count = int(features.max()) + 1
        members = torch.zeros(len(self.parts) * self.runs, count, dtype=torch.bool)
        for row, each in enumerate(members):
            size = max(1, round(self.parts[row // self.runs] * count))
            each[torch.randperm(count, generator=generator)[:size]] = True
        return Sets(features, members)


@dataclass(frozen=True)
class Singly:
    """Every cell alone.

    Attributes:
        cells: along the shorter side; None: every place is one.
    """

    cells: int | None

    def __call__(self, space: tuple[int, ...], generator: torch.Generator) -> Sets:  # noqa: ARG002 - nothing is drawn
        """Return a set a cell."""
        features = cells_of(space, self.cells)
        return Sets(features, torch.eye(int(features.max()) + 1, dtype=torch.bool))


@dataclass(frozen=True)
class Squares:
    """Random squares (cubes, stretches), all inside the input.

    Attributes:
        side: as a part of the input's shorter side.
        runs: how many.
    """

    side: float
    runs: int

    def __call__(self, space: tuple[int, ...], generator: torch.Generator) -> Sets:
        """Return the squares."""
        side = max(1, round(self.side * min(space)))
        inside = torch.ones((self.runs, *space), dtype=torch.bool)
        for axis, length in enumerate(space):
            begin = torch.randint(length - side + 1, (self.runs, 1), generator=generator)
            along = torch.arange(length)
            shape = (self.runs, *(length if other == axis else 1 for other in range(len(space))))
            inside &= ((along >= begin) & (along < begin + side)).view(shape)
        return Sets(cells_of(space, None), inside.flatten(1))


@dataclass(frozen=True)
class Removed:
    """The input without each of some sets of its features.

    Attributes:
        draw: the sets.
        fill: what is put there.
    """

    draw: Draw
    fill: Held

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image, nothing = sample.image, sample.nothing(self.fill.value)
        sets = self.draw(tuple(image.shape[1:]), sample.generator)

        def make(numbers: range) -> Tensor:
            return torch.where(sets.places(numbers).to(image.device)[:, None], nothing, image)

        return Variants(len(sets.members), make)


def cells_of(space: tuple[int, ...], cells: int | None) -> Int[Tensor, "*space"]:
    """Return which cell each place belongs to; cells are squares, those at the end may be smaller.

    Args:
        space: the input's shape.
        cells: along the shorter side; None, or more than there are places: every place is one.

    Raises:
        MetricError: no cell.
    """
    if cells is not None and cells < 1:
        raise MetricError(f"cells={cells} must be at least 1, or None for single places.")
    return squares(space, 1 if cells is None else max(1, round(min(space) / cells)))


def squares(space: Sequence[int], side: int) -> Int[Tensor, "*space"]:
    """Return which square (cube, stretch) of this side each place is in; those at the far end are what is left."""
    found = torch.zeros(tuple(space), dtype=torch.long)
    for axis, length in enumerate(space):
        along = (torch.arange(length) // side).view(-1, *(1,) * (len(space) - 1 - axis))
        found = found * (int(along.max()) + 1) + along
    return found
