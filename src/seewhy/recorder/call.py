"""How a model is called that takes more than one input: all its arguments, one of which is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Wrt = int | str
"""Which input is explained: a position, or a keyword."""


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one sample's call.

    Attributes:
        args: by position; what stands at the explained place does not count.
        kwargs: by keyword.
        wrt: the explained input's position or keyword.
    """

    args: tuple[Any, ...] = (None,)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrt: Wrt = 0

    def filled(self, images: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return all arguments for these images.

        Args:
            images: `(number, channel, *space)`, the explained input; another tensor or list of one sample stands beside each.
        """
        beside = self.changed(lambda value: _beside(value, images))
        args, kwargs = list(beside.args), dict(beside.kwargs)
        if isinstance(self.wrt, int):
            args[self.wrt] = images
        else:
            kwargs[self.wrt] = images
        return tuple(args), kwargs

    def changed(self, change: Callable[[Any], Any]) -> Call:
        """Return the same call with every input but the explained one changed."""
        args = tuple(value if place == self.wrt else change(value) for place, value in enumerate(self.args))
        return Call(args, {k: v if k == self.wrt else change(v) for k, v in self.kwargs.items()}, self.wrt)

    @property
    def others(self) -> list[Tensor]:
        """The tensors beside the explained input."""
        values = [(place, value) for place, value in (*enumerate(self.args), *self.kwargs.items())]
        return [value for place, value in values if place != self.wrt and isinstance(value, Tensor)]

    @property
    def signature(self) -> tuple[Any, ...]:
        """What decides which layers run: which input is explained, and the others' shapes and plain values."""
        values = (*enumerate(self.args), *sorted(self.kwargs.items()))
        return (self.wrt, *((place, _told(value)) for place, value in values if place != self.wrt))


def is_one_each(value: Any) -> bool:
    """Return whether a list or tuple holds an entry a sample, such as texts; numbers are rather a setting, such as a size."""
    return isinstance(value, list | tuple) and not all(isinstance(each, int | float) for each in value)


def _beside(value: Any, images: Tensor) -> Any:
    """Return another input for as many samples as there are images, where and as precise as they are; a copy."""
    if not isinstance(value, Tensor):
        return value * len(images) if is_one_each(value) and len(value) == 1 else value
    with torch.inference_mode(mode=False):
        value = value.detach().to(images.device, images.dtype if value.is_floating_point() else value.dtype)
        if value.ndim == 0 or value.shape[0] != 1:
            return value.clone()
        return value.expand(len(images), *value.shape[1:]).clone()


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype)
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__
