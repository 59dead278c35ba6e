"""The layers that yield a spatial map, as a table that prints well, and choosing among them in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from seewhy.errors import LayerError, did_you_mean
from seewhy.frameworks import Shell
from seewhy.recorder.layout import Layout
from seewhy.recorder.tape import split_call
from seewhy.table import Table
from seewhy.targets import Kind

LayerLike = Any
"""What a caller may give as one layer: the layer itself, its name, a glob, "last", "-2", "all-stages" or -2."""


@dataclass(frozen=True)
class LayerRow:
    """One layer that yields a map.

    Attributes:
        name: as in `named_modules()`; where it runs several times on the way, with the number of the run: "backbone.conv#2".
        kind: the module's class.
        layout: how its output lies in memory, as inferred.
        stride: input pixels a cell, along each axis.
        stage: its number among the stages, from 1; None when it is inside one.
        default: whether it is taken when nothing is said.
        joint: whether other inputs than the explained one reach it.
    """

    name: str
    kind: str
    layout: Layout
    stride: tuple[float, ...]
    stage: int | None = None
    default: bool = False
    joint: bool = False

    @property
    def module(self) -> str:
        """The module's name."""
        return split_call(self.name)[0]

    @property
    def call(self) -> int | None:
        """Which of its runs is meant; None: it has one, or the last is."""
        return split_call(self.name)[1]


_SET = r"\[!?\w[\w-]*\]"
"""A set of characters in a glob, such as [0-3]."""


class LayerTable(Table[LayerRow]):
    """The layers of a model that yield a map, in the order in which they finish.

    Attributes:
        rows: the layers.
        others: names of the modules that ran but yield no map, with the shape of what they gave.
        kind: what the model answers.
    """

    def __init__(self, rows: Sequence[LayerRow], others: Mapping[str, tuple[int, ...]], kind: Kind = "classes") -> None:
        super().__init__(rows)
        self.others = dict(others)
        self.kind = kind

    @property
    def default(self) -> LayerRow:
        """The layer taken when nothing is said."""
        return next(row for row in self.rows if row.default)

    @property
    def stages(self) -> tuple[LayerRow, ...]:
        """The last layer of each stage, first stage first."""
        return tuple(sorted((row for row in self.rows if row.stage), key=lambda row: row.stage or 0))

    def select(self, wanted: LayerLike, root: nn.Module) -> list[LayerRow]:
        """Return the rows that a caller means.

        Args:
            wanted: a layer of `root`, a name, a glob ("layer?"), "last", "all-stages", or -k for the k-th stage from the end.
            root: the model, to find a module's name.

        Raises:
            LayerError: there is no such layer, or it yields no map; the nearest names are told.
        """
        own = root.name_of(wanted) if isinstance(root, Shell) and not isinstance(wanted, int) else None
        if isinstance(wanted, nn.Module) or own is not None:
            name = own or next((name for name, module in root.named_modules() if module is wanted), None)
            if name is None:
                raise LayerError(f"The layer {type(wanted).__name__} is not a part of this model. Give one that is.")
            return self._named(name)
        text = str(wanted).strip()
        if text == "last":
            return [self.default]
        if text == "all-stages":
            return list(self.stages)
        if re.fullmatch(r"-\d+", text):
            if not 1 <= -int(text) <= len(self.stages):
                raise LayerError(
                    f"Layer {text} was asked for; this model has {len(self.stages)} stages: -1 to -{len(self.stages)}."
                )
            return [self.stages[int(text)]]
        if any(mark in text for mark in "*?["):
            within = _within_levels(text)
            found = [row for row in self.rows if within.fullmatch(row.name)]
            found = found or [row for row in self.rows if fnmatchcase(row.name, text)]
            if not found:
                raise LayerError(
                    f"No layer that yields a map fits '{text}'. `seewhy layers` lists them. {self._examples()}"
                )
            return found
        return self._named(text)

    def _named(self, name: str) -> list[LayerRow]:
        """Return the row of this name; of a module that runs several times, each run's."""
        stripped = re.sub(r"^(?:(?:module|_orig_mod)\.)+", "", name)
        if found := [row for row in self.rows if {row.name, row.module} & {name, stripped}]:
            return found
        if name in self.others or stripped in self.others:
            shape = self.others.get(name) or self.others[stripped]
            raise LayerError(
                f"Layer '{name}' gives {shape}, in which no map of the input's proportions was found. Choose another layer, "
                "or say how to read it with layout=."
            )
        raise LayerError(
            f"No layer that yields a map is called '{name}'.{did_you_mean(name, [row.name for row in self.rows])} "
            f"{self._examples()} seewhy.layers(model), `seewhy layers MODEL`, lists all."
        )

    def _examples(self) -> str:
        return f"The stages are {', '.join(row.name for row in self.stages)}."

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        head: tuple[str, ...] = ("name", "type", "channels", "grid", "stride", "layout", "stage", "")
        body: list[tuple[str, ...]] = [
            (
                row.name,
                row.kind,
                str(row.layout.channels),
                "x".join(map(str, row.layout.grid)),
                "x".join(f"{stride:.4g}" for stride in row.stride),
                row.layout.order + (f" after {row.layout.prefix}" if row.layout.prefix else ""),
                str(row.stage or ""),
                "default" if row.default else "",
            )
            for row in self.rows
        ]
        return head, body


