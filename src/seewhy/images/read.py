"""Anything that is a picture, read safely into upright RGB."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from seewhy.errors import ImageError

PIXEL_LIMIT = 80_000_000
"""Largest picture that is decoded, in pixels; a small file can claim any size (a decompression bomb)."""

FILE_LIMIT = 1_000_000_000
"""Largest file that is read, in bytes; a picture of PIXEL_LIMIT pixels with four 16-bit channels is below it."""

# Raster formats only: PIL's EPS reader, for one, would start another program on the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "TGA", "ICO", "JPEG2000")

# Filters overshoot a little, so a picture in 0..1 may hold 1.002; without this it would be read as 0..255, all black.
_SLACK = 0.01

_warnings_lock = threading.Lock()

PictureSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | torch.Tensor


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright RGB picture.

    Attributes:
        pixels: `(height, width, 3)` uint8.
        name: the file's name, or what it was given as.
        orientation: the file's EXIF orientation, 1 to 8, already undone in `pixels`.
        notes: what was lost or assumed on the way to 8-bit RGB.
    """

    pixels: npt.NDArray[np.uint8]
    name: str
    orientation: int = 1
    notes: tuple[str, ...] = ()


def read(source: PictureSource, *, pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Read a picture into upright 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array or tensor: `(height, width)`, `(height, width, c)`
            or `(c, height, width)` with c of 1, 3 or 4; uint8 in 0..255, uint16 in 0..65535, float in 0..1 or 0..255.
        pixel_limit: largest width x height that is decoded.

    Raises:
        ImageError: missing, empty, truncated, not a picture, too large, zero-sized, or not finite.
    """
    if isinstance(source, Image.Image):
        return _from_pil(source, "image", pixel_limit)
    if isinstance(source, torch.Tensor):
        values = source.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no bfloat16
        return from_array(values.numpy(), name="tensor", pixel_limit=pixel_limit)
    if isinstance(source, np.ndarray):
        return from_array(source, pixel_limit=pixel_limit)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), "bytes", pixel_limit)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _from_bytes(file_bytes(path), path.name, pixel_limit)
    raise _no_picture(source)


def _no_picture(given: object) -> ImageError:
    """Return the error for what is neither a picture nor an array of numbers."""
    if hasattr(given, "__array__"):  # of another library: a placeholder, or one of texts
        kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}"
        return ImageError(
            f"A {kind} holds no array of real numbers that can be read, as a picture or a model's input is one. Give "
            "np.asarray(...) of it, or a tensor that has values."
        )
    return ImageError(
        f"A {type(given).__name__} is not a picture. Give a path, bytes, a PIL image, an array or a tensor."
    )


def from_array(array: npt.NDArray[np.generic], *, name: str = "array", pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Read one picture from an array; layouts and ranges as in :func:`read`."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"'{name}' holds {array.dtype} values; a picture holds real numbers. Convert it first.")
    channels_last = _channels_last(array)
    height, width = channels_last.shape[:2]
    _check_size(width, height, name, pixel_limit)
    pixels, notes = _to_uint8(channels_last, name)
    if pixels.shape[2] == 4:
        notes = (*notes, "the fourth channel (opacity) was dropped")
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return Picture(np.array(pixels, order="C"), name, notes=notes)  # a copy: callers use their buffers again


def file_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        ImageError: an address, missing, no file, over the limit, or not to be read.
    """
    text = str(path)
    if text.startswith(("http:/", "https:/", "data:")):
        raise ImageError(f"'{text}' is an address; seewhy opens no network. Download the picture and give its path.")
    try:
        if not path.exists():
            raise ImageError(
                f"There is no file '{_short(text)}'. Check the path; it is taken from the folder you are in."
            )
        if not path.is_file():
            raise ImageError(f"'{path}' is not a file. Give one picture, or several paths.")
        if path.stat().st_size > FILE_LIMIT:
            raise ImageError(f"'{path}' is over the limit of {FILE_LIMIT:,} bytes. Make it smaller first.")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"'{_short(text)}' cannot be read: {error.strerror}. Check path and permissions.") from error


def _short(text: str) -> str:
    """Return a text that may be a whole file given as a path by mistake, short enough for a message."""
    return text if len(text) <= 300 else f"{text[:80]}… ({len(text):,} characters)"


