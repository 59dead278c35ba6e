"""Whether a model's scores lie in 0..1 by how they are made, as behind a sigmoid, or only happen to for one input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from seewhy.errors import RecordingError
from seewhy.recorder.borrow import borrowed
from seewhy.recorder.forward import Forward
from seewhy.recorder.listening import only_here
from seewhy.recorder.tape import Tape
from seewhy.targets import are_between_0_and_1


def bounded(forward: Forward, image: Tensor, scores: Tensor) -> bool:
    """Return whether the scores stay within 0..1 however hard the model's parts are driven.

    That scores lie there for one input proves nothing: a logit may be 0.3. So each part gets noise for its input that is far
    stronger than any feature, then the same with its sign turned. Logits are far off then; what a sigmoid, a clamp, or a mean
    or product of such things made is not, in whatever words the model's author wrote it.

    Args:
        forward: the model.
        image: `(1, channel, *space)`, placed.
        scores: `(1, *output)`, what the model answers about it. If the noise changes nothing, it proves nothing.
    """
    try:
        driven = [_driven(forward, image, sign) for sign in (1, -1)]
    except RecordingError:
        return False  # a part checks what it gets, so that nothing was found out: scores, as of any model
    return all(map(are_between_0_and_1, driven)) and any(not torch.equal(each, scores) for each in driven)


def _driven(forward: Forward, image: Tensor, sign: int) -> Tensor:
    """Return the scores `(1, *output)` where each part gets noise, the same for both signs."""
    with borrowed(forward.module, seed=0), _noise(forward.module, sign):
        return forward.run(image, (), Tape(gradients=False)).detach()


@contextmanager
def _noise(root: nn.Module, sign: int) -> Iterator[None]:
    """Put noise in the place of what each part gets; every hook is gone afterwards, also after an exception."""
    hook = only_here(_replacing(sign))
    with ExitStack() as stack:
        for part in _parts(root):
            stack.callback(part.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _parts(root: nn.Module) -> list[nn.Module]:
    """Return the modules inside that have parameters of their own; the whole model where there is none."""
    own = [part for part in root.modules() if part is not root and _has_parameters(part)]
    return own or [root]


def _has_parameters(part: nn.Module) -> bool:
    return is_parametrized(part) or any(True for _ in part.parameters(recurse=False))


def _replacing(sign: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    def replace(_part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for place, value in enumerate(args):
            if _is_features(value):
                return (*args[:place], _strong(value, sign), *args[place + 1 :]), kwargs
        named = next((name for name, value in kwargs.items() if _is_features(value)), None)
        return None if named is None else (args, {**kwargs, named: _strong(kwargs[named], sign)})

    return replace


def _is_features(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _strong(values: Tensor, sign: int) -> Tensor:
    """Return noise so strong that its fourth power, and sums of those, are still numbers."""
    strength: float = torch.finfo(values.dtype).max ** 0.2
    return sign * strength * torch.randn_like(values)