def _within_levels(glob: str) -> re.Pattern[str]:
    """Return a glob as a pattern for layers' names in which * and ? stay within one level, and ** does not."""

    def meant(part: str) -> str:
        if re.fullmatch(_SET, part):
            return part.replace("[!", "[^")
        return {"**": ".*", "*": "[^.]*", "?": "[^.]"}.get(part, re.escape(part))

    return re.compile("".join(map(meant, re.split(rf"(\*\*|\*|\?|{_SET})", glob))))


def with_stages(rows: Sequence[LayerRow], default: str, kinds: dict[str, str]) -> tuple[LayerRow, ...]:
    """Mark the default layer and number the stages.

    A stage is the last layer before the grid changes, among layers that are made of others where there are such (so that
    a stem does not count) and that are not the inside of a block. A model whose grid never changes has its repeated blocks
    as stages. The last stage is represented by the default layer.

    Args:
        rows: layers in the order in which they finish.
        default: the name of the default layer.
        kinds: names of the modules that are made of others, and their class.
    """
    chosen = next(row for row in rows if row.name == default)
    blocks = blocks_of(rows, kinds)
    places = [
        row
        for row in rows
        if math.prod(row.layout.grid) > 1 and not in_attention(row.name, kinds) and not inside_block(row, blocks)
    ]
    stages = _last_of_each_grid([row for row in places if row.module in kinds])
    if len(stages) < 2:
        stages = _last_of_each_grid(places)
    if len(stages) < 2:
        stages = _repeated_blocks(places, default)
    position = {row.name: index for index, row in enumerate(rows)}
    before = [
        row for row in stages if not _same_stage(row, chosen, stages) and position[row.name] < position[chosen.name]
    ]
    order = {row.name: number for number, row in enumerate([*before, chosen], start=1)}
    return tuple(replace(row, stage=order.get(row.name), default=row.name == default) for row in rows)


def made_of_others(root: nn.Module) -> dict[str, str]:
    """Return the names of the modules that are made of others, and their class."""
    return {
        name: type(module).__name__ for name, module in root.named_modules() if any(True for _ in module.children())
    }


def ancestors(name: str) -> list[str]:
    """Return the names of the modules that a module lies in, the innermost first."""
    return [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]


def in_attention(name: str, kinds: dict[str, str]) -> bool:
    """Return whether a module is a step inside an attention block, where queries and weights have the shape of a map."""
    above = [kinds.get(part, "").casefold() for part in ancestors(name)]
    return any("attention" in kind or "attn" in kind for kind in above)


def blocks_of(rows: Sequence[LayerRow], kinds: dict[str, str]) -> dict[str, set[tuple[int, ...]]]:
    """Return the modules that are blocks, and the grids they give.

    A block knows at most two grids, the one it takes and the one it gives; a backbone knows more. `Sequential` is no block.
    """
    inside: dict[str, set[tuple[int, ...]]] = {}
    gives: dict[str, set[tuple[int, ...]]] = {}
    for row in rows:
        gives.setdefault(row.module, set()).add(row.layout.grid)
        for name in ancestors(row.name) if math.prod(row.layout.grid) > 1 else ():
            inside.setdefault(name, set()).add(row.layout.grid)
    return {
        name: grids
        for name, grids in gives.items()
        if len(inside.get(name, ())) <= 2 and kinds.get(name) not in ("Sequential", "ModuleList")
    }


def inside_block(row: LayerRow, blocks: Mapping[str, set[tuple[int, ...]]]) -> bool:
    """Return whether a layer is a step inside a block that changes the grid: part of the way, not a place to stop."""
    return any(blocks.get(name, set()) - {row.layout.grid} for name in ancestors(row.name))


def _last_of_each_grid(rows: Sequence[LayerRow]) -> list[LayerRow]:
    last = {row.layout.grid: row for row in rows}
    return [row for row in rows if last[row.layout.grid] is row]


def _repeated_blocks(rows: Sequence[LayerRow], default: str) -> list[LayerRow]:
    """Return the largest family of layers whose names differ in a number only ("blocks.0", "blocks.1", ...).

    Where the blocks themselves yield no map, the family is that of the default layer ("blocks.0.norm1", ...).
    """
    families: dict[str, list[LayerRow]] = {}
    for row in rows:
        families.setdefault(_family(row.name), []).append(row)
    blocks = [members for family, members in families.items() if family.endswith("#")]
    largest = max(blocks, key=len, default=[])
    return largest if len(largest) > 1 else families.get(_family(default), [])


def _family(name: str) -> str:
    return re.sub(r"\d+", "#", name, count=1)


def _same_stage(row: LayerRow, chosen: LayerRow, stages: Sequence[LayerRow]) -> bool:
    if len({stage.layout.grid for stage in stages}) > 1:
        return row.layout.grid == chosen.layout.grid
    return chosen.name == row.name or chosen.name.startswith(row.name + ".")
