"""What results depend on, in plain words that can be compared and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import seewhy
from seewhy.explainer import Explainer

Settings = dict[str, Any]


def settings_of(ask: Explainer, **asked: Any) -> Settings:
    """Return what the results of a model and what is asked for depend on, but for the pictures."""
    model = ask.model
    return {
        "seewhy": seewhy.__version__,
        "model": model.name,
        "weights": _weights(model.module),
        "preprocess": plain(model.preprocess),
        "multi_label": model.independent,
        "seed": ask.seed,
        **{name: plain(value) for name, value in asked.items()},
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def plain(value: Any) -> Any:
    """Return a value in JSON's types, the same in every process."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Tensor | np.ndarray):
        return _of_array(torch.as_tensor(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": type(value).__qualname__,
            **{each.name: plain(getattr(value, each.name)) for each in fields(value)},
        }
    if isinstance(value, nn.Module) or callable(value):
        kind = value if hasattr(value, "__qualname__") else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"
    return repr(value)


def _weights(module: nn.Module) -> str:
    """Return a text that differs where weights do; models of other frameworks keep theirs to themselves."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name}:{_of_array(value) if isinstance(value, Tensor) else repr(value)}\n".encode())
    return digest.hexdigest()[:16]


def _of_array(value: Tensor) -> str:
    raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.tobytes()).hexdigest()[:16]}"
