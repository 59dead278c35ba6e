"""The layers of a Keras model by dotted names, and what each says about how its output lies in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import keras

LIST = "ModuleList"
"""What a list of layers counts as: not a layer."""


def named_layers(model: keras.layers.Layer) -> dict[str, keras.layers.Layer | None]:
    """Return all layers within a model by dotted names, what they lie in before them; None: a list or dict of layers.

    In Functional and Sequential models a layer is called by its Keras name, as `summary()` shows it. Elsewhere by the name
    that was given to it, else by the attribute that it is kept as, since automatic names ("conv2d_7") count all layers of
    the process. A layer that is used at several places has the name of the first.
    """
    found: dict[str, keras.layers.Layer | None] = {}
    known = {id(model)}

    def walk(parent: keras.layers.Layer, prefix: str) -> None:
        for own, layer in _children(parent).items():
            if id(layer) in known:
                continue
            known.add(id(layer))
            name = f"{prefix}{own}"
            for end in (at.end() for at in re.finditer(r"[^.]+(?=\.)", own)):
                found.setdefault(f"{prefix}{own[:end]}", None)
            found[name] = layer
            walk(layer, f"{name}.")

    walk(model, "")
    return found


def _children(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    inner = [each for each in _inside(layer) if not isinstance(each, keras.layers.InputLayer)]
    if _is_graph(layer):
        return {_plain(each.name): each for each in inner}
    kept = _attributes(layer)
    found: dict[str, keras.layers.Layer] = {}
    for each in inner:
        own = kept.get(id(each), _plain(each.name)) if _is_automatic(each) else _plain(each.name)
        while own in found:
            own = kept.get(id(each), own) if kept.get(id(each)) not in found else f"{own}_{len(found)}"
        found[own] = each
    return found


def _inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if _is_graph(layer):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _is_graph(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a model whose layers have names of which each is there once."""
    return isinstance(layer, keras.Sequential) or any(each.__name__ == "Functional" for each in type(layer).__mro__)


def _attributes(layer: keras.layers.Layer) -> dict[int, str]:
    """Return the attributes that layers are kept as ("conv", "blocks.0"), by their identity."""
    own = {**vars(layer), **vars(layer).get("_modules", {})}  # there on the backend torch
    private = ("_layers", "_modules", "_functional", "_metrics")
    return {id(each): path for name, value in own.items() if name not in private for path, each in _kept(name, value)}


def _kept(path: str, value: Any) -> Iterator[tuple[str, keras.layers.Layer]]:
    if isinstance(value, keras.layers.Layer):
        yield path, value
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _kept(f"{path}.{number}", each)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _kept(f"{path}.{_plain(str(key))}", each)


def _is_automatic(layer: keras.layers.Layer) -> bool:
    """Return whether a layer has the name that Keras gives where none is given: its class and a number."""
    return re.sub(r"(_\d+)?$", "", layer.name).replace("_", "") == type(layer).__name__.casefold().replace("_", "")


def _plain(name: str) -> str:
    return name.replace(".", "_")


_RANKS = {
    1: (keras.layers.Conv1D, keras.layers.SeparableConv1D, keras.layers.DepthwiseConv1D),
    2: (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D),
    3: (keras.layers.Conv3D,),
}
_ELSEWHERE = (keras.layers.Permute, keras.layers.Reshape, keras.layers.Flatten)


def rank(layer: keras.layers.Layer | None) -> int | None:
    """Return the spatial axes of a convolution; None: it is none."""
    return next((axes for axes, kinds in _RANKS.items() if isinstance(layer, kinds)), None)


def channels(layer: keras.layers.Layer) -> int | None:
    """Return how many channels a convolution takes."""
    axes = dict(getattr(layer.input_spec, "axes", None) or {})
    return next(iter(axes.values()), None)


def order(layer: keras.layers.Layer, *, last: bool) -> str:
    """Return how a layer's output lies in memory: "channels-first", "channels-last", or "" where nothing says it.

    Args:
        layer: any layer.
        last: whether the model has its channels last, as layers that work on each number do then.
    """
    data_format = getattr(layer, "data_format", None)
    if data_format in ("channels_first", "channels_last"):
        return cast("str", data_format).replace("_", "-")
    axis = getattr(layer, "axis", None)
    if isinstance(axis, list | tuple) and axis:
        axis = axis[-1]
    normalises = "Normalization" in type(layer).__name__ and isinstance(axis, int)
    if normalises:
        return "channels-first" if axis == 1 else "channels-last"
    if isinstance(layer, keras.layers.Dense):
        return "channels-last"
    return "channels-last" if last and not isinstance(layer, _ELSEWHERE) else ""


def is_linear(layer: keras.layers.Layer) -> bool:
    """Return whether a layer gives sums of its input's channels: a Dense layer with an activation does not."""
    return isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear
