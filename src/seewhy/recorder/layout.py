"""How a layer's output lies in memory: which axes are space, which is the channel, and which tokens are not places.

The layout is read off the shapes: a true map has the proportions of the input. Where several readings fit, the grids
that other layers show without doubt decide, then the layer's type, then the commonest reading.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.frameworks import Part

Order = Literal["channels-first", "channels-last", "tokens", "tokens-last"]
Grid = tuple[int, ...]

MAX_PREFIX = 16
"""Most tokens that are not places (class, distillation, registers) before the grid begins."""

USUAL_PREFIX = 5
"""A class token and four registers: as many need no other reading to be ruled out."""

_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.modules.batchnorm._NormBase),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
)
_LAST = (nn.Linear, nn.LayerNorm)


def _is_first(module: nn.Module) -> bool:
    """Return whether a layer's type says that its channels come first."""
    return isinstance(module, _FIRST) or (isinstance(module, Part) and module.order == "channels-first")


def _is_last(module: nn.Module) -> bool:
    """Return whether a layer's type says that its channels come last."""
    return isinstance(module, _LAST) or (isinstance(module, Part) and module.order == "channels-last")


@dataclass(frozen=True)
class Layout:
    """One reading of a tensor.

    Attributes:
        order: "channels-first" `(batch, channel, *grid)`, "channels-last" `(batch, *grid, channel)`, "tokens"
            `(batch, prefix + places, channel)`, or "tokens-last" `(batch, channel, prefix + places)`.
        grid: cells along each spatial axis.
        channels: length of the channel axis.
        prefix: tokens before the places.
        suffix: tokens behind them.
    """

    order: Order
    grid: Grid
    channels: int
    prefix: int = 0
    suffix: int = 0

    def to_channels_first(self, values: Tensor) -> Float[Tensor, "batch channel *grid"]:
        """Return `(batch, channel, *grid)` float32, tokens that are no places left out."""
        end = self.prefix + math.prod(self.grid)
        if self.order == "tokens":
            values = values[:, self.prefix : end].transpose(1, 2).reshape(len(values), self.channels, *self.grid)
        elif self.order == "tokens-last":
            values = values[:, :, self.prefix : end].reshape(len(values), self.channels, *self.grid)
        elif self.order == "channels-last":
            values = values.movedim(-1, 1)
        return values.float()

    def from_channels_first(self, values: Tensor, like: Tensor) -> Tensor:
        """Return `(number, channel, *grid)` as the layer itself would give it.

        Args:
            values: what :meth:`to_channels_first` gave, edited.
            like: the layer's own output, of as many samples or of one, for its type and its tokens that are no places.
        """
        values = values.to(like.dtype)
        if self.order == "channels-last":
            return values.movedim(1, -1)
        if self.order == "channels-first":
            return values
        places = values.flatten(2)
        axis = 2 if self.order == "tokens-last" else 1
        places = places if self.order == "tokens-last" else places.transpose(1, 2)
        prefix = like.narrow(axis, 0, self.prefix).expand(len(values), *[-1] * 2)
        suffix = like.narrow(axis, like.shape[axis] - self.suffix, self.suffix).expand(len(values), *[-1] * 2)
        return torch.cat([prefix, places, suffix], axis)

    def check(self, shape: Iterable[int], layer: str) -> None:
        """Raise LayerError if a tensor of this shape, batch axis first, cannot be read in this layout."""
        expected = self.shape
        if tuple(shape)[1:] != expected:
            raise LayerError(
                f"Layer '{layer}' gave a tensor of shape {tuple(shape)}, which is not {self}: expected (batch, "
                f"{', '.join(map(str, expected))}). Give layout= with the right order, grid, channels and prefix."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape without the batch axis."""
        count = self.prefix + math.prod(self.grid) + self.suffix
        return {
            "channels-first": (self.channels, *self.grid),
            "channels-last": (*self.grid, self.channels),
            "tokens": (count, self.channels),
            "tokens-last": (self.channels, count),
        }[self.order]

    def __str__(self) -> str:
        """Return, say, "tokens, grid 14x14, 192 channels, 1 prefix token"."""
        prefix = f", {self.prefix} prefix token{'s' if self.prefix > 1 else ''}" if self.prefix else ""
        suffix = f", {self.suffix} token{'s' if self.suffix > 1 else ''} behind" if self.suffix else ""
        return f"{self.order}, grid {'x'.join(map(str, self.grid))}, {self.channels} channels{prefix}{suffix}"


@dataclass
class Evidence:
    """What the layers before this one have shown without doubt.

    Attributes:
        grids: in the order in which they were seen.
        token_counts: places and tokens that are none together.
        queries: the number of a detector's predictions: as many tokens are no places, and may stand behind those that are.
        widths: along one axis: how many channels each length of line was seen with.
    """

    grids: list[Grid]
    token_counts: set[int]
    queries: int = 0
    widths: dict[int, set[int]] = field(default_factory=dict)


def infer(
    shape: tuple[int, ...], space: Grid, module: nn.Module, evidence: Evidence, *, in_attention: bool = False
) -> Layout | None:
    """Return the layout of a layer's output, or None when it is not a map.

    Args:
        shape: the output's shape, batch axis first.
        space: the spatial shape of the model's input.
        module: the layer, whose type decides between readings that fit equally.
        evidence: grids and token counts seen before; this one is added to it.
        in_attention: whether the layer is a step inside an attention block.
    """
    if len(shape) == 3 and len(space) == 1:
        return _line(shape, module, evidence)
    if len(shape) == len(space) + 2:
        if in_attention and len(space) > 1 and shape[2] in evidence.token_counts:
            return None  # (batch, heads, tokens, ...): its third axis counts tokens, not rows
        found = _dense(shape, space, module, evidence)
        if found is not None and found.grid not in evidence.grids:
            evidence.grids.append(found.grid)
        return found
    if len(shape) == 3 and len(space) >= 2:
        found = _tokens(shape, space, module, evidence)
        if found is not None:
            evidence.token_counts.add(found.prefix + math.prod(found.grid) + found.suffix)
        return found
    return None


def _dense(shape: tuple[int, ...], space: Grid, module: nn.Module, evidence: Evidence) -> Layout | None:
    """Read `(batch, channel, *grid)` or `(batch, *grid, channel)`."""
    first = Layout("channels-first", shape[2:], shape[1])
    last = Layout("channels-last", shape[1:-1], shape[-1])
    if len(space) > 1 and shape[2] in evidence.token_counts and (shape[2], shape[3]) not in evidence.grids:
        return None  # attention again, in a module that is not called so
    fitting = [reading for reading in (first, last) if _fits(reading.grid, space)]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    if _is_last(module) and last in fitting:
        return last
    if _is_first(module) or first.grid in evidence.grids:
        return first
    return last if last.grid in evidence.grids else first


def _line(shape: tuple[int, ...], module: nn.Module, evidence: Evidence) -> Layout | None:
    """Read `(batch, channel, places)` or `(batch, places, channel)`: proportions tell nothing along one axis."""
    first, last = Layout("channels-first", shape[2:], shape[1]), Layout("channels-last", shape[1:2], shape[2])
    known = [reading for reading in (first, last) if reading.grid in evidence.grids]
    found: Layout | None
    if _is_first(module):
        found = first
    elif known:
        found = last if _is_last(module) and last in known else known[0]
    elif (prefix := _line_prefix(shape[1], shape[2], evidence)) is not None:
        evidence.token_counts.add(shape[1])
        return Layout("tokens", (shape[1] - prefix,), shape[2], prefix)
    elif any(shape[1] in widths for widths in evidence.widths.values()) and _is_last(module):
        return None  # a linear layer along the line, which mixes its places: what it gives are no places
    else:
        found = last if _is_last(module) else first
    if found.grid not in evidence.grids:
        evidence.grids.append(found.grid)
    evidence.widths.setdefault(found.grid[0], set()).add(found.channels)
    return found


def _line_prefix(count: int, channels: int, evidence: Evidence) -> int | None:
    """Return how many of a number of tokens come before a line that was seen with as many channels, or None."""
    for (places,) in reversed(evidence.grids):
        is_alike = channels in evidence.widths.get(places, ()) or count in evidence.token_counts
        if 0 < count - places <= MAX_PREFIX and is_alike:
            return count - places
    return None


def _tokens(shape: tuple[int, ...], space: Grid, module: nn.Module, evidence: Evidence) -> Layout | None:
    """Read `(batch, tokens, channel)` or `(batch, channel, tokens)`."""
    if (
        evidence.queries
        and shape[1] >= evidence.queries
        and all(math.prod(grid) != shape[1] for grid in evidence.grids)
    ):
        before = _known_grid(shape[1] - evidence.queries, evidence)
        return Layout("tokens", before[1], shape[2], before[0], evidence.queries) if before else None
    by_tokens = _token_grid(shape[1], space, evidence)
    by_channel = _token_grid(shape[2], space, evidence)
    as_tokens = Layout("tokens", by_tokens[1], shape[2], by_tokens[0]) if by_tokens else None
    as_last = Layout("tokens-last", by_channel[1], shape[1], by_channel[0]) if by_channel else None
    if as_tokens is None or as_last is None:
        return as_tokens or as_last
    by_last = as_last.grid in evidence.grids
    if isinstance(module, Part) and by_last != (as_tokens.grid in evidence.grids):
        return as_last if by_last else as_tokens  # by chance, a number of channels may be that of a grid, too
    if shape[2] in evidence.token_counts and shape[1] not in evidence.token_counts and not _is_last(module):
        return as_last
    return as_tokens


def _token_grid(count: int, space: Grid, evidence: Evidence) -> tuple[int, Grid] | None:
    """Return (prefix tokens, grid) for a number of tokens, or None."""
    known = _known_grid(count, evidence)
    if known is not None and known[0] <= USUAL_PREFIX:
        return known
    if (whole := _proportional_grid(count, space)) is not None:
        return 0, whole  # not a grid seen elsewhere and a dozen tokens: a table of positions may have had that grid
    if known is not None:
        return known
    for prefix in range(min(MAX_PREFIX // 2, count - 1) + 1):
        if (found := _proportional_grid(count - prefix, space)) is not None:
            return prefix, found
    return None


def _known_grid(count: int, evidence: Evidence) -> tuple[int, Grid] | None:
    """Return (prefix tokens, grid) where it is a grid that was seen before."""
    for grid in reversed(evidence.grids):
        prefix = count - math.prod(grid)
        if 0 <= prefix <= MAX_PREFIX and math.prod(grid) > 1:
            return prefix, grid
    return None


def _proportional_grid(places: int, space: Grid) -> Grid | None:
    """Return the grid of exactly this many places with the input's proportions, or None."""
    cell = (math.prod(space) / places) ** (1 / len(space))
    grid = tuple(max(1, round(length / cell)) for length in space)
    return grid if math.prod(grid) == places and _fits(grid, space) else None


def _fits(grid: Grid, space: Grid) -> bool:
    """Return whether a grid has the input's proportions, give or take the border that convolutions lose."""
    if min(grid) < 1:
        return False
    cell = (math.prod(space) / math.prod(grid)) ** (1 / len(space))
    return all(abs(cells - length / cell) <= max(0.75, 0.06 * cells) for cells, length in zip(grid, space, strict=True))
