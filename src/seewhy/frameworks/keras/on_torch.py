"""Keras on PyTorch: its tensors are torch tensors, so the graph is torch's own."""

from __future__ import annotations

from typing import Any

import keras
import torch
from torch import Tensor, nn

from seewhy.frameworks.keras.holding import listened
from seewhy.frameworks.keras.run import OneRun
from seewhy.frameworks.keras.takes import as_precise
from seewhy.frameworks.shell import first_of, mapped, with_first
from seewhy.kept import evaluation, frozen


class Run(OneRun):
    """One run on the backend torch."""

    def __call__(self, args: Any, kwargs: Any) -> Any:
        """Return what the model returns; see :class:`OneRun`."""
        args, kwargs = (mapped(given, Tensor, self._placed) for given in (args, kwargs))
        assert isinstance(self.model, nn.Module)  # noqa: S101 - as all layers are on this backend
        with frozen(self.model), evaluation(list(self.model.modules())), listened(self.layers, self._hear):
            returned = self.model(*args, **kwargs, training=False)
        return mapped(returned, Tensor, lambda values: values.to(self.home))

    def _placed(self, values: Tensor) -> Tensor:
        own: torch.device = keras.ops.convert_to_tensor(0.0).device
        return as_precise(values).to(own)

    def _hear(self, name: str, given: Any, output: Any) -> Any:
        found = first_of(output)
        if not (isinstance(found, Tensor) and found.is_floating_point() and found.ndim > 0):
            return output
        part = self.parts[name]
        gave = found.to(self.home)
        handed = part(given.to(self.home) if part.is_linear and isinstance(given, Tensor) else None, gave)
        return output if handed is gave else with_first(output, handed.to(found.device))


def to_torch(values: Any) -> Tensor:
    """Return a tensor of Keras as one of torch."""
    found: Tensor = keras.ops.convert_to_tensor(values).detach()
    return found
