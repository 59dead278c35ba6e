"""What a caller hands over, one image or many, as samples that are ready for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import ImageError
from seewhy.images import (
    ASSUMED_WHOLE,
    Geometry,
    Preprocess,
    Preprocessing,
    as_tensor,
    is_array_file,
    picture_of,
    read,
    read_array,
    refuse_other_formats,
)
from seewhy.models import Convolutions, Expected
from seewhy.recorder import Call
from seewhy.several import Several, check_only_input, split_several

FAR = 10
"""How many times as far from zero as any picture's values are those of which it is doubted that they were prepared."""


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
        call: the model's other inputs, where it takes several.
        values: the tensor as an array of the CPU where it is no RGB picture: a signal, a volume, other channels.
    """

    tensor: Tensor
    geometry: Geometry
    image: npt.NDArray[np.uint8] | None
    name: str
    notes: tuple[str, ...] = ()
    assumed: bool = False
    call: Call | None = None
    values: npt.NDArray[np.float32] | None = None


def split(images: Any, module: nn.Module, wrt: Any = None) -> tuple[list[Any], bool]:
    """Return the images one by one, and whether a single one was given.

    Args:
        images: one image or a list of them; a float tensor `(C, *space)` or `(B, C, *space)`; an array of pictures. A tuple or
            dict is what a model with several inputs takes; a list of such is several samples. Tensors of other libraries are
            taken as torch's.
        module: the model, for the number of its input's spatial axes.
        wrt: which of several inputs is explained: a position or name, which is checked here.

    Raises:
        ImageError: an empty list or batch, a tensor with another number of axes, or no such input.
    """
    images = _of_torch(images)
    if isinstance(images, tuple | Mapping):
        samples = split_several(images, wrt, module)
        return list(samples), len(samples) == 1 and not _is_batched(images, samples[0])
    if isinstance(images, Several):
        return [images], True
    convolutions = Convolutions.of(module)
    if isinstance(images, list):
        each, single = [sample for image in images for sample in _samples(image, module, convolutions, wrt)], False
    else:
        check_only_input(wrt, module)
        each, single = _one_by_one(images, convolutions.axes_of(images))
    if not each:
        raise ImageError("No image was given: the list or batch is empty.")
    return each, single


def _of_torch(given: Any) -> Any:
    """Return what was given with tensors of other libraries as torch's, also those within lists, tuples and mappings."""
    if isinstance(given, Mapping):
        named = {name: _of_torch(value) for name, value in given.items()}
        is_same = all(value is given[name] for name, value in named.items())  # then a class of one's own stays
        return given if is_same else named
    if isinstance(given, list | tuple):
        each = [_of_torch(value) for value in given]
        is_same = all(value is own for value, own in zip(each, given, strict=True))
        return given if is_same else each if isinstance(given, list) else tuple(each)
    own = isinstance(given, Tensor | np.ndarray | np.generic | Image.Image)
    if own or not (hasattr(given, "__dlpack__") or hasattr(given, "__array__")):
        return given
    tensor = as_tensor(given)
    return given if tensor is None else tensor


def _one_by_one(images: Any, axes: int) -> tuple[list[Any], bool]:
    """Return one image, or those of a batch; and whether it was one."""
    if isinstance(images, Tensor) and images.is_floating_point() and images.ndim not in (axes + 1, axes + 2):
        raise ImageError(
            f"A float tensor of shape {tuple(images.shape)} is taken as the model's input, which has a channel axis and {axes} "
            f"spatial axes: expected {axes + 1} axes, or {axes + 2} with a batch axis."
        )
    is_stack = isinstance(images, np.ndarray | Tensor) and images.ndim == axes + 2
    return (list(images), False) if is_stack else ([images], True)


def _samples(image: Any, module: nn.Module, convolutions: Convolutions, wrt: Any) -> list[Any]:
    """Return one entry of a list as its samples: one, but for a call with a batch axis."""
    if isinstance(image, tuple | Mapping):
        return list(split_several(image, wrt, module))
    if isinstance(image, Several):
        return [image]
    check_only_input(wrt, module)
    return [_unbatched(image, convolutions.axes_of(image))]


def _is_batched(given: tuple[Any, ...] | Mapping[str, Any], first: Several) -> bool:
    """Return whether a call had a batch axis, which its explained input then lost."""
    whole = given[first.call.wrt]  # type: ignore[index]
    return isinstance(whole, Tensor) and isinstance(first.image, Tensor) and whole.ndim > first.image.ndim


def _unbatched(image: Any, axes: int) -> Any:
    """Return a tensor `(1, C, *space)` of a list without its batch axis; anything else as it is."""
    if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == axes + 2 and len(image) == 1:
        return image[0]
    return image


def prepare(
    image: Any, preprocess: Preprocessing, notes: tuple[str, ...] = (), convolutions: Convolutions | None = None
) -> Sample:
    """Return a sample from one image: a float tensor is the model's input as it is, anything else is a picture.

    An .npy or .npz file is the input as it is, and so is an array for a model of signals, volumes or other channels than a
    picture's; whole numbers of a picture's shape in such a file are a picture.

    Raises:
        ImageError: it cannot be read, does not fit the model, or holds values that are not finite.
    """
    convolutions = convolutions or Convolutions()
    if isinstance(image, Several):
        _check_places(image)
        sample = prepare(image.image, preprocess, notes, convolutions)
        return replace(sample, call=image.prepared(lambda other: prepare(other, preprocess).tensor))
    if isinstance(image, Tensor) and image.is_floating_point():
        return _from_tensor(image, preprocess, assumed=bool(notes))
    refuse_other_formats(image)
    name = Path(image).name if is_array_file(image) else "array"
    given = read_array(image) if is_array_file(image) else image
    expected = convolutions.for_input(given)
    is_picture = is_array_file(image) and given.dtype == np.uint8 and given.ndim < 4
    if expected.takes_as_it_is(given) or (is_array_file(image) and not is_picture):
        tensor, told = _as_input(given, expected, name)
        sample = _from_tensor(tensor, preprocess, assumed=bool(notes))
        return replace(sample, name=name, notes=(*told, *sample.notes))
    picture = read(given)
    picture = replace(picture, name=name) if is_array_file(image) else picture
    tensor, geometry = preprocess(picture)
    unknown = (ASSUMED_WHOLE,) if ASSUMED_WHOLE in geometry.steps else ()
    return Sample(tensor, geometry, picture.pixels, picture.name, (*notes, *unknown, *picture.notes))


