"""What all figures share: a page that a notebook shows, its bytes as a file, and the bar that says what colours mean."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from seewhy.reading import View
from seewhy.render.colour import colormap_name
from seewhy.render.overlay import scale_words

LETTER = 0.068  # inches: a letter of a cell's label
BAR_LENGTH, BAR_WIDTH = 4.0, 0.13  # inches


class Page(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        return figure_bytes(self)


def figure_bytes(drawn: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()


def colour_bar(
    drawn: Figure,
    axes: Sequence[Axes],
    view: View,
    style: dict[str, Any],
    *,
    upright: float | None = None,
    told: str = "",
    opacity: float | None = None,
) -> None:
    """Add a bar that says what the colours mean: below the axes, or beside them with a height of `upright` inches.

    Args:
        drawn, axes, view, style: what is drawn, and how.
        upright: the height; None: below.
        told: what else to say below it.
        opacity: of the colours, where they lie on white paper.
    """
    low = -1 if view == "signed" else 0
    scale = ScalarMappable(Normalize(low, 1), mpl.colormaps[colormap_name(view, style["colormap"])])
    width, height = drawn.get_size_inches()
    length, room = (BAR_LENGTH, width) if upright is None else (upright, height)
    share = min(0.8, length / room)
    bar = drawn.colorbar(
        scale,
        ax=list(axes),
        alpha=opacity,
        location="bottom" if upright is None else "right",
        shrink=share,
        aspect=share * room / BAR_WIDTH,
        pad=0.01,
    )
    words = scale_words(view)
    bar.set_ticks([low + place * (1 - low) for place, _ in words], labels=[word for _, word in words])
    bar.ax.tick_params(labelsize=7)
    if upright is None:
        number = isinstance(style["scaling"], int | float)
        scale_told = f"one scale: the end is {style['scaling']:g}" if number else "each map on its own scale"
        bar.set_label(f"{scale_told}{told}", fontsize=7)
