"""Other backward rules for ReLU: guided backpropagation and the deconvolutional network, in the functions themselves.

The models' modules are not touched. Every ReLU runs as always; its node in the graph gets a hook that changes what it
hands back. So functional, reused, in-place and checkpointed activations all work, and a graph that was made without the
rule never has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.recorder.watching import Watching

_TITLES: dict[str, str] = {"guided": "Guided backpropagation", "deconvnet": "The deconvolutional network"}

# fmt: off
_ACTIVATIONS = frozenset({
    "celu", "elu", "gelu", "glu", "hardshrink", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid",
    "logsigmoid", "mish", "prelu", "rrelu", "selu", "silu", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "threshold",
})
# fmt: on
_GATES = frozenset({"sigmoid", "hardsigmoid"})

# How the functions that can be a ReLU name their arguments, in order.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "relu": ("input", "inplace"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "threshold": ("input", "threshold", "value", "inplace"),
    "clamp": ("input", "min", "max"),
    "clip": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
}


@dataclass
class Tally:
    """Which activation functions were called while a rule was on.

    Attributes:
        rule: the rule's name.
        relus: calls of a ReLU, in any form.
        ruled: how many of them were in a graph, so that a backward through them follows the rule.
        others: calls of each other activation function; these keep their own derivative.
        gates: calls of sigmoids, which weigh channels rather than activate; these keep theirs too.
    """

    rule: str
    relus: int = 0
    ruled: int = 0
    others: Counter[str] = field(default_factory=Counter)
    gates: Counter[str] = field(default_factory=Counter)


@contextmanager
def relu_rule(rule: str) -> Iterator[Tally]:
    """While it is on, every ReLU in a forward of this thread has another backward; the values are the same.

    "guided" hands back the gradient where the input was in the pass region (above 0, and below 6 for ReLU6) and the
    incoming gradient is positive. "deconvnet" hands back the incoming gradient's positive part, whatever the input was.
    The rule belongs to the graph: the gradient may be taken after the context, more than once, and in any thread. One
    rule at a time. Not seen is what does not call torch's functions from this thread's Python: scripted and traced code,
    threads that the model starts, `torch.vmap`, a ReLU written by hand, such as `x * (x > 0)`. A compiled model should
    run under `torch.compiler.set_stance("force_eager")`.

    Yields:
        The tally of the activation functions; see `refusal` and `note`.

    Raises:
        MethodError: there is no such rule.

    Source: Springenberg et al. 2014, arXiv:1412.6806 (guided); Zeiler & Fergus 2013, arXiv:1311.2901 (deconvnet).
    """
    if rule not in _HOOKS:
        raise MethodError(f"There is no backward rule '{rule}' for ReLU.{did_you_mean(rule, _HOOKS)}")
    tally = Tally(rule)
    with _Listening(tally):
        yield tally


def refusal(tally: Tally, model_name: str) -> str | None:
    """Return why the rule means nothing for this model, or None if it met a ReLU."""
    if tally.relus:
        return None
    found = _listed(tally.others + tally.gates)
    has = (
        f"its activation functions are {found}"
        if found
        else "no activation function was seen (scripted and traced models do not show theirs)"
    )
    return (
        f"{_TITLES[tally.rule]} is defined for ReLU only, and {model_name} has none: {has}. "
        "Use 'integrated-gradients' or 'smoothgrad', which work with any activation function."
    )


def note(tally: Tally) -> str | None:
    """Return what the rule left as it was in a model that has ReLUs, or None if there is nothing else."""
    left = [_listed(tally.others)] if tally.others else []
    if tally.gates:
        left.append(f"the gates {_listed(tally.gates)}")
    if not left or not tally.relus:
        return None
    return (
        f"{_TITLES[tally.rule]} changed {_times('relu', tally.relus)}; {' and '.join(left)} kept their own derivative."
    )


def _listed(calls: Counter[str]) -> str:
    return ", ".join(_times(name, count) for name, count in calls.most_common())


def _times(name: str, count: int) -> str:
    return f"{name} ({count} {'call' if count == 1 else 'calls'})"


class _Listening(Watching):
    """Counts activation functions, and gives ReLUs the rule."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one function; a ReLU by the rule."""
        name = getattr(func, "__name__", "").split(".")[0]  # "relu.default" in exported graphs
        relu = _read_relu(name, args, kwargs)
        if relu is not None:
            return self._run(relu)
        base = name.strip("_")
        if base in _GATES:
            self._tally.gates[base] += 1
        elif base in _ACTIVATIONS:
            self._tally.others[base] += 1
        return func(*args, **kwargs)

    def _run(self, relu: _Relu) -> Tensor:
        self._tally.relus += 1
        if not (torch.is_grad_enabled() and relu.input.requires_grad):
            return relu.forward()
        apart = relu.inplace and not relu.has_own_node()
        output = relu._replace(input=relu.input.clone(), inplace=False).forward() if apart else relu.forward()
        node = output.grad_fn
        while node is not None and node.name().startswith("Alias"):  # subclasses of Tensor wrap what they return
            node = node.next_functions[0][0]
        if node is not None:
            node.register_hook(_HOOKS[self._tally.rule])
            self._tally.ruled += 1
        return relu.input.copy_(output) if apart else output


