"""Layer-wise relevance propagation as other derivatives: an input times the derivative it then gets is its relevance.

The models' modules are not touched. While a model runs, the functions of torch that it calls keep their values, and some get
another derivative in the graph. The own derivative of a linear function is the rule LRP-0 already: where y = W x, the part of
relevance R that x_i brought about is x_i times the sum over j of w_ij R_j / y_j. So rules are needed only for what curves, what
multiplies activations and what normalises.

Source: Achtibat et al. 2024, arXiv:2402.05602 (the rules); Arras et al. 2025, arXiv:2502.15886 (as derivatives).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from seewhy.recorder.attention import attended_values, attention_weights, fused_arguments, seen_inside
from seewhy.recorder.watching import Watching

_WEIGHTED = frozenset({"linear", *(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3))})
_ADDED_PRODUCTS = frozenset({"addmm", "addbmm", "baddbmm", "addcmul"})
# What calls functions that have rules: attention, and a backward that runs parts of a model again to save memory.
_FOLLOWED = {each: seen_inside(each) for each in (F.multi_head_attention_forward, torch.autograd.grad)}
# As the graph calls a sigmoid, and what it may go through on its way to what it weighs.
_GATES = frozenset({"Sigmoid", "Hardsigmoid"})
# fmt: off
_VIEWS = frozenset({
    "Alias", "Clone", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "ToCopy",
    "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View",
})
_NORM_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "instance_norm": ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
}
# fmt: on

Function = Callable[..., Tensor]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


@dataclass(frozen=True)
class Propagation:
    """The rules of AttnLRP, to be on while a model runs and while its derivatives are taken, with its parameters frozen.

    - A function of each value by itself hands on what it gets: y counts as x times the constant y / x.
    - A norm's deviation is a constant, its mean is not; so is everything that is divided by.
    - A product of activations, as of attention weights and values: each gets an equal part. A sigmoid that weighs others gets
      nothing, so that x times sigmoid(x) is what SiLU is.
    - Softmax, and all that is linear: its own derivative.

    Not seen is what does not call torch's functions from Python: scripted and traced parts, kernels of other libraries.

    Attributes:
        gamma: how much more those parts of a linear layer's or a convolution's sum count that have the sum's own sign.
    """

    gamma: float = 0.0

    def on(self) -> Watching:
        """Return a context in which all functions follow the rules."""
        return _Propagating(self.gamma)


class _Propagating(Watching):
    """Gives the functions that are called on activations their rules."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self._gamma = gamma

    def call(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run one function, by its rule where it has one and a derivative goes through it."""
        if func in _FOLLOWED:
            with self:
                return _FOLLOWED[func](*args, **kwargs)
        name = getattr(func, "__name__", "").split(".")[0].strip("_")
        rule = self._weighted if name in _WEIGHTED else _RULES.get(name)
        if rule is None or not torch.is_grad_enabled() or not any(_is_active(each) for each in _flat(args, kwargs)):
            return func(*args, **kwargs)
        if "input" in kwargs:
            args, kwargs = (kwargs["input"], *args), {key: each for key, each in kwargs.items() if key != "input"}
        return rule(func, args, kwargs)

    def _weighted(self, func: Function, args: Args, kwargs: Kwargs) -> Tensor:
        """Run a linear layer or a convolution; one whose weight is an activation is a product."""
        more = dict(kwargs)
        inputs, weight, bias = (
            *args[:3],
            *(more.pop(key, None) for key in ("input", "weight", "bias")[len(args[:3]) :]),
        )
        if _is_active(weight):
            return _product(func, args, kwargs)
        if not self._gamma:
            return func(*args, **kwargs)

        def linear(values: Tensor, by: Tensor) -> Tensor:
            return func(values, by, None, *args[3:], **more)

        found = func(*args, **kwargs).detach()
        column = found.new_zeros(1) if bias is None else bias.view(-1, *(1,) * (weight.ndim - 2))
        # The parts of the sum that are positive are all in `positive`, the others in what is left of it.
        plain = linear(inputs, weight)
        positive = linear(inputs.clamp(min=0), weight.clamp(min=0)) + linear(inputs.clamp(max=0), weight.clamp(max=0))
        above = plain + column + self._gamma * (positive + column.clamp(min=0))
        below = plain + column + self._gamma * (plain - positive + column.clamp(max=0))
        counted = torch.where(found > 0, above, below)
        return _counted_as(counted, found, torch.where(counted == 0, 0, found / counted).detach())


def _curved(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a function of each value, or a norm without a mean: what it gives counts as the input times a constant."""
    inputs = args[0]
    with torch.no_grad():
        given = inputs.clone()
        found = func(given, *args[1:], **kwargs)
        in_place = given._version > 0
        # At 0 the constant is the derivative there.
        apart = inputs.masked_fill(inputs == 0, torch.finfo(inputs.dtype).eps)
        slope = func(apart.clone(), *args[1:], **kwargs) / apart
    found = _counted_as(inputs, found, slope)
    return inputs.copy_(found) if in_place else found


def _power(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a power: with a negative exponent something is divided by, with another activation as exponent there is no rule."""
    exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
    if not isinstance(exponent, int | float) or not _is_active(args[0]):
        return func(*args, **kwargs)
    return (_constant if exponent < 0 else _curved)(func, args, kwargs)


def _centred(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a norm that takes the mean off: the deviation it divides by is a constant."""
    names = _NORM_ARGUMENTS[func.__name__]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    inputs, weight = given["input"], given.get("weight")
    if func.__name__ == "instance_norm" and not given.get("use_input_stats", True):
        return func(*args, **kwargs)  # by constants already
    if "normalized_shape" in given:
        groups = inputs.flatten(-len(given["normalized_shape"]))
    else:
        groups = inputs.reshape(len(inputs), given.get("num_groups", inputs.shape[1]), -1)
        weight = None if weight is None else weight.view(-1, *(1,) * (inputs.ndim - 2))
    groups = groups.to(torch.promote_types(inputs.dtype, torch.float32))
    centred = groups - groups.mean(-1, keepdim=True)
    with torch.no_grad():
        found = func(*args, **kwargs)
        slope = (centred.square().mean(-1, keepdim=True) + given.get("eps", 1e-5)).rsqrt().expand_as(centred)
        slope = slope.reshape(inputs.shape) * (1 if weight is None else weight)
    return _counted_as(centred.reshape(inputs.shape), found, slope)


def _product(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a product: activations get equal parts, but a gate nothing; what is only added to a product is no factor."""
    name = func.__name__
    in_place = name.endswith("_") and not name.startswith("__")
    first = int(name.strip("_") in _ADDED_PRODUCTS)
    factors = [each for each in _flat(args[first:], {}) if _is_active(each)]
    weighed = [each for each in factors if not _is_gate(each)] or factors
    if len(factors) < 2:
        return func(*args, **kwargs)

    def shared(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [shared(each) for each in value]
        if not _is_active(value):
            return value
        if not any(value is each for each in weighed):
            return value.detach()
        return _counted_as(value, value.clone() if in_place else value, 1 / len(weighed))

    parts = (*args[:first], *map(shared, args[first:]))
    if not in_place:
        return func(*parts, **kwargs)
    return cast("Tensor", args[0].copy_(getattr(Tensor, name[:-1])(*parts, **kwargs)))


def _ratio(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a division: by a constant."""
    return func(args[0], *(each.detach() if _is_active(each) else each for each in args[1:]), **kwargs)


def _constant(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a function whose result is only multiplied with what it normalises."""
    return func(*args, **kwargs).detach()


def _attention(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run fused attention in the open: queries and keys get half each, then weights and values."""
    given = fused_arguments(args, kwargs)
    if given["query"].is_nested:
        return func(*args, **kwargs)
    value, dropout = given.pop("value"), given.pop("dropout_p", 0.0)
    given["query"], given["key"] = _halves(given["query"], given["key"])
    return attended_values(*_halves(attention_weights(**given), value), dropout)


def _cosine(func: Function, args: Args, kwargs: Kwargs) -> Tensor:
    """Run a cosine: a product of two vectors, each divided by its length."""
    names = ("input", "x2", "dim", "eps")
    given = {"dim": 1, **dict(zip(names, args, strict=False)), **kwargs}
    pair = (given.pop("x1", given.get("input")), given["x2"])
    with torch.no_grad():
        found = func(*args, **kwargs)
    units = (
        each / each.detach().norm(dim=given["dim"], keepdim=True).clamp_min(given.get("eps", 1e-8)) for each in pair
    )
    left, right = _halves(*units)
    return _counted_as((left * right).sum(given["dim"]), found, 1.0)


def _halves(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return two factors so that each gets half where both are activations."""
    if not (_is_active(left) and _is_active(right)):
        return left, right
    return _counted_as(left, left, 0.5), _counted_as(right, right, 0.5)


def _counted_as(source: Tensor, values: Tensor, slope: Tensor | float) -> Tensor:
    """Return values whose derivative by `source` is `slope`, element by element."""
    return cast("Tensor", _Counted.apply(source, [values.detach()], slope))


class _Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, values: list[Tensor], slope: Tensor | float) -> Tensor:
        ctx.slope, ctx.dtype = slope, source.dtype
        return values[0]  # from a list, so that a model may go on in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (gradients[0] * ctx.slope).to(ctx.dtype), None, None


def _is_active(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_gate(value: Tensor) -> bool:
    """Return whether a tensor is what a sigmoid gave, perhaps seen in another shape."""
    node = value.grad_fn
    while node is not None and _step(node.name()) in _VIEWS:
        node = node.next_functions[0][0]
    return node is not None and _step(node.name()) in _GATES


def _step(node: str) -> str:
    """Return what a node of the graph undoes: "View" for "ViewBackward0"."""
    return node.rstrip("0123456789").removesuffix("Backward")


def _flat(args: Args, kwargs: Kwargs) -> Iterator[Any]:
    """Yield arguments one by one, also those in lists."""
    for each in (*args, *kwargs.values()):
        yield from each if isinstance(each, list | tuple) else (each,)


# fmt: off
_RULES: dict[str, Function] = {
    # Each gives 0 for 0. Those made of straight lines through 0, as ReLU, have this derivative by themselves.
    **dict.fromkeys((
        "celu", "elu", "gelu", "hardshrink", "hardswish", "hardtanh", "mish", "normalize", "relu6", "rms_norm", "selu", "silu",
        "softshrink", "softsign", "sqrt", "square", "tanh", "tanhshrink",
    ), _curved),
    **dict.fromkeys(_NORM_ARGUMENTS, _centred),
    **dict.fromkeys(("mul", "multiply", "matmul", "mm", "bmm", "mv", "dot", "einsum", *_ADDED_PRODUCTS), _product),
    **dict.fromkeys(("div", "divide", "true_divide"), _ratio),
    **dict.fromkeys(("rdiv", "rtruediv", "reciprocal", "rsqrt"), _constant),
    "pow": _power,
    "scaled_dot_product_attention": _attention,
    "cosine_similarity": _cosine,
}
# fmt: on
