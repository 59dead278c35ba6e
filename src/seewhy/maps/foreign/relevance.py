"""Layer-wise relevance propagation through what a model does between its modules: sums, gates, poolings, activations.

zennit gives rules to modules. Most models also call functions (`x + shortcut`, `x.mean((2, 3))`, `relu(x)`, `x * gate`),
through which relevance would flow like a gradient: a sum would double it. Here those functions get their rules while the
model runs, whoever wrote the model; zennit's own remedy is a rewritten block for each family of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STABILIZER = 1e-6
"""What zennit adds to a denominator."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSED = _words(
    """
    abs batch_norm celu clamp clamp_max clamp_min clip elu exp gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu
    log logsigmoid mish neg pow prelu relu relu6 rrelu selu sigmoid silu softplus softshrink softsign sqrt square tanh
    tanhshrink threshold
    """
)
_SHARED = _words(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d interpolate mean sum
    upsample
    """
)
_SUMS = _words("add sub rsub subtract")
_PRODUCTS = _words("mul multiply div divide rdiv true_divide")
_GATES = _words("sigmoid hardsigmoid")
_WEIGHTED = _words(
    """
    bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear
    """
)
_WITHOUT_RULE = _words(
    """
    _native_multi_head_attention baddbmm bmm cosine_similarity cumsum einsum grid_sample group_norm gru instance_norm
    layer_norm local_response_norm log_softmax lstm matmul mm multi_head_attention_forward norm normalize rms_norm
    rnn_relu rnn_tanh scaled_dot_product_attention softmax softmin std var vector_norm
    """
)

Function = Callable[..., Tensor]


class Relevance(TorchFunctionMode):
    """Gives each function that is called on activations meanwhile the rule that LRP has for it.

    - Sums of activations, means and average poolings: each summand gets its share of the result (the rule of zennit's `Sum`).
    - Activation functions, batch normalisation, sums and products with constants: relevance is passed on.
    - Products of activations: the signal gets all, the gate (a sigmoid's output, or the smaller one) nothing; both get half
      where neither is known to be the gate.
    - Convolutions and linear functions by a module's own weight are left to zennit; so are all others, such as maximum
      poolings and reshapes, to their derivative.

    Args:
        weights: the parameters of the modules that zennit has given rules to.

    Attributes:
        refused: functions that LRP has no rule for, and how often they were called.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.refused: Counter[str] = Counter()
        self._weights = {id(weight) for weight in weights}
        self._gates: list[Tensor] = []

    def __torch_function__(
        self, func: Function, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").split(".")[0].strip("_")
        places = [place for place, value in enumerate(args) if _is_activation(value)]
        if not places or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if name in _PASSED or (name in _SUMS | _PRODUCTS and len(places) == 1):
            found = _ruled(_Pass, func, args, kwargs, places[:1], 1.0)
        elif name in _SHARED or name in _SUMS:
            found = _ruled(_Share, func, args, kwargs, places)
        elif name in _PRODUCTS:
            found = self._product(func, args, kwargs, places, is_ratio="div" in name)
        else:
            self._note(name, args, kwargs)
            return func(*args, **kwargs)
        if name in _GATES:
            self._gates.append(found)
        return found

    def _product(
        self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], places: list[int], *, is_ratio: bool
    ) -> Tensor:
        first, second = (args[place] for place in places)
        if is_ratio:
            return _ruled(_Pass, func, args, kwargs, places[:1], 1.0)
        is_gate = [any(each is gate for gate in self._gates) for each in (first, second)]
        if is_gate[0] == is_gate[1]:
            is_gate = [first.numel() < second.numel(), second.numel() < first.numel()]
        if is_gate[0] == is_gate[1]:
            return _ruled(_Pass, func, args, kwargs, places, 0.5)
        return _ruled(_Pass, func, args, kwargs, places[:1] if is_gate[1] else places[1:], 1.0)

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if name in _WITHOUT_RULE:
            self.refused[name] += 1
        elif name in _WEIGHTED:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            if id(weight) not in self._weights:
                self.refused[f"{name} with a weight that is no module's own"] += 1


def _is_activation(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _ruled(
    rule: Any, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any], places: list[int], *more: Any
) -> Tensor:
    """Call a function under a rule; in place where the function itself works in place.

    Args:
        rule: `_Pass` or `_Share`.
        func: the function.
        args: its arguments.
        kwargs: its arguments by name.
        places: which arguments get relevance; other activations count as constants.
        more: the rule's own arguments.
    """
    # What is kept for the way back must not hold the graph, and must not change when the model overwrites its tensors.
    rest = [
        None if place in places else value.detach().clone() if _is_activation(value) else value
        for place, value in enumerate(args)
    ]
    written = [False]

    def call(*values: Tensor) -> Tensor:
        full = list(rest)
        for place, value in zip(places, values, strict=True):
            full[place] = value
        before = values[0]._version
        found = func(*full, **kwargs)
        written[0] = places[0] == 0 and values[0]._version != before
        return found

    found: Tensor = rule.apply(call, *more, *(args[place] for place in places))
    return args[0].copy_(found) if written[0] else found


class _Pass(torch.autograd.Function):
    """Hands relevance on as it is, in equal parts where there are several inputs."""

    @staticmethod
    def forward(ctx: Any, call: Function, part: float, *inputs: Tensor) -> Tensor:
        ctx.part, ctx.shapes = part, [each.shape for each in inputs]
        return call(*(each.clone() for each in inputs))

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(_as_shape(relevance[0] * ctx.part, shape) for shape in ctx.shapes))


class _Share(torch.autograd.Function):
    """Gives each input of a linear function what it contributed to the result (the epsilon rule)."""

    @staticmethod
    def forward(ctx: Any, call: Function, *inputs: Tensor) -> Tensor:
        ctx.call, ctx.inputs = call, [each.clone() for each in inputs]
        return call(*(each.clone() for each in inputs))

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [each.requires_grad_() for each in ctx.inputs]
        with torch.enable_grad():
            output = ctx.call(*(each.clone() for each in inputs))
        sign = torch.where(output < 0, -1.0, 1.0)
        shares = torch.autograd.grad(output, inputs, relevance[0] / (output.detach() + sign * STABILIZER))
        return (None, *(each.detach() * share for each, share in zip(inputs, shares, strict=True)))


def _as_shape(relevance: Tensor, shape: torch.Size) -> Tensor:
    """Return relevance for an input of this shape, which was broadcast, or of which a part was used only."""
    return relevance if relevance.shape == shape else relevance.sum_to_size(shape)
