"""What the biases of a torch model contribute to a score: the part of its output that no input carries.

For a network of linear layers and ReLUs the score is exactly input times gradient plus, over all layers, bias times the
derivative by the layer's output (Srinivas & Fleuret 2019, arXiv:1905.00780). A normalisation layer in evaluation mode adds a
bias too: its shift minus its scaled running mean; and so does an activation function that is not made of straight lines through
zero, such as ReLU6 where it is full.
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
_CURVED = (
    nn.ReLU6,
    nn.Hardtanh,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
    nn.ELU,
    nn.Softplus,
    nn.Mish,
)


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
    """Listens to every layer that has a bias, and to the derivative by what it gives; only sums over channels are kept."""

    def __init__(self, axes: int) -> None:
        self.shares: list[BiasShare] = []
        self._axes = axes
        self._thread = threading.get_ident()
        self._inputs: dict[str, Tensor] = {}

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Listen during a forward and the backward after it; the hooks are gone afterwards."""
        with ExitStack() as stack:
            for name, module in root.named_modules():
                if isinstance(module, _CURVED):
                    stack.callback(module.register_forward_pre_hook(self._keep(name)).remove)
                    stack.callback(module.register_forward_hook(self._hear_curved(name)).remove)
                bias = effective_bias(module)
                if bias is None or not bool((bias != 0).any()):
                    continue
                last = isinstance(module, nn.Linear | nn.LayerNorm)
                inner = next(module.children(), None)
                if inner is None:
                    handle = module.register_forward_hook(self._hear(name, bias, last=last))
                else:  # timm's normalisation layers end in their own activation: the bias is added before it
                    handle = inner.register_forward_pre_hook(self._hear_input(name, bias, last=last))
                stack.callback(handle.remove)
            yield

    def _hear(self, name: str, bias: Tensor, *, last: bool) -> Callable[[nn.Module, Any, Any], Any]:
        def listen(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = self._mine(output)
            return None if found is None else with_first_tensor(output, self._tapped(name, found, bias, last=last))

        return listen

    def _hear_input(self, name: str, bias: Tensor, *, last: bool) -> Callable[[nn.Module, Any], Any]:
        def listen(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            found = self._mine(inputs)
            return None if found is None else (self._tapped(name, found, bias, last=last), *inputs[1:])

        return listen

    def _keep(self, name: str) -> Callable[[nn.Module, Any], None]:
        def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (found := self._mine(inputs)) is not None:
                self._inputs[name] = found.detach().clone()

        return keep

    def _hear_curved(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def listen(module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = self._mine(output)
            if found is None or name not in self._inputs:
                return None
            bias = _implicit_bias(module, self._inputs.pop(name))
            return with_first_tensor(output, self._tapped(name, found, bias, last=False))

        return listen

    def _mine(self, given: Any) -> Tensor | None:
        found = first_tensor(given)
        return found if found is not None and found.requires_grad and threading.get_ident() == self._thread else None

    def _tapped(self, name: str, values: Tensor, bias: Tensor, *, last: bool) -> Tensor:
        """Return a copy (a layer behind may work in place) whose derivative is listened to."""
        heard = values.clone()
        heard.register_hook(lambda gradient: self._take(name, bias, gradient, last=last))  # type: ignore[no-untyped-call]
        return heard

    def _take(self, name: str, bias: Tensor, gradient: Tensor, *, last: bool) -> None:
        gradient = gradient.detach().float()
        channel = -1 if last else 1
        column = bias if bias.ndim > 1 or last else bias.view(-1, *(1,) * (gradient.ndim - 2))
        products = gradient * column
        absolute = products.abs()
        flat = absolute.flatten(1)
        self.shares.append(
            BiasShare(
                name=name,
                values=absolute.sum(channel) if products.ndim == self._axes + 2 else None,
                low=flat.amin(1),
                high=flat.amax(1),
                channels=products.shape[channel],
                total=products.flatten(1).sum(1),
            )
        )


def _implicit_bias(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what an activation function adds beyond its slope at the input: f(x) - f'(x) x, of the input's shape."""
    with torch.enable_grad():
        leaf = inputs.requires_grad_()
        output = type(module).forward(module, leaf.clone())
        [slope] = torch.autograd.grad(output.sum(), leaf)
    bias: Tensor = output.detach() - slope * inputs.detach()
    return bias.float()


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
