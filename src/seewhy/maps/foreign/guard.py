"""Lending a model to other libraries' code, which hooks, rewrites and annotates it: all of it is put back, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_TABLES = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@contextmanager
def lent(model: nn.Module, *, keep_inputs: bool = False) -> Iterator[None]:
    """Let other code do with a model what it likes; afterwards the model is as it was, also after an exception.

    Meanwhile no parameter wants a gradient, and what is kept in 16 bits is float32. Put back are parameters and buffers (the
    same tensors with the same memory), hooks, sub-modules, in-place flags and whether gradients are wanted; attributes that
    were added to modules are taken off. To be used while the model is held (`Recording.module`), since it is seen changed.

    Args:
        model: any module.
        keep_inputs: whether modules that work in place must not, for code that compares a module's input with its output.
    """
    kept = [_Part(part) for part in model.modules()]
    try:
        for part in kept:
            part.prepare(keep_inputs)
        yield
    finally:
        for part in kept:
            part.restore()


class _Part:
    """One module as it was."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = set(vars(module))
        self._tables = {name: vars(module)[name].copy() for name in _TABLES if vars(module).get(name) is not None}
        tensors: list[Any] = [*module._parameters.values(), *module._buffers.values()]
        # Code that swaps `.data` leaves the old memory alone: to keep a reference to it is enough.
        self._tensors = [(each, each.data, each.requires_grad) for each in tensors if each is not None]
        self._inplace = vars(module).get("inplace")
        self._full = vars(module).get("_is_full_backward_hook")

    def prepare(self, keep_inputs: bool) -> None:
        for tensor, data, wanted in self._tensors:
            if data.dtype in (torch.float16, torch.bfloat16):
                tensor.data = data.float()
            if wanted and tensor.is_leaf:
                tensor.requires_grad = False
        if keep_inputs and self._inplace is True:
            vars(self._module)["inplace"] = False

    def restore(self) -> None:
        content = vars(self._module)
        for name in set(content) - self._attributes:
            del content[name]
        for name, table in self._tables.items():
            content[name].clear()
            content[name].update(table)
        for tensor, data, wanted in self._tensors:
            tensor.data = data
            if tensor.requires_grad != wanted and tensor.is_leaf:
                tensor.requires_grad = wanted
        if self._inplace is not None:
            content["inplace"] = self._inplace
        if "_is_full_backward_hook" in content:
            content["_is_full_backward_hook"] = self._full


def as_model_input(images: Tensor, model: nn.Module) -> Tensor:
    """Return a copy of images `(batch, channel, *space)` where the model is and as precise as it is."""
    like = next((each for each in model.parameters() if each.is_floating_point()), None)
    return images.clone() if like is None else images.detach().to(like.device, like.dtype, copy=True)
