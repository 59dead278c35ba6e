"""Finding the layers of a torch model that yield a map, and the one to look at when none is named."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from seewhy.errors import LayerError
from seewhy.recorder.borrow import borrowed
from seewhy.recorder.forward import Forward, despite_overwriting
from seewhy.recorder.layout import Evidence, infer
from seewhy.recorder.table import LayerRow, LayerTable, in_attention, with_stages
from seewhy.recorder.tape import Tape

CANDIDATES = 40
"""Layers at the end of the model that are tried for a gradient when the default layer is chosen."""


def trace(forward: Forward, image: Tensor) -> LayerTable:
    """Run once, list every layer that yields a map, and find the default one.

    Raises:
        LayerError: there is none.
    """
    space = tuple(image.shape[2:])
    with borrowed(forward.module, seed=0):
        shapes = _shapes(forward, image)
    evidence = Evidence([], set())
    modules = dict(forward.module.named_modules())
    kinds = {name: type(module).__name__ for name, module in modules.items() if any(True for _ in module.children())}
    rows, others = [], {}
    for name, shape in shapes.items():
        attends = in_attention(name, kinds)
        layout = infer(shape, space, modules[name], evidence, in_attention=attends) if shape[0] == 1 else None
        if layout is None:
            others[name] = shape
            continue
        stride = tuple(round(length / cells, 3) for length, cells in zip(space, layout.grid, strict=True))
        rows.append(LayerRow(name, type(modules[name]).__name__, layout, stride))
    default = _last_with_gradient(forward, image, rows, kinds)
    return LayerTable(with_stages(rows, default, kinds), others)


def _shapes(forward: Forward, image: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape of what each module gave last, in the order in which they finished."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = [name for name, _ in forward.module.named_modules() if name]

    def note(name: str, tensor: Tensor) -> None:
        shapes.pop(name, None)
        shapes[name] = tuple(tensor.shape)

    forward.call(image, names, Tape(gradients=False, note=note))
    return shapes


def _last_with_gradient(forward: Forward, image: Tensor, rows: Sequence[LayerRow], kinds: dict[str, str]) -> str:
    """Return the last layer larger than one cell on whose places the score depends.

    Layers outside attention and like the very last one (same channels and grid) come first: inside a block other
    things than features have the shape of a map.
    """
    larger = [row for row in rows if max(row.layout.grid) > 1]
    usual = [row for row in larger if not row.kind.startswith("AdaptiveAvgPool")] or larger
    if not usual:
        raise LayerError(
            f"No layer of {type(forward.module).__name__} yields a map larger than one cell for an input of "
            f"{tuple(image.shape[2:])}. Give a larger image, or a method that works on the input itself."
        )
    features = [row for row in usual if not in_attention(row.name, kinds)] or usual
    alike = [row for row in features if _same_map(row, features[-1])]
    for candidates in (alike, features, usual):
        if live := despite_overwriting(partial(_with_gradient, forward, image, candidates[-CANDIDATES:])):
            return live[-1]
    return features[-1].name


def _with_gradient(forward: Forward, image: Tensor, rows: Sequence[LayerRow]) -> list[str]:
    """Return the names of the layers at whose places the largest score has a gradient other than zero."""
    with borrowed(forward.module, seed=0):
        tape, outputs = forward.connected(image, rows, gradients=True)
        if not outputs.requires_grad:
            return []
        kept = [tape.last(row.name) for row in rows]
        with torch.enable_grad():
            best = outputs.flatten().max()
        found = torch.autograd.grad(best, kept, allow_unused=True)
    return [
        row.name
        for row, gradient in zip(rows, found, strict=True)
        if gradient is not None and row.layout.to_channels_first(gradient).count_nonzero() > 0
    ]


def _same_map(row: LayerRow, other: LayerRow) -> bool:
    return (row.layout.channels, row.layout.grid) == (other.layout.channels, other.layout.grid)
