"""Figures and grids, drawn on matplotlib objects of their own: its global state is never touched."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from seewhy.errors import RenderError
from seewhy.explanation import Explanation, View
from seewhy.render.colour import colormap_name
from seewhy.render.overlay import caption, overlay

_CELL = 2.6  # inches a cell
_CELL_PIXELS = 520  # longest side of a cell's picture: more is not seen at this size


def figure(explanations: Sequence[Explanation], *, columns: int | None = None, colormap: str | None = None) -> Figure:
    """Draw one explanation as picture, overlay and map, or several as a grid of overlays with the picture first.

    Args:
        explanations: one or more; a label over each says in what it differs from the others.
        columns: cells a row; None: so that rows are what varies first (methods), or nearly square.
        colormap: as in :func:`seewhy.render.overlay`.

    Raises:
        RenderError: nothing to draw, or maps that are not two-dimensional.
    """
    if not explanations:
        raise RenderError("There is no explanation to draw.")
    return _single(explanations[0], colormap) if len(explanations) == 1 else _grid(explanations, columns, colormap)


def figure_bytes(drawn: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()


def _single(explanation: Explanation, colormap: str | None) -> Figure:
    drawn = Figure(figsize=(3 * _CELL + 1, _cell_height(explanation) + 0.9), layout="constrained")
    axes = drawn.subplots(1, 3)
    only_map = overlay(_without_picture(explanation), opacity=1, colormap=colormap, max_side=_CELL_PIXELS)
    pictures = (
        (_original(explanation), "picture"),
        (overlay(explanation, colormap=colormap, max_side=_CELL_PIXELS), "overlay"),
        (only_map, "map"),
    )
    for ax, (picture, title) in zip(axes, pictures, strict=True):
        _show(ax, picture, title)
    _colour_bar(drawn, list(axes), explanation.view, colormap)
    drawn.suptitle("\n".join([*caption(explanation), *map(str, explanation.diagnosis)]), fontsize=9, wrap=True)
    return drawn


def _grid(explanations: Sequence[Explanation], columns: int | None, colormap: str | None) -> Figure:
    labels = _labels(explanations)
    across = columns or _columns(explanations)
    rows = math.ceil((len(explanations) + 1) / across)
    height = _cell_height(explanations[0]) + 0.15 * (2 + max(label.count("\n") for label in labels))
    drawn = Figure(figsize=(across * _CELL + 0.8, rows * height + 0.2), layout="constrained")
    axes = list(np.atleast_1d(drawn.subplots(rows, across)).flat)
    _show(axes[0], _original(explanations[0]), _heading(explanations[0]))
    for ax, explanation, label in zip(axes[1:], explanations, labels, strict=False):
        flags = "".join(f"\n[{finding.code}]" for finding in explanation.diagnosis)
        _show(ax, overlay(explanation, colormap=colormap, max_side=_CELL_PIXELS), label + flags)
    for ax in axes[len(explanations) + 1 :]:
        ax.set_axis_off()
    for view in sorted({explanation.view for explanation in explanations}):
        _colour_bar(drawn, axes, view, colormap)
    return drawn


def _cell_height(explanation: Explanation) -> float:
    """Return a cell's height in inches, so that the picture fills it."""
    height, width = explanation.geometry.original_shape
    return min(2 * _CELL, max(0.5, _CELL * height / width))


def _columns(explanations: Sequence[Explanation]) -> int:
    """Return a number of columns that makes a wide page."""
    height, width = explanations[0].geometry.original_shape
    cells = len(explanations) + 1
    return min(cells, max(2, math.ceil(math.sqrt(cells * 1.6 * height / width))))


def _labels(explanations: Sequence[Explanation]) -> list[str]:
    """Return for each explanation the words in which it differs: method, layer, target, picture."""
    parts = [
        [each.method for each in explanations],
        [" + ".join(each.layers) or "input" for each in explanations],
        [each.target for each in explanations],
        [each.name for each in explanations],
    ]
    telling = [part for part in parts if len(set(part)) > 1] or [parts[0]]
    return [
        "\n".join(textwrap.shorten(word, 34, placeholder="…") for word in words) for words in zip(*telling, strict=True)
    ]


def _heading(explanation: Explanation) -> str:
    """Return what the model says about the picture."""
    best = explanation.prediction[0] if explanation.prediction else None
    said = explanation.name if best is None else f"{best.name} {best.probability:.0%}"
    return textwrap.shorten(said, 34, placeholder="…")


def _original(explanation: Explanation) -> object:
    return overlay(explanation, opacity=0, max_side=_CELL_PIXELS)


def _without_picture(explanation: Explanation) -> Explanation:
    """Return the explanation on black (or, signed, white) paper, so that the map is seen alone."""
    from dataclasses import replace

    paper = 255 if explanation.view == "signed" else 0
    return replace(explanation, image=np.full((*explanation.geometry.original_shape, 3), paper, np.uint8))


def _show(ax: Axes, picture: object, title: str) -> None:
    ax.imshow(np.asarray(picture), interpolation="nearest")
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def _colour_bar(drawn: Figure, axes: list[Axes], view: View, colormap: str | None) -> None:
    low = -1 if view == "signed" else 0
    scale = ScalarMappable(Normalize(low, 1), mpl.colormaps[colormap_name(view, colormap)])
    bar = drawn.colorbar(scale, ax=axes, shrink=0.7, pad=0.01, aspect=25)
    ticks, names = ([-1, 0, 1], ["against", "0", "for"]) if view == "signed" else ([0, 1], ["none", "most"])
    bar.set_ticks(ticks, labels=names)
    bar.ax.tick_params(labelsize=7)
