"""Trials of small models, for metrics that are called by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.measures import Trial
from seewhy.recorder import Conditions, Needs, TorchRecorder
from seewhy.targets import ClassTarget, ProbabilityTarget


class Weighted(nn.Module):
    """Linear: each class's score is the sum of the input times its weights `(class, channel, *space)`, plus its bias."""

    def __init__(self, weights: Tensor, biases: Tensor | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.biases = nn.Parameter(torch.zeros(len(weights)) if biases is None else biases)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weights.flatten(1).T + self.biases


def fills(kind: Any, images: Tensor, generator: torch.Generator) -> Tensor:
    """Zeros, or any number everywhere."""
    return torch.full_like(images, float(kind) if isinstance(kind, int | float) else 0.0)


def tried(
    model: nn.Module, images: Tensor, maps: Tensor, *, index: int = 0, logits: bool = False, seed: int = 0, **more: Any
) -> Trial:
    """Return a trial of maps `(batch, map, *space)` about one class; `logits`: its score stands for its probability."""
    question = tuple(ClassTarget(index) for _ in images)
    likely = question if logits else tuple(ProbabilityTarget(index) for _ in images)
    recordings = TorchRecorder(model.eval()).record(
        images, (), lambda *_: [question], needs=Needs.SCORE, conditions=Conditions(seed, baselines=fills)
    )
    return Trial(recordings.engine, images, (question, likely), maps, recordings.conditions, **more)


class Remade:
    """Makes maps of any inputs with a function, or hands out those it was given for another class and other weights."""

    def __init__(self, make: Callable[[Tensor], Tensor], other: Tensor | None = None) -> None:
        self.make = make
        self.other = other
        self.calls: list[Any] = []

    def of_images(self, images: Tensor) -> Tensor:
        self.calls.append("images")
        return self.make(images)

    def of_other_class(self, seed: int) -> Tensor:
        self.calls.append("class")
        assert self.other is not None
        return self.other

    def of_randomised(self, seed: int, part: float) -> Tensor:
        self.calls.append(part)
        assert self.other is not None
        return self.other
