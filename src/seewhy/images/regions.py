"""Cutting an input into regions: superpixels, overlapping segments of several sizes, or a caller's own segmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from seewhy.errors import ImageError
from seewhy.images.read import PictureSource, read

# XRAI's parameters as its authors' own code has them (saliency 0.2.1), for values stretched to -1..1 and sides to 224.
SCALES = (50, 100, 150, 250, 500, 1200)
"""Felzenszwalb's scales whose segments XRAI chooses from; a larger one gives fewer and larger segments."""

_SIDE = 224
_SMALLEST = 150  # pixels of 224 x 224
_SMOOTH = 0.8
_DILATION = 5  # pixels

_COMPACTNESS = 10.0  # SLIC's usual weight of place against colour, for colours in Lab, whose lightness goes to 100
_LAB_RANGE = 100.0
_TIGHTER = (1.0, 10.0, 100.0, 1000.0)  # how many times that, until SLIC gives segments; the last is nearly a grid

_EXACT = ("PNG", "TIFF", "BMP", "GIF", "PPM")  # files that keep each pixel's value; JPEG does not


def superpixels(image: Float[Tensor, " channel *space"], count: int = 64) -> Int64[Tensor, " *space"]:
    """Cut one input into about `count` connected regions of like colour and like size (SLIC; a line into equal pieces).

    Where the colours say nothing (noise), SLIC would find one region only; then place counts more than colour.

    Args:
        image: in any units, with 1 to 3 spatial axes; its values are stretched to 0..1. Three channels are taken as RGB.
        count: how many are wanted, at least 1; SLIC gives somewhat fewer or more, and never more than there are pixels.

    Returns:
        Each pixel's region, numbered 0, 1, 2, ... without gaps, on the image's device. The same image gives the same regions.

    Raises:
        ImageError: another number of axes, nothing in it, values that are not finite, or a count that is no whole number
            from 1 on.

    Source: Achanta et al. 2012, doi:10.1109/TPAMI.2012.120, as scikit-image has it.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ImageError(f"count={count!r} superpixels cannot be made. Give a whole number from 1 on.")
    values = _channels_last(image)
    space = values.shape[:-1]
    count = min(count, values[..., 0].size)
    labels = np.arange(count * space[0], step=count) // space[0] if len(space) == 1 else _slic(values, count)
    return torch.from_numpy(_renumbered(labels)).to(image.device)


def multiscale_segments(
    image: Float[Tensor, " channel *space"], scales: Sequence[int | float] = SCALES
) -> list[Bool[Tensor, " *space"]]:
    """Return segments of an input at several scales, which overlap, each widened by a few pixels to take in its edge.

    Two spatial axes: at each scale, Felzenszwalb's segments of the image stretched to 224 x 224. One or three: superpixels,
    256 of them, then 128, and so on, as often as there are scales.

    Args:
        image: in any units; its values are stretched. Of more than three channels, the three directions in which the
            colours differ most are taken.
        scales: Felzenszwalb's scale parameters, above 0; larger ones give fewer and larger segments.

    Returns:
        One mask a segment, those of the first scale first, on the image's device. Before they were widened, those of one
        scale covered each pixel once. They are widened by 5 pixels; where the shorter side is below 224, by the same part
        of it, since 5 of 32 pixels would make most segments one.

    Raises:
        ImageError: the image is refused as by :func:`superpixels`, or a scale is not above 0.

    Source: Kapishnikov et al. 2019, arXiv:1906.02825, section 3.1; parameters of PAIR's `saliency` 0.2.1.
    """
    if not scales or not all(np.isfinite(scale) and scale > 0 for scale in scales):
        raise ImageError(f"scales={scales!r} must be numbers above 0, at least one.")
    values = _channels_last(image)
    space = values.shape[:-1]
    if len(space) == 2:
        small = _at_common_size(values)
        segmentations = [_felzenszwalb(small, float(scale), space) for scale in scales]
    else:
        counts = [2 ** max(1, 8 - number) for number in range(len(scales))]
        segmentations = [superpixels(image, count).cpu().numpy() for count in counts]
    radius = max(1, round(_DILATION * min(1.0, min(space) / _SIDE)))
    return [
        torch.from_numpy(mask).to(image.device)
        for labels in segmentations
        for mask in _widened(_renumbered(labels), radius)
    ]


def as_segments(given: PictureSource | npt.NDArray[Any], space: Sequence[int]) -> Int64[Tensor, " *space"]:
    """Return a caller's own segmentation, numbered 0, 1, 2, ... without gaps in the order of its labels, on the CPU.

    Args:
        given: an array or tensor of whole numbers (or a mask) of shape `space`; or the path of a PNG, TIFF, BMP, GIF or PPM
            whose values are labels: grey levels of up to 16 bits, palette numbers, or colours.
        space: the spatial shape of the model's input.

    Raises:
        ImageError: another type or shape, or the file cannot be read or does not keep values exactly.
    """
    labels = _label_array(given)
    if labels.dtype.kind not in "bui":
        raise ImageError(f"Segments must be whole numbers, one label a pixel; these are {labels.dtype}.")
    if labels.shape != tuple(space) or labels.size == 0:
        raise ImageError(
            f"Segments of shape {labels.shape} do not fit the model's input, which is {tuple(space)}. Give one label for each "
            "of its pixels, after preprocessing."
        )
    return torch.from_numpy(_renumbered(labels))


def _label_array(given: Any) -> npt.NDArray[Any]:
    if isinstance(given, Tensor):
        values = given.detach().cpu()  # numpy has no bfloat16
        array: npt.NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return array
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, str | os.PathLike):
        return _label_image(Path(given))
    raise ImageError(
        f"A {type(given).__name__} is not a segmentation. Give an array or tensor of whole numbers, or a label image's path."
    )


def _label_image(path: Path) -> npt.NDArray[Any]:
    """Return the labels that a picture holds: its stored numbers where it has one a pixel, else its colours as numbers."""
    picture = read(path)  # refuses all that is unsafe or damaged; but as RGB of 8 bits, which is not enough for labels
    try:
        with Image.open(path, formats=_EXACT) as image:
            single = image.mode in ("1", "L", "P") or image.mode.startswith("I")
            stored = np.array(ImageOps.exif_transpose(image)) if single else None
    except UnidentifiedImageError as error:
        raise ImageError(
            f"'{picture.name}' may not keep labels exactly. Save segments as PNG (or {', '.join(_EXACT[1:])})."
        ) from error
    if stored is not None:
        return stored
    colours: npt.NDArray[np.int64] = picture.pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return colours


def _renumbered(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return labels as 0, 1, 2, ... without gaps, in their order."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def _channels_last(image: Tensor) -> npt.NDArray[np.float64]:
    """Return the image as `(*space, channel)` float64."""
    if image.ndim not in (2, 3, 4) or image.numel() == 0:
        raise ImageError(
            f"An input of shape {tuple(image.shape)} cannot be cut into regions: expected (channel, *space) with 1 to 3 "
            "spatial axes."
        )
    values = image.detach().movedim(0, -1).cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ImageError("The input holds NaN or infinite values, so it cannot be cut into regions.")
    return np.ascontiguousarray(values)


def _stretched(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Return values with their own range become low..high; all `low` where they are equal."""
    least, most = values.min(), values.max()
    unit = (values - least) / (most - least) if most > least else np.zeros_like(values)
    return unit * (high - low) + low


