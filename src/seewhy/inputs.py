"""What a caller hands over, one image or many, as samples that are ready for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seewhy.errors import ImageError
from seewhy.images import ASSUMED_WHOLE, Geometry, Preprocessing, read


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, prepared.

    Attributes:
        tensor: `(channel, *space)`, the model's input.
        geometry: where it lies in the original.
        image: the original as RGB, None when the input is not a picture.
        name: what to call it.
        notes: what was assumed.
        assumed: whether it is a tensor whose units nobody told.
    """

    tensor: Tensor
    geometry: Geometry
    image: npt.NDArray[np.uint8] | None
    name: str
    notes: tuple[str, ...] = ()
    assumed: bool = False


def spatial_axes(module: nn.Module) -> int:
    """Return how many spatial axes a model's input has, by its first convolution; 2 where it has none."""
    for part in module.modules():
        for axes, kind in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)):
            if isinstance(part, kind):
                return axes
    return 2


def split(images: Any, axes: int) -> tuple[list[Any], bool]:
    """Return the images one by one, and whether a single one was given.

    Args:
        images: one image or a list of them; a float tensor `(C, *space)` or `(B, C, *space)`; an array of pictures.
        axes: how many spatial axes the model's input has.

    Raises:
        ImageError: an empty list or batch, or a tensor with another number of axes.
    """
    if isinstance(images, Tensor) and images.is_floating_point() and images.ndim not in (axes + 1, axes + 2):
        raise ImageError(
            f"A float tensor of shape {tuple(images.shape)} is taken as the model's input, which has a channel axis and {axes} "
            f"spatial axes: expected {axes + 1} axes, or {axes + 2} with a batch axis."
        )
    is_batch = isinstance(images, Tensor) and images.ndim == axes + 2
    is_stack = isinstance(images, np.ndarray) and images.ndim == 4
    if not (is_batch or is_stack or isinstance(images, list | tuple)):
        return [images], True
    if len(images) == 0:
        raise ImageError("No image was given: the list or batch is empty.")
    return [_unbatched(image, axes) for image in images], False


def _unbatched(image: Any, axes: int) -> Any:
    """Return a tensor `(1, C, *space)` of a list without its batch axis; anything else as it is."""
    if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == axes + 2 and len(image) == 1:
        return image[0]
    return image


def prepare(image: Any, preprocess: Preprocessing, notes: tuple[str, ...] = ()) -> Sample:
    """Return a sample from one image: a float tensor is the model's input as it is, anything else is a picture.

    Raises:
        ImageError: it cannot be read, or holds values that are not finite.
    """
    if isinstance(image, Tensor) and image.is_floating_point():
        return _from_tensor(image, preprocess, assumed=bool(notes))
    picture = read(image)
    tensor, geometry = preprocess(picture)
    unknown = (ASSUMED_WHOLE,) if ASSUMED_WHOLE in geometry.steps else ()
    return Sample(tensor, geometry, picture.pixels, picture.name, (*notes, *unknown, *picture.notes))


def _from_tensor(tensor: Tensor, preprocess: Preprocessing, *, assumed: bool) -> Sample:
    if tensor.numel() == 0:
        raise ImageError(f"A tensor of shape {tuple(tensor.shape)} holds nothing to explain.")
    # A finite sum has finite terms; only where it overflows or is not finite need each be looked at.
    if not bool(tensor.sum().isfinite()) and not bool(torch.isfinite(tensor).all()):
        raise ImageError("The input tensor holds NaN or infinite values. Replace them before asking.")
    geometry = Geometry.identity(tuple(tensor.shape[1:]))
    image = None
    if tensor.ndim == 3:
        image = None if assumed else preprocess.to_display(tensor)
        image = _stretched(tensor) if image is None else image
    return Sample(tensor, geometry, image, "tensor", assumed=assumed)


def _stretched(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """Return any `(channel, height, width)` as a picture: its own range becomes 0..255; other than 3 channels are averaged."""
    values = tensor.detach().float().cpu()
    values = values if len(values) == 3 else values.mean(0, keepdim=True).expand(3, -1, -1)
    low, high = values.min(), values.max()
    unit = (values - low) / (high - low).clamp_min(1e-12)
    return np.ascontiguousarray((unit * 255).round().byte().permute(1, 2, 0).numpy())


def chunks(samples: Sequence[tuple[int, Sample]], size: int) -> list[list[tuple[int, Sample]]]:
    """Return runs of at most `size` samples of equal shape, in order."""
    result: list[list[tuple[int, Sample]]] = []
    for numbered in samples:
        last = result[-1] if result else []
        if last and len(last) < size and last[0][1].tensor.shape == numbered[1].tensor.shape:
            last.append(numbered)
        else:
            result.append([numbered])
    return result
