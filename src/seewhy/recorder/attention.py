"""Seeing the attention weights of a torch model while it runs, whoever computes them; its modules are not touched.

Three ways lead to attention: torch's `scaled_dot_product_attention`, which hands over no weights, so that they are computed
again from queries and keys; `nn.MultiheadAttention`, whose inside is watched; and a softmax whose result is multiplied with
the values. A mode over torch's functions sees all three in this thread only, and while it is on torch does not take its
fused fast path for whole encoder layers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from seewhy.recorder.listening import Listening
from seewhy.recorder.tape import first_tensor
from seewhy.recorder.watching import Watching

# fmt: off
_FUSED_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
# fmt: on
_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm"})
_MARK = "_seewhy_softmax"

Place = tuple[str, int]
"""A module's name, and the number of this run of it among the runs of all modules."""


@dataclass(eq=False)
class AttentionCall:
    """One run of one attention layer.

    Attributes:
        places: the modules in which it ran, the outermost first.
        weights: as the model multiplies them with the values; part of the graph where derivatives are wanted.
        heads: the same `(batch, heads, queries, keys)`; None where they are not those of whole samples, as in windows.
        block: the name of the largest module in which this attention ran and no other.
        tokens_at: the name of the largest of these that gave tokens, `(batch, tokens, channel)`.
        tokens: what it gave.
    """

    places: tuple[Place, ...]
    weights: Tensor
    heads: Tensor | None
    block: str = ""
    tokens_at: str = ""
    tokens: Tensor | None = None

    @property
    def name(self) -> str:
        """The innermost module in which it ran."""
        return self.places[-1][0] if self.places else ""

    def as_heads(self, values: Tensor) -> Tensor:
        """Return values of the weights' shape as `(batch, heads, queries, keys)` float32."""
        shape = values.shape if self.heads is None else self.heads.shape
        return values.detach().reshape(shape).float()


