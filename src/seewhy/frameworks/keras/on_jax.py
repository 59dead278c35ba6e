"""Keras on JAX: one run within `jax.vjp`, with functions at the listened layers that have a derivative of their own.

Such a function hands a layer's values on. On the way forward its rule is called with numbers, whatever is differentiated; on
the way back it is called with the derivatives by what it handed on. The graph is that of a scalar on which nothing depends
before the first of them, so that what lies before is computed without one. Nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from seewhy.frameworks.keras.holding import listened
from seewhy.frameworks.keras.run import OneRun
from seewhy.frameworks.keras.takes import as_precise
from seewhy.frameworks.session import derived
from seewhy.frameworks.shell import first_of, mapped, with_first


@dataclass(frozen=True)
class _Place:
    """Stands for an output while the model is differentiated."""

    number: int
    floating: bool


class Run(OneRun):
    """One run on the backend JAX."""

    def __call__(self, args: Any, kwargs: Any) -> Any:
        """Return what the model returns; see :class:`OneRun`."""
        self._handed: list[Tensor] = []
        self._found: dict[int, jax.Array] = {}
        with listened(self.layers, self._hear):
            if self.layers or _requires_grad((args, kwargs)):
                outputs, self._pull, others = jax.vjp(
                    lambda graph: self._outputs(graph, args, kwargs), jnp.zeros(()), has_aux=True
                )
            else:
                outputs, others, self._tree = [], [], self._returned(args, kwargs)
        self._likes: list[jax.Array] = outputs
        tensors = [self._tensor(output) for output in outputs]
        behind = derived(self, tensors, self._handed) if tensors else ()

        def filled(place: _Place) -> Tensor:
            return behind[place.number] if place.floating else self._tensor(others[place.number])

        return mapped(mapped(self._tree, jax.Array, self._tensor), _Place, filled)

    def _returned(self, args: Any, kwargs: Any) -> Any:
        args, kwargs = (mapped(given, Tensor, self._input) for given in (args, kwargs))
        return self.model(*args, **kwargs, training=False)

    def _outputs(self, graph: jax.Array, args: Any, kwargs: Any) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return the outputs that depend on what was handed on, those of whole numbers apart."""
        self._graph = graph
        apart: dict[bool, list[jax.Array]] = {True: [], False: []}

        def placed(value: Any) -> Any:
            if not isinstance(value, jax.core.Tracer):
                return value
            floating = bool(jnp.issubdtype(value.dtype, jnp.floating))
            apart[floating].append(value)
            return _Place(len(apart[floating]) - 1, floating)

        self._tree = mapped(self._returned(args, kwargs), jax.Array, placed)
        return apart[True], apart[False]

    def _input(self, given: Tensor) -> jax.Array:
        """Return an input as the model takes it; one that is to be differentiated by begins the graph."""
        given = as_precise(given)
        return self._begun(given, _jax(given)) if given.requires_grad else _jax(given)

    def _begun(self, handed: Tensor, values: jax.Array) -> jax.Array:
        """Return values that are handed on, the derivatives by which are noted whenever some are taken."""
        number = len(self._handed)
        self._handed.append(handed)

        def forward(values: jax.Array, _graph: jax.Array) -> tuple[jax.Array, None]:
            return values, None

        def back(_: None, by: jax.Array) -> tuple[jax.Array, jax.Array]:
            self._found[number] = by
            return by, jnp.zeros(())

        return _with_rule(forward, back)(values, self._graph)

    def _hear(self, name: str, given: Any, output: Any) -> Any:
        found = first_of(output)
        if not (isinstance(found, jax.Array) and jnp.issubdtype(found.dtype, jnp.floating) and found.ndim > 0):
            return output
        if not self.parts[name].is_linear or not isinstance(given, jax.Array):
            given = None
        if isinstance(found, jax.core.Tracer):
            return with_first(output, self._within(name, given, found))
        gave, handed = self._told(name, given, found)
        if handed is gave:
            return output
        values = _jax(handed)
        return with_first(output, self._begun(handed, values) if handed.requires_grad else values)

    def _within(self, name: str, given: Any, found: jax.Array) -> jax.Array:
        """Return what a layer behind the beginning of the graph hands on: its numbers are seen by a rule."""
        handed_on: list[int] = []
        edited: list[bool] = []

        def forward(found: jax.Array, given: Any) -> tuple[jax.Array, Any]:
            if isinstance(found, jax.core.Tracer):  # within a loop of JAX, which is traced without numbers
                return found, given
            gave, handed = self._told(name, given, found)
            if handed is gave:
                return found, given
            if handed.requires_grad:
                handed_on.append(len(self._handed))
                self._handed.append(handed)
            else:
                edited.append(True)
            return _jax(handed), given

        def back(given: Any, by: jax.Array) -> tuple[jax.Array, Any]:
            self._found.update(dict.fromkeys(handed_on, by))
            nothing = None if given is None else jnp.zeros_like(given)
            return (jnp.zeros(found.shape, found.dtype) if edited else by), nothing

        return _with_rule(forward, back)(found, given)

    def _told(self, name: str, given: Any, found: jax.Array) -> tuple[Tensor, Tensor]:
        """Return what a layer gave, and what its part hands on."""
        gave = self._tensor(found)
        return gave, self.parts[name](None if given is None else self._tensor(given), gave)

    def back(self, gradients: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
        """Return the derivatives by each of what was handed on; see :class:`seewhy.frameworks.session.Session`."""
        self._found.clear()
        self._pull(
            [
                jnp.zeros_like(like) if by is None else _jax(by).astype(like.dtype)
                for like, by in zip(self._likes, gradients, strict=True)
            ]
        )
        found = [self._found.get(number) if want else None for number, want in enumerate(wanted)]
        self._found.clear()
        return [None if by is None else self._tensor(by) for by in found]

    def _tensor(self, values: jax.Array) -> Tensor:
        return to_torch(values).to(self.home)


def _with_rule(forward: Any, back: Any) -> Any:
    rule = jax.custom_vjp(lambda values, _with: values)
    rule.defvjp(forward, back)
    return rule


def _requires_grad(tree: Any) -> bool:
    found: list[bool] = []
    mapped(tree, Tensor, lambda values: found.append(values.requires_grad))
    return any(found)


def to_torch(values: Any) -> Tensor:
    """Return an array as a tensor, of the same memory where that is possible."""
    values = getattr(values, "value", values)
    try:
        found: Tensor = torch.utils.dlpack.from_dlpack(values.block_until_ready())
    except (TypeError, ValueError, RuntimeError, BufferError):  # another device, or a type that does not travel
        found = torch.from_numpy(np.array(values))
    return found


def _jax(values: Tensor) -> jax.Array:
    """Return a tensor as an array, of the same memory where that is possible."""
    values = values.detach().contiguous()
    if values.is_floating_point() and values.dtype != torch.float64:
        try:
            return jax.dlpack.from_dlpack(values)
        except (TypeError, ValueError, RuntimeError, BufferError):
            values = values.float()
    return jnp.asarray(values.cpu().numpy())
