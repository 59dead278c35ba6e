"""Finding the layers of a torch model that yield a map, and the one to look at when none is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import LayerError, SeewhyError
from seewhy.frameworks import Shell
from seewhy.recorder.borrow import borrowed
from seewhy.recorder.bottleneck import bottleneck
from seewhy.recorder.effects import last_with_effect
from seewhy.recorder.forward import Forward, despite_overwriting
from seewhy.recorder.layout import Evidence, infer
from seewhy.recorder.levels import LevelTap, trunk
from seewhy.recorder.reach import heard, reached
from seewhy.recorder.table import LayerRow, LayerTable, in_attention, made_of_others, with_stages
from seewhy.recorder.tape import Tape, split_call
from seewhy.recorder.torchvision_detectors import Inside
from seewhy.targets import Kind, SurestTarget

CANDIDATES = 40
"""Layers at the end of the model that are tried for a gradient when the default layer is chosen."""

_POOLS = ("AdaptiveAvgPool", "AveragePool", "ReduceMean")
"""What layers are called whose cells are means of the last features' ones."""

ALONE = 8
"""Of these, those at the end that are tried by themselves."""


def trace(forward: Forward, image: Tensor) -> LayerTable:
    """Run once, list every layer that yields a map, and find the default one.

    Raises:
        LayerError: there is none.
    """
    with borrowed(forward.module, seed=0):
        several = len(forward.inputs.args) + len(forward.inputs.kwargs) > 1
        shapes, digests, (returned, tape) = heard(forward, image, digest=several)
        own, joint = reached(forward, image, digests) if several else (set(shapes), set[str]())
    answered = _answered(forward, image, returned, tape)
    space = tuple(image.shape[2:]) if answered.inside is None else answered.inside.whole
    shown = space if answered.inside is None else answered.inside.scaled
    modules = dict(forward.module.named_modules())
    kinds = made_of_others(forward.module)
    evidence = Evidence([], set(), answered.queries)
    elsewhere = _token_counts(shapes, joint - own) - _token_counts(shapes, own - joint)
    rows, others = [], {}
    for name, shape in shapes.items():
        module, attends = modules[split_call(name)[0]], in_attention(name, kinds)
        on_the_way = shape[0] == 1 and name in own and not (len(shape) == 3 and shape[1] in elsewhere)
        layout = infer(shape, space, module, evidence, in_attention=attends) if on_the_way else None
        if layout is None:
            others[name] = shape
            continue
        of_input = (length * given / part for length, given, part in zip(space, image.shape[2:], shown, strict=True))
        stride = tuple(round(length / cells, 3) for length, cells in zip(of_input, layout.grid, strict=True))
        rows.append(LayerRow(name, type(module).__name__, layout, stride, joint=name in joint))
    if answered.kind == "places" and math.prod(answered.shape[2:]) > 1:
        return LayerTable(_encoder(forward, image, rows, kinds), others, answered.kind)
    shared = _shared_by_levels(forward, image, rows, kinds) if answered.kind == "boxes" else None
    default = shared or _last_with_gradient(forward, image, rows, kinds)
    return LayerTable(with_stages(rows, default, kinds), others, answered.kind)


def _token_counts(shapes: Mapping[str, tuple[int, ...]], names: set[str]) -> set[int]:
    """Return the numbers of tokens of some layers: those of a text stay a text's also where a picture reaches them."""
    return {shapes[name][1] for name in names if len(shapes[name]) == 3}


@dataclass(frozen=True)
class _Answered:
    """What one run showed of what the model answers.

    Attributes:
        kind: what it is.
        shape: of the scores, batch axis first.
        queries: how many predictions a detector makes; 0 for other models.
        inside: what the model made of its input.
    """

    kind: Kind = "other"
    shape: tuple[int, ...] = ()
    queries: int = 0
    inside: Inside | None = None


def _answered(forward: Forward, image: Tensor, returned: Any, tape: Tape) -> _Answered:
    try:
        outputs, kind = forward.read(returned, image, 1)
    except SeewhyError:
        return _Answered()  # told where scores are needed
    shape = tuple(outputs.shape)
    return _Answered(kind, shape, shape[1], tape.inside) if kind == "boxes" else _Answered(kind, shape)


def _shared_by_levels(forward: Forward, image: Tensor, rows: Sequence[LayerRow], kinds: dict[str, str]) -> str | None:
    """Return the layer of a detector that all its levels come from; the finest level a box depends on where that is dead."""
    tap = LevelTap()
    with borrowed(forward.module, seed=0), tap.on(forward.module):
        forward.call(image, (), Tape(gradients=False))
    levels = tap.levels()
    feeding = [row for row in rows if row.name in levels]
    shared = trunk(rows, feeding, kinds) if feeding else None
    finer = sorted(feeding, key=lambda row: -math.prod(row.layout.grid))
    candidates = [*([shared] if shared else []), *finer]
    live = despite_overwriting(partial(_with_gradient, forward, image, candidates)) if candidates else []
    return next((row.name for row in candidates if row.name in live), None)


