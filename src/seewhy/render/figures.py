"""Figures and grids, drawn on matplotlib objects of their own: its global state is never touched."""

from __future__ import annotations

import io
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from seewhy.errors import RenderError
from seewhy.explanation import Explanation
from seewhy.reading import Scaling, View
from seewhy.render.colour import colormap_name
from seewhy.render.overlay import caption, overlay, scale_words

_CELL = 2.6  # inches: the side of a square cell; others have its area
_NARROWEST = 1.5  # inches: below this no label can be read
_CELL_PIXELS = 520  # longest side of a cell's picture: more is not seen at this size
_LETTER = 0.068  # inches: a letter of a cell's label
_BAR_LENGTH, _BAR_WIDTH = 4.0, 0.13  # inches


class _Drawn(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        return figure_bytes(self)


def figure(
    explanations: Sequence[Explanation],
    *,
    columns: int | None = None,
    opacity: float = 0.75,
    colormap: str | None = None,
    scaling: Scaling | float | None = None,
) -> Figure:
    """Draw one explanation as picture, overlay and map, or several as a grid of overlays with the picture first.

    Args:
        explanations: one or more; a label over each says in what it differs from the others.
        columns: cells a row; None: a page wider than high, where what is compared stands side by side: with two targets,
            each method's two maps are neighbours.
        opacity, colormap, scaling: as in :func:`seewhy.render.overlay`.

    Raises:
        RenderError: nothing to draw, an argument out of range, or maps that are not two-dimensional.
    """
    if not explanations:
        raise RenderError("There is no explanation to draw.")
    if columns is not None and columns < 1:
        raise RenderError(f"columns={columns} must be at least 1.")
    style = {"opacity": opacity, "colormap": colormap, "scaling": scaling}
    return _single(explanations[0], style) if len(explanations) == 1 else _grid(explanations, columns, style)


def figure_bytes(drawn: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()


def _single(explanation: Explanation, style: dict[str, Any]) -> Figure:
    pictures = (
        (_original(explanation), "picture"),
        (overlay(explanation, max_side=_CELL_PIXELS, **style), "overlay"),
        (overlay(_without_picture(explanation), max_side=_CELL_PIXELS, **{**style, "opacity": 1.0}), "map"),
    )
    width, height = _cell(explanation)
    stacked = width > 2 * _CELL  # three very wide pictures beside each other would be three lines
    across, down = (width, 3 * (height + 0.3)) if stacked else (3 * width, height + 0.3)
    across = max(across, 2 * _CELL) + 1.2
    told = [*caption(explanation), *map(str, explanation.diagnosis)]
    lines = [part for line in told for part in textwrap.wrap(line, int(across / _LETTER))]
    drawn = _Drawn(figsize=(across, down + 0.2 + 0.16 * len(lines)), layout="constrained")
    axes = list(drawn.subplots(3, 1) if stacked else drawn.subplots(1, 3))
    for ax, (picture, title) in zip(axes, pictures, strict=True):
        _show(ax, picture, title)
    _colour_bar(drawn, axes, explanation.view, style, upright=min(down, _BAR_LENGTH))
    drawn.suptitle("\n".join(lines), fontsize=9, parse_math=False)
    return drawn


def _grid(explanations: Sequence[Explanation], columns: int | None, style: dict[str, Any]) -> Figure:
    width, height = _cell(explanations[0])
    words = _telling(explanations)
    together = _neighbours(words)
    usual = _usual_target(explanations)
    labels = ["\n".join(_fitted(word, width) for word in each if word != usual) for each in words]
    labels = [
        label + "".join(f"\n[{f.code}]" for f in each.diagnosis)
        for label, each in zip(labels, explanations, strict=True)
    ]
    places, answer = _places(len(explanations), columns, together, width / height)
    rows, across = (1 + max(place[axis] for place in [*places, answer or (0, 0)]) for axis in (0, 1))
    height += 0.15 * (2 + max(label.count("\n") for label in labels)) + 0.1
    page = max(across * width, _BAR_LENGTH) + 0.2
    title = textwrap.wrap(_common(explanations), int(page / _LETTER))
    drawn = _Drawn(figsize=(page, rows * height + 0.7 + 0.16 * len(title)), layout="constrained")
    cells = drawn.subplots(rows, across, squeeze=False)
    axes = list(cells.flat)
    for ax in axes:
        ax.set_axis_off()
    _show(cells[0, 0], _original(explanations[0]), _heading(explanations[0], width))
    if answer is not None:
        _tell_answer(cells[answer], explanations[0], width)
    costs = len({each.method for each in explanations}) > 1
    for place, explanation, label in zip(places, explanations, labels, strict=True):
        _show(cells[place], overlay(explanation, max_side=_CELL_PIXELS, **style), label)
        if costs:
            _tell_cost(cells[place], explanation)
    told = "; under each: its runs of the model, and seconds beyond the recording that all share" if costs else ""
    told += f" ({explanations[0].shared.seconds:.2f} s)" if costs else ""
    for view in sorted({explanation.view for explanation in explanations}):
        _colour_bar(drawn, axes, view, style, told=told)
    drawn.suptitle("\n".join(title), fontsize=9, parse_math=False)
    return drawn


def _common(explanations: Sequence[Explanation]) -> str:
    """Return in words what all the maps share; what differs is said over each."""
    one = explanations[0]
    shared = {
        "for ": {each.target for each in explanations},
        "by ": {each.method for each in explanations},
        "at ": {" + ".join(each.layers) or "the input" for each in explanations},
    }
    words = {word: values.pop() for word, values in shared.items() if len(values) == 1}
    if (usual := _usual_target(explanations)) is not None:
        words = {"for ": f"{usual}, where nothing else is said,", **words}
    told = f"{one.model}: evidence " + " ".join(word + value for word, value in words.items())
    unseen = "" if one.seen.all() else " (grey, hatched: cropped away, never seen by the model)"
    return told + unseen


def _usual_target(explanations: Sequence[Explanation]) -> str | None:
    """Return the question that all but a few maps are about: it is told once, over all; None where there is no such one."""
    [(target, count)] = Counter(each.target for each in explanations).most_common(1)
    return target if len(explanations) > count > 0.8 * len(explanations) else None


def _tell_cost(ax: Axes, explanation: Explanation) -> None:
    """Write below a map what it took, and whether a budget cut it short."""
    own = replace(explanation.cost, seconds=explanation.cost.seconds - explanation.shared.seconds)
    told = f"{own.short if own.seconds > 0 else own.runs}{', cut short' if explanation.cut_short else ''}"
    ax.text(0.5, -0.02, told, fontsize=6, ha="center", va="top", color="0.35", transform=ax.transAxes)


def _tell_answer(ax: Axes, explanation: Explanation, width: float) -> None:
    """Write the likeliest classes into an empty cell, beside the picture."""
    words = [_fitted(f"{p.probability:.1%} {p.name}", width).partition("\n")[0] for p in explanation.prediction]
    ax.text(
        0.03, 0.97, "\n".join(words), fontsize=8, va="top", linespacing=1.5, transform=ax.transAxes, parse_math=False
    )


def _cell(explanation: Explanation) -> tuple[float, float]:
    """Return a cell's width and height in inches: the picture's proportions, the same area for all."""
    if len(explanation.geometry.axes) != 2:
        raise RenderError(
            f"A figure needs maps of two axes; '{explanation.name}' has {len(explanation.geometry.axes)}. Use .raw."
        )
    height, width = explanation.geometry.original_shape
    side = math.sqrt(width / height)
    return min(3 * _CELL, max(_NARROWEST, _CELL * side)), min(2 * _CELL, max(0.4, _CELL / side))


_Place = tuple[int, int]


def _places(count: int, columns: int | None, together: int, proportions: float) -> tuple[list[_Place], _Place | None]:
    """Return the row and column of each map, and of the model's answer in words, where there is a cell for it.

    The picture is at the top left. Where several maps belong together it has a group of cells to itself (two), or the
    whole first column (more), so that the groups stand under each other.
    """
    side = columns is None and together > 2
    first = 0 if side else 1 if columns is not None else together
    if columns is None:
        # A page a little wider than high, of whole groups.
        ideal = math.sqrt((count + first) * 1.6 / proportions)
        columns = min(math.ceil((count + first) / together), max(1, round(ideal / together))) * together
    places = [divmod(number + first, columns) for number in range(count)]
    if side:
        places = [(row, column + 1) for row, column in places]
        return places, (1, 0) if count > columns else None
    return places, (0, 1) if first > 1 else None


def _telling(explanations: Sequence[Explanation]) -> list[tuple[str, ...]]:
    """Return for each explanation the words in which it differs from others: method, layer, target, picture."""
    parts = [
        [each.method for each in explanations],
        [" + ".join(each.layers) or "input" for each in explanations],
        [each.target for each in explanations],
        [each.name for each in explanations],
    ]
    return list(zip(*([part for part in parts if len(set(part)) > 1] or [parts[0]]), strict=True))


def _neighbours(words: Sequence[tuple[str, ...]]) -> int:
    """Return how many explanations differ in the last word alone and so belong side by side; 1 where that is not regular."""
    count = len({each[-1] for each in words})
    groups = [words[at : at + count] for at in range(0, len(words), count)]
    regular = all(len({each[:-1] for each in group}) == 1 and len(group) == count for group in groups)
    return count if regular and len(words[0]) > 1 else 1


def _fitted(word: str, inches: float) -> str:
    """Return a label that fits a cell: on at most two lines, its middle left out when it is longer still."""
    letters = int(inches / _LETTER)
    if len(word) > 2 * letters:
        word = f"{word[: letters - 1]}…{word[-letters:]}"
    lines = textwrap.wrap(word, letters)
    return "\n".join(lines if len(lines) < 3 else [word[:letters], word[letters:]])


def _heading(explanation: Explanation, width: float) -> str:
    """Return what the model says about the picture."""
    best = explanation.prediction[0] if explanation.prediction else None
    if best is None or math.isnan(best.probability):
        return _fitted(explanation.name, width)
    return f"the model's answer:\n{_fitted(f'{best.name} {best.probability:.0%}', width)}"


def _original(explanation: Explanation) -> Image.Image:
    return overlay(explanation, opacity=0.0, max_side=_CELL_PIXELS)


def _without_picture(explanation: Explanation) -> Explanation:
    """Return the explanation on black (or, signed, white) paper, so that the map is seen alone."""
    paper = 255 if explanation.view == "signed" else 0
    return replace(explanation, image=np.full((*explanation.geometry.original_shape, 3), paper, np.uint8))


def _show(ax: Axes, picture: Image.Image, title: str) -> None:
    ax.imshow(np.asarray(picture), interpolation="antialiased")
    ax.set_title(title, fontsize=8, parse_math=False)
    ax.set_axis_off()


def _colour_bar(
    drawn: Figure,
    axes: list[Axes],
    view: View,
    style: dict[str, Any],
    *,
    upright: float | None = None,
    told: str = "",
) -> None:
    """Add a bar that says what the colours mean: below the axes, or beside them with a height of `upright` inches.

    Args:
        drawn, axes, view, style: what is drawn, and how.
        upright: the height; None: below.
        told: what else to say below it.
    """
    low = -1 if view == "signed" else 0
    scale = ScalarMappable(Normalize(low, 1), mpl.colormaps[colormap_name(view, style["colormap"])])
    width, height = drawn.get_size_inches()
    length, room = (_BAR_LENGTH, width) if upright is None else (upright, height)
    share = min(0.8, length / room)
    bar = drawn.colorbar(
        scale,
        ax=axes,
        location="bottom" if upright is None else "right",
        shrink=share,
        aspect=share * room / _BAR_WIDTH,
        pad=0.01,
    )
    words = scale_words(view)
    bar.set_ticks([low + place * (1 - low) for place, _ in words], labels=[word for _, word in words])
    bar.ax.tick_params(labelsize=7)
    if upright is None:
        number = isinstance(style["scaling"], int | float)
        scale_told = f"one scale: the end is {style['scaling']:g}" if number else "each map on its own scale"
        bar.set_label(f"{scale_told}{told}", fontsize=7)
