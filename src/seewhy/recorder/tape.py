"""Listening to chosen layers during one forward: the hook that keeps their outputs and begins the graph."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError


@dataclass
class Tape:
    """Keeps the outputs of chosen layers during one forward.

    Attributes:
        gradients: whether what is kept begins (or continues) a graph.
        insist: switch the graph on again before every module, against a `no_grad` in the model's own code.
        begun: whether the graph has begun already, at the input.
        note: called with each layer's name and output instead of keeping it.
        forwards: how often the model was run.
        calls: how often each layer ran in the last run.
    """

    gradients: bool
    insist: bool = False
    begun: bool = False
    note: Callable[[str, Tensor], None] | None = None
    forwards: int = 0

    def __post_init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self._thread = threading.get_ident()

    def last(self, name: str) -> Tensor:
        """Return what the layer gave when it ran last."""
        if name not in self._kept:
            raise LayerError(
                f"Layer '{name}' did not run for this input. Choose one that does: `seewhy layers` lists them."
            )
        return self._kept[name]

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept.clear()
        self.calls.clear()

    @contextmanager
    def on(self, root: nn.Module, names: Sequence[str]) -> Iterator[None]:
        """Listen to these layers; every hook is gone afterwards, also after an exception."""
        with ExitStack() as stack:
            for name in names:
                handle = root.get_submodule(name).register_forward_hook(self._hook(name))
                stack.callback(handle.remove)
            if self.insist:
                for module in root.modules():
                    stack.callback(module.register_forward_pre_hook(self._switch_on).remove)
            yield

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hear(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = first_tensor(output)
            if found is None or threading.get_ident() != self._thread:
                return None  # another thread runs the same model for its own ends
            if self.note is not None:
                self.note(name, found)
                return None
            self.calls[name] += 1
            # What is handed on is a copy: the next layer may work in place, and the record must not change with it.
            if not self.gradients:
                self._kept[name] = found.clone()
                return None
            torch.set_grad_enabled(True)
            kept = found if found.requires_grad else found.detach().requires_grad_()
            self._kept[name] = kept
            return with_first_tensor(output, kept.clone())

        return hear

    def _switch_on(self, _module: nn.Module, _inputs: Any) -> None:
        if (self._kept or self.begun) and threading.get_ident() == self._thread:
            torch.set_grad_enabled(True)


def first_tensor(output: Any) -> Tensor | None:
    """Return a module's output, or the first of several, if it is a floating tensor."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) and first.is_floating_point() and first.ndim > 0 else None


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """Return the output with its first tensor replaced, of the same type."""
    if isinstance(output, Tensor):
        return tensor
    rest = (tensor, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