def _encoder(forward: Forward, image: Tensor, rows: Sequence[LayerRow], kinds: dict[str, str]) -> tuple[LayerRow, ...]:
    """Return the rows of a model that answers place by place: the default layer is its bottleneck, the stages lead there."""
    for candidates in bottleneck(rows, kinds):
        for row in reversed(_live(forward, image, candidates)[-ALONE:]):
            if _live(forward, image, [row]):  # not only through a layer before it that was listened to as well
                end = rows.index(row) + 1
                return (*with_stages(rows[:end], row.name, kinds), *rows[end:])
    return with_stages(rows, _last_with_gradient(forward, image, rows, kinds), kinds)


def _last_with_gradient(forward: Forward, image: Tensor, rows: Sequence[LayerRow], kinds: dict[str, str]) -> str:
    """Return the last layer larger than one cell on whose places the score depends.

    Layers outside attention and like the very last one (same channels and grid) come first: inside a block other
    things than features have the shape of a map. Of several inputs, the layers that the explained one alone reaches do.
    """
    larger = [row for row in rows if min(row.layout.grid) > 1] or [row for row in rows if max(row.layout.grid) > 1]
    usual = [row for row in larger if not row.kind.startswith(_POOLS)] or larger
    if not usual:
        raise LayerError(
            f"No layer of {type(forward.module).__name__} yields a map larger than one cell for an input of "
            f"{tuple(image.shape[2:])}. Give a larger image, or a method that works on the input itself."
        )
    usual = [row for row in usual if not row.joint] or usual
    features = [row for row in usual if not in_attention(row.name, kinds)] or usual
    alike = [row for row in features if _same_map(row, features[-1])]
    # One place alone is what an auxiliary head that takes the best place's score has: no map, unless there is nothing else.
    for least, candidates in product((2, 1), (alike, features, usual)):
        if live := despite_overwriting(partial(_with_gradient, forward, image, candidates[-CANDIDATES:], least)):
            return live[-1]
    return features[-1].name


def _live(forward: Forward, image: Tensor, rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Return those of the last layers on which the score depends."""
    names = despite_overwriting(partial(_with_gradient, forward, image, rows[-CANDIDATES:])) if rows else []
    return [row for row in rows if row.name in names]


def _with_gradient(forward: Forward, image: Tensor, rows: Sequence[LayerRow], least: int = 1) -> list[str]:
    """Return the names of the layers at as many of whose places, at least, the largest score has a gradient other than zero.

    Of a model without derivatives: the last one on at least two of whose places the scores depend, if any.
    """
    if isinstance(forward.module, Shell) and not forward.module.differentiable:
        return last_with_effect(forward, image, rows)
    return [
        name for name, peak in gradient_peaks(forward, image, rows, least).items() if peak is not None and peak != 0
    ]


def gradient_peaks(
    forward: Forward, image: Tensor, rows: Sequence[LayerRow], least: int = 1
) -> dict[str, float | None]:
    """Return the largest absolute derivative of the first sample's highest score at each layer's places.

    None: no derivative gets there. 0: it is zero, but at fewer than `least` places.
    """
    with borrowed(forward.module, seed=0):
        tape, outputs = forward.connected(image, rows, gradients=True)
        if not outputs.requires_grad:
            return dict.fromkeys(row.name for row in rows)
        kept = [tape.last(row.name) for row in rows]
        # One place is not enough for a box: there the head's last layers have little more than the prediction itself.
        is_box = tape.kind == "boxes"
        with torch.enable_grad():
            best = SurestTarget(tape.kind)(outputs[0])
        found = torch.autograd.grad(best, kept, allow_unused=True)
    peaks: dict[str, float | None] = {}
    for row, gradient in zip(rows, found, strict=True):
        values = None if gradient is None else row.layout.to_channels_first(gradient)
        enough = values is not None and _places(values) >= max(least, 1 + is_box)
        peaks[row.name] = None if values is None else float(values.abs().max()) * enough
    return peaks


def _places(gradient: Tensor) -> int:
    """Return at how many places a gradient `(1, channel, *grid)` is not zero."""
    return int(gradient.count_nonzero(1).count_nonzero())


def _same_map(row: LayerRow, other: LayerRow) -> bool:
    return (row.layout.channels, row.layout.grid) == (other.layout.channels, other.layout.grid)
