"""The maps that sanity checks made, drawn on what they are of: a row a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from seewhy.errors import RenderError
from seewhy.explanation import Explanation
from seewhy.render.overlay import overlay
from seewhy.render.page import Page, colour_bar

if TYPE_CHECKING:
    from seewhy.checkup.outcomes import Sanity

_CELL = 2.1  # inches
_PIXELS = 420


def maps_figure(found: Sanity, *, opacity: float = 0.75, colormap: str | None = None, scaling: Any = None) -> Page:
    """Draw each method's maps of the picture, of another class, of drawn weights, of noise and of shuffled patches.

    Raises:
        RenderError: the inputs are no pictures.
    """
    style: dict[str, Any] = {"opacity": opacity, "colormap": colormap, "scaling": scaling}
    first = next(iter(next(iter(found.maps.values())).values()))
    if not found.is_drawn:
        raise RenderError(
            "The sanity checks are drawn for pictures only. What they found is in the table, the maps in `.maps`."
        )
    columns = list(next(iter(found.maps.values())))
    height, width = first.geometry.original_shape
    tall = min(2 * _CELL, max(0.5 * _CELL, _CELL * height / width))
    drawn = Page(figsize=(_CELL * len(columns) + 0.4, (tall + 0.3) * (len(found.maps) + 1) + 1.0), layout="constrained")
    cells = drawn.subplots(len(found.maps) + 1, len(columns), squeeze=False)
    for column, what in enumerate(columns):
        why = next(iter(found.maps.values()))[what]
        _show(cells[0, column], replace(why, outline=None), {**style, "opacity": 0.0}, what)
    for row, (method, maps) in zip(cells[1:], found.maps.items(), strict=True):
        _row(row, method, maps, _verdicts(found, method), style)
    for view in sorted({why.view for maps in found.maps.values() for why in maps.values()}):
        colour_bar(drawn, list(cells.flat), view, style)
    told = (
        f"{found.model}: can maps for {found.target} be trusted? Above, what the model was shown; below, a method's maps a row: "
        "all must look different from the row's first."
    )
    drawn.suptitle(told, fontsize=9, wrap=True, parse_math=False)
    return drawn


def _verdicts(found: Sanity, method: str) -> dict[str, str]:
    return {row.check: f"{row.check}: {row.verdict}" for row in found.rows if row.method == method}


def _row(
    row: Any, method: str, maps: Mapping[str, Explanation], verdicts: Mapping[str, str], style: dict[str, Any]
) -> None:
    for ax, (what, why) in zip(row, maps.items(), strict=True):
        _show(ax, why, style, verdicts.get(_check_of(what), method))


def _check_of(what: str) -> str:
    return {"the picture": "", "weights drawn anew": "weights", "noise": "input", "shuffled patches": "input"}.get(
        what, "class"
    )


def _show(ax: Axes, explanation: Explanation, style: dict[str, Any], title: str) -> None:
    ax.imshow(np.asarray(overlay(explanation, max_side=_PIXELS, **style)), interpolation="antialiased")
    ax.set_title(title, fontsize=8, parse_math=False)
    ax.set_axis_off()
