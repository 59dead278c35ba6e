"""What "nothing there" looks like, for methods that take parts of an input away or walk to it from an empty one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.errors import ImageError, did_you_mean
from seewhy.images.blur import gaussian_blur
from seewhy.images.preprocess import Preprocessing
from seewhy.images.read import Picture, PictureSource, read

KINDS = ("black", "white", "mean", "blur", "noise", "dataset")
"""The words that :class:`Baselines` knows."""

Kind = PictureSource | int | float | np.integer[Any] | np.floating[Any]

PIXEL_KINDS = ("black", "white", "noise")
"""Those that are pixel values, which have no place in inputs that are no pictures."""

_GREYS = {"black": 0.0, "white": 1.0}
_BLUR = 1 / 16  # of the longer side: 14 pixels of 224; shapes go, light and dark stay
_PROBE = 51 / 255  # a grey that 8 bits hold exactly; it must lie at this part of the way from black to white
_SLACK = 5e-3  # of the way; float16 transforms are this coarse
_WITHOUT_PIXELS = "Use 'mean', 'blur', 'dataset' (zeros), or a float tensor (channel, *space) in the model's units."
_PICTURES = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Tensor)


@dataclass(frozen=True)
class Baselines:
    """Makes baselines in the units of the model's input.

    Attributes:
        preprocess: the model's own way from a picture to its input; it tells what a pixel value is in the model's units.
            None where it is not known: then kinds that speak of pixels are refused.
    """

    preprocess: Preprocessing | None
    _ends: dict[tuple[int, ...], tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(
        self, kind: Kind, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Float[Tensor, "batch channel *space"]:
        """Return one baseline an image; what an image gets does not depend on the batch it is in.

        Args:
            kind: one of

                - "black", "white", or a number 0..1 (or its text): every pixel has this value in every channel;
                - "mean": each image's own mean colour;
                - "blur": each image, blurred with a standard deviation of 1/16 of its longer side, edges repeated;
                - "noise": pixels drawn evenly from 0..1, the same draw for all images;
                - "dataset": the colour that the model's normalisation subtracts, which is a tensor of zeros;
                - a picture (path, bytes, PIL image, array), prepared as the model's images are;
                - a float tensor in the model's units that broadcasts to `(channel, *space)`.

                A word or a number goes before a file of the same name.
            images: the model's input.
            generator: where "noise" is drawn from; nothing else reads it.

        Returns:
            A new tensor of the images' shape, type and device.

        Raises:
            ImageError: the kind is not known, does not fit the input, or needs preprocessing that is not known.
        """
        base = self._base(kind, images.detach(), generator)
        return base.to(images.device, images.dtype).expand_as(images).clone()

    def knows_pixels(self, images: Float[Tensor, "batch channel *space"]) -> bool:
        """Return whether a pixel value ("black", 0.5) has a place in these inputs: not in signals, nor in other channels."""
        if images.ndim < 4:
            return False
        try:
            self._in_model_units(torch.tensor(0.0), "black", images.shape[1:])
        except ImageError:
            return False
        return True

    def _base(self, kind: Kind, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a tensor in the model's units that broadcasts to the images."""
        shape = images.shape[1:]
        if isinstance(kind, Tensor) and kind.is_floating_point():
            return _in_shape(kind.detach(), shape)
        if (value := _pixel_value(kind)) is not None:
            return self._in_model_units(torch.tensor(value), kind, shape)
        word = _word(kind)
        if word == "noise":
            pixels = torch.rand(shape, generator=generator, device=generator.device).cpu()
            return self._in_model_units(pixels, kind, shape)
        if word is not None:
            return _FROM_IMAGES[word](images)
        return self._picture(kind, shape)

    def _in_model_units(self, pixels: Tensor, kind: Kind, shape: torch.Size) -> Tensor:
        """Return pixel values 0..1, which broadcast to `shape`, as the model's preprocessing would have them."""
        if self.preprocess is None:
            raise ImageError(
                f"baseline {named(kind)} is a pixel value, and how pixels become this model's input is not known. "
                + _WITHOUT_PIXELS
            )
        if tuple(shape) not in self._ends:
            self._ends[tuple(shape)] = _black_and_white(self.preprocess, shape)
        black, white = self._ends[tuple(shape)]
        return torch.lerp(black, white, pixels)

    def _picture(self, kind: Kind, shape: torch.Size) -> Tensor:
        if not isinstance(kind, _PICTURES):
            raise ImageError(
                f"A {type(kind).__name__} is not a baseline. Give one of {', '.join(KINDS)}, a number from 0 to 1, a picture, "
                "or a float tensor in the model's units."
            )
        if isinstance(kind, str) and not _may_be_path(kind):
            raise ImageError(
                f"baseline='{kind}' is not known. Known: {', '.join(KINDS)}, a number from 0 to 1, or the path of a picture."
                + did_you_mean(kind.strip(), KINDS)
            )
        if self.preprocess is None:
            raise ImageError(
                "A picture cannot be the baseline: how pictures become this model's input is not known. "
                + _WITHOUT_PIXELS
            )
        picture = read(kind)
        tensor, _ = self.preprocess(picture)
        if tensor.shape != shape:
            raise ImageError(
                f"The baseline '{picture.name}' becomes an input of shape {tuple(tensor.shape)}, but the images have "
                f"{tuple(shape)}. Give a float tensor of that shape in the model's units."
            )
        return tensor


