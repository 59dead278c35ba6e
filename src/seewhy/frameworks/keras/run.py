"""One run of a Keras model that is listened to, on any backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
import torch

from seewhy.frameworks.shell import Part


class OneRun(ABC):
    """Runs a model once.

    Args:
        model: the model.
        parts: those that are listened to, by name.
        layers: whose outputs they hear.
        home: where tensors are that come in and are heard.
    """

    def __init__(
        self,
        model: keras.layers.Layer,
        parts: Mapping[str, Part],
        layers: Mapping[str, keras.layers.Layer],
        home: torch.device,
    ) -> None:
        self.model = model
        self.parts = parts
        self.layers = layers
        self.home = home

    @abstractmethod
    def __call__(self, args: Any, kwargs: Any) -> Any:
        """Return what the model returns for these tensors, as tensors behind what its layers' parts handed on."""
