"""What a caller hands over as a model, by name or as an object, as one that is loaded."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from seewhy.errors import ModelError
from seewhy.frameworks import FRAMEWORKS, shell_of
from seewhy.models import LoadedModel, adopt, load
from seewhy.models.checkpoint import weights_file

WeightsLike = str | os.PathLike[str] | None
"""A file of weights; None: those that the model comes with."""


def as_loaded(model: Any, weights: WeightsLike = None, device: str | torch.device | None = None) -> LoadedModel:
    """Return a model with what is known about it.

    Args:
        model: a name or a file, a module, a model of another framework, a function, or a LoadedModel.
        weights: a file to load, for a model that is given by name.
        device: where it is going to run; what is loaded by name is kept apart for each.

    Raises:
        ModelError: it is no model, it cannot be had, or weights are given for one that is an object already.
    """
    if isinstance(model, str | os.PathLike):
        kept = None if weights is None else ((path := weights_file(weights)), _stamp(path))
        return _named(os.fspath(model), kept, str(device), _stamp(model))
    if weights is not None:
        raise ModelError(
            f"weights= is for a model that is given by its name, and a {type(model).__name__} was given: it has its weights "
            "already. Load them into it (`model.load_state_dict`), or give a name: 'resnet18', 'package.module:factory'."
        )
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class, not a model of this class. Give one: {model.__name__}().")
    if (shell := shell_of(model)) is not None:  # before torch modules: Keras models on torch are some
        return adopt(shell)
    if isinstance(model, nn.Module):
        return adopt(model)
    raise ModelError(
        f"A {type(model).__name__} is not a model. Give a torch.nn.Module, a model of another framework "
        f"({', '.join(each.title for each in FRAMEWORKS.values())}), a function from a batch of images to scores, or a name; "
        "`seewhy models` lists names."
    )


@lru_cache(maxsize=2)
def _named(
    name: str, weights: tuple[str, tuple[int, ...]] | None, _device: str, _stamp: tuple[int, ...]
) -> LoadedModel:
    """Load a model by name; kept, so that asking by name in a loop does not load it each time."""
    return load(name, weights=None if weights is None else weights[0])


def _stamp(name: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return what changes when a model's file does; nothing for a name."""
    try:
        found = os.stat(name)  # noqa: PTH116 - mostly no file
    except (OSError, ValueError):
        return ()
    return (found.st_mtime_ns, found.st_size)
