"""A model's several inputs: from a tuple or dict that a caller hands over to samples, one of whose inputs is explained."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import ImageError, did_you_mean
from seewhy.models import Convolutions, is_picture_array
from seewhy.recorder import Call, Wrt, is_one_each

Places = dict[Wrt, Any]


@dataclass(frozen=True, eq=False)
class Several:
    """One sample of a model with several inputs: the explained one, as the caller gave it, and the whole call."""

    image: Any
    call: Call

    def prepared(self, picture: Callable[[Any], Tensor]) -> Call:
        """Return the call with every other input as a tensor of a batch of one, where it is a picture or an array.

        Args:
            picture: from a picture to the model's input `(channel, *space)`.
        """
        return self.call.changed(lambda value: _as_input(value, picture))


def split_several(given: tuple[Any, ...] | Mapping[str, Any], wrt: Any, module: nn.Module) -> list[Several]:
    """Return the samples of one call, in whose order its batch is; a call without a batch axis is one sample.

    Where the explained input is a tensor with a batch axis, all tensors and arrays have one, and lists hold one entry a sample;
    where it is one image, none has.

    Args:
        given: what the model takes, by position or by keyword.
        wrt: the explained input: a position, a keyword, or the name of a parameter of the model's forward.
        module: the model.

    Raises:
        ImageError: it is not clear which input is explained, the batches differ, or it is not clear whether numbers are one a
            sample.
    """
    places: Places = dict(given.items() if isinstance(given, Mapping) else enumerate(given))
    place = _place(places, _checked(wrt), module)
    if not _has_batch_axis(places, place, set(Convolutions.of(module).axes)):
        return [_sample({key: _batch_of_one(value) if key != place else value for key, value in places.items()}, place)]
    batch = len(places[place])
    for key in places:
        _check_beside(places, key, place)
    return [
        _sample({key: _row(value, row, batch, key == place) for key, value in places.items()}, place)
        for row in range(batch)
    ]


def _checked(wrt: Any) -> Wrt | None:
    """Return what may be the name or position of one input; anything else is refused."""
    if isinstance(wrt, int | str | None):
        return wrt
    raise ImageError(
        f"wrt={wrt!r} is no position and no name of one input. Give one; only seewhy.explain takes a list of them (at least "
        "one), and gives a map each."
    )


def check_only_input(wrt: Any, module: nn.Module) -> None:
    """Raise ImageError where a model that is given one input is asked about another."""
    place = _checked(wrt)
    parameters = list(inspect.signature(module.forward).parameters.values())
    is_named = not parameters or parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
    if place not in (None, 0) and is_named and place not in [each.name for each in parameters[:1]]:
        raise ImageError(
            f"wrt={place!r} was asked for, and the model was given one input alone. Leave wrt out, or give all inputs as a "
            "tuple or dict."
        )


def _place(places: Places, wrt: Wrt | None, module: nn.Module) -> Wrt:
    """Return which input is explained."""
    if wrt is None:
        fitting = [place for place, value in places.items() if _may_be_explained(value)]
        if len(fitting) == 1:
            return fitting[0]
        found = (
            "none of them is an image" if not fitting else f"more than one could be meant: {_shown(places, fitting)}"
        )
        raise ImageError(
            f"The model was given several inputs, and {found}. Say which is to be explained with wrt=, a position or a name "
            f"({', '.join(map(str, places))}); a list of them gives a map each. Several images are given as a list, not a tuple."
        )
    if wrt in places:
        return wrt
    names = list(inspect.signature(module.forward).parameters)
    if isinstance(wrt, str) and wrt in names and names.index(wrt) in places:
        return names.index(wrt)
    near = did_you_mean(str(wrt), [str(place) for place in (*places, *names)])
    raise ImageError(f"wrt={wrt!r} is none of the inputs given: {_shown(places, places)}.{near}")


def _has_batch_axis(places: Places, place: Wrt, kinds: set[int]) -> bool:
    explained = places[place]
    if not (isinstance(explained, Tensor) and explained.is_floating_point()):
        return False
    with_batch, without = explained.ndim - 2 in kinds, explained.ndim - 1 in kinds
    if with_batch and without:  # a signal of a batch or a picture alone: the others' lengths tell
        return all(
            len(each) == len(explained) for each in places.values() if isinstance(each, Tensor) and each.ndim > 0
        )
    return with_batch or (not without and explained.ndim >= 3)


def _sample(places: Places, place: Wrt) -> Several:
    args = tuple(places[key] for key in sorted(key for key in places if isinstance(key, int)))
    return Several(places[place], Call(args, {k: v for k, v in places.items() if isinstance(k, str)}, place))


def _check_beside(places: Places, key: Wrt, place: Wrt) -> None:
    """Raise ImageError where it is not clear how an input goes with the explained one's batch."""
    value, batch = places[key], len(places[place])
    if _has_rows(value, batch) and len(value) != batch:
        raise ImageError(
            f"The explained input {_shown(places, [place])} has a batch of {batch}, and the input {_shown(places, [key])} "
            "another. Give all with the same batch axis, or one image without any; several as a list of calls."
        )
    if batch > 1 and isinstance(value, list | tuple) and len(value) == batch and not is_one_each(value):
        raise ImageError(
            f"The input {_shown(places, [key])} holds as many numbers as the batch has images: one a sample, or a setting "
            "of all? Give a tensor for one a sample; for a setting, give the images one by one, as a list of calls."
        )


def _row(value: Any, row: int, batch: int, explained: bool) -> Any:
    """Return one sample's part of an input, with a batch axis of one where it is not the explained one."""
    if explained:
        return value[row]
    if not _has_rows(value, batch):
        return value
    part = value[row : row + 1]
    if not isinstance(part, np.ndarray):
        return part
    return part[0] if is_picture_array(part[0]) else _as_tensor(part)


def _has_rows(value: Any, batch: int) -> bool:
    """Return whether an input beside a batch holds a row or an entry for each of its samples."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0 and not _is_picture(value)
    return batch > 1 and is_one_each(value)


def _batch_of_one(value: Any) -> Any:
    return value[None] if isinstance(value, Tensor) and value.ndim > 0 else value


def _as_input(value: Any, picture: Callable[[Any], Tensor]) -> Any:
    """Return another input of one sample as the model takes it."""
    if isinstance(value, np.ndarray) and not is_picture_array(value):
        return _batch_of_one(_as_tensor(value))
    return picture(value)[None] if _is_picture(value) else value


def _as_tensor(array: npt.NDArray[Any]) -> Any:
    """Return an array of numbers as a tensor; another, of texts, as it is."""
    return torch.from_numpy(np.ascontiguousarray(array)) if array.dtype.kind in "buif" else array


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return is_picture_array(value)
    return isinstance(value, Image.Image | bytes | os.PathLike) or (isinstance(value, str) and Path(value).is_file())


def _may_be_explained(value: Any) -> bool:
    return _is_picture(value) or (isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3)


def _shown(places: Places, which: Iterable[Wrt]) -> str:
    """Return inputs in words: "0 (tensor 1x3x32x32)"."""

    def told(value: Any) -> str:
        shape = (
            f"of {len(value)}" if isinstance(value, list | tuple) else "x".join(map(str, getattr(value, "shape", ())))
        )
        return f"{type(value).__name__.lower()} {shape}".strip()

    return ", ".join(f"{place} ({told(places[place])})" for place in which)