class _Relu(NamedTuple):
    """One call of a ReLU, in whatever form it was written."""

    function: str
    input: Tensor
    top: float
    inplace: bool

    def forward(self) -> Tensor:
        """Compute it by a function whose own derivative is 0 at the bounds; that of `clamp` is 1 there.

        Of input and output, the graph keeps the one that it would have kept: the model may overwrite the other.
        """
        if self.function == "relu":
            return torch.relu_(self.input) if self.inplace else torch.relu(self.input)
        return F.hardtanh(self.input, 0.0, self.top, inplace=self.inplace)

    def has_own_node(self) -> bool:
        """Return whether the in-place form leaves a node for itself alone, and keeps what the model's own call keeps.

        On a view, the node belongs to the base and does more than a ReLU; `clamp_` keeps a copy of its input.
        """
        return self.function in ("relu", "relu6", "hardtanh") and not self.input._is_view()


def _read_relu(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Relu | None:
    """Return the call as a ReLU, or None if it is none."""
    base = name.strip("_")  # "_threshold" is torch's own name of it
    if base not in _ARGUMENTS or kwargs.get("out") is not None:
        return None
    given = {**dict(zip(_ARGUMENTS[base], args, strict=False)), **kwargs}
    tensor = given.get("input", given.get("self"))
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return None
    top = _top(base, given)
    inplace = name.endswith("_") or bool(given.get("inplace", False))
    return None if top is None else _Relu(base, tensor, top, inplace)


def _top(base: str, given: Mapping[str, Any]) -> float | None:
    """Return the upper bound of a function that cuts at 0 below (infinite for ReLU itself), or None if it does not."""
    if base == "relu":
        return math.inf
    if base == "relu6":
        return 6.0
    if base == "hardtanh":
        top = given.get("max_val", 1.0)
        return float(top) if _is_zero(given.get("min_val")) and top > 0 else None
    if base == "threshold":
        return math.inf if _is_zero(given.get("threshold")) and _is_zero(given.get("value")) else None
    if not _is_zero(given.get("min")):
        return None
    # A clamp to another range, as to that of a picture, is not meant as an activation.
    top = given.get("max")
    return math.inf if top is None else 6.0 if isinstance(top, int | float) and top == 6 else None


def _is_zero(bound: object) -> bool:
    return isinstance(bound, int | float) and bound == 0


_Gradients = tuple[Tensor | None, ...]


def _guided(handed_back: _Gradients, _incoming: _Gradients) -> _Gradients:
    """Where the input passed, what comes in is handed back: so its sign can be read off either."""
    return tuple(_positive(gradient) for gradient in handed_back)


def _deconvnet(_handed_back: _Gradients, incoming: _Gradients) -> _Gradients:
    return tuple(_positive(gradient) for gradient in incoming)


def _positive(gradient: Tensor | None) -> Tensor | None:
    """Return the positive part; not by `clamp`, which a rule would take for a ReLU, and NaN stays."""
    return None if gradient is None else gradient.masked_fill(gradient < 0, 0)


_HOOKS: dict[str, Callable[[_Gradients, _Gradients], _Gradients]] = {"guided": _guided, "deconvnet": _deconvnet}
