"""The layers that feed a detector's heads: several grids, at each of which objects of another size are found."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from seewhy.recorder.listening import Listening
from seewhy.recorder.table import LayerRow, ancestors, blocks_of, in_attention, inside_block, with_stages


class LevelTap:
    """Listens, during one forward, to which module is the last that is given maps on several grids at once."""

    def __init__(self) -> None:
        self._given: list[Tensor] = []
        self._gave: dict[str, Tensor] = {}  # kept, so that no other tensor is taken for one of them
        self._before: list[str] = []

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Listen to every module; the hooks are gone afterwards."""
        with Listening() as listening:
            for name, module in root.named_modules():
                if name:
                    listening.before(module, self._begin)
                    listening.after(module, self._hearing(name))
            yield

    def _begin(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for given in inputs:
            maps = _maps(given)
            known = len(maps) == len(self._given) and all(map(operator.is_, maps, self._given))
            if len({each.shape[2:] for each in maps}) > 1 and not known:
                self._given, self._before = maps, list(self._gave)

    def _hearing(self, name: str) -> Any:
        def hear(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._gave.pop(name, None)
                self._gave[name] = output

        return hear

    def levels(self) -> list[str]:
        """Return the layers that gave those maps last; where one was changed on its way, the last layer of its shape."""
        return list(dict.fromkeys(name for each in self._given if (name := self._source(each)) is not None))

    def _source(self, level: Tensor) -> str | None:
        before = [name for name in self._before if name in self._gave]
        same = [name for name in before if self._gave[name] is level]
        alike = [name for name in before if self._gave[name].shape == level.shape]
        return next(reversed(same or alike), None)


def trunk(rows: Sequence[LayerRow], levels: Sequence[LayerRow], kinds: dict[str, str]) -> LayerRow | None:
    """Return the layer in a detector's body, on the finest level's grid, that all its levels come from, if there is one.

    It is where the way to the coarser levels begins: its cells are as small as any level's, and evidence for objects of all
    sizes goes through it. A level has large cells or, where coarse levels are added to finer ones, their blocks.

    Args:
        rows: the model's layers in the order in which they finish.
        levels: those of them that feed the heads; at least one.
        kinds: names of the modules that are made of others, and their class.
    """
    finest = max((row.layout.grid for row in levels), key=math.prod)
    coarser = {row.layout.grid for row in levels if 1 < math.prod(row.layout.grid) < math.prod(finest)}
    ends = {row.name for row in levels}
    before = rows[: min(map(rows.index, levels))]
    features = [row for row in before if not in_attention(row.name, kinds) and ends.isdisjoint(ancestors(row.name))]
    blocks = blocks_of(rows, kinds)
    steps = (row for row in features if not inside_block(row, blocks))
    body = list(takewhile(lambda row: row.layout.grid not in coarser, steps))
    if not body:
        return None
    stages = with_stages(body, body[-1].name, kinds)
    return next((row for row in reversed(stages) if row.stage and row.layout.grid == finest), None)


def _maps(given: Any) -> list[Tensor]:
    """Return the maps `(batch, channel, height, width)` in a list, tuple or mapping; nothing where it holds other things."""
    parts = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return []
    fitting = all(isinstance(each, Tensor) and each.ndim == 4 and each.is_floating_point() for each in parts)
    return list(parts) if fitting else []
