"""A map of any resolution, laid on the model's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seewhy.images import Geometry


def on_input(values: npt.NDArray[np.float32], covers: Geometry | None, geometry: Geometry) -> npt.NDArray[np.float32]:
    """Return a map `(*grid)` at the resolution of the model's input, linearly.

    Args:
        values: finite or not; what is not counts as 0.
        covers: the input that the map lies over, from edge to edge; None: the model's own, or the original picture, where it has
            that shape.
        geometry: where the model's input lies in the original.
    """
    if covers is None:
        covers = Geometry.identity(geometry.original_shape) if values.shape == geometry.original_shape else geometry
    return covers.seen_from(geometry).to_original(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
