"""What a model takes, as far as its convolutions say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from seewhy.frameworks import Shell
from seewhy.models.image_text import ImageTower

_KINDS = ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d))
_OF_PICTURES = (1, 3, 4)  # channels that an array of a picture may have


@dataclass(frozen=True)
class Expected:
    """What one convolution takes.

    Attributes:
        axes: spatial axes.
        channels: None where it does not say.
    """

    axes: int = 2
    channels: int | None = None

    def fits(self, array: Any) -> bool:
        """Return whether an array may be such an input: its channels first or last, alone or as a batch of one."""
        shape = tuple(array.shape)
        if len(shape) == self.axes + 2 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) != self.axes + 1:
            return False
        # Grey is repeated for a model of colours, and opacity is dropped.
        known = _OF_PICTURES if self.axes == 2 and self.channels in (1, 3) else (self.channels,)
        return self.channels is None or shape[0] in known or shape[-1] in known

    def takes_as_it_is(self, image: Any) -> bool:
        """Return whether an array is the input itself: a signal or a volume, or of channels that no picture has."""
        if not isinstance(image, np.ndarray | Tensor):
            return False
        if self.axes != 2:
            return True
        is_many = self.channels not in (None, 1, 3) and image.ndim >= 3
        return is_many and self.channels in (image.shape[-3], image.shape[-1])


@dataclass(frozen=True)
class Convolutions:
    """What a model's convolutions take, in the order of its parts; which of them the input meets first, that does not say.

    Attributes:
        each: of a model without convolutions one that says nothing.
    """

    each: tuple[Expected, ...] = (Expected(),)

    @classmethod
    def of(cls, module: nn.Module) -> Convolutions:
        """Return those of a model; of one of images and texts the picture's, since one of one axis is its text tower's."""
        if isinstance(module, ImageTower):
            return cls()
        if isinstance(module, Shell):
            return cls((Expected(module.axes, module.channels),))
        found = [
            Expected(axes, part.in_channels or None)
            for part in module.modules()
            for axes, kind in _KINDS
            if isinstance(part, kind)
        ]
        return cls(tuple(dict.fromkeys(found)) or cls().each)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of all, each number once."""
        return tuple(dict.fromkeys(each.axes for each in self.each))

    def axes_of(self, images: Any) -> int:
        """Return the spatial axes of an input, alone or in a batch: of those that are possible the model's first."""
        first = self.axes[0]
        if not isinstance(images, np.ndarray | Tensor):
            return first
        if is_picture_array(images):
            return 2 if 2 in self.axes else first
        if self.each == (Expected(),) and isinstance(images, Tensor) and images.is_floating_point():
            return {2: 1, 5: 3}.get(images.ndim, first)
        return next((axes for axes in self.axes if images.ndim - axes in (1, 2)), first)

    def for_input(self, image: Any) -> Expected:
        """Return which of them this input is for: the first that it fits, else the first of as many axes."""
        if isinstance(image, np.ndarray | Tensor) and (fitting := [each for each in self.each if each.fits(image)]):
            return fitting[0]
        axes = self.axes_of(image)
        return next((each for each in self.each if each.axes == axes), self.each[0])


def is_picture_array(array: npt.NDArray[Any] | Tensor) -> bool:
    """Return whether an array is of whole numbers 0..255 and of a picture's shape: grey, or with its colours first or last."""
    is_bytes = str(array.dtype).removeprefix("torch.") == "uint8"
    has_colours = array.ndim == 3 and (array.shape[0] in _OF_PICTURES or array.shape[-1] in _OF_PICTURES)
    return is_bytes and (array.ndim == 2 or has_colours)
