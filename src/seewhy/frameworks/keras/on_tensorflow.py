"""Keras on TensorFlow: a gradient tape, from which nothing is recorded before the first layer that hands something on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import torch
from torch import Tensor

from seewhy.frameworks.keras.holding import listened
from seewhy.frameworks.keras.run import OneRun
from seewhy.frameworks.keras.takes import as_precise
from seewhy.frameworks.session import GraphRun
from seewhy.frameworks.shell import first_of, mapped, with_first


class Run(OneRun, GraphRun):
    """One run on the backend TensorFlow, without `tf.function`."""

    kind = tf.Tensor

    def __call__(self, args: Any, kwargs: Any) -> Any:
        """Return what the model returns; see :class:`OneRun`."""
        GraphRun.__init__(self)
        with (
            listened(self.layers, self._hear),
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._tape,
        ):
            args, kwargs = (mapped(given, Tensor, self._input) for given in (args, kwargs))
            returned = self.model(*args, **kwargs, training=False)
        return self.behind(returned)

    def _input(self, given: Tensor) -> tf.Tensor:
        """Return an input as the model takes it; one that is to be differentiated by begins the graph."""
        given = as_precise(given)
        return self._begun(given, _tensorflow(given)) if given.requires_grad else _tensorflow(given)

    def _begun(self, handed: Tensor, values: tf.Tensor) -> tf.Tensor:
        self._tape.watch(values)
        self.begin(handed, values)
        return tf.identity(values)

    def _hear(self, name: str, given: Any, output: Any) -> Any:
        found, part = first_of(output), self.parts[name]
        if not (isinstance(found, tf.Tensor) and hasattr(found, "numpy")):  # a loop of TensorFlow has no numbers
            return output
        if not found.dtype.is_floating or len(found.shape) == 0:
            return output
        gave = self.tensor(found)
        handed = part(self.tensor(given) if part.is_linear and isinstance(given, tf.Tensor) else None, gave)
        if handed is gave:
            return output
        if not handed.requires_grad:
            return with_first(output, _tensorflow(handed))
        return with_first(output, self._begun(handed, found))

    def tensor(self, values: Any) -> Tensor:
        """Return a tensor of TensorFlow, where tensors are heard."""
        return to_torch(values).to(self.home)

    def differentiable(self, output: tf.Tensor) -> bool:
        """Return whether derivatives of an output can be taken."""
        return bool(output.dtype.is_floating)

    def derivatives(self, outputs: list[Any], by_outputs: list[Tensor], starts: list[Any]) -> Iterable[Any | None]:
        """Return the derivatives by the starts, from those by the outputs."""
        seeds = [tf.cast(_tensorflow(by), output.dtype) for output, by in zip(outputs, by_outputs, strict=True)]
        found: list[Any | None] = self._tape.gradient(outputs, starts, output_gradients=seeds)
        return found


def to_torch(values: Any) -> Tensor:
    """Return a tensor of TensorFlow as one of torch, of the same memory where that is possible."""
    values = tf.convert_to_tensor(values)
    if values.dtype.is_bool:
        return torch.from_numpy(values.numpy().copy())
    try:
        found: Tensor = torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(values))
    except (TypeError, ValueError, RuntimeError):  # a device that torch was not built for
        found = torch.from_numpy(values.numpy().copy())
    return found


def _tensorflow(values: Tensor) -> tf.Tensor:
    """Return a tensor as one of TensorFlow; copied, since TensorFlow asks for memory of its own alignment."""
    values = values.detach()
    if values.dtype == torch.bfloat16:
        return tf.cast(tf.constant(values.float().cpu().numpy()), tf.bfloat16)
    return tf.constant(values.cpu().numpy())
