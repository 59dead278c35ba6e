"""How a raw map is read: the words for its view, its scale, its colours and its layers, and the sums behind them."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from seewhy.errors import RenderError

View = Literal["positive", "signed"]
Scaling = Literal["per-image", "percentile", "none"]
Fuse = Literal["mean", "max", "product", "none"]
Shows = Literal["evidence", "influence"]
Reduction = Literal["sum", "mean", "max-abs", "sum-abs", "norm"]


def reduce_colours(values: npt.NDArray[np.float32], how: Reduction, axis: int = 0) -> npt.NDArray[np.float32]:
    """Return one value a place from the values of its colour channels.

    Args:
        values: `(channel, *space)`, or with other axes before.
        how: "sum" (the channels' whole contribution), "mean", "max-abs" (the largest absolute value, as saliency maps),
            "sum-abs", or "norm" (Euclidean).
        axis: the channels' axis.

    Raises:
        RenderError: another word.
    """
    if how == "sum":
        return np.asarray(values.sum(axis), np.float32)
    if how == "mean":
        return np.asarray(values.mean(axis), np.float32)
    if how == "max-abs":
        return np.asarray(np.abs(values).max(axis), np.float32)
    if how == "sum-abs":
        return np.asarray(np.abs(values).sum(axis), np.float32)
    if how == "norm":
        return np.asarray(np.sqrt((values.astype(np.float64) ** 2).sum(axis)), np.float32)
    raise RenderError(f"reduce='{how}' is not known. Known: {', '.join(get_args(Reduction))}.")