def _slic(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return SLIC's segments of `(*space, channel)` values."""
    from skimage.segmentation import slic

    values = _stretched(values, 0.0, 1.0)
    is_rgb = values.shape[-1] == 3
    compactness = _COMPACTNESS if is_rgb else _COMPACTNESS / _LAB_RANGE
    for times in _TIGHTER:
        labels: npt.NDArray[np.int64] = slic(
            values,
            n_segments=count,
            compactness=compactness * times,
            convert2lab=is_rgb,
            start_label=0,
            channel_axis=-1,
        )
        if len(np.unique(labels)) > count / 2:  # pieces that are too scattered were all merged
            break
    return labels


def _at_common_size(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `(height, width, channel)` values as Felzenszwalb's parameters want them: 224 x 224, -1..1, 3 channels at most."""
    from skimage.transform import resize

    if values.shape[-1] > 3:
        flat = values.reshape(-1, values.shape[-1])
        directions = np.linalg.eigh(np.cov(flat, rowvar=False, ddof=0))[1][:, -3:]  # in ascending order
        values = (flat @ directions).reshape(*values.shape[:-1], 3)
    values = _stretched(values, -1.0, 1.0)
    if values.shape[:2] == (_SIDE, _SIDE):
        return values
    # The authors' code pads with a middle grey here, whose frame around small images would be segments of its own.
    return np.asarray(resize(values, (_SIDE, _SIDE), order=3, mode="edge", anti_aliasing=True), np.float64)


def _felzenszwalb(values: npt.NDArray[np.float64], scale: float, space: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return Felzenszwalb's segments of values at the common size, for each pixel of the input."""
    from skimage.segmentation import felzenszwalb

    labels = felzenszwalb(values, scale=scale, sigma=_SMOOTH, min_size=_SMALLEST, channel_axis=-1)
    rows, columns = (((np.arange(side) + 0.5) * _SIDE / side).astype(int) for side in space)  # the nearest
    return np.asarray(labels[np.ix_(rows, columns)], np.int64)


def _widened(labels: npt.NDArray[np.int64], radius: int) -> list[npt.NDArray[np.bool_]]:
    """Return each label's pixels and all that are at most `radius` away."""
    from skimage.measure import regionprops
    from skimage.morphology import isotropic_dilation

    plane = labels[None] if labels.ndim == 1 else labels  # scikit-image measures 2 or 3 axes
    masks = []
    for region in regionprops(plane + 1):
        around = tuple(slice(max(0, side.start - radius), side.stop + radius) for side in region.slice)
        mask = np.zeros(plane.shape, np.bool_)
        mask[around] = isotropic_dilation(plane[around] == region.label - 1, radius)
        masks.append(mask.reshape(labels.shape))
    return masks
