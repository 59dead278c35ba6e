"""What the biases of a torch model contribute to a score: the part of its output that no input carries.

For a network of linear layers and ReLUs the score is exactly input times gradient plus, over all layers, bias times the
derivative by the layer's output (Srinivas & Fleuret 2019, arXiv:1905.00780). A normalisation layer in evaluation mode adds a
bias too: its shift minus its scaled running mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.recorder.tape import first_tensor, with_first_tensor

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True, eq=False)
class BiasShare:
    """One layer's biases.

    Attributes:
        name: the layer.
        values: `(batch, *grid)`, the sum over channels of |bias times derivative| at each place; None where there are no places.
        low, high: `(batch,)`, the smallest and largest |bias times derivative| of any channel and place.
        channels: how many were summed.
        total: `(batch,)`, the sum over channels and places of bias times derivative, with its sign.
    """

    name: str
    values: Float[Tensor, " batch *grid"] | None
    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]
    channels: int
    total: Float[Tensor, " batch"]


class BiasTap:
    """Listens to every layer that has a bias, and to the derivative by its output; only sums over channels are kept."""

    def __init__(self, axes: int) -> None:
        self.shares: list[BiasShare] = []
        self._axes = axes
        self._thread = threading.get_ident()

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Listen during a forward and the backward after it; the hooks are gone afterwards."""
        with ExitStack() as stack:
            for name, module in root.named_modules():
                bias = effective_bias(module)
                if bias is not None and bool((bias != 0).any()):
                    hook = self._hear(name, bias, last=isinstance(module, nn.Linear | nn.LayerNorm))
                    stack.callback(module.register_forward_hook(hook).remove)
            yield

    def _hear(self, name: str, bias: Tensor, *, last: bool) -> Callable[[nn.Module, Any, Any], Any]:
        def listen(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = first_tensor(output)
            if found is None or not found.requires_grad or threading.get_ident() != self._thread:
                return None
            heard = found.clone()  # a layer behind may work in place
            heard.register_hook(lambda gradient: self._take(name, bias, gradient, last=last))  # type: ignore[no-untyped-call]
            return with_first_tensor(output, heard)

        return listen

    def _take(self, name: str, bias: Tensor, gradient: Tensor, *, last: bool) -> None:
        products = gradient.detach().float() if last else gradient.detach().float().movedim(1, -1)
        products = products * bias
        absolute = products.abs()
        values = absolute.sum(-1) if products.ndim == self._axes + 2 else None
        flat = absolute.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        self.shares.append(BiasShare(name, values, low, high, len(bias), products.flatten(1).sum(1)))


def effective_bias(module: nn.Module) -> Tensor | None:
    """Return what a layer adds to each channel `(channel,)` whatever its input, or None when it adds nothing."""
    bias = getattr(module, "bias", None)
    shift = bias.detach().float() if isinstance(bias, Tensor) and bias.ndim == 1 else None
    if isinstance(module, _NORMALISATIONS) and module.running_mean is not None and module.running_var is not None:
        mean, scale = module.running_mean.float(), (module.running_var.float() + module.eps).rsqrt()
        scaled = -mean * scale * (1 if module.weight is None else module.weight.detach().float())
        return scaled if shift is None else shift + scaled
    return shift if isinstance(module, (*_CONVOLUTIONS, nn.Linear, nn.LayerNorm, nn.GroupNorm)) else None


def merged(parts: list[list[BiasShare]]) -> list[BiasShare]:
    """Return the shares of several runs, one after the other in the batch, as those of one."""
    return [
        BiasShare(
            same[0].name,
            None if same[0].values is None else torch.cat([each.values for each in same if each.values is not None]),
            torch.cat([each.low for each in same]),
            torch.cat([each.high for each in same]),
            same[0].channels,
            torch.cat([each.total for each in same]),
        )
        for same in zip(*parts, strict=True)
    ]
