"""Batch normalisation folded into the convolution before it, for many runs of one model; its modules are not touched.

In evaluation mode a batch normalisation is an affine map of each channel, so a convolution with other weights gives its
result at once, and a pass over memory is saved. Which pairs there are is learned from one run, function by function: a
convolution by a parameter whose output goes to one batch normalisation and to nothing else. The folded model must then
give the same scores for the same image, and every later run is watched: where the model takes another way, it is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")

SAME = 1e-3
"""Largest difference, as a part of the largest score, at which the folded model counts as the same."""

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
# fmt: off
_NORM_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
# What a module may ask of a convolution's output without using its values.
_TELLING = (
    Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.__len__,
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "is_cuda", "layout", "requires_grad")),
)
# fmt: on
_MARK = "_seewhy_convolved_by"


@dataclass(eq=False)
class _Use:
    """One run of a convolution while pairs are learned: which batch normalisation took its output, and who else."""

    convolution: dict[str, Any]
    norm: dict[str, Any] | None = None
    others: int = 0


@dataclass(frozen=True)
class _Pair:
    """A convolution that is folded.

    Attributes:
        norm: the identity of the batch normalisation's running mean.
        weight: `(channel, ...)`, what the convolution takes instead of its own.
        bias: `(channel,)`.
    """

    norm: int
    weight: Tensor
    bias: Tensor


class Folded:
    """Runs a model with its batch normalisations folded.

    Args:
        pairs: by the identity of the convolution's own weight.
    """

    def __init__(self, pairs: Mapping[int, _Pair]) -> None:
        self._pairs = pairs

    def __call__(self, run: Callable[[], Result]) -> Result:
        """Run; again as the model is, from now on, where it used a convolution's output in another way than before."""
        if self._pairs:
            watch = _Folding(self._pairs)
            with watch:
                result = run()
            if watch.kept:
                return result
            self._pairs = {}
        return run()


def fold(module: nn.Module, run: Callable[[], Tensor]) -> Folded | None:
    """Return the model folded, or None where nothing can be, or where it would not give the same.

    Args:
        module: in evaluation mode, and borrowed.
        run: runs it on one image and returns its scores; called twice, not at all without batch normalisation.
    """
    parts = list(module.modules())
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts):
        return None
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
        return None  # the caller's own hooks shall see what they always see
    with _Learning({id(parameter) for parameter in module.parameters()}) as learning:
        expected = run()
    folded = Folded({id(weight): pair for weight, pair in _pairs(learning.uses, learning.alone)})
    if not folded._pairs:
        return None
    found = folded(run)
    scale = float(expected.abs().max()) or 1.0
    return folded if float((found - expected).abs().max()) <= SAME * scale else None


def _pairs(uses: Sequence[_Use], alone: set[int]) -> Iterator[tuple[Tensor, _Pair]]:
    """Yield a convolution's weight and what it becomes, for each that always goes to the same batch normalisation.

    Args:
        uses: every run of a convolution.
        alone: the running means of batch normalisations that took something else, too.
    """
    convolutions: dict[int, list[_Use]] = {}
    norms: dict[int, set[int]] = {}
    for use in uses:
        weight = id(use.convolution["weight"])
        convolutions.setdefault(weight, []).append(use)
        if use.norm is not None:
            norms.setdefault(id(use.norm["running_mean"]), set()).add(weight)
    for own in convolutions.values():
        convolution, norm = own[0].convolution, own[0].norm
        if norm is None or any(use.others or use.norm is None for use in own):
            continue
        mean = id(norm["running_mean"])
        always = all(id(use.norm["running_mean"]) == mean for use in own if use.norm)
        if always and len(norms[mean]) == 1 and mean not in alone:
            yield convolution["weight"], _folded(convolution, norm)


@torch.no_grad()
def _folded(convolution: Mapping[str, Any], norm: Mapping[str, Any]) -> _Pair:
    """Return the convolution that gives what the batch normalisation would."""
    weight, mean = convolution["weight"], norm["running_mean"]
    scale = (norm["running_var"].double() + norm.get("eps", 1e-5)).rsqrt()
    if norm.get("weight") is not None:
        scale = scale * norm["weight"].double()
    own = convolution.get("bias")
    bias = (0 if own is None else own.double()) - mean.double()
    shift = 0 if norm.get("bias") is None else norm["bias"].double()
    wide = weight.double() * scale.view(-1, *(1,) * (weight.ndim - 1))
    return _Pair(id(mean), wide.to(weight), (bias * scale + shift).to(weight))


class _Learning(TorchFunctionMode):
    """Notes which function takes each convolution's output.

    Args:
        parameters: the identities of the model's own.
    """

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self._parameters = parameters
        self.uses: list[_Use] = []
        self.alone: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = _marked(args, kwargs) if func not in _TELLING else []
        if func is F.batch_norm:
            norm = _named(_NORM_ARGUMENTS, args, kwargs)
            use = getattr(norm["input"], _MARK, None)
            if use is None or use.norm is not None or norm.get("training") or norm["running_mean"] is None:
                self.alone.add(id(norm["running_mean"]))
            else:
                use.norm, taken = {**norm, "input": None}, []
        for use in taken:
            use.others += 1
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            convolution = _named(_CONVOLUTION_ARGUMENTS, args, kwargs)
            if self._foldable(convolution):
                self.uses.append(_Use({**convolution, "input": None}))
                setattr(result, _MARK, self.uses[-1])
        return result

    def _foldable(self, convolution: Mapping[str, Any]) -> bool:
        weight, bias = convolution["weight"], convolution.get("bias")
        exact = weight.dtype in (torch.float32, torch.float64)
        return exact and id(weight) in self._parameters and (bias is None or id(bias) in self._parameters)


class _Folding(TorchFunctionMode):
    """Lets convolutions do what the batch normalisations behind them would.

    Args:
        pairs: by the identity of the convolution's own weight.
    """

    def __init__(self, pairs: Mapping[int, _Pair]) -> None:
        super().__init__()
        self._pairs = pairs
        self._norms = {pair.norm for pair in pairs.values()}
        self._open = 0
        self._astray = False

    @property
    def kept(self) -> bool:
        """Whether each folded convolution's output went to its batch normalisation and to nothing else."""
        return not (self._astray or self._open)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _TELLING:
            return func(*args, **kwargs)
        if func is F.batch_norm:
            norm = _named(_NORM_ARGUMENTS, args, kwargs)
            convolved, mean = norm["input"], id(norm["running_mean"])
            if getattr(convolved, _MARK, None) == mean:
                delattr(convolved, _MARK)
                self._open -= 1
                return convolved
            self._astray |= mean in self._norms
        self._astray |= bool(_marked(args, kwargs))
        if func in _CONVOLUTIONS:
            convolution = _named(_CONVOLUTION_ARGUMENTS, args, kwargs)
            pair = self._pairs.get(id(convolution["weight"]))
            if pair is not None:
                result = func(**{**convolution, "weight": pair.weight, "bias": pair.bias})
                setattr(result, _MARK, pair.norm)
                self._open += 1
                return result
        return func(*args, **kwargs)


def _named(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _marked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the marks of convolutions' outputs among a function's arguments, also inside of lists."""
    found = []
    for each in (*args, *kwargs.values()):
        for value in each if isinstance(each, tuple | list) else (each,):
            if isinstance(value, Tensor) and _MARK in value.__dict__:
                found.append(value.__dict__[_MARK])
    return found
