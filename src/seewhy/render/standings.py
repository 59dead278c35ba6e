"""An evaluation as figures: bars with intervals, and mean curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from seewhy.render.page import Page

if TYPE_CHECKING:
    from seewhy.evaluation.standings import Evaluation, Standing

_ROW = 0.27  # inches: a bar
_PANEL = 4.6  # inches: a metric
_ACROSS = 3  # panels a row
_TEN = 10
_LINES = 8  # more curves in one panel cannot be told apart
_GREY = "0.62"
_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))  # a method's layers
_ON_ANOTHER = (0, (5, 5))  # a curve that lies on another, which is seen through its gaps
_LONGEST = 34  # letters of a bar's name


def bars(evaluation: Evaluation) -> Page:
    """Draw each metric's means with their 95 % intervals, the best first; controls are grey."""
    metrics = evaluation.metrics
    across = min(_ACROSS, len(metrics))
    down = math.ceil(len(metrics) / across)
    most = max(len(evaluation.of(metric)) for metric in metrics)
    colours = _colours(evaluation)
    drawn = Page(figsize=(across * _PANEL, down * (most * _ROW + 0.9)), layout="constrained")
    cells = list(drawn.subplots(down, across, squeeze=False).flat)
    for ax, metric in zip(cells, metrics, strict=False):
        _bars(ax, evaluation.of(metric), colours)
    for ax in cells[len(metrics) :]:
        ax.set_axis_off()
    some = any(row.interval is not None for row in evaluation.rows)
    whiskers = "; whiskers: where the mean lies with 95 %" if some else ""
    drawn.supxlabel(f"behind each name its rank{whiskers}", fontsize=8, color="0.35")
    return drawn


def _bars(ax: Axes, rows: Sequence[Standing], colours: dict[str, str]) -> None:
    places = np.arange(len(rows))[::-1]
    means = [row.mean for row in rows]
    ends = [(row.mean, row.mean) if row.interval is None else row.interval for row in rows]
    shades = [_GREY if row.control else colours[row.name] for row in rows]
    ax.barh(places, means, height=0.72, color=shades, alpha=0.85)
    for row, place in zip(rows, places, strict=True):
        if row.interval is not None:
            wings = [[max(0.0, row.mean - row.interval[0])], [max(0.0, row.interval[1] - row.mean)]]
            ax.errorbar([row.mean], [place], xerr=wings, fmt="none", ecolor="0.15", elinewidth=1, capsize=2.5)
    ax.set_yticks(places, labels=[f"{_short(row.name)}   {row.rank_words}" for row in rows])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.tick_params(axis="x", labelsize=8)
    low, high = min(0.0, *(low for low, _ in ends)), max(0.0, *(high for _, high in ends))
    ax.set_xlim(low * 1.04, high * 1.04 or 1.0)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title(
        f"{rows[0].metric}: {rows[0].better} is better",
        fontsize=9,
        loc="left",
        parse_math=False,
    )


def curves(evaluation: Evaluation) -> Page | None:
    """Draw the mean curves of the metrics that are areas under some; None where there is none."""
    metrics = [metric for metric in evaluation.metrics if evaluation.curves(metric)]
    if not metrics:
        return None
    across = min(2, len(metrics))
    down = math.ceil(len(metrics) / across)
    colours = _colours(evaluation)
    drawn = Page(figsize=(across * 5.4, down * 3.8), layout="constrained")
    cells = list(drawn.subplots(down, across, squeeze=False).flat)
    for ax, metric in zip(cells, metrics, strict=False):
        _curves(ax, evaluation, metric, colours)
    for ax in cells[len(metrics) :]:
        ax.set_axis_off()
    return drawn


def _curves(ax: Axes, evaluation: Evaluation, metric: str, colours: dict[str, str]) -> None:
    rows = evaluation.of(metric)
    known = evaluation.curves(metric)
    shown = [row for row in rows if row.control] + [row for row in rows if not row.control][:_LINES]
    seen: dict[str, int] = {}
    drawn: list[npt.NDArray[np.float64]] = []
    for row in sorted(shown, key=rows.index):
        found = known.get((row.method, row.layer, row.control))
        if found is None:
            continue
        shade = _GREY if row.control else colours[row.name]
        number = seen[shade] = seen.get(shade, -1) + 1  # layers of one method share its colour
        style: Any = (":" if row.method == "random" else "--") if row.control else _STYLES[number % len(_STYLES)]
        if any(np.allclose(found, other, atol=1e-4) for other in drawn):
            style = _ON_ANOTHER
        drawn.append(found)
        [line] = ax.plot(np.linspace(0, 1, len(found)), found, linestyle=style, color=shade, linewidth=1.6)
        line.set_label(f"{_short(row.name)}  {row.mean:.3f}")
    legend = ax.legend(fontsize=7, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
    ax.set_xlim(0, 1)
    ax.set_xlabel("part of the picture, the map's highest places first", fontsize=8)
    ax.set_ylabel("mean of the target's probability", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.grid(color="0.92", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    left_out = len(rows) - len(shown)
    told = f"; {left_out} maps below the best {_LINES} are not drawn" if left_out else ""
    ax.set_title(f"{metric}: {rows[0].better} is better{told}", fontsize=9, loc="left", parse_math=False)


def _colours(evaluation: Evaluation) -> dict[str, str]:
    """Return each map's colour, the same in all panels: one for each method, or for each layer of a single method."""
    rows = [row for row in evaluation.rows if not row.control]
    alone = len({row.method for row in rows}) == 1
    kinds = list(dict.fromkeys(row.layer if alone else row.method for row in rows))
    palette = mpl.colormaps["tab10" if len(kinds) <= _TEN else "tab20"].colors  # type: ignore[attr-defined]
    shades = [to_hex(colour) for colour in palette]
    if len(kinds) < _TEN:
        del shades[7]  # the controls' grey
    return {row.name: shades[kinds.index(row.layer if alone else row.method) % len(shades)] for row in rows}


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 + 1 :]}"
