"""A Keras model as a torch module whose parts can be listened to."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor

from seewhy.errors import ModelError
from seewhy.frameworks.keras.holding import held
from seewhy.frameworks.keras.layers import LIST, is_linear, named_layers, order
from seewhy.frameworks.keras.takes import call_of, said_preprocess, takes
from seewhy.frameworks.shell import TORCH_ONLY, Part, Shell, Structure, mapped, structure_of

_BACKENDS = ("torch", "jax", "tensorflow")


class KerasShell(Shell):
    """A Keras model or layer, built.

    It takes tensors `(batch, channel, *space)`, wherever the model itself has its channels; other inputs of as many axes too.

    Args:
        model: Functional, Sequential or subclassed, also with models inside. It is run eagerly, with `training=False`.

    Raises:
        ModelError: it is not built, or runs on a backend without derivatives that can be had.
    """

    framework = "Keras"

    def __init__(self, model: keras.layers.Layer) -> None:
        if not model.built:
            raise ModelError(
                f"The Keras model '{model.name}' is not built: it has no weights yet. Call it once on an input, or `build()` it."
            )
        layers = named_layers(model)
        self._takes = takes(model, [layer for layer in layers.values() if layer is not None])
        super().__init__(model, self._takes.axes, self._takes.channels)
        self.space = self._takes.space
        self.preprocess = said_preprocess(self._takes, [layer for layer in layers.values() if layer is not None])
        self._own = layers
        self._on = _backend()
        if keras.backend.backend() == "torch":
            self.lacks = {need: why for need, why in TORCH_ONLY.items() if need != "CURVATURE"}
        for name, layer in layers.items():
            if layer is None:
                self.add(name, LIST, Part())
                continue
            weight = partial(self._weight, layer) if is_linear(layer) else None
            self.add(name, type(layer).__name__, Part(order(layer, last=self._takes.last), weight))

    def weights(self) -> Mapping[str, Any]:
        """Return its variables by their paths."""
        values = {f"{at} {each.path}": each.value for at, each in enumerate(self.model.weights)}
        return {name: each if isinstance(each, Tensor) else np.array(each) for name, each in values.items()}

    def name_of(self, layer: Any) -> str | None:
        """Return the name of one of the model's own layers."""
        return next((name for name, own in named_layers(self.model).items() if own is layer), None)

    def structure(self) -> Structure:
        """Return what changes when the model's layers do."""
        return structure_of(named_layers(self.model).items())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on tensors; see :class:`Shell`."""
        tensors: list[Tensor] = []
        mapped((args, kwargs), Tensor, tensors.append)
        parts = self.heard()
        layers = {name: layer for name in parts if (layer := self._own[name]) is not None}
        run = self._on.Run(self.model, parts, layers, tensors[0].device if tensors else torch.device("cpu"))
        with torch.set_grad_enabled(torch.is_grad_enabled() or any(each.requires_grad for each in tensors)):
            args, kwargs = call_of(self.model, self._takes, args, kwargs)
        with held(self.model):
            returned = run(args, kwargs)
        with torch.enable_grad():
            return mapped(returned, Tensor, self._takes.put_back)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load weights from a `.weights.h5` file, or those in a `.keras` file: numbers are read from it, never code.

        Raises:
            ModelError: there is no such file, it is damaged, or they do not fit.
        """
        if not os.path.isfile(path):  # noqa: PTH113 - any path-like, also one too long for a name
            raise ModelError(f"There is no weights file '{path}'. Check the path.")
        try:
            self.model.load_weights(str(path))
        except Exception as error:
            raise ModelError(
                f"The weights in '{os.path.basename(path)}' could not be loaded into '{self.model.name}': "  # noqa: PTH119
                f"{str(error).splitlines()[0][:300] if str(error) else type(error).__name__} Keras models take .weights.h5 "
                "files of the same architecture; for another number of classes give num_classes."
            ) from error

    def _weight(self, layer: keras.layers.Dense) -> Tensor:
        """Return a layer's weights `(out, in)`; Keras keeps them the other way round."""
        found: Tensor = self._on.to_torch(layer.kernel).cpu()
        return found.T


def _backend() -> Any:
    """Return the module that runs models on the configured backend."""
    name = keras.backend.backend()
    if name not in _BACKENDS:
        raise ModelError(
            f"Keras runs on '{name}' here, of which no derivatives can be had. Set the environment variable KERAS_BACKEND to "
            f"{', '.join(_BACKENDS)} before Keras is imported."
        )
    return importlib.import_module(f"seewhy.frameworks.keras.on_{name}")
