"""A part of the picture as a caller gives it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from seewhy.errors import ImageError, TargetError
from seewhy.images import read, size_words

_EXACT = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_GREYS, _WIDE = 256, 65536


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture, and what is asked about it, as a target.

    Attributes:
        part: a boolean array of the original picture's (or volume's) spatial shape; a box (left, top, right, bottom) in its
            pixels, right and bottom one past the last; or the path of a mask: a picture that is bright in the region, at least
            half as bright as where it is brightest; files of labels are refused.
        of: a class index or name, "A-vs-B", "probability:NAME", or "up" and "down" where there is one score a place. None: the
            class that the model predicts at most of it.
    """

    part: Any
    of: Any = None


def is_box(given: Any) -> bool:
    """Return whether a region is given as (left, top, right, bottom)."""
    return isinstance(given, tuple | list) and all(isinstance(each, int | float | np.number) for each in given)


def mask_of(given: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a region, given as :class:`Region` has it, as a mask of the original's shape.

    Raises:
        TargetError: it is none, does not fit, or is empty.
    """
    if is_box(given):
        return _box_mask(_checked_box(tuple(given), shape), shape)
    mask = _from_file(given) if isinstance(given, str | os.PathLike) else _as_mask(given)
    if mask.shape != shape:
        raise TargetError(
            f"The region's mask is {size_words(mask.shape)} pixels, and the picture {size_words(shape)} (upright, before "
            "preprocessing). Give a mask of the picture's own size."
        )
    if not mask.any():
        raise TargetError("The region's mask is empty: not one pixel of it is true. Mark the pixels to ask about.")
    return mask


def _checked_box(box: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(box) != 4 or len(shape) != 2:
        raise TargetError(
            f"A region of {len(box)} numbers, {box}, cannot be read: a box is (left, top, right, bottom) of a picture of two "
            f"axes; this one has {len(shape)}. Give a boolean mask instead."
        )
    if max(box) <= 1 < max(shape) and any(each != int(each) for each in box):
        raise TargetError(
            f"The box {box} is in parts of the picture, it seems, which is {shape[1]} wide and {shape[0]} high. Give (left, top, "
            "right, bottom) in its pixels."
        )
    left, top = (max(0, int(np.floor(each))) for each in box[:2])
    right, bottom = (min(length, int(np.ceil(each))) for each, length in zip(box[2:], shape[::-1], strict=True))
    if left >= right or top >= bottom:
        raise TargetError(
            f"The box {box} holds no pixel of the picture, which is {shape[1]} wide and {shape[0]} high. Give (left, top, right, "
            "bottom) in its pixels, right and bottom one past the last."
        )
    return left, top, right, bottom


def _box_mask(box: tuple[int, ...], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = box
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def _as_mask(given: Any) -> npt.NDArray[np.bool_]:
    try:
        values = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
    except (TypeError, ValueError) as error:
        raise TargetError(f"A {type(given).__name__} is no region: {error}. Give a boolean array or a box.") from error
    if values.dtype == bool:
        return values
    if values.dtype.kind not in "uif" or len(found := np.unique(values)) > 2 or found[0] != 0:
        raise TargetError(
            f"A region is a boolean array, true where it is; this one is a {type(given).__name__} of {values.dtype} values. Of "
            "labels, `labels == 3` makes one."
        )
    return np.asarray(values != 0)


def _from_file(path: str | os.PathLike[str]) -> npt.NDArray[np.bool_]:
    try:
        brightness = read(path).pixels.max(2)
        labels = _holds_labels(path)
    except (ImageError, OSError) as error:
        raise TargetError(f"The region's mask cannot be read: {error}") from error
    if labels:
        raise TargetError(
            f"The region's mask '{path}' holds labels of several things, or shades, rather than one region: which is meant "
            "cannot be told. Give a file of two values, black and white; or read it and give an array, such as `labels == 3`."
        )
    return np.asarray((brightness > 0) & (brightness >= brightness.max() / 2))


def _holds_labels(path: str | os.PathLike[str]) -> bool:
    """Return whether a file that keeps values exactly has more than two, and not as the soft edges of one region have them.

    Soft edges are fewer than what is wholly inside, which is bright and of one colour. Of JPEG nothing is said: it makes values.
    """
    try:
        with Image.open(path, formats=_EXACT) as image:
            if image.info.get("compression") == "jpeg":
                return False
            numbers, bands = image.mode == "P", np.asarray(image)
            wide = image.mode.startswith("I")
    except UnidentifiedImageError:
        return False
    colours = bands[..., : 3 if bands.shape[-1] > 2 else 1] if bands.ndim == 3 else bands[..., None]  # without opacity
    values = colours.max(2)
    if values.dtype == bool or len(np.unique(colours.reshape(-1, colours.shape[2]), axis=0)) <= 2:
        return False
    brightest = values == values.max()
    faint = values.max() < (_WIDE if wide else _GREYS) / 2
    several = len(np.unique(colours[brightest], axis=0)) > 1
    return bool(numbers or faint or several or ((values > 0) & ~brightest).sum() > brightest.sum())
