"""Where each pixel of the model's input lies in the original picture, and the way back for a map.

Every step of preprocessing (resize, crop, letterbox) moves and stretches each axis on its own, so the whole way is one
scale and one offset an axis: ``input = original * scale + offset``, in pixels, with pixel centres at one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

# EXIF orientation -> what puts an upright array back as it lies in the file: (transpose, flip vertically, flip sideways).
_AS_STORED = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Axis:
    """One axis: `original` and `input` lengths in pixels, and input = original * scale + offset."""

    original: int
    input: int
    scale: float = 1.0
    offset: float = 0.0

    def input_positions(self) -> npt.NDArray[np.floating]:
        """Return where the centre of each original pixel lies on the input, in input pixels."""
        return (np.arange(self.original) + 0.5) * self.scale + self.offset

    def seen(self) -> npt.NDArray[np.bool_]:
        """Return which original pixels have their centre on the input."""
        positions = self.input_positions()
        return (positions >= 0) & (positions <= self.input)

    def weights(self, cells: int) -> npt.NDArray[np.float32]:
        """Return the `(original, cells)` matrix that interpolates a map of `cells` linearly; unseen rows are zero."""
        at = np.clip(self.input_positions() * cells / self.input - 0.5, 0, cells - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, cells - 1)
        matrix = np.zeros((self.original, cells), np.float32)
        rows = np.arange(self.original)
        np.add.at(matrix, (rows, low), 1 - (at - low))
        np.add.at(matrix, (rows, high), at - low)
        matrix[~self.seen()] = 0
        return matrix


@dataclass(frozen=True)
class Geometry:
    """The way from an upright original picture (or volume) to the model's input, and back.

    Attributes:
        axes: one entry a spatial axis, in array order (height, width for pictures).
        steps: what was done, in words, in order.
        orientation: the file's EXIF orientation, 1 to 8; the axes describe the picture after it was turned upright.
    """

    axes: tuple[Axis, ...]
    steps: tuple[str, ...] = ()
    orientation: int = 1

    @classmethod
    def identity(cls, shape: Sequence[int], *, orientation: int = 1) -> Geometry:
        """Return the geometry of an input that is the original, of spatial `shape`."""
        steps = () if orientation == 1 else (f"turn upright (EXIF {orientation})",)
        return cls(tuple(Axis(length, length) for length in shape), steps, orientation)

    @property
    def original_shape(self) -> tuple[int, ...]:
        """Spatial shape of the upright original."""
        return tuple(axis.original for axis in self.axes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Spatial shape of the model's input."""
        return tuple(axis.input for axis in self.axes)

    def resized(self, shape: Sequence[int]) -> Geometry:
        """Return this geometry followed by a resize of the input to `shape`."""
        axes = tuple(
            replace(axis, input=new, scale=axis.scale * new / axis.input, offset=axis.offset * new / axis.input)
            for axis, new in zip(self.axes, shape, strict=True)
        )
        return replace(self, axes=axes, steps=(*self.steps, f"resize to {_times(shape)}"))

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Geometry:
        """Return this geometry followed by a crop that begins at `start`; a negative start adds a border."""
        axes = tuple(
            replace(axis, input=length, offset=axis.offset - begin)
            for axis, begin, length in zip(self.axes, start, shape, strict=True)
        )
        word = "pad" if any(begin < 0 for begin in start) else "crop"
        return replace(self, axes=axes, steps=(*self.steps, f"{word} to {_times(shape)} from {tuple(start)}"))

    def viewed_at(self, shape: Sequence[int]) -> Geometry:
        """Return the geometry of the same view of an original that was scaled to `shape` beforehand."""
        axes = tuple(
            replace(axis, original=new, scale=axis.scale * axis.original / new)
            for axis, new in zip(self.axes, shape, strict=True)
        )
        return replace(self, axes=axes)

    def seen(self) -> npt.NDArray[np.bool_]:
        """Return a boolean array of the original's shape: what the model was given to see."""
        return _outer([axis.seen() for axis in self.axes])

    def to_original(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Lay a map over the whole input back on the original pixels, linearly; what was not seen is 0.

        Args:
            values: `(*grid)`, one number a cell, cells of equal size that cover the input from edge to edge.

        Returns:
            `(*original_shape)` float32.
        """
        result = np.asarray(values, np.float32)
        for index, axis in enumerate(self.axes):
            result = np.moveaxis(np.tensordot(axis.weights(values.shape[index]), result, axes=(1, index)), 0, index)
        return np.ascontiguousarray(result)

    def as_stored(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Turn an array on the upright original `(height, width, ...)` to how the pixels lie in the file (undo EXIF)."""
        transpose, vertical, sideways = _AS_STORED[self.orientation]
        result = np.swapaxes(values, 0, 1) if transpose else values
        result = result[::-1] if vertical else result
        return result[:, ::-1] if sideways else result


def _outer(rows: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Return the outer AND of one boolean vector an axis."""
    result = rows[0]
    for row in rows[1:]:
        result = result[..., None] & row
    return result


def _times(shape: Sequence[int]) -> str:
    """Return `(480, 640)` as "480x640"."""
    return "x".join(str(length) for length in shape)
