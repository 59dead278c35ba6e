"""Questions about a changed input, in which things may lie elsewhere: the answer is put back before it is asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.models.labels import Labels
from seewhy.targets.protocol import Kind, Output, Target

Undo = Callable[[Tensor], Tensor]
"""Puts maps `(batch, ..., *grid)` of a changed input, of any grid, back to where the input had it."""

_ROUNDING = 1e-2
"""Pixels by which a place may miss what is expected of it."""


@dataclass(frozen=True, eq=False)
class MovedTarget:
    """A question asked of an output in which all lies elsewhere: `undo` puts it back first."""

    target: Target
    undo: Callable[[Tensor], Tensor]

    @property
    def index(self) -> int | None:
        return self.target.index

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return self.target(self.undo(output))

    def describe(self, labels: Labels | None) -> str:
        return self.target.describe(labels)


def put_back(undo: Undo, kind: Kind, space: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
    """Return what puts a model's answer about a changed input back to where the input itself has it.

    Args:
        undo: does so with maps.
        kind: what the model answers; places and boxes are put back, and no other answer tells where anything lies.
        space: the input's shape.

    Returns:
        From `(*output)` to the same shape; None for boxes of which it is not known where they lie in the input.
    """
    if kind == "places":
        return undo
    return _boxes_back(undo, space) if kind == "boxes" else lambda output: output


def _boxes_back(undo: Undo, space: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
    """Return what puts rows of a detector back, if the input was reflected, turned by quarters, or left where it is.

    `undo` itself tells: put back are maps of each place's coordinates, which must be `own @ turn + offset` then.
    """
    if len(space) != 2 or min(space) < 2:
        return None
    rows, columns = (torch.arange(length) + 0.5 for length in space)
    own = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (height, width, 2): across, down
    there = undo(own.movedim(-1, 0)[None])[0].movedim(0, -1)
    if there.shape != own.shape:
        return None
    turn = torch.stack([(there[0, -1] - there[0, 0]) / (space[1] - 1), (there[-1, 0] - there[0, 0]) / (space[0] - 1)])
    offset = there[0, 0] - own[0, 0] @ turn
    keeps_sides_upright = bool(((turn.abs() > _ROUNDING).sum(0) == 1).all()) and abs(float(turn.det())) > _ROUNDING
    if not keeps_sides_upright or float((own @ turn + offset - there).abs().max()) > _ROUNDING:
        return None
    back = turn.inverse()

    def boxes_back(output: Tensor) -> Tensor:
        corners = (output[:, :4].reshape(-1, 2, 2) - offset.to(output)) @ back.to(output)
        return torch.cat([corners.amin(1), corners.amax(1), output[:, 4:]], 1)

    return boxes_back
