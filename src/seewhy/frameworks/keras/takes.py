"""What a Keras model takes: channels last or first, how many axes, one input or several; and tensors arranged so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import torch
from torch import Tensor

from seewhy.frameworks.keras.layers import channels, rank
from seewhy.frameworks.shell import mapped
from seewhy.images import Preprocess

_PICTURES = (1, 3, 4)  # channels that say which axis they are on


@dataclass(frozen=True)
class Takes:
    """What a model takes.

    Attributes:
        axes: spatial axes of its first input.
        channels: None where it does not say.
        last: whether channels come last.
        space: the size of the input, where it has to have one.
    """

    axes: int
    channels: int | None
    last: bool
    space: tuple[int, ...] | None

    def arranged(self, values: Tensor, shape: tuple[int | None, ...] | None = None) -> Tensor:
        """Return an input `(batch, channel, *space)` as the model takes it; others as they are.

        Args:
            values: an input of the model.
            shape: what the model says about it, batch axis first.
        """
        has_places = values.ndim >= 3 and values.ndim == (self.axes + 2 if shape is None else len(shape))
        if not (self.last and has_places and values.is_floating_point()):
            return values
        moved = values.movedim(1, -1)
        return values if shape is not None and _fits(values, shape) and not _fits(moved, shape) else moved

    def put_back(self, values: Tensor) -> Tensor:
        """Return an output of as many axes as the input with its channels first."""
        is_map = self.last and values.ndim == self.axes + 2 and values.is_floating_point()
        return values.movedim(-1, 1) if is_map else values


def takes(model: keras.layers.Layer, layers: Iterable[keras.layers.Layer]) -> Takes:
    """Return what a model takes: what it says of its inputs, then its first convolution, then Keras' own setting."""
    layers = list(layers)
    first = next((layer for layer in layers if rank(layer) is not None), None)
    formatted = next((layer for layer in layers if getattr(layer, "data_format", None)), None)
    last = getattr(first or formatted, "data_format", None) or keras.config.image_data_format()
    shape = next((shape for shape in input_shapes(model) if len(shape) >= 3), None)
    if shape is None:
        return Takes(rank(first) or 2, None if first is None else channels(first), last == "channels_last", None)
    ends = (shape[1] in _PICTURES, shape[-1] in _PICTURES)
    is_last = ends[1] if ends[0] != ends[1] else last == "channels_last"
    space = shape[1:-1] if is_last else shape[2:]
    known = tuple(length for length in space if length is not None)
    return Takes(len(space), shape[-1 if is_last else 1], is_last, known if len(known) == len(space) else None)


def input_shapes(model: keras.layers.Layer) -> list[tuple[int | None, ...]]:
    """Return the shapes of a model's inputs, batch axis first; none where it does not say them."""
    return [tuple(each.shape) for each in _inputs(model)]


def _inputs(model: keras.layers.Layer) -> list[Any]:
    return list(getattr(model, "inputs", None) or ())


def call_of(
    model: keras.layers.Layer, known: Takes, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with which a model is called, arranged as it takes them.

    Functional models take several inputs as one list or dict; here they are given one by one, or by their names.

    Raises:
        TypeError: there are too few inputs, or others.
    """
    inputs = _inputs(model)
    if len(inputs) < 2:
        arranged = partial(known.arranged, shape=tuple(inputs[0].shape) if inputs else None)
        return mapped(args, Tensor, arranged), mapped(dict(kwargs), Tensor, arranged)
    structure = getattr(model, "_inputs_struct", None)
    said = dict(structure) if isinstance(structure, Mapping) else {each.name: each for each in inputs}
    by_name = dict(zip(said, args, strict=False)) | dict(kwargs)
    if len(args) > len(said) or by_name.keys() != said.keys():
        raise TypeError(f"the model takes the inputs {', '.join(said)}; given were {', '.join(map(str, by_name))}")
    each_arranged = {
        name: mapped(by_name[name], Tensor, partial(known.arranged, shape=tuple(each.shape)))
        for name, each in said.items()
    }
    return (each_arranged if isinstance(structure, Mapping) else list(each_arranged.values()),), {}


def said_preprocess(known: Takes, layers: Iterable[keras.layers.Layer]) -> Preprocess | None:
    """Return how pictures are prepared for a model that scales pixel values of 0..255 by itself; None: it does not say.

    Such a model has a Rescaling or Normalization layer before its first convolution.
    """
    if known.axes != 2 or known.channels not in (1, 3):
        return None
    for layer in layers:
        if rank(layer) is not None:
            return None
        if isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, float) and layer.scale < 0.02:
            return sized(known, mean=(0.0,) * known.channels, std=(1.0,) * known.channels, scale=255.0)
    return None


def sized(known: Takes, **rest: Any) -> Preprocess:
    """Return a preprocessing to the size that a model takes: as Keras' own examples do, without regard to proportions."""
    size = (224, 224) if known.space is None else (known.space[0], known.space[1])
    return Preprocess(size, None, "squash", channels=known.channels or 3, **rest)


def as_precise(values: Tensor) -> Tensor:
    """Return floating values as Keras' own are."""
    return values.to(getattr(torch, keras.config.floatx())) if values.is_floating_point() else values


def _fits(values: Tensor, shape: tuple[int | None, ...]) -> bool:
    return all(wanted in (None, length) for wanted, length in zip(shape[1:], values.shape[1:], strict=True))
