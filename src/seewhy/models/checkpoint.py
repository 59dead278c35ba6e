"""Weights from a file into a module: without running code, and with every mismatch told."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import ModelError
from seewhy.models.pickled import Stored, read_arrays

State = dict[str, Tensor]

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pdparams", ".weights.h5")
"""How files end that hold weights and not the model that they are of."""

_OTHER_FILES = {
    ".pdopt": "the state of an optimiser of PaddlePaddle",
    ".pdmodel": "an inference program of PaddlePaddle",
    ".pdiparams": "the weights of an inference program of PaddlePaddle, without their names",
}

_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # the last two are left behind by FLOP counters
_NESTED_UNDER = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module", "net", "weights")


def weights_file(weights: object) -> str:
    """Return the path of a file of weights as text.

    Raises:
        ModelError: it is no path, such as weights in memory.
    """
    if not isinstance(weights, str | os.PathLike):
        raise ModelError(
            f"weights= is a file's path, and a {type(weights).__name__} was given. Weights in memory are loaded into the model "
            "(`model.load_state_dict`), and the model is given."
        )
    return os.fspath(weights)


def read_state(path: str | os.PathLike[str]) -> State:
    """Read the tensors of a `.safetensors`, `.pth`, `.pt`, `.bin`, `.ckpt` or `.pdparams` file; pickled code is refused.

    Raises:
        ModelError: missing, damaged, holding anything but data, or holding no tensors.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on names that are too long
        raise ModelError(f"There is no weights file '{path}'. Check the path.")
    if (what := _OTHER_FILES.get(path.suffix.lower())) is not None:
        raise ModelError(
            f"'{path.name}' is {what}, not a model's weights. Give what `paddle.save(model.state_dict(), 'x.pdparams')` writes."
        )
    content = _READERS.get(path.suffix.lower(), _read_pickle)(path)
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
    # Beside the model (a loss, a second head) more is harmless; within its parts it means a larger architecture.
    parts = {name.partition(".")[0] for name in wanted}
    larger = [name for name in extra if name.partition(".")[0] in parts and not name.endswith(_COUNTERS)]
    if not missing and not shapes and not larger:
        try:
            module.load_state_dict({name: value for name, value in renamed.items() if name in wanted}, strict=False)
        except RuntimeError as error:  # sparse, quantised or data-less tensors
            raise ModelError(f"The weights in '{source}' cannot be copied into this model: {error}") from error
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
    prefixes = {"": None}  # in the file's order, so that of two that fit alike the first wins
    for name in state:
        parts = name.split(".")
        prefixes.update(dict.fromkeys(".".join(parts[:count]) + "." for count in range(1, min(4, len(parts)))))
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
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        else:
            packed = False
    except Exception as error:
        raise ModelError(f"'{path.name}' is not a complete PyTorch file: {error}. Copy or save it again.") from error
    if packed:  # torch.save never does; unpacking could fill the memory
        raise ModelError(f"'{path.name}' is a packed archive, not a PyTorch file. Unpack it and give the file within.")
    if not start.startswith((b"PK", b"\x80")):  # a web page, a Git LFS pointer, another framework's format
        raise ModelError(
            f"'{path.name}' is not a PyTorch file: it begins with {start!r}. Download the file itself; a safetensors file "
            "must be called .safetensors."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"'{path.name}' holds more than weights, and reading that could run code: it was refused. "
            "Save `model.state_dict()` (or safetensors) where you trust it."
        ) from error
    except Exception as error:  # damaged bytes reach many corners of the reader
        raise ModelError(f"'{path.name}' is not a complete PyTorch file: {error}. Copy or save it again.") from error


def _read_paddle(path: Path) -> object:
    return _as_tensors(read_arrays(path), {})


def _as_tensors(content: object, known: dict[int, dict[str, object]]) -> object:
    """Return nested mappings with Paddle's arrays as tensors; a mapping that is there twice, or within itself, is made once."""
    if (
        isinstance(content, tuple) and len(content) == 2
    ):  # how Paddle saves a tensor within others: its name and its values
        content = content[1]
    if isinstance(content, Stored):
        # bfloat16, which numpy does not know, is saved as the whole numbers of its bits.
        if content.array.dtype == np.uint16:
            return torch.from_numpy(content.array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(content.array)
    if not isinstance(content, Mapping):
        return content
    if id(content) not in known:
        known[id(content)] = {}
        known[id(content)].update({str(name): _as_tensors(value, known) for name, value in content.items()})
    return known[id(content)]


_READERS: dict[str, Callable[[Path], object]] = {".safetensors": _read_safetensors, ".pdparams": _read_paddle}


def _find_tensors(content: object, depth: int = 3) -> State:
    """Return the state dict in a checkpoint: under one of the usual names, or the thing itself."""
    if not isinstance(content, Mapping) or depth == 0:  # a hostile file can hold a mapping within itself
        return {}
    for name in _NESTED_UNDER:  # first: beside a `state_dict` there may be other tensors, such as `best_acc1`
        if found := _find_tensors(content.get(name), depth - 1):
            return found
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