def named(kind: Kind) -> str:
    """Return a baseline in short words, for notes: "black", "0.5", "a picture", "a tensor"."""
    if isinstance(kind, Tensor) and kind.is_floating_point():
        return "a tensor"
    if (word := _word(kind)) is not None:
        return word
    value = _pixel_value(kind)
    return "a picture" if value is None else f"{value:g}"


def _word(kind: Kind) -> str | None:
    """Return the known word that was given, or None."""
    word = kind.strip().casefold() if isinstance(kind, str) else None
    return word if word in KINDS else None


def _pixel_value(kind: Kind) -> float | None:
    """Return the pixel value 0..1 that was given as a word, a number or its text, or None."""
    if (word := _word(kind)) is not None:
        return _GREYS.get(word)
    if isinstance(kind, bool) or not isinstance(kind, Real | str):
        return None
    try:
        value = float(kind)
    except ValueError:
        return None
    if not 0 <= value <= 1:
        raise ImageError(
            f"baseline={kind} is not a pixel value: those go from 0 (black) to 1 (white). Divide 8-bit values by 255."
        )
    return value


def _may_be_path(text: str) -> bool:
    return "." in text or "/" in text or os.sep in text or os.path.isfile(text)  # noqa: PTH113 - Path raises on long names


def _own_mean(images: Tensor) -> Tensor:
    return images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)


def _own_blur(images: Tensor) -> Tensor:
    return gaussian_blur(images, _BLUR * max(images.shape[2:]), edges="repeat")


_FROM_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": _own_mean,
    "blur": _own_blur,
    "dataset": torch.zeros_like,
}


def _black_and_white(preprocess: Preprocessing, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return what black and white are in the model's units, `(channel, 1, ...)` each, by preprocessing plain pictures.

    Raises:
        ImageError: the channels are not the input's, or pixels do not become input by one scale and one offset a channel.
    """
    sides = tuple(shape[1:]) if len(shape) == 3 else (64, 64)
    black, probe, white = (_colour(preprocess, value, sides) for value in (0.0, _PROBE, 1.0))
    if len(black) != shape[0]:
        raise ImageError(
            f"The preprocessing makes {len(black)} channels, but the input has {shape[0]}: what a pixel value is there is not "
            f"known. {_WITHOUT_PIXELS}"
        )
    way = white - black
    if not bool((way != 0).all() and ((probe - black) / way - _PROBE).abs().max() < _SLACK):
        raise ImageError(
            "preprocess= does not turn pixels into the model's input by one scale and one offset a channel, so that a pixel "
            f"value has no fixed place there. {_WITHOUT_PIXELS}"
        )
    ones = (1,) * (len(shape) - 1)
    return black.view(-1, *ones), white.view(-1, *ones)


def _colour(preprocess: Preprocessing, value: float, sides: tuple[int, ...]) -> Float[Tensor, " channel"]:
    """Return a grey 0..1 as preprocessing makes it from a plain picture; its centre, for borders have their own colour."""
    pixels = np.full((*sides, 3), round(value * 255), np.uint8)
    tensor, _ = preprocess(Picture(pixels, f"a plain picture of {value:g}"))
    return tensor[:, tensor.shape[1] // 2, tensor.shape[2] // 2].detach().float().cpu()


def _in_shape(given: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor in the model's units in this shape; a batch axis of 1 may lead.

    Raises:
        ImageError: it does not broadcast, or holds values that are not finite.
    """
    inner = given[0] if given.ndim == len(shape) + 1 and len(given) == 1 else given
    if not bool(torch.isfinite(inner).all()):
        raise ImageError("The baseline tensor holds NaN or infinite values. Replace them before asking.")
    try:
        return inner.expand(shape)
    except RuntimeError as error:
        colour = (shape[0], *(1,) * (len(shape) - 1))
        raise ImageError(
            f"A baseline of shape {tuple(given.shape)} does not fit the input {tuple(shape)}. Give that shape, or {colour} "
            "for one colour."
        ) from error
