"""From numbers to colours. Both default colour maps keep their order for colour-blind readers and in grey."""

from __future__ import annotations

from functools import cache

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from seewhy.errors import RenderError, did_you_mean
from seewhy.reading import View

DEFAULTS: dict[View, str] = {"positive": "inferno", "signed": "RdBu_r"}


def colormap_name(view: View, wanted: str | None) -> str:
    """Return the colour map's name: the wanted one, or the default of the view.

    Raises:
        RenderError: matplotlib has no such colour map.
    """
    name = wanted or DEFAULTS[view]
    if name not in mpl.colormaps:
        raise RenderError(f"There is no colour map '{name}'.{did_you_mean(name, list(mpl.colormaps))}")
    return name


def colours(values: npt.NDArray[np.float32], view: View, name: str) -> npt.NDArray[np.uint8]:
    """Return `(..., 3)` uint8 RGB.

    Args:
        values: 0..1 for view "positive", -1..1 for "signed", whose zero is the colour map's middle.
        view: which of the two.
        name: a matplotlib colour map.
    """
    unit = (values + 1) / 2 if view == "signed" else values
    index = np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8)
    return np.take(_table(name), index, axis=0)


@cache
def _table(name: str) -> npt.NDArray[np.uint8]:
    return np.asarray(mpl.colormaps[name](np.linspace(0, 1, 256), bytes=True)[:, :3], np.uint8)
