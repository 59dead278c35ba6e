"""Listening to chosen layers during one forward: the hook that keeps their outputs and begins the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.recorder.listening import Listening
from seewhy.recorder.torchvision_detectors import Inside
from seewhy.targets import Kind

if TYPE_CHECKING:
    from seewhy.recorder.attention import AttentionTap


@dataclass
class Tape:
    """Keeps the outputs of chosen layers during one forward.

    Attributes:
        gradients: whether what is kept begins (or continues) a graph.
        insist: switch the graph on again before every module, against a `no_grad` in the model's own code.
        begun: whether the graph has begun already, at the input.
        note: called with each layer's name and output instead of keeping it.
        forwards: how often the model was run.
        attention: notes attention weights meanwhile.
        calls: how often each layer ran in the last run.
        kind: what the model answered in the last run.
        inside: what it made of its input before its first layer, where it scales and pads pictures itself.
    """

    gradients: bool
    insist: bool = False
    begun: bool = False
    note: Callable[[str, Tensor], None] | None = None
    forwards: int = 0
    attention: AttentionTap | None = None

    def __post_init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.kind: Kind = "classes"
        self.inside: Inside | None = None

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

    @contextmanager
    def on(self, root: nn.Module, names: Sequence[str]) -> Iterator[None]:
        """Listen to these layers; every hook is gone afterwards, also after an exception."""
        self.calls.clear()
        with Listening() as listening:
            if self.attention is not None:
                self.attention.insist = self.insist
                listening.enter_context(self.attention.on(root))
            for name in names:
                part, call = split_call(name)
                listening.after(root.get_submodule(part), self._hook(name, call))
            if self.insist:
                for module in root.modules():
                    listening.before(module, self._switch_on)
            yield

    def _hook(self, name: str, call: int | None) -> Callable[[nn.Module, Any, Any], Any]:
        def hear(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = first_tensor(output)
            if found is None:
                return None
            self.calls[name] += 1
            if self.note is not None:
                self.note(name, found)
                return None
            if call not in (None, self.calls[name]):
                return None  # another of its runs is meant
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
        if self._kept or self.begun:
            torch.set_grad_enabled(True)


def split_call(name: str) -> tuple[str, int | None]:
    """Return the module's name and which of its runs is meant ("backbone.conv#2"), None where the last is."""
    module, mark, number = name.rpartition("#")
    return (module, int(number)) if mark and number.isdigit() else (name, None)


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
