"""What results depend on, in plain words that can be compared and kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

import seewhy
from seewhy.explainer import Explainer
from seewhy.frameworks.shell import Shell
from seewhy.frameworks.torchscript import TorchShell

Settings = dict[str, Any]

UNIDENTIFIED = "not to be told from others:"
"""How settings begin of which the same words may mean something else in another process."""

_NAMELESS = re.compile("<lambda>|<locals>")
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")
_FUNCTION = re.compile(r"<((?:built-in )?function [\w.]+) at 0x[0-9a-fA-F]+>")
"""How a function with a name of its own is shown: its address says nothing, the name does."""

_PASSING = re.compile(r"___torch_mangle_\d+\.|[ ,]*#.*$", re.MULTILINE)
"""What in a TorchScript graph hangs on the process: numbers of classes, and places in files."""


def settings_of(ask: Explainer, **asked: Any) -> Settings:
    """Return what the results of a model and what is asked for depend on, but for the pictures."""
    model = ask.model
    return {
        "seewhy": seewhy.__version__,
        "model": model.name,
        "architecture": _architecture(model.module),
        "weights": _weights(model.module) or _unidentified(type(model.module)),
        "preprocess": plain(model.preprocess),
        "labels": None if model.labels is None else _digest("\n".join(model.labels.lines)),
        "output": plain(ask._recorder.output),
        "multi_label": model.independent,
        "seed": ask.seed,
        **{name: plain(_by_name(value, model.module)) for name, value in asked.items()},
    }


def digest_of(settings: Mapping[str, Any]) -> str:
    """Return a short text that differs where settings do."""
    return _digest(json.dumps(settings, sort_keys=True))


def unidentified(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings of which another process cannot know whether they are the same."""
    return [name for name, value in settings.items() if UNIDENTIFIED in json.dumps(value)]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def plain(value: Any) -> Any:
    """Return a value in JSON's types, the same in every process; what cannot be told from others is marked as that."""
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
            **{each.name: plain(getattr(value, each.name)) for each in fields(value) if each.compare},
        }
    if isinstance(value, partial):
        return {"partial": plain(value.func), "given": plain(value.args), "named": plain(value.keywords)}
    if isinstance(value, MethodType):
        return {"method": value.__func__.__qualname__, "of": plain(value.__self__)}
    if isinstance(value, nn.Module):
        return f"{_called(type(value))} {_shown(value)} {_weights(value)}"
    if hasattr(value, "__qualname__"):  # a function or class
        known = _NAMELESS.search(value.__qualname__) is None and getattr(value, "__module__", None) is not None
        return _called(value) if known else _unidentified(value)
    return f"{_called(type(value))} {_shown(value)}"


def _shown(value: Any) -> str:
    """Return how an object shows itself, which tells it from others where it does not show its address in memory."""
    shown = _FUNCTION.sub(r"<\1>", repr(value))
    return _unidentified(type(value)) if _ADDRESS.search(shown) else shown


def _called(kind: Any) -> str:
    return f"{getattr(kind, '__module__', None)}.{kind.__qualname__}"


def _unidentified(kind: Any) -> str:
    return f"{UNIDENTIFIED} {_called(kind)}"


def _by_name(value: Any, model: nn.Module) -> Any:
    """Return what was asked for with the model's own layers by their names: two layers may look alike."""
    if isinstance(value, list | tuple):
        return [_by_name(each, model) for each in value]
    if isinstance(value, nn.Module):
        return next((name for name, layer in model.named_modules() if layer is value), value)
    return value


def _architecture(module: nn.Module) -> str:
    """Return a text that differs where models of the same weights do other things: another stride, another activation."""
    program = module.program if isinstance(module, TorchShell) else module
    shown = _shown(program)
    if UNIDENTIFIED in shown:
        return shown
    if isinstance(program, torch.jit.ScriptModule):  # these show neither options nor functions
        shown += _PASSING.sub("", str(program.inlined_graph))
    return _digest(shown + program.code if isinstance(program, fx.GraphModule) else shown)


def _weights(module: nn.Module) -> str:
    """Return a text that differs where weights or buffers do; nothing where none are told, as by functions."""
    own = module.weights() if isinstance(module, Shell) else module.state_dict()
    weights = {**dict(module.named_buffers()), **own}
    return _digest("".join(f"{name}:{_of_weight(value)}\n" for name, value in weights.items()))


def _of_weight(value: Any) -> Any:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else plain(value)


def _digest(text: str) -> str:
    """Return a short text that differs where a text does; nothing for none."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else ""


def _of_array(value: Tensor) -> str:
    raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.tobytes()).hexdigest()[:16]}"
