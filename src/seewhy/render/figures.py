"""Figures and grids, drawn on matplotlib objects of their own: its global state is never touched."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from seewhy.errors import RenderError
from seewhy.explanation import Explanation
from seewhy.images.display import Channels
from seewhy.reading import Scaling
from seewhy.render.lines import line_figure
from seewhy.render.overlay import RGB, caption, overlay, warnings, with_channels
from seewhy.render.page import BAR_LENGTH, LETTER, Page, colour_bar
from seewhy.render.volumes import Slices, volume_figure

_CELL = 2.6  # inches: the side of a square cell; others have its area
_NARROWEST = 1.5  # inches: below this no label can be read
_CELL_PIXELS = 520  # longest side of a cell's picture: more is not seen at this size
_PICTURES_A_ROW = 4


def figure(
    explanations: Sequence[Explanation],
    *,
    columns: int | None = None,
    opacity: float = 0.75,
    colormap: str | None = None,
    scaling: Scaling | float | None = None,
    channels: Channels = None,
    slices: Slices = "top",
    axis: int = 0,
) -> Figure:
    """Draw one explanation as picture, overlay and map, or several as a grid of overlays with the picture first.

    Signals are drawn as one line a channel, the map behind it; of volumes and videos, slices are shown. Explanations of different
    pictures are drawn side by side, each below its own picture.

    Args:
        explanations: one or more; a label over each says in what it differs from the others.
        columns: cells a row; None: a page wider than high, where what is compared stands side by side: with two targets,
            each method's two maps are neighbours.
        opacity, colormap, scaling, channels: as in :func:`seewhy.render.overlay`; of a signal, channels are the lines that
            are drawn.
        slices: of a volume, the "top" ones (with the most of the map), or those "even"ly spread; or their numbers.
        axis: of a volume, the axis that is cut, 0 to 2 in the input's order.

    Raises:
        RenderError: nothing to draw, an argument out of range, or maps of different numbers of axes.
    """
    if not explanations:
        raise RenderError("There is no explanation to draw.")
    if columns is not None and columns < 1:
        raise RenderError(f"columns={columns} must be at least 1.")
    if not 0 <= opacity <= 1:
        raise RenderError(f"opacity={opacity} must be 0 to 1.")
    style: dict[str, Any] = {"opacity": opacity, "colormap": colormap, "scaling": scaling}
    axes = {len(each.geometry.axes) for each in explanations}
    if axes == {1}:
        return line_figure(explanations, labels(explanations), channels=channels, **style)
    if axes == {3}:
        return volume_figure(explanations, labels(explanations), channels=channels, slices=slices, axis=axis, **style)
    if axes != {2}:
        raise RenderError(
            f"Maps of {' and '.join(map(str, sorted(axes)))} axes cannot share a figure. Draw each alone."
        )
    explanations = [with_channels(each, channels) for each in explanations]
    if len(explanations) > 1 and not all(_same_picture(each, explanations[0]) for each in explanations):
        return _beside(explanations, columns, style)
    return _single(explanations[0], style) if len(explanations) == 1 else _grid(explanations, columns, style)


def _single(explanation: Explanation, style: dict[str, Any]) -> Figure:
    pictures = (
        (_original(explanation), "picture"),
        (overlay(explanation, max_side=_CELL_PIXELS, **style), "overlay"),
        (overlay(_without_picture(explanation), max_side=_CELL_PIXELS, **{**style, "opacity": 1.0}), "map"),
    )
    width, height = _cell(explanation)
    with_shares = explanation.colours is not None and len(explanation.colours) > RGB
    count = len(pictures) + with_shares
    stacked = width > 2 * _CELL  # three very wide pictures beside each other would be three lines
    across, down = (width, count * (height + 0.3)) if stacked else (count * width, height + 0.3)
    across = max(across, 2 * _CELL) + 1.2
    told = [*caption(explanation), *warnings(explanation)]
    lines = [part for line in told for part in textwrap.wrap(line, int(across / LETTER))]
    drawn = Page(figsize=(across, down + 0.2 + 0.16 * len(lines)), layout="constrained")
    axes = list(drawn.subplots(count, 1) if stacked else drawn.subplots(1, count))
    for ax, (picture, title) in zip(axes, pictures, strict=False):
        _show(ax, picture, title)
    if with_shares:
        _show_shares(axes[-1], explanation)
    colour_bar(drawn, axes, explanation.view, style, upright=min(down, BAR_LENGTH))
    drawn.suptitle("\n".join(lines), fontsize=9, parse_math=False)
    return drawn


def _grid(explanations: Sequence[Explanation], columns: int | None, style: dict[str, Any]) -> Figure:
    width, height = _cell(explanations[0])
    words = _telling(explanations)
    together = _neighbours(words)
    usual = _usual_target(explanations)
    names = ["\n".join(_fitted(word, width) for word in each if word != usual) for each in words]
    names = [
        label + "".join(f"\n{mark}" for mark in _marks(each)) for label, each in zip(names, explanations, strict=True)
    ]
    places, answer = _places(len(explanations), columns, together, width / height)
    rows, across = (1 + max(place[axis] for place in [*places, answer or (0, 0)]) for axis in (0, 1))
    height += 0.15 * (2 + max(label.count("\n") for label in names)) + 0.1
    page = max(across * width, BAR_LENGTH) + 0.2
    title = textwrap.wrap(_common(explanations), int(page / LETTER))
    drawn = Page(figsize=(page, rows * height + 0.7 + 0.16 * len(title)), layout="constrained")
    cells = drawn.subplots(rows, across, squeeze=False)
    axes = list(cells.flat)
    for ax in axes:
        ax.set_axis_off()
    _show(cells[0, 0], _original(explanations[0]), _heading(explanations[0], width))
    if answer is not None:
        _tell_answer(cells[answer], explanations[0], width)
    costs = len({each.method for each in explanations}) > 1
    for place, explanation, label in zip(places, explanations, names, strict=True):
        _show(cells[place], overlay(explanation, max_side=_CELL_PIXELS, **style), label)
        if costs:
            _tell_cost(cells[place], explanation)
    told = "; under each: its runs of the model, and seconds beyond the recording that all share" if costs else ""
    told += f" ({explanations[0].shared.seconds:.2f} s)" if costs else ""
    for view in sorted({explanation.view for explanation in explanations}):
        colour_bar(drawn, axes, view, style, told=told)
    drawn.suptitle("\n".join(title), fontsize=9, parse_math=False)
    return drawn


def _beside(explanations: Sequence[Explanation], columns: int | None, style: dict[str, Any]) -> Figure:
    """Draw explanations of different pictures: in each column a picture, and its map below."""
    columns = min(len(explanations), columns or _PICTURES_A_ROW)
    width, height = (max(side) for side in zip(*map(_cell, explanations), strict=True))
    rows = 2 * math.ceil(len(explanations) / columns)
    page = max(columns * width, BAR_LENGTH) + 0.2
    title = textwrap.wrap(_common(explanations), int(page / LETTER))
    drawn = Page(figsize=(page, rows * (height + 0.45) + 0.7 + 0.16 * len(title)), layout="constrained")
    cells = drawn.subplots(rows, columns, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    for number, each in enumerate(explanations):
        row, column = divmod(number, columns)
        told = f"{each.target}: {each.score:.3g}" + "".join(f" [{finding.code}]" for finding in each.diagnosis)
        _show(cells[2 * row, column], _original(each), _fitted(each.name, width))
        _show(cells[2 * row + 1, column], overlay(each, max_side=_CELL_PIXELS, **style), _fitted(told, width))
    for view in sorted({each.view for each in explanations}):
        colour_bar(drawn, list(cells.flat), view, style)
    drawn.suptitle("\n".join(title), fontsize=9, parse_math=False)
    return drawn


def _same_picture(one: Explanation, other: Explanation) -> bool:
    """Return whether two explanations are of one picture."""
    if one.image is None or other.image is None:
        return one.image is other.image and one.name == other.name and one.geometry == other.geometry
    return one.image is other.image or np.array_equal(one.image, other.image)


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
    unseen = (
        ""
        if all(each.seen.all() for each in explanations)
        else " (grey, hatched: cropped away, never seen by the model)"
    )
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
    covered = any(p.means == "area" for p in explanation.prediction)
    words = ["of the picture:"] if covered else []
    words += [_fitted(f"{p.probability:.1%} {p.name}", width).partition("\n")[0] for p in explanation.prediction]
    ax.text(
        0.03, 0.97, "\n".join(words), fontsize=8, va="top", linespacing=1.5, transform=ax.transAxes, parse_math=False
    )


def _cell(explanation: Explanation) -> tuple[float, float]:
    """Return a cell's width and height in inches: the picture's proportions, the same area for all."""
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


def labels(explanations: Sequence[Explanation]) -> list[str]:
    """Return for each explanation in what it differs from the others, and codes of what is wrong with it."""
    words = _telling(explanations)
    return [
        ", ".join(each) + "".join(f" {mark}" for mark in _marks(explanation))
        for each, explanation in zip(words, explanations, strict=True)
    ]


def _marks(explanation: Explanation) -> list[str]:
    """Return in a word each what is wrong with a map, and how true it was found to be."""
    checked = [] if explanation.evidence is None else [f"({explanation.evidence.word})"]
    return [*(f"[{finding.code}]" for finding in explanation.diagnosis), *checked]


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
    letters = int(inches / LETTER)
    if len(word) > 2 * letters:
        word = f"{word[: letters - 1]}…{word[-letters:]}"
    lines = textwrap.wrap(word, letters)
    return "\n".join(lines if len(lines) < 3 else [word[:letters], word[letters:]])


def _heading(explanation: Explanation, width: float) -> str:
    """Return what the model says about the picture."""
    best = explanation.prediction[0] if explanation.prediction else None
    if best is None or math.isnan(best.probability):
        return _fitted(explanation.name, width)
    if best.means == "area":
        return f"covers most:\n{_fitted(f'{best.name} {best.probability:.0%}', width)}"
    return f"the model's answer:\n{_fitted(f'{best.name} {best.probability:.0%}', width)}"


def _original(explanation: Explanation) -> Image.Image:
    return overlay(replace(explanation, outline=None), opacity=0.0, max_side=_CELL_PIXELS)


def _without_picture(explanation: Explanation) -> Explanation:
    """Return the explanation on black (or, signed, white) paper, so that the map is seen alone."""
    paper = 255 if explanation.view == "signed" else 0
    return replace(explanation, image=np.full((*explanation.geometry.original_shape, 3), paper, np.uint8))


def _show(ax: Axes, picture: Image.Image, title: str) -> None:
    ax.imshow(np.asarray(picture), interpolation="antialiased")
    ax.set_title(title, fontsize=8, parse_math=False)
    ax.set_axis_off()


def _show_shares(ax: Axes, explanation: Explanation) -> None:
    """Draw how much of the map came from each channel of the input."""
    shares = explanation.channel_shares()
    ax.bar(np.arange(len(shares)), 100 * shares, color="0.35")
    ax.set_title("share of each channel, %", fontsize=8)
    ax.set_xlabel("channel", fontsize=7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=7)
