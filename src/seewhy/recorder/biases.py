"""What the biases of a torch model contribute to a score: the part of its output that no input carries.

For a network of linear layers and ReLUs the score is exactly input times gradient plus, over all layers, bias times the
derivative by the layer's output (Srinivas & Fleuret 2019, arXiv:1905.00780). A normalisation layer in evaluation mode adds a
bias too: its shift minus its scaled running mean; and so does an activation function that is not made of straight lines through
zero, such as ReLU6 where it is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.recorder.listening import Listening
from seewhy.recorder.tape import first_tensor, with_first_tensor

_AFFINE = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.Linear,
    nn.LayerNorm,
    nn.GroupNorm,
)
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
    """Listens to every layer that has a bias, and to the derivative by what it gives; only sums over channels are kept.

    For one sample at a time, since some models fold windows or steps into the batch axis.

    Attributes:
        runs: each sample's shares.
    """

    def __init__(self, axes: int) -> None:
        self.runs: list[list[BiasShare]] = []
        self._factor = 1.0
        self._axes = axes
        self._inputs: dict[str, Tensor] = {}
        self._channel = 1  # the channels' axis behind the layer that spoke last: an activation function has the same

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Listen during forwards and the backward after them; the hooks are gone afterwards."""
        with Listening() as listening:
            for name, module in root.named_modules():
                if isinstance(module, _CURVED):
                    listening.before(module, self._keep(name))
                    listening.after(module, self._hear_curved(name))
                if not _is_affine(module):
                    continue
                bias = effective_bias(module)
                inner = _inner(module)
                if inner is None:
                    listening.after(module, self._hear(name, bias))
                else:  # the bias is added before the layer's own activation
                    listening.before(inner, self._hear_input(name, module, bias))
            yield

    def begin(self) -> None:
        """Tell that another sample is run."""
        self.runs.append([])

    def expect(self, factor: float) -> None:
        """Forget what was heard, and tell that the derivatives will come multiplied by a factor."""
        self._factor = factor
        for run in self.runs:
            run.clear()

    @property
    def finite(self) -> bool:
        """Whether all that was heard is finite."""
        return all(bool(share.total.isfinite().all()) for run in self.runs for share in run)

    def _hear(self, name: str, bias: Tensor | None) -> Callable[[nn.Module, Any, Any], Any]:
        def listen(module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = _traced(output)
            return None if found is None else with_first_tensor(output, self._tapped(name, module, found, bias))

        return listen

    def _hear_input(self, name: str, outer: nn.Module, bias: Tensor | None) -> Callable[[nn.Module, Any], Any]:
        def listen(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            found = _traced(inputs)
            return None if found is None else (self._tapped(name, outer, found, bias), *inputs[1:])

        return listen

    def _keep(self, name: str) -> Callable[[nn.Module, Any], None]:
        def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (found := _traced(inputs)) is not None:
                self._inputs[name] = found.detach().clone()

        return keep

    def _hear_curved(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def listen(module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = _traced(output)
            if found is None or name not in self._inputs:
                return None
            bias = _implicit_bias(module, self._inputs.pop(name))
            return with_first_tensor(output, self._listened(name, found, bias))

        return listen

    def _tapped(self, name: str, module: nn.Module, values: Tensor, bias: Tensor | None) -> Tensor:
        self._channel = _channel_axis(module, values.shape)
        if bias is None:
            return values
        column = bias.view(-1, *(1,) * (values.ndim - 1 - self._channel))
        return self._listened(name, values, column)

    def _listened(self, name: str, values: Tensor, bias: Tensor) -> Tensor:
        """Return a copy (a layer behind may work in place) whose derivative is listened to."""
        heard, run, channel = values.clone(), self.runs[-1], self._channel
        heard.register_hook(lambda gradient: self._take(run, name, bias, gradient, channel))  # type: ignore[no-untyped-call]
        return heard

    def _take(self, run: list[BiasShare], name: str, bias: Tensor, gradient: Tensor, channel: int) -> None:
        products = gradient.detach().float() / self._factor * bias
        absolute = products.abs()
        placed = products.ndim == self._axes + 2 and len(products) == 1
        run.append(
            BiasShare(
                name=name,
                values=absolute.sum(channel) if placed else None,
                low=absolute.amin()[None],
                high=absolute.amax()[None],
                channels=products.shape[channel],
                total=products.sum()[None],
            )
        )


def _traced(given: Any) -> Tensor | None:
    """Return the first tensor of what a module was given or gave, if it is part of the graph."""
    found = first_tensor(given)
    return found if found is not None and found.requires_grad else None


def _inner(module: nn.Module) -> nn.Module | None:
    """Return what a normalisation layer runs on its own result, as timm's do that end in an activation, or None."""
    return next((part for name, part in module.named_children() if name != "parametrizations"), None)


def _channel_axis(module: nn.Module, shape: Sequence[int]) -> int:
    """Return which axis of a layer's output its channels are: the last for linear layers and most layer norms, else 1."""
    if isinstance(module, nn.Linear):
        return len(shape) - 1
    if isinstance(module, nn.LayerNorm) and tuple(shape[-len(module.normalized_shape) :]) == module.normalized_shape:
        return 1 if "2d" in type(module).__name__.casefold() else len(shape) - 1
    return 1


def _implicit_bias(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what an activation function adds beyond its slope at the input: f(x) - f'(x) x, of the input's shape."""
    with torch.enable_grad():
        leaf = inputs.requires_grad_()
        output = type(module).forward(module, leaf.clone())
        [slope] = torch.autograd.grad(output.sum(), leaf)
    bias: Tensor = output.detach() - slope * inputs.detach()
    return bias.float()


def _is_affine(module: nn.Module) -> bool:
    return isinstance(module, _AFFINE) or running(module) is not None


def running(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return a normalisation layer's mean and variance `(channel,)`, or None where it has none that are fixed."""
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    return (mean.float(), variance.float()) if isinstance(mean, Tensor) and isinstance(variance, Tensor) else None


def effective_bias(module: nn.Module) -> Tensor | None:
    """Return what a layer adds to each channel `(channel,)` whatever its input, or None when it adds nothing."""
    bias, weight = getattr(module, "bias", None), getattr(module, "weight", None)
    total = bias.detach().float() if isinstance(bias, Tensor) and bias.ndim == 1 else None
    if (known := running(module)) is not None:
        mean, variance = known
        slope = (variance + getattr(module, "eps", 1e-5)).rsqrt()
        scaled = -mean * (slope if weight is None else slope * weight.detach().float())
        total = scaled if total is None else total + scaled
    return total if total is not None and bool((total != 0).any()) else None


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
