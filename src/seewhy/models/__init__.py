"""Finding a model by name, file or object, with its preprocessing and its label names."""

from __future__ import annotations

import os
from fnmatch import fnmatch

import torch
from torch import Tensor

from seewhy.errors import ModelError
from seewhy.frameworks import Shell
from seewhy.models.checkpoint import State, load_state, match_names, read_state, weights_file
from seewhy.models.expected import Convolutions as Convolutions
from seewhy.models.expected import Expected as Expected
from seewhy.models.expected import is_picture_array as is_picture_array
from seewhy.models.functions import function as function
from seewhy.models.image_text import ImageTower as ImageTower
from seewhy.models.labels import Labels as Labels
from seewhy.models.labels import as_labels as as_labels
from seewhy.models.loaded import ASSUMED as ASSUMED
from seewhy.models.loaded import ASSUMED_UNIT as ASSUMED_UNIT
from seewhy.models.loaded import LoadedModel as LoadedModel
from seewhy.models.loaded import adopt as adopt
from seewhy.models.loaded import image_text as image_text
from seewhy.models.sources import EMBEDDED as EMBEDDED
from seewhy.models.sources import SOURCES, resolve


def load(
    name: str = EMBEDDED,
    *,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    num_classes: int | None = None,
) -> LoadedModel:
    """Load a model by name, in evaluation mode.

    Args:
        name: "efficientnet_lite0" (built in), a timm or torchvision name ("resnet18", "timm:resnet18",
            "torchvision:resnet18"), "hf:owner/name" or a local folder, "keras:ResNet50" or a `.keras` file, or one's own
            "package.module:factory".
        weights: a state dict to load instead of the published weights: .safetensors, .pth, .pt, .bin or .ckpt; of
            PaddlePaddle .pdparams, of Keras .weights.h5. Prefixes of Lightning, DDP and `torch.compile` are taken off. Only
            data is read from it, never code.
        pretrained: with published weights (may download), or with random ones. Not asked when `weights` is given.
        num_classes: build for this many classes. With `weights` it is read off the file.

    Raises:
        ModelError: unknown name (nearest names are told), no network, or weights that do not fit.
    """
    if num_classes is not None and num_classes < 0:
        raise ModelError(f"num_classes={num_classes} must not be negative.")
    if weights is not None:
        weights = weights_file(weights)
    source, request = resolve(name, pretrained=pretrained and weights is None, num_classes=num_classes)
    loaded = source.build(request)
    loaded.module.eval()
    if weights is None:
        return loaded.with_(remarks=(*loaded.remarks, *source.remarks(request, loaded.module)))
    if isinstance(loaded.module, Shell) and not loaded.module.has_state:
        loaded.module.load_weights(weights)
        return loaded
    state, file = read_state(weights), os.path.basename(weights)  # noqa: PTH119 - a plain string
    classes = num_classes or _classes_in(state, loaded)
    if classes is not None and classes != num_classes:
        _, request = resolve(name, pretrained=False, num_classes=classes)
        loaded = source.build(request)
        loaded.module.eval()
        told = f"the model was built for {classes} classes, as many as the weights in {file} are for"
        loaded = loaded.with_(remarks=(*loaded.remarks, told))
    load_state(loaded.module, state, file)
    named = loaded.labels is not None and (classes is None or len(loaded.labels) == classes)
    return loaded.with_(labels=loaded.labels if named else None)


def find_names(pattern: str = "*") -> list[tuple[str, str]]:
    """Return (source, name) of every model that can be listed and whose name fits the pattern ("*resnet*").

    A pattern without a star or question mark fits anywhere in the name.
    """
    glob = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    return [(title, name) for title, source in SOURCES.items() for name in source.names() if fnmatch(name, glob)]


def _classes_in(state: State, loaded: LoadedModel) -> int | None:
    """Return how many classes the weights are for, when that is all in which the last layer's shape differs."""
    wanted = loaded.module.state_dict()
    renamed = match_names(state, set(wanted))
    differing = [name for name in wanted if name in renamed and renamed[name].shape != wanted[name].shape]
    if not differing or len(differing) > 4 or not all(_is_stored(renamed[name]) for name in differing):
        return None
    counts = [_other_length(renamed[name], wanted[name]) for name in differing]
    return counts[0] if len(set(counts)) == 1 else None


def _other_length(stored: Tensor, wanted: Tensor) -> int | None:
    """Return how long the only axis is in which two shapes differ: the first, or, of weights `(in, out)`, the last."""
    if stored.ndim != wanted.ndim:
        return None
    axes = [axis for axis in range(stored.ndim) if stored.shape[axis] != wanted.shape[axis]]
    return stored.shape[axes[0]] if len(axes) == 1 else None


def _is_stored(tensor: Tensor) -> bool:
    """Return whether the file holds each number: a tensor with strides of 0 can claim any shape in a few bytes."""
    plain = tensor.layout == torch.strided and not tensor.is_meta
    return plain and tensor.ndim > 0 and tensor.untyped_storage().nbytes() >= tensor.nbytes


__all__ = [
    "ASSUMED",
    "ASSUMED_UNIT",
    "EMBEDDED",
    "ImageTower",
    "Labels",
    "LoadedModel",
    "ModelError",
    "adopt",
    "as_labels",
    "find_names",
    "function",
    "image_text",
    "load",
]