def _check_places(several: Several) -> None:
    if isinstance(several.image, Tensor) and several.image.ndim < 2:
        raise ImageError(
            f"wrt={several.call.wrt!r} is an input of shape {tuple(several.image.shape)}: it has no places, so that there is "
            "no map of it. Explain one that has some, by its position or name."
        )


def _as_input(given: npt.NDArray[Any] | Tensor, expected: Expected, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return an array of a signal, a volume or a picture of any channels as `(channel, *space)` float32; and what was assumed.

    Raises:
        ImageError: other axes, or no real numbers.
    """
    array = given if isinstance(given, np.ndarray) else given.detach().cpu().numpy()
    axes, channels, shape = expected.axes, expected.channels, array.shape
    wanted = f"({channels or 'C'}, {', '.join({1: 'T', 2: 'HW', 3: 'DHW'}[axes])})"
    if array.dtype.kind not in "buif":
        raise ImageError(f"'{name}' holds {array.dtype} values; a model's input is real numbers. Convert it first.")
    notes = []
    if array.dtype.kind != "f":
        notes.append(f"whole numbers ({array.dtype}) were given to the model as they are")
    if array.ndim == axes + 2 and len(array) == 1:
        array = array[0]
    if array.ndim == axes and channels in (None, 1):
        array = array[None]
        notes.append("the input has no channel axis: it was taken as one channel")
    if array.ndim != axes + 1:
        raise ImageError(
            f"'{name}' has the shape {shape}, and the model takes one input {wanted}. Give it in this order; several inputs "
            "one by one, as a list or as several files."
        )
    if channels is not None and channels == array.shape[-1] != array.shape[0]:
        raise ImageError(
            f"'{name}' has the shape {shape}, its channels last, and the model takes {wanted}: give np.moveaxis(array, -1, 0)."
        )
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)), tuple(notes)


def _from_tensor(tensor: Tensor, preprocess: Preprocessing, *, assumed: bool) -> Sample:
    if tensor.numel() == 0:
        raise ImageError(f"A tensor of shape {tuple(tensor.shape)} holds nothing to explain.")
    # A finite sum has finite terms; only where it overflows or is not finite need each be looked at.
    if not bool(tensor.sum().isfinite()) and not bool(torch.isfinite(tensor).all()):
        raise ImageError("The input tensor holds NaN or infinite values. Replace them before asking.")
    geometry = Geometry.identity(tuple(tensor.shape[1:]))
    if tensor.ndim == 3 and len(tensor) == 3:
        image = None if assumed else preprocess.to_display(tensor)
        image = _stretched(tensor) if image is None else image
        return Sample(tensor, geometry, image, "tensor", _doubts(tensor, preprocess), assumed=assumed)
    values = tensor.detach().float().cpu().numpy().copy()  # a copy: callers use their buffers again
    if tensor.ndim != 3:
        return Sample(tensor, geometry, None, "tensor", assumed=assumed, values=values)
    image = None if assumed else preprocess.to_display(tensor)
    shown, told = picture_of(values)
    choose = "; channels= chooses one, or three as red, green and blue"
    notes = (f"picture: {told}{choose}",) if len(tensor) > 1 else ()
    return Sample(tensor, geometry, shown if image is None else image, "tensor", notes, assumed=assumed, values=values)


def _doubts(tensor: Tensor, preprocess: Preprocessing) -> tuple[str, ...]:
    """Return what must be said of values that no picture has behind this preprocessing."""
    if not isinstance(preprocess, Preprocess):
        return ()
    usual, found = preprocess.largest, float(tensor.detach().abs().max())
    if found <= FAR * usual:
        return ()
    told = (
        f"the tensor's values go to {found:.3g}, a prepared picture's to {usual:.2g}: a float tensor is taken as the input "
        "itself, prepared already; a picture in 0..255 is one as uint8"
    )
    return (told,)


def _stretched(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """Return any `(3, height, width)` as a picture: its own range becomes 0..255."""
    values = tensor.detach().float().cpu()
    low, high = values.min(), values.max()
    unit = (values - low) / (high - low).clamp_min(1e-12)
    return np.ascontiguousarray((unit * 255).round().byte().permute(1, 2, 0).numpy())


def chunks(samples: Sequence[tuple[int, Sample]], size: int) -> list[list[tuple[int, Sample]]]:
    """Return runs of at most `size` samples of equal shape, in order; one with other inputs besides its image stands alone."""
    result: list[list[tuple[int, Sample]]] = []
    for numbered in samples:
        last = result[-1] if result else []
        alone = numbered[1].call is not None or (last and last[0][1].call is not None)
        if last and not alone and len(last) < size and last[0][1].tensor.shape == numbered[1].tensor.shape:
            last.append(numbered)
        else:
            result.append([numbered])
    return result
