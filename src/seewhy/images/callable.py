"""A caller's own transform, PIL image to tensor; its geometry is measured, since nobody says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.errors import ImageError
from seewhy.images.geometry import Axis, Geometry
from seewhy.images.read import Picture

ASSUMED_WHOLE = "what preprocess= cuts away or moves could not be measured: the map is laid over the whole picture"

_LEAST_CONTRAST = 0.05  # of the largest: where black and white come out this alike, the input is border, not picture
_TRIM = 0.06  # of each end: filters repeat the edge there


@dataclass(frozen=True)
class CallablePreprocess:
    """Any function from a PIL image to a float tensor `(C, H, W)` (or `(1, C, H, W)`).

    What it resizes, crops, pads or flips is measured on ramps of the picture's size, once for each size.
    """

    transform: Callable[[Image.Image], Any]
    _measured: dict[tuple[int, int], tuple[Axis, Axis] | None] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, picture: Picture) -> tuple[Float[Tensor, "channel height width"], Geometry]:
        """Return what the transform makes of the picture, and where its pixels came from.

        Raises:
            ImageError: the transform raised, or returned something else than a finite float tensor.
        """
        result = self._run(Image.fromarray(picture.pixels), picture.name)
        shape = picture.pixels.shape[:2]
        if shape not in self._measured:
            self._measured[shape] = self._measure(shape)
        axes = self._measured[shape]
        whole = Geometry.identity(shape, orientation=picture.orientation)
        if axes is None or (axes[0].input, axes[1].input) != result.shape[1:]:
            resized = whole.resized(result.shape[1:])
            return result, Geometry(resized.axes, (*resized.steps, ASSUMED_WHOLE), picture.orientation)
        return result, Geometry(axes, (*whole.steps, "the caller's preprocessing, measured"), picture.orientation)

    def to_display(self, image: Float[Tensor, " channel *space"]) -> npt.NDArray[np.uint8] | None:  # noqa: ARG002
        """Return None: what this transform did to the values is not known."""
        return None

    def _run(self, image: Image.Image, name: str) -> Float[Tensor, "channel height width"]:
        try:
            result = self.transform(image)
        except Exception as error:
            raise ImageError(f"preprocess= raised {type(error).__name__} on '{name}': {error}") from error
        if isinstance(result, Tensor) and result.ndim == 4 and len(result) == 1:
            result = result[0]
        if not isinstance(result, Tensor) or result.ndim != 3 or not result.is_floating_point():
            found = f"{type(result).__name__} {tuple(getattr(result, 'shape', ()))}"
            raise ImageError(f"preprocess= must return a float tensor (C, H, W); it returned {found}.")
        if not bool(torch.isfinite(result).all()):
            raise ImageError(f"preprocess= made NaN or infinite values from '{name}'. Check its mean and std.")
        return result

    def _measure(self, shape: tuple[int, int]) -> tuple[Axis, Axis] | None:
        """Return the axes' scales and offsets, or None where the transform is not one scale and one offset an axis."""
        height, width = shape
        down = np.broadcast_to((np.arange(height)[:, None] + 0.5) / height, shape)
        across = np.broadcast_to((np.arange(width) + 0.5) / width, shape)
        try:
            black, white, rows, columns, again = (
                self._run(_grey(values), "a test ramp").double().mean(0).numpy()
                for values in (np.zeros(shape), np.ones(shape), down, across, across)
            )
        except ImageError:
            return None
        if not black.shape == white.shape == rows.shape == columns.shape or not np.allclose(columns, again):
            return None  # sizes or draws differ from call to call
        contrast = white - black
        inside = np.abs(contrast) > _LEAST_CONTRAST * np.abs(contrast).max()
        if not inside.any():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            at_row = np.where(inside, (rows - black) / contrast, np.nan) * height
            at_column = np.where(inside, (columns - black) / contrast, np.nan) * width
        vertical, horizontal = _line(at_row, height), _line(at_column.T, width)
        return None if vertical is None or horizontal is None else (vertical, horizontal)


def _grey(values: npt.NDArray[np.floating]) -> Image.Image:
    """Return values 0..1 as an RGB picture."""
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")


def _line(found: npt.NDArray[np.floating], length: int) -> Axis | None:
    """Fit input = original * scale + offset, where `found[i]` holds the original positions seen along input row i."""
    valid = np.isfinite(found).sum(1) > 0.5 * np.isfinite(found).sum(1).max()
    at = np.flatnonzero(valid)
    cut = int(len(at) * _TRIM)
    at = at[cut : len(at) - cut]
    if len(at) < 4:
        return None
    positions = np.nanmedian(found[at], axis=1)
    slope, offset = np.polyfit(at + 0.5, positions, 1)
    # 8-bit ramps are exact to half a step; a row that is not constant, or not on the line, is another transform (rotation).
    step = max(length / 255, abs(slope))
    spread = np.nanmax(np.abs(found[at] - positions[:, None]))
    if abs(slope) < 1e-6 or spread > 2 * step or np.abs(slope * (at + 0.5) + offset - positions).max() > 1.5 * step:
        return None
    return Axis(length, len(found), scale=1 / slope, offset=-offset / slope)