def _from_bytes(data: bytes, name: str, pixel_limit: int) -> Picture:
    if not data:
        raise ImageError(f"'{name}' is empty (0 bytes). Copy or download it again.")
    Image.init()  # registers every reader that this installation of Pillow has
    allowed = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=allowed)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"'{name}' is not a picture that seewhy reads ({', '.join(_FORMATS)}). Convert it to PNG or JPEG."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"'{name}' is far over the limit of {pixel_limit:,} pixels. Make it smaller first.") from error
    except Exception as error:  # each of Pillow's readers has its own way to fail on damaged bytes
        raise ImageError(f"'{name}' is damaged: {error}. Copy or download it again.") from error
    return _from_pil(image, name, pixel_limit)


def _from_pil(image: Image.Image, name: str, pixel_limit: int) -> Picture:
    _check_size(image.width, image.height, name, pixel_limit)  # before the pixels are decoded
    try:
        with _quiet():
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    except Exception as error:
        raise ImageError(f"'{name}' is damaged or truncated: {error}. Copy or download it again.") from error
    _check_size(upright.width, upright.height, name, pixel_limit)  # an icon's picture may differ from its header
    orientation = orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1
    if upright.mode.startswith(("I", "F")):
        grey = from_array(_wide_grey(upright), name=name, pixel_limit=pixel_limit)
        return Picture(grey.pixels, name, orientation, grey.notes)
    transparent = upright.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in upright.info
    notes = ("transparency was dropped",) if transparent else ()
    try:
        upright = upright.convert("LA") if upright.mode == "La" else upright
        rgb = upright if upright.mode == "RGB" else upright.convert("RGBA" if notes else "RGB").convert("RGB")
    except ValueError as error:
        raise ImageError(f"'{name}' has colours of kind {upright.mode}: {error}. Convert it to RGB.") from error
    return Picture(np.array(rgb, np.uint8), name, orientation, notes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Read without Pillow's warnings: our own limit speaks instead of its, and odd metadata does not harm the pixels."""
    with _warnings_lock, warnings.catch_warnings():  # the filters belong to the whole process
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        yield


def _wide_grey(image: Image.Image) -> npt.NDArray[np.generic]:
    """Return a grey picture of more than 8 bits as uint16 or float32."""
    values = np.array(image)
    values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "i" and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.uint16)
    return values if values.dtype == np.uint16 else values.astype(np.float32)


def _check_size(width: int, height: int, name: str, pixel_limit: int) -> None:
    if width == 0 or height == 0:
        raise ImageError(f"'{name}' is {width} x {height} pixels: there is nothing to explain.")
    if width * height > pixel_limit:
        raise ImageError(
            f"'{name}' claims {width} x {height} = {width * height:,} pixels, over the limit of {pixel_limit:,}. "
            "Make it smaller first; no model sees that many."
        )


def _channels_last(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return `(height, width, channels)` whatever the layout."""
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        return array
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return np.moveaxis(array, 0, 2)
    raise ImageError(
        f"An array of shape {array.shape} is not a picture: expected (height, width), (height, width, c) or "
        "(c, height, width) with c of 1, 3 or 4."
    )


def _to_uint8(array: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the array in 0..255, and what had to be assumed."""
    if array.dtype == np.uint8:
        return array, ()
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # files may hold the other byte order
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if not np.isfinite(array.astype(np.float64)).all():
        raise ImageError(f"'{name}' holds NaN or infinite values. Replace them before asking.")
    array = array.astype(np.float32) if array.dtype == np.float16 else array  # float16 is too coarse
    low, high = float(array.min()), float(array.max())
    in_unit = array.dtype.kind == "f" and high <= 1 + _SLACK
    slack = _SLACK * (1 if in_unit else 255) if array.dtype.kind == "f" else 0.0
    if array.dtype == np.uint16 or (array.dtype.kind == "f" and 255 + slack < high <= 65535 and low >= 0):
        dark = ("16-bit values were read as 0..65535, and none is above 4095: if these are 12 bits, scale first",)
        return np.round(array / 257.0).astype(np.uint8), dark if high <= 4095 else ()
    if low < -slack or high > 255 + slack:
        raise ImageError(
            f"'{name}' has values from {low:.4g} to {high:.4g}; a picture has 0..1 or 0..255. If it is already normalised "
            "for the model, give it as a float tensor (C, H, W) and it is used as it is."
        )
    return np.round(np.clip(array * (255.0 if in_unit else 1.0), 0, 255)).astype(np.uint8), ()