@dataclass(eq=False)
class AttentionTap:
    """Notes the attention of one forward.

    Attributes:
        batch: how many samples go in.
        gradients: whether the weights begin a graph (or continue it).
        insist: keep the graph on against a `no_grad` in the model's own code.
        calls: what was seen, in order.
    """

    batch: int
    gradients: bool
    insist: bool = False
    calls: list[AttentionCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stack: list[Place] = []
        self._runs = 0

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Watch one forward; what an earlier one gave is forgotten, and every hook is gone afterwards."""
        self.calls.clear()
        self._stack.clear()
        with Listening() as listening:
            for name, module in root.named_modules():
                listening.before(module, self._enter(name))
                listening.after(module, self._leave, always=True)
            listening.enter_context(_Finding(self))
            yield

    def note(self, weights: Tensor, heads: int | None = None) -> Tensor:
        """Note weights that are about to be multiplied with the values, and return those to use instead.

        Args:
            weights: `(batch, heads, queries, keys)`, or with the first two axes as one.
            heads: how many there are, where that is known.
        """
        if self.gradients:
            torch.set_grad_enabled(True)
            weights = weights if weights.requires_grad else weights.detach().requires_grad_()
        self.calls.append(AttentionCall(tuple(self._stack), weights, self._by_heads(weights, heads)))
        return weights

    def keep_on(self) -> None:
        """Switch the graph on again, if it has begun and is to be kept."""
        if self.insist and self.calls:
            torch.set_grad_enabled(True)

    def _by_heads(self, weights: Tensor, heads: int | None) -> Tensor | None:
        if weights.ndim == 4 and len(weights) == self.batch:
            return weights
        if weights.ndim == 3 and heads is None and len(weights) % self.batch == 0:
            heads = len(weights) // self.batch
        whole_samples = weights.ndim == 3 and len(weights) == self.batch * (heads or 0)
        return weights.view(self.batch, -1, *weights.shape[1:]) if whole_samples else None

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._runs += 1
            self._stack.append((name, self._runs))

        return enter

    def _leave(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self._stack:
            return
        place = self._stack.pop()
        inside = [call for call in self.calls[-2:] if place in call.places]
        if len(inside) != 1:
            return
        [call] = inside
        call.block = place[0]
        if (found := first_tensor(output)) is not None and found.ndim == 3:
            call.tokens_at, call.tokens = place[0], found


class _Finding(Watching):
    """Finds attention among the functions that are called."""

    def __init__(self, tap: AttentionTap) -> None:
        super().__init__()
        self._tap = tap
        self._heads: int | None = None  # of the `nn.MultiheadAttention` that runs

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one function, with the weights noted where it is a step of attention."""
        self._tap.keep_on()
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._inside(args, kwargs)
        marked = _largest_marked(args, kwargs)
        if marked is not None and name in _PRODUCTS and len(args) == 2 and args[0].ndim == args[1].ndim:
            return func(*self._product(args))
        if marked is not None and name == "einsum" and (operands := self._summed(*args)) is not None:
            return func(args[0], *operands)
        result = func(*args, **kwargs)
        # What is made of a softmax is followed as long as it is as large: copies, dropout, masks, mixed heads.
        follows = isinstance(result, Tensor) and result.ndim >= 3
        if follows and (name == "softmax" or result.numel() == marked):
            setattr(result, _MARK, True)
        return result

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `multi_head_attention_forward` so that the functions it calls are watched in their turn."""
        self._heads = _MULTI_HEAD_ARGUMENTS.bind(*args, **kwargs).arguments["num_heads"]
        try:
            with self:
                return _multi_head(*args, **kwargs)
        finally:
            self._heads = None

    def _fused(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        given = fused_arguments(args, kwargs)
        query, value, dropout = given["query"], given.pop("value"), given.pop("dropout_p", 0.0)
        if query.is_nested or query.ndim < 3:
            return func(*args, **kwargs)
        weights = self._tap.note(attention_weights(**given))
        return attended_values(weights, value, dropout) if self._tap.gradients else func(*args, **kwargs)

    def _product(self, operands: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the two factors of a matrix product with the weights noted: before the values, or behind them turned."""
        left, right = operands
        if _is_marked(left):
            return self._tap.note(left, self._heads), right
        return left, self._tap.note(right.transpose(-2, -1), self._heads).transpose(-2, -1)

    def _summed(self, equation: Any, *given: Any) -> Sequence[Any] | None:
        """Return einsum's operands with the weights noted, where it sums over the last axis of weights and over no other."""
        if not isinstance(equation, str):
            return None
        operands = list(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else list(given)
        inputs, _, output = equation.replace(" ", "").partition("->")
        subscripts = inputs.split(",")
        for place, (letters, operand) in enumerate(zip(subscripts, operands, strict=False)):
            if _is_marked(operand) and [letter for letter in letters if letter not in output + "."] == [letters[-1]]:
                operands[place] = self._tap.note(operand)
                return operands
        return None


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the weights `(..., heads, queries, keys)` that torch's fused attention uses and does not tell.

    softmax(scale * query key^T + mask), at least in float32; a query that may see no key at all has weights of 0.

    Args:
        query: `(..., heads, queries, channel)`.
        key: `(..., heads, keys, channel)`; fewer heads with `enable_gqa`, each for several of the query's.
        attn_mask: boolean (true: may be seen) or added to the products.
        is_causal: whether a query sees no later key.
        scale: None: one over the root of the channels.
        enable_gqa: whether heads of queries share those of keys.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    wide = query.dtype if query.dtype in (torch.float32, torch.float64) else torch.float32
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = query.to(wide) @ key.to(wide).transpose(-2, -1) * factor
    if is_causal:
        attn_mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return products.softmax(-1)
    boolean = attn_mask.dtype == torch.bool
    products = products.masked_fill(~attn_mask, -math.inf) if boolean else products + attn_mask.to(wide)
    blind = (products == -math.inf).all(-1, keepdim=True)
    return products.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)


def attended_values(weights: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Return what fused attention returns, of weights `(..., heads, queries, keys)` and values `(..., heads, keys, channel)`.

    Args:
        weights: see :func:`attention_weights`.
        value: of as many heads, or of fewer, each for several of the weights'.
        dropout: which part of the weights to drop.
    """
    if value.ndim > 2 and value.shape[-3] not in (1, weights.shape[-3]):
        value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], -3)
    return (F.dropout(weights, dropout) @ value.to(weights.dtype)).to(value.dtype)


def fused_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what torch's fused attention is given, by name."""
    return {**dict(zip(_FUSED_ARGUMENTS, args, strict=False)), **kwargs}


def seen_inside(function: Any) -> Callable[..., Any]:
    """Return a copy of a Python function of torch that, with a mode on, runs instead of handing itself to the mode again."""
    own = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_multi_head = seen_inside(F.multi_head_attention_forward)
_MULTI_HEAD_ARGUMENTS = inspect.signature(F.multi_head_attention_forward)


def _is_marked(value: Any) -> bool:
    return isinstance(value, Tensor) and _MARK in value.__dict__


def _largest_marked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of elements of the largest softmax among a function's arguments, also in lists; None without one."""
    found = [
        value.numel()
        for each in (*args, *kwargs.values())
        for value in (each if isinstance(each, tuple | list) else (each,))
        if _is_marked(value)
    ]
    return max(found, default=None)
