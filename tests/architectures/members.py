"""A model of the sweep: how it is made, what it gets, and what an untrained one needs before its places differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Size = tuple[int, int]
TWELVE, FOUR = (3, 4), (2, 2)


@dataclass(frozen=True)
class Member:
    """A model and the input it gets.

    Attributes:
        size: height and width of the input; they differ wherever the model allows it.
        tiles: how the input is cut; fewer where an untrained model mixes its places widely.
        asleep: whether its first weights pass on so little that they must be drawn larger.
    """

    name: str
    make: Callable[[], nn.Module]
    size: Size
    tiles: Size = TWELVE
    asleep: bool = False

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.make().eval()
        _liven_heads(model)
        if self.asleep:
            _wake(model, self.size)
        return model


def _liven_heads(model: nn.Module) -> None:
    """Draw the weights of linear layers that begin at zero, as some classifiers do: else no score depends on anything."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02, generator=generator)


def _wake(model: nn.Module, size: Size) -> None:
    """Make an untrained model pass on what it sees, as a trained one does.

    Some begin with weights so small, or with attention so even, that after a few layers all places are alike to the last bit:
    weights are drawn so that the variance stays, normalisation knows the variance that comes, and attention with a learnt bias
    for distances looks at its own place first.
    """
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5, generator=generator)
        if hasattr(part, "attention_biases"):
            nn.init.constant_(part.attention_biases[:, 0], 6.0)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, 3, *size, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
