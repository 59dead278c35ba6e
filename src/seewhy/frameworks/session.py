"""One run of a model with a graph in its own framework, which for torch is one step of its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seewhy.frameworks.shell import mapped


@runtime_checkable
class Session(Protocol):
    """One run of a model with a graph in its own framework."""

    def back(self, gradients: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
        """Return the derivatives by each of what was handed on, from those by each output; several times, if need be."""


class _Derived(torch.autograd.Function):
    """From what was handed on to what the model returned."""

    @staticmethod
    def forward(ctx: Any, session: Session, outputs: Sequence[Tensor], *_handed: Tensor) -> tuple[Tensor, ...]:
        ctx.session = session
        ctx.set_materialize_grads(False)
        return tuple(output.clone() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.session.back(gradients, ctx.needs_input_grad[2:]))


def derived(session: Session, outputs: Iterable[Tensor], handed: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs as a step of torch's graph behind what was handed on."""
    with torch.enable_grad():
        found: tuple[Tensor, ...] = _Derived.apply(session, tuple(outputs), *handed)
    return found


class GraphRun(ABC):
    """A session of a framework that keeps the graph by itself, from tensors that begin it to those that the model returns.

    Attributes:
        handed: what was handed on, of torch.
        starts: the same of the framework, by which it differentiates.
        outputs: what the model returned that can be differentiated.
    """

    kind: type
    """The framework's tensors."""

    def __init__(self) -> None:
        self.handed: list[Tensor] = []
        self.starts: list[Any] = []
        self.outputs: list[Any] = []

    @abstractmethod
    def tensor(self, values: Any) -> Tensor:
        """Return a tensor of the framework as one of torch."""

    @abstractmethod
    def differentiable(self, output: Any) -> bool:
        """Return whether derivatives of an output can be taken."""

    @abstractmethod
    def derivatives(self, outputs: list[Any], by_outputs: list[Tensor], starts: list[Any]) -> Iterable[Any | None]:
        """Return the derivatives by the starts, from those by the outputs, as tensors of the framework."""

    def begin(self, handed: Tensor, start: Any) -> None:
        """Note that the graph goes through this tensor, which is handed on."""
        self.handed.append(handed)
        self.starts.append(start)

    def behind(self, returned: Any) -> Any:
        """Return what the model returned, as tensors behind what was handed on."""
        if not self.starts:
            return mapped(returned, self.kind, self.tensor)
        mapped(returned, self.kind, lambda each: self.outputs.append(each) if self.differentiable(each) else None)
        steps = iter(derived(self, map(self.tensor, self.outputs), self.handed))
        return mapped(returned, self.kind, lambda each: next(steps) if self.differentiable(each) else self.tensor(each))

    def back(self, gradients: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
        """Return the derivatives by each of what was handed on; see :class:`Session`."""
        known = [(output, by) for output, by in zip(self.outputs, gradients, strict=True) if by is not None]
        starts = [start for start, want in zip(self.starts, wanted, strict=True) if want]
        each = iter(self.derivatives([output for output, _ in known], [by for _, by in known], starts))
        found = [next(each) if want else None for want in wanted]
        return [
            None if by is None else self.tensor(by).to(handed.dtype)
            for by, handed in zip(found, self.handed, strict=True)
        ]
