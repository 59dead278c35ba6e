"""Where each pixel of the model's input lies in the original picture, and the way back for a map.

Every step of preprocessing (resize, crop, letterbox) moves and stretches each axis on its own, so the whole way is one
scale and one offset an axis: ``input = original * scale + offset``, in pixels, with pixel centres at one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

_LARGEST_MATRIX = 1 << 22  # numbers; a signal is far longer than a picture's side, and its matrix would fill any memory

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


Edges = tuple[float, float, float, float]
"""A box: left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class Axis:
    """One axis: `original` and `input` lengths in pixels, and input = original * scale + offset."""

    original: int
    input: int
    scale: float = 1.0
    offset: float = 0.0

    def to_input(self, position: float) -> float:
        """Return where a position on the original lies on the input."""
        return position * self.scale + self.offset

    def to_original(self, position: float) -> float:
        """Return where a position on the input lies on the original."""
        return (position - self.offset) / self.scale

    def input_positions(self) -> npt.NDArray[np.floating]:
        """Return where the centre of each original pixel lies on the input, in input pixels."""
        return (np.arange(self.original) + 0.5) * self.scale + self.offset

    def seen(self) -> npt.NDArray[np.bool_]:
        """Return which original pixels have their centre on the input."""
        positions = self.input_positions()
        return (positions >= 0) & (positions <= self.input)

    def weights(self, cells: int) -> npt.NDArray[np.float32]:
        """Return the `(original, cells)` matrix that interpolates a map of `cells` linearly; unseen rows are zero."""
        low, high, part = self._neighbours(cells)
        matrix = np.zeros((self.original, cells), np.float32)
        rows = np.arange(self.original)
        np.add.at(matrix, (rows, low), 1 - part)
        np.add.at(matrix, (rows, high), part)
        matrix[~self.seen()] = 0
        return matrix

    def coverage(self, cells: int) -> npt.NDArray[np.float32]:
        """Return the `(cells, original)` matrix of which part of each of `cells` equal cells each original pixel covers."""
        edges = np.arange(self.original + 1) * self.scale + self.offset
        low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
        size = self.input / cells
        begin = np.arange(cells)[:, None] * size
        shared = np.minimum(begin + size, high) - np.maximum(begin, low)
        return np.asarray(np.maximum(shared, 0) / size, np.float32)

    def cells(self, cells: int) -> npt.NDArray[np.int64]:
        """Return in which of `cells` equal cells each original pixel has its centre; the nearest for what was not seen."""
        at = np.floor(self.input_positions() * cells / self.input)
        return np.clip(at, 0, cells - 1).astype(np.int64)

    def interpolated(self, values: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
        """Return a map with one of its axes, which covers the input, on the original pixels; unseen ones are zero."""
        cells = values.shape[index]
        if cells == self.original == self.input and (self.scale, self.offset) == (1.0, 0.0):
            return values
        if self.original * cells <= _LARGEST_MATRIX:
            return np.moveaxis(np.tensordot(self.weights(cells), values, axes=(1, index)), 0, index)
        low, high, part = self._neighbours(cells)
        column = (-1, *(1,) * (values.ndim - 1 - index))
        part = np.where(self.seen(), part, 0).astype(np.float32).reshape(column)
        rest = np.where(self.seen().reshape(column), 1 - part, 0).astype(np.float32)
        return np.asarray(np.take(values, low, index) * rest + np.take(values, high, index) * part, np.float32)

    def _neighbours(self, cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.floating]]:
        """Return for each original pixel the cells on both sides of it, and how far it is from the first to the second."""
        at = np.clip(self.input_positions() * cells / self.input - 0.5, 0, cells - 1)
        low = np.floor(at).astype(np.intp)
        return low, np.minimum(low + 1, cells - 1), at - low


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

    def box_to_original(self, box: Edges) -> Edges:
        """Return a box in pixels of the model's input as it lies on the original, a picture."""
        down, across = self.axes
        left, top, right, bottom = box
        return across.to_original(left), down.to_original(top), across.to_original(right), down.to_original(bottom)

    def box_to_input(self, box: Edges) -> Edges:
        """Return a box in pixels of the original, a picture, as it lies on the model's input."""
        down, across = self.axes
        left, top, right, bottom = box
        return across.to_input(left), down.to_input(top), across.to_input(right), down.to_input(bottom)

    def seen_from(self, other: Geometry) -> Geometry:
        """Return the way from another input of the same original to this one: maps over this one then lie on that one."""
        axes = tuple(
            Axis(
                theirs.input,
                mine.input,
                mine.scale / theirs.scale,
                mine.offset - theirs.offset * mine.scale / theirs.scale,
            )
            for mine, theirs in zip(self.axes, other.axes, strict=True)
        )
        return Geometry(axes)

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
            result = axis.interpolated(result, index)
        return np.array(result, order="C")

    def to_grid(self, part: npt.NDArray[np.bool_] | None, grid: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return which part of each cell of a grid over the whole input a part of the original covers, by area.

        Args:
            part: `(*original_shape)`; None: all of it (a border that was added is no part of it).
            grid: cells along each axis, of equal size, from edge to edge of the input.

        Returns:
            `(*grid)` float32, 0..1; what was cropped away covers nothing.
        """
        rows = [axis.coverage(cells) for axis, cells in zip(self.axes, grid, strict=True)]
        if part is None:
            whole = reduce(np.multiply.outer, [each.sum(1) for each in rows])
            return np.asarray(np.minimum(whole, 1), np.float32)
        result = part.astype(np.float32)
        for index, each in enumerate(rows):
            result = np.moveaxis(np.tensordot(each, result, axes=(1, index)), 0, index)
        return np.minimum(result, 1)

    def from_grid(self, part: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which original pixels have their centre in these cells `(*grid)`; none that were not seen."""
        places = np.ix_(*(axis.cells(length) for axis, length in zip(self.axes, part.shape, strict=True)))
        return np.asarray(part[places] & self.seen())

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


def size_words(shape: Sequence[int]) -> str:
    """Return `(480, 640)` as "640 x 480": the width first, as of pictures."""
    return " x ".join(str(length) for length in reversed(shape))


def _times(shape: Sequence[int]) -> str:
    """Return `(480, 640)` as "480x640"."""
    return "x".join(str(length) for length in shape)
