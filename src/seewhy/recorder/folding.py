"""Batch normalisation folded into the convolution before it, for many runs of one model; its modules are not touched.

In evaluation mode a batch normalisation is an affine map of each channel, so a convolution with other weights gives its
result at once, and a pass over memory is saved. Which pairs there are is learned from one run, function by function: a
convolution by a parameter whose output goes to one batch normalisation and to nothing else. The folded model must then
give the same scores for the same images. Every later run is watched: where the model takes another way, it is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from seewhy.recorder.memory import is_out_of_memory
from seewhy.recorder.watching import Watching

Result = TypeVar("Result")

SAME = 1e-4
"""Largest difference, as a part of how far scores lie from their mean, at which the folded model counts as the same."""

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
# fmt: off
_NORM_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
# What a module may ask of a convolution's output without using its values.
_TELLING = (
    Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.__len__,
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "is_cuda", "layout")),
)
# fmt: on
_MARK = "_seewhy_convolved"

Call = dict[str, Any]
"""One call of a function: its arguments by their names, without the input."""


@dataclass(eq=False)
class _Use:
    """One run of a convolution while pairs are learned: which batch normalisation took its output, and who else."""

    convolution: Call
    norm: Call | None = None
    others: int = 0


@dataclass(frozen=True, eq=False)
class _Pair:
    """A convolution and its batch normalisation, as they are always called, and what does the work of both.

    Attributes:
        convolution: its call.
        norm: its call.
        weight: `(channel, ...)`, what the convolution takes instead of its own.
        bias: `(channel,)`.
    """

    convolution: Call
    norm: Call
    weight: Tensor
    bias: Tensor


class Folded:
    """Runs a model with its batch normalisations folded.

    Args:
        pairs: by the identity of the convolution's own weight.
    """

    def __init__(self, pairs: Mapping[int, _Pair]) -> None:
        self.pairs = pairs

    def __call__(self, run: Callable[[], Result]) -> Result:
        """Run; again as the model is, from now on, where it goes another way than before or cannot be run folded.

        What a folded run raises is not told: either it is the folding's, or the model's own run raises it as well.
        """
        if self.pairs:
            watch = _Folding(self.pairs)
            try:
                with watch:
                    result = run()
                if watch.kept:
                    return result
            except Exception as error:
                if is_out_of_memory(error):
                    raise
            self.pairs = {}
        return run()


def fold(module: nn.Module, run: Callable[[], Tensor]) -> Folded | None:
    """Return the model folded, or None where nothing can be, or where it would not give the same.

    Args:
        module: in evaluation mode, and borrowed.
        run: runs it on two different images and returns their scores; called twice, not at all without batch normalisation.
    """
    parts = list(module.modules())
    if _heard(parts) or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts):
        return None
    own = (*module.parameters(), *module.buffers())
    try:
        with _Learning({id(tensor) for tensor in own}) as learning:
            expected = run()
        folded = Folded(dict(_pairs(learning)))
        if not folded.pairs:
            return None
        found = folded(run)
    except Exception:  # noqa: BLE001 - a rehearsal is not asked for: what the model itself raises, its next run does as well
        return None
    spread = float((expected - expected.mean()).abs().max())
    return folded if folded.pairs and float((found - expected).abs().max()) <= SAME * spread else None


def _heard(parts: Sequence[nn.Module]) -> bool:
    """Return whether somebody's hooks listen: they shall see what they always see."""
    everywhere = torch.nn.modules.module
    return bool(everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks) or any(
        part._forward_hooks or part._forward_pre_hooks for part in parts
    )


def _pairs(learning: _Learning) -> Iterator[tuple[int, _Pair]]:
    """Yield each convolution that always goes to the same batch normalisation, which takes nothing else."""
    by_weight: dict[int, list[_Use]] = {}
    by_norm: dict[int, set[int]] = {}
    for use in learning.uses:
        weight = id(use.convolution["weight"])
        by_weight.setdefault(weight, []).append(use)
        if use.norm is not None:
            by_norm.setdefault(id(use.norm["running_mean"]), set()).add(weight)
    for weight, uses in by_weight.items():
        convolution, norm = uses[0].convolution, uses[0].norm
        if norm is None or id(norm["running_mean"]) in learning.shared or len(by_norm[id(norm["running_mean"])]) > 1:
            continue
        if all(
            not use.others and _alike(use.convolution, convolution) and use.norm is not None and _alike(use.norm, norm)
            for use in uses
        ):
            yield weight, _folded(convolution, norm)


def _alike(call: Call, other: Call) -> bool:
    """Return whether two calls have the same tensors, not only equal ones, and equal other arguments."""
    return call.keys() == other.keys() and all(
        call[name] is value or (not isinstance(value, Tensor) and call[name] == value) for name, value in other.items()
    )


