"""Models of PaddlePaddle: any `paddle.nn.Layer`, unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import paddle
import torch
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional
from torch import Tensor

from seewhy.frameworks.session import GraphRun
from seewhy.frameworks.shell import Part, Shell, Structure, first_of, mapped, structure_of, with_first


class PaddleShell(Shell):
    """A Paddle model.

    Args:
        model: in any mode; it is run in evaluation mode, without a graph up to the first layer that is listened to.
    """

    framework = "PaddlePaddle"
    has_state = True

    def __init__(self, model: nn.Layer) -> None:
        first = next((part for part in model.sublayers() if isinstance(part, tuple(_CONVOLUTIONS))), None)
        axes = 2 if first is None else next(axes for kind, axes in _CONVOLUTIONS.items() if isinstance(first, kind))
        super().__init__(model, axes, None if first is None else first._in_channels)
        for name, layer in model.named_sublayers():
            self.add(name, type(layer).__name__, Part(_order(layer), _weight(layer)))

    def name_of(self, layer: Any) -> str | None:
        """Return the name of one of the model's own layers."""
        return next((name for name, part in self.model.named_sublayers() if part is layer), None)

    def structure(self) -> Structure:
        """Return what changes when the model's layers do."""
        return structure_of(self.model.named_sublayers())

    def state_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the model's own weights, by its own names."""
        return {name: _tensor(values) for name, values in self.model.state_dict().items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *_args: Any, **_kwargs: Any) -> Any:
        """Copy weights into the model."""
        with paddle.no_grad():
            for name, values in self.model.state_dict().items():
                if name in state_dict:
                    values.set_value(_paddle(state_dict[name]).astype(values.dtype))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on tensors; see :class:`Shell`."""
        run = _Run(self)
        with run.on():
            args, kwargs = (mapped(given, Tensor, run.input) for given in (args, kwargs))
            returned = self.model(*args, **kwargs)
        return run.behind(returned)


_CONVOLUTIONS = {nn.Conv1D: 1, nn.Conv2D: 2, nn.Conv3D: 3}


def _order(layer: nn.Layer) -> str:
    words = getattr(layer, "_data_format", "")
    known = isinstance(layer, (*_CONVOLUTIONS, nn.BatchNorm2D, nn.BatchNorm1D, nn.BatchNorm3D))
    return ("channels-last" if words.endswith("C") and words != "NC" else "channels-first") if known else ""


def _weight(layer: nn.Layer) -> Any:
    """Return what gives a linear layer's weights `(out, in)`; Paddle keeps them the other way round."""
    return (lambda: _tensor(layer.weight).T) if isinstance(layer, nn.Linear) else None


