"""Signals: a line for each channel, the map behind it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from seewhy.explanation import Explanation
from seewhy.images import Geometry
from seewhy.images.display import Channels, chosen_channels
from seewhy.reading import Scaling, View, reduce_colours
from seewhy.render.colour import colormap_name, colours
from seewhy.render.overlay import caption, warnings
from seewhy.render.page import LETTER, Page, colour_bar

MOST = 12
"""Most lines of one signal: the leads of an electrocardiogram."""

# Light paper: a map from white to dark, on which a black line is seen throughout.
_COLORMAPS: dict[View, str | None] = {"positive": "OrRd", "signed": None}
_WIDTH, _ALL_ROWS = 8.0, 5.0  # inches
_LOWEST, _HIGHEST = 0.6, 2.2  # inches: a row
_MARGIN = 0.4  # inches beside the words above
_COLUMNS = 1600  # cells of the map that such a page can show
_HALO = [withStroke(linewidth=2.2, foreground="white")]


@dataclass(frozen=True, eq=False)
class _Row:
    """One line of the page: what is drawn (None: the map alone), the map behind it, and its name."""

    values: npt.NDArray[np.float32] | None
    heat: npt.NDArray[np.float32]
    label: str


def line_figure(
    explanations: Sequence[Explanation],
    labels: Sequence[str],
    *,
    opacity: float,
    colormap: str | None,
    scaling: Scaling | float | None,
    channels: Channels,
) -> Figure:
    """Draw one signal's channels, or one line for each of several explanations of signals.

    Args:
        explanations: of inputs with one axis.
        labels: what to call each, where there are several.
        opacity, colormap, scaling, channels: as in :func:`seewhy.render.figure`.

    Raises:
        RenderError: no such channel or colour map.
    """
    one = explanations[0]
    if len(explanations) == 1:
        rows, told = _channel_rows(one, scaling, channels)
        words = [*caption(one), *told, *warnings(one)]
    else:
        found = [_one_row(each, label, scaling, channels) for each, label in zip(explanations, labels, strict=True)]
        rows = [row for row, _ in found]
        words = [
            f"{one.model} on {one.name}: {', '.join(dict.fromkeys(each.target for each in explanations))}",
            found[0][1],
        ]
    names = {each.view: colormap_name(each.view, colormap or _COLORMAPS[each.view]) for each in explanations}
    lines = list(chain.from_iterable(textwrap.wrap(line, int((_WIDTH - _MARGIN) / LETTER)) for line in words))
    height = min(_HIGHEST, max(_LOWEST, _ALL_ROWS / len(rows)))
    drawn = Page(figsize=(_WIDTH, len(rows) * height + 0.7 + 0.16 * len(lines)), layout="constrained")
    axes = list(drawn.subplots(len(rows), 1, sharex=len({len(row.heat) for row in rows}) == 1, squeeze=False)[:, 0])
    views = [each.view for each in explanations] if len(explanations) > 1 else [one.view] * len(rows)
    for ax, row, view in zip(axes, rows, views, strict=True):
        _draw(ax, row, view, names[view], opacity)
    axes[-1].set_xlabel("sample", fontsize=8)
    for view, name in sorted(names.items()):
        style = {"colormap": name, "scaling": scaling}
        colour_bar(drawn, axes, view, style, upright=min(4.0, len(rows) * height), opacity=opacity)
    drawn.suptitle("\n".join(lines), fontsize=9, parse_math=False)
    return drawn


def _draw(ax: Axes, row: _Row, view: View, colormap: str, opacity: float) -> None:
    count = len(row.heat)
    values = row.values
    low, high = (0.0, 1.0) if values is None else (float(values.min()), float(values.max()))
    margin = 0.08 * (high - low) or 1.0
    low, high = low - margin, high + margin
    step = -(-count // _COLUMNS)
    shade = colours(_pooled(row.heat, step), view, colormap).astype(np.float32)
    paper = np.rint(shade * opacity + 255 * (1 - opacity)).astype(np.uint8)
    ax.imshow(paper[None], extent=(-0.5, len(paper) * step - 0.5, low, high), aspect="auto", interpolation="nearest")
    if values is not None:
        ax.plot(np.arange(count), values, color="black", linewidth=0.9, path_effects=_HALO)
    ax.set_xlim(-0.5, count - 0.5)
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.set_yticks([] if values is None else ax.get_yticks())
    ax.set_ylim(low, high)
    ax.tick_params(labelsize=7)
    ax.set_ylabel(row.label, fontsize=7, rotation=0, ha="right", va="center", parse_math=False)


def _pooled(heat: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float32]:
    """Return the strongest value of each stretch of `step` samples: no peak is averaged away."""
    return np.array([max(heat[at : at + step], key=abs) for at in range(0, len(heat), step)], np.float32)


def _channel_rows(
    explanation: Explanation, scaling: Scaling | float | None, channels: Channels
) -> tuple[list[_Row], list[str]]:
    """Return a row for each shown channel of a signal, and what must be said of them."""
    scale = explanation.scaling if scaling is None else scaling
    if explanation.input is None:
        return [_Row(None, np.clip(explanation.scaled(scale), -1, 1), "map")], []
    shown, told = _shown(explanation, channels)
    own = _own_heat(explanation, scale)
    if own is not None and len(own) > 1:
        told.append("behind each line that channel's own part of the map")
    whole = np.clip(explanation.scaled(scale), -1, 1)
    shares = explanation.channel_shares() if own is not None else None
    rows = []
    for number in shown:
        share = "" if shares is None or len(shares) == 1 else f"\n{shares[number]:.0%}"
        heat = whole if own is None else own[number]
        rows.append(_Row(explanation.input[number], heat, f"channel {number}{share}"))
    return rows, told


def _one_row(
    explanation: Explanation, label: str, scaling: Scaling | float | None, channels: Channels
) -> tuple[_Row, str]:
    """Return one row for a whole explanation: the mean of the chosen channels, and what it is."""
    heat = np.clip(explanation.scaled(explanation.scaling if scaling is None else scaling), -1, 1)
    label = "\n".join(textwrap.wrap(label, 22))
    if explanation.input is None:
        return _Row(None, heat, label), ""
    chosen = chosen_channels(channels, len(explanation.input)) or tuple(range(len(explanation.input)))
    mean = explanation.input[list(chosen)].mean(0)
    numbers = ", ".join(map(str, chosen))
    told = f"the line is channel {numbers}" if len(chosen) == 1 else f"the line is the mean of channels {numbers}"
    return _Row(mean, heat, label), f"{told}; each map on its own scale"


def _shown(explanation: Explanation, channels: Channels) -> tuple[Sequence[int], list[str]]:
    """Return the numbers of the channels that are drawn, and how they were chosen where some are left out."""
    assert explanation.input is not None  # noqa: S101 - the caller asked
    count = len(explanation.input)
    chosen = chosen_channels(channels, count)
    if chosen is not None:
        return chosen[:], []
    if count <= MOST:
        return range(count), []
    if explanation.colours is not None:
        largest = np.argsort(-explanation.channel_shares(), kind="stable")[:MOST]
        return sorted(map(int, largest)), [
            f"{MOST} of {count} channels: those with the largest shares; channels= chooses"
        ]
    spread = np.linspace(0, count - 1, MOST).round().astype(int).tolist()
    return spread, [f"{MOST} of {count} channels, evenly spread; channels= chooses"]


def _own_heat(explanation: Explanation, scaling: Scaling | float) -> npt.NDArray[np.float32] | None:
    """Return each channel's own map on one common scale, `(channel, time)`; None where channels were not kept apart."""
    parts, how = explanation.colours, explanation.reduction
    if parts is None or how is None:
        return None
    each = np.concatenate([reduce_colours(part[None], how) for part in parts])
    flat = replace(explanation, raw=each, geometry=Geometry.identity(each.shape), colours=None)
    return np.clip(flat.scaled(scaling), -1, 1).reshape(len(parts), -1)