def _folded(convolution: Call, norm: Call) -> _Pair:
    """Return what gives at once what the convolution and the batch normalisation give."""
    exact = torch.float32 if convolution["weight"].device.type == "mps" else torch.float64  # which MPS does not have

    def read(call: Call, name: str, otherwise: float) -> Tensor:
        value: Tensor | None = call.get(name)
        mean: Tensor = norm["running_mean"]
        return mean.new_full((), otherwise, dtype=exact) if value is None else value.detach().to(exact)

    scale = read(norm, "weight", 1.0) * (read(norm, "running_var", 1.0) + norm.get("eps", 1e-5)).rsqrt()
    bias = read(norm, "bias", 0.0) + (read(convolution, "bias", 0.0) - read(norm, "running_mean", 0.0)) * scale
    weight = convolution["weight"].detach()
    wide = weight.to(exact) * scale.view(-1, *(1,) * (weight.ndim - 1))
    return _Pair(convolution, norm, wide.to(weight.dtype), bias.to(weight.dtype))


class _WatchingValues(Watching):
    """Sees only those functions that use a tensor's values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (
            func(*args, **(kwargs or {})) if func in _TELLING else super().__torch_function__(func, types, args, kwargs)
        )


class _Learning(_WatchingValues):
    """Notes which function takes each convolution's output.

    Args:
        own: the identities of the model's parameters and buffers.
    """

    def __init__(self, own: set[int]) -> None:
        super().__init__()
        self._own = own
        self.uses: list[_Use] = []
        self.shared: set[int] = set()
        """Running means of batch normalisations that took something else, too."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        taken: Sequence[_Use] = _marks(args, kwargs)
        if func is F.batch_norm:
            taken = self._note_norm(*_named(_NORM_ARGUMENTS, args, kwargs), taken)
        for use in taken:
            use.others += 1
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            _, call = _named(_CONVOLUTION_ARGUMENTS, args, kwargs)
            if self._is_own(call, ("weight", "bias")) and _precise(result, call["weight"]):
                self.uses.append(_Use(call))
                setattr(result, _MARK, self.uses[-1])
        return result

    def _note_norm(self, given: Tensor, call: Call, taken: Sequence[_Use]) -> Sequence[_Use]:
        """Note a batch normalisation; return the uses of convolutions' outputs that are not such a pair's."""
        use = getattr(given, _MARK, None)
        names = ("running_mean", "running_var", "weight", "bias")
        fits = not call.get("training") and call.get("running_mean") is not None and self._is_own(call, names)
        if use is None or use.norm is not None or not fits:
            self.shared.add(id(call.get("running_mean")))
            return taken
        use.norm = call
        return [each for each in taken if each is not use]

    def _is_own(self, call: Call, names: Sequence[str]) -> bool:
        return all(call.get(name) is None or id(call[name]) in self._own for name in names)


class _Folding(_WatchingValues):
    """Lets convolutions do what the batch normalisations behind them would.

    A folded convolution's output is handed on as an alias that is marked with the true one; the batch normalisation gives
    back the true one, and whoever else takes the alias, then or later, is seen.

    Args:
        pairs: by the identity of the convolution's own weight.
    """

    def __init__(self, pairs: Mapping[int, _Pair]) -> None:
        super().__init__()
        self._pairs = pairs
        self._norms = {id(pair.norm["running_mean"]) for pair in pairs.values()}
        self._open = 0
        self._astray = False

    @property
    def kept(self) -> bool:
        """Whether each folded convolution's output went to its batch normalisation and to nothing else."""
        return not (self._astray or self._open)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is F.batch_norm:
            given, call = _named(_NORM_ARGUMENTS, args, kwargs)
            pair, result = getattr(given, _MARK, (None, None))
            if pair is not None and result is not None and _alike(call, pair.norm):
                setattr(given, _MARK, (pair, None))
                self._open -= 1
                return result
            self._astray |= id(call.get("running_mean")) in self._norms
        self._astray |= bool(_marks(args, kwargs))
        if func in _CONVOLUTIONS:
            given, call = _named(_CONVOLUTION_ARGUMENTS, args, kwargs)
            pair = self._pairs.get(id(call["weight"]))
            if pair is not None:
                return self._convolved(func, given, call, pair)
        return func(*args, **kwargs)

    def _convolved(self, func: Any, given: Tensor, call: Call, pair: _Pair) -> Tensor:
        self._astray |= not _alike(call, pair.convolution)
        result: Tensor = func(**{**call, "input": given, "weight": pair.weight, "bias": pair.bias})
        self._astray |= not _precise(result, pair.weight)
        alias = result.detach()
        setattr(alias, _MARK, (pair, result))
        self._open += 1
        return alias


def _precise(result: Tensor, weight: Tensor) -> bool:
    """Return whether a convolution was made in single or double precision, as its weight is (autocast may change that)."""
    return result.dtype == weight.dtype and weight.dtype in (torch.float32, torch.float64)


def _named(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Call]:
    """Return a call's input, and its other arguments by their names."""
    call = {**dict(zip(names, args, strict=False)), **kwargs}
    return call.pop("input"), call


def _marks(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the marks of convolutions' outputs among a function's arguments, also inside of lists."""
    found = []
    for each in (*args, *kwargs.values()):
        for value in each if isinstance(each, tuple | list) else (each,):
            if isinstance(value, Tensor) and _MARK in value.__dict__:
                found.append(value.__dict__[_MARK])
    return found