class _Run(GraphRun):
    """One run of the model."""

    kind = paddle.Tensor

    def __init__(self, shell: PaddleShell) -> None:
        super().__init__()
        self._shell = shell
        floats = (each.dtype for each in shell.model.parameters() if each.is_floating_point())
        self._precision = next(floats, paddle.float32)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Hold the model and listen to it; afterwards it is as it was."""
        model = self._shell.model
        layers = dict(model.named_sublayers())
        with ExitStack() as stack:
            stack.enter_context(_held(model))
            for layer in layers.values():
                if isinstance(layer, nn.LayerNorm):
                    stack.callback(layer.register_forward_post_hook(_in_the_open).remove)
            for name, part in self._shell.heard().items():
                hook = layers[name].register_forward_post_hook(partial(self._heard, part))
                stack.callback(hook.remove)
            for layer in layers.values() if self._shell.tally else ():
                stack.callback(layer.register_forward_post_hook(self._by_rule).remove)
            stack.enter_context(paddle.no_grad())
            yield

    def _by_rule(self, layer: nn.Layer, inputs: Any, _output: Any) -> Any:
        """Give a ReLU layer the rule for its derivative, and count the other activation functions."""
        tally = self._shell.tally
        if isinstance(layer, nn.ReLU):
            tally.relus += 1
            tally.ruled += 1
            return cast("Any", _RULES[tally.rule]).apply(inputs[0])
        if type(layer).__module__ == nn.ReLU.__module__:
            tally.others[type(layer).__name__] += 1
        return None

    def input(self, given: Tensor) -> paddle.Tensor:
        """Return an input as the model takes it; one that is to be differentiated by begins the graph."""
        values = _paddle(given)
        if values.is_floating_point():
            values = values.astype(self._precision)
        return self._leaf(given, values) if given.requires_grad else values

    def _leaf(self, handed: Tensor, values: paddle.Tensor) -> paddle.Tensor:
        values = values.detach()
        values.stop_gradient = False
        self.begin(handed, values)
        paddle.set_grad_enabled(True)
        return paddle.assign(values)  # a copy: the model may write into it

    def _heard(self, part: Part, _layer: nn.Layer, inputs: Any, output: Any) -> Any:
        found = first_of(output)
        if not (isinstance(found, paddle.Tensor) and found.is_floating_point() and found.ndim > 0):
            return None
        given = first_of(inputs)
        gave = _tensor(found)
        handed = part(_tensor(given) if part.is_linear and isinstance(given, paddle.Tensor) else None, gave)
        if handed is gave:
            return None
        if not handed.requires_grad:
            return with_first(output, _paddle(handed))
        if found.stop_gradient:
            return with_first(output, self._leaf(handed, paddle.assign(found)))
        self.begin(handed, found)
        return with_first(output, paddle.assign(found))

    def tensor(self, values: paddle.Tensor) -> Tensor:
        """Return the same memory as a tensor of torch."""
        return _tensor(values)

    def differentiable(self, output: paddle.Tensor) -> bool:
        """Return whether derivatives of an output can be taken."""
        return output.is_floating_point() and not output.stop_gradient

    def derivatives(self, outputs: list[Any], by_outputs: list[Tensor], starts: list[Any]) -> Iterable[Any | None]:
        """Return the derivatives by the starts, from those by the outputs."""
        with paddle.enable_grad(), _frozen(self._shell.model):
            found: Iterable[Any | None] = paddle.grad(
                outputs, starts, grad_outputs=[_paddle(by) for by in by_outputs], retain_graph=True, allow_unused=True
            )
        return found


def _in_the_open(layer: Any, inputs: Any, output: Any) -> Any:
    """Return what a layer normalisation gives, by its formula, where a derivative is to go through it.

    Paddle 3.3.1's own backward of it on a CPU is wrong unless all weights are equal: it is not what finite differences give.
    """
    if output.stop_gradient or layer.weight is None or not output.place.is_cpu_place():
        return None
    axes = list(range(-len(layer._normalized_shape), 0))
    centred = inputs[0] - inputs[0].mean(axes, keepdim=True)
    found = centred * paddle.rsqrt(centred.square().mean(axes, keepdim=True) + layer._epsilon)
    found = found * layer.weight.reshape(layer._normalized_shape)
    return found if layer.bias is None else found + layer.bias.reshape(layer._normalized_shape)


class _Guided(PyLayer):
    @staticmethod
    def forward(ctx: Any, given: paddle.Tensor) -> paddle.Tensor:
        found = functional.relu(given)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        [found] = ctx.saved_tensor()
        return cast("paddle.Tensor", functional.relu(gradient) * (found > 0).astype(gradient.dtype))


class _Deconvnet(PyLayer):
    @staticmethod
    def forward(_ctx: Any, given: paddle.Tensor) -> paddle.Tensor:
        return functional.relu(given)

    @staticmethod
    def backward(_ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        return functional.relu(gradient)


_RULES = {"guided": _Guided, "deconvnet": _Deconvnet}


@contextmanager
def _held(model: nn.Layer) -> Iterator[None]:
    """Hold a model in evaluation mode, its parameters frozen and its random draws seeded; then restore all of it."""
    training = [layer for layer in model.sublayers(include_self=True) if layer.training]
    state = paddle.get_rng_state()
    paddle.seed(torch.initial_seed() % 2**31)
    for layer in training:
        layer.training = False
    try:
        with _frozen(model):
            yield
    finally:
        for layer in training:
            layer.training = True
        paddle.set_rng_state(state)


@contextmanager
def _frozen(model: nn.Layer) -> Iterator[None]:
    """Want no derivative by any parameter meanwhile."""
    wanted = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    for parameter in wanted:
        parameter.stop_gradient = True
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.stop_gradient = False


def _tensor(values: paddle.Tensor) -> Tensor:
    """Return the same memory as a tensor of torch."""
    found: Tensor = torch.utils.dlpack.from_dlpack(values.detach().contiguous())
    return found


def _paddle(values: Tensor) -> paddle.Tensor:
    """Return the same memory as a tensor of Paddle."""
    return paddle.utils.dlpack.from_dlpack(cast("Any", values.detach().contiguous()))
