"""Several layers' maps as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seewhy.errors import LayerError
from seewhy.images import Geometry


def fused(maps: Sequence[npt.NDArray[np.float32]], how: str) -> npt.NDArray[np.float32]:
    """Fuse maps of several layers into one, on the finest of their grids.

    Each map is first divided by its largest absolute value, since layers differ by orders of magnitude; sign and zero stay.

    Args:
        maps: one `(batch, *grid)` a layer; grids may differ.
        how: "mean", "max", or "product" of the positive parts (RefineCAM, arXiv:2605.14641: what every layer agrees on).

    Returns:
        `(batch, *finest grid)`.

    Raises:
        LayerError: unknown way to fuse.
    """
    if how not in ("mean", "max", "product"):
        raise LayerError(f"fuse='{how}' is not known. Known: mean, max, product, none (one map each).")
    finest = max((each.shape[1:] for each in maps), key=np.prod)
    grid = Geometry.identity(finest)
    positive = [np.maximum(each, 0) for each in maps] if how == "product" else maps
    resized = np.stack([np.stack([grid.to_original(one) for one in _unit_peak(each)]) for each in positive])
    if how == "product":
        return np.asarray(resized.prod(0), np.float32)
    return np.asarray(resized.mean(0) if how == "mean" else resized.max(0), np.float32)


def _unit_peak(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Divide each sample's map by its largest absolute value; a map of zeros stays."""
    peaks = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    peaks[peaks == 0] = 1
    return np.asarray(maps / peaks, np.float32)
