"""Weights from a file into a module: without running code, and with every mismatch told."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError

State = dict[str, Tensor]

_NESTED_UNDER = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module", "net", "weights")


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the tensors of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file; pickled code is refused.

    Raises:
        ModelError: missing, damaged, holding anything but data, or holding no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file '{path}'. Check the path.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _find_tensors(content)
    if not state:
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise ModelError(f"'{path.name}' holds no state dict; it holds: {found}. Save `model.state_dict()` instead.")
    return state


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Load tensors into the module, under the names it uses, whatever wrapper they were saved from.

    Raises:
        ModelError: names or shapes do not fit; what is missing, what is left over and which shapes differ is told.
    """
    wanted = module.state_dict()
    renamed = match_names(state, set(wanted))
    missing = [name for name in wanted if name not in renamed and not name.endswith("num_batches_tracked")]
    extra = [name for name in renamed if name not in wanted]
    shapes = [
        f"{name} is {tuple(renamed[name].shape)}, the model has {tuple(wanted[name].shape)}"
        for name in wanted
        if name in renamed and renamed[name].shape != wanted[name].shape
    ]
    if not missing and not shapes:
        module.load_state_dict(renamed, strict=False)
        return
    told = [f"{len(shapes)} shapes differ ({'; '.join(shapes[:3])})"] if shapes else []
    told += [f"{len(missing)} of {len(wanted)} weights are missing ({', '.join(missing[:3])})"] if missing else []
    told += [f"{len(extra)} in the file are unknown to the model ({', '.join(extra[:3])})"] if extra else []
    raise ModelError(
        f"The weights in '{source}' do not fit this model: {'; '.join(told)}. "
        "Name the architecture they were trained with; for another number of classes give num_classes."
    )


def match_names(state: State, wanted: set[str]) -> State:
    """Return the state under the names of `wanted`, with the prefix of a wrapper (Lightning, DDP, compile) taken off.

    The prefix is the one, possibly none, under which most names fit.
    """
    prefixes = {""}
    for name in state:
        parts = name.split(".")
        prefixes.update(".".join(parts[:count]) + "." for count in range(1, min(4, len(parts))))
    best = max(sorted(prefixes, key=len), key=lambda prefix: sum(prefix + name in state for name in wanted))
    return {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"'{path.name}' is not a complete safetensors file: {error}. Copy it again.") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"'{path.name}' holds more than weights, and reading that could run code: it was refused. "
            "Save `model.state_dict()` (or safetensors) where you trust it."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"'{path.name}' is not a complete PyTorch file: {error}. Copy or save it again.") from error


def _find_tensors(content: object) -> State:
    """Return the state dict in a checkpoint: the thing itself, or under one of the usual names."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    for name in _NESTED_UNDER:
        if found := _find_tensors(content.get(name)):
            return found
    return {}
