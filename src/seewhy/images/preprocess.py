"""From a picture to the model's input, with the geometry kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.errors import ImageError
from seewhy.images.callable import CallablePreprocess
from seewhy.images.geometry import Geometry
from seewhy.images.read import PIXEL_LIMIT, Picture

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Fit = Literal["crop", "squash", "letterbox", "border", "whole"]
Rounding = Literal["even", "down"]
Colours = Literal["rgb", "bgr"]
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@runtime_checkable
class Preprocessing(Protocol):
    """What turns a picture into a model's input."""

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """Return the input `(channel, height, width)` and where it came from."""

    def to_display(self, image: Float[Tensor, " channel *space"]) -> npt.NDArray[np.uint8] | None:
        """Return the input as an RGB picture again, or None where that is not known."""


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop or letterbox, and normalise, as image classifiers do.

    Attributes:
        size: height and width of the model's input, in pixels.
        resize: height and width to scale to before the crop; None means `size`. With fit "crop" the shorter side is
            scaled to it and the longer one keeps the picture's proportions.
        fit: "crop" the centre; "squash" to `resize` without regard to proportions; "letterbox": keep all, with a border;
            "border": scale the longer side to `resize`, then crop or add a border; "whole": keep all, without a border, the
            shorter side scaled to the smaller number of `resize`, the longer one to at most the larger, whatever `size` is.
        interpolation: a PIL filter by name.
        mean, std: per channel, for values in 0..1; one number stands for all, and a grey input takes the average.
        channels: 3, or 1 for models of grey pictures.
        scale: the value that white has before `mean` and `std` are applied (1 for nearly all, 255 for some).
        fill: the border's value, 0..255, one or one a channel.
        rounding: where a crop begins that cannot lie in the middle: at the even pixel, as torchvision does, or the one
            before, as Hugging Face does; and whether fit "whole" gives the longer side its nearest length, or cuts it down.
        multiple: fit "whole" cuts both sides down to a multiple of this.
        colours: the order of the model's colour channels, "rgb" or "bgr"; `mean` and `std` are in this order.
    """

    size: tuple[int, int] = (224, 224)
    resize: tuple[int, int] | None = (256, 256)
    fit: Fit = "crop"
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    scale: float = 1.0
    fill: int | tuple[int, ...] = 0
    rounding: Rounding = "even"
    multiple: int = 1
    colours: Colours = "rgb"

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise ImageError(f"Interpolation '{self.interpolation}' is not known. Known: {', '.join(_FILTERS)}.")
        if self.fit not in get_args(Fit):
            raise ImageError(f"fit='{self.fit}' is not known. Known: {', '.join(get_args(Fit))}.")
        if self.rounding not in get_args(Rounding):
            raise ImageError(f"rounding='{self.rounding}' is not known. Known: {', '.join(get_args(Rounding))}.")
        if self.colours not in get_args(Colours):
            raise ImageError(f"colours='{self.colours}' is not known. Known: {', '.join(get_args(Colours))}.")
        object.__setattr__(self, "size", _pair(self.size, "size"))
        object.__setattr__(self, "resize", None if self.resize is None else _pair(self.resize, "resize"))
        object.__setattr__(self, "mean", _per_channel(self.mean, "mean", self.channels))
        object.__setattr__(self, "std", _per_channel(self.std, "std", self.channels))
        object.__setattr__(self, "fill", self.fill if isinstance(self.fill, int) else tuple(self.fill))
        if not all(self.std):
            raise ImageError(f"std={self.std} holds a zero; the input would not be finite.")

    def __call__(self, picture: Picture) -> tuple[Float[Tensor, "channel height width"], Geometry]:
        """Return the model's input and where each of its pixels came from."""
        height, width = picture.pixels.shape[:2]
        geometry = Geometry.identity((height, width), orientation=picture.orientation)
        scaled = self._scaled_size(height, width)
        if self.channels not in (1, 3):
            raise ImageError(
                f"A picture gives 1 or 3 channels; the model takes {self.channels}. Give a float tensor (C, H, W) instead."
            )
        if scaled[0] * scaled[1] > PIXEL_LIMIT:
            raise ImageError(
                f"'{picture.name}' is {width} x {height} pixels and would be scaled to {scaled[1]} x {scaled[0]}, over the "
                f"limit of {PIXEL_LIMIT:,} pixels. Crop it, or prepare it with fit='letterbox' or 'squash'."
            )
        image = Image.fromarray(picture.pixels)
        image = image.convert("L") if self.channels == 1 else image
        if scaled != (height, width):
            image = image.resize(scaled[::-1], _FILTERS[self.interpolation])
            geometry = geometry.resized(scaled)
        if scaled != self.size and self.fit != "whole":
            image, geometry = self._centred(image, geometry)
        return self._normalised(np.array(image)), geometry

    @property
    def largest(self) -> float:
        """The largest absolute value that black or white has in the model's input."""
        return max(
            max(abs(mean), abs(self.scale - mean)) / abs(std) for mean, std in zip(self.mean, self.std, strict=True)
        )

    def to_display(self, image: Float[Tensor, " channel *space"]) -> npt.NDArray[np.uint8] | None:
        """Return an input as `(*space, 3)` uint8 RGB, or None when it is not a normalised picture."""
        if image.shape[0] not in (1, 3) or image.shape[0] != self.channels:
            return None
        mean, std = self._statistics(image.ndim - 1)
        unit = (image.float().cpu() * std + mean) / self.scale
        if unit.min() < -0.05 or unit.max() > 1.05:
            return None
        unit = unit.flip(0) if self.colours == "bgr" else unit
        values = (unit.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
        return np.array(np.broadcast_to(values, (*values.shape[:-1], 3)), order="C")

    def __str__(self) -> str:
        """Return the steps as one readable line."""
        resize = self.resize or self.size
        how = {
            "crop": f"shorter side to {min(resize)}, centre crop",
            "squash": "stretch",
            "letterbox": "letterbox",
            "whole": f"shorter side to {min(resize)}, longer side to at most {max(resize)}, nothing cropped",
            "border": f"longer side to {max(resize)}, centre crop or border",
        }
        to = "" if self.fit == "whole" else f" to {self.size[0]}x{self.size[1]}"
        return f"{how[self.fit]}{to} ({self.interpolation}), mean {self.mean}, std {self.std}{', BGR' * (self.colours == 'bgr')}"

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        target_height, target_width = self.resize or self.size
        if self.fit == "squash":
            return target_height, target_width
        if self.fit == "whole":
            short, long = self._whole_size(*sorted((height, width)))
            return (short, long) if height <= width else (long, short)
        if self.fit == "letterbox":
            target_height, target_width = self.size
        if self.fit in ("letterbox", "border"):
            ratio = max(height / target_height, width / target_width)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        if target_height == target_width:  # torchvision's rule: the longer side is truncated to a whole pixel
            short = min(height, width)
            return (
                (target_height, int(target_height * width / short))
                if height == short
                else (int(target_width * height / short), target_width)
            )
        ratio = min(height / target_height, width / target_width)  # timm's rule: both are rounded
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _whole_size(self, short: int, long: int) -> tuple[int, int]:
        """Return how long the shorter and the longer side become, in the order of steps of Hugging Face's detectors."""
        least, most = sorted(self.resize or self.size)
        exact = most * short / long if long / short * least > most else least
        new_short, new_long = round(exact), exact * long / short
        if new_short == short:
            new_long = long
        sides = new_short, int(new_long) if self.rounding == "down" else round(new_long)
        return max(1, sides[0] - sides[0] % self.multiple), max(1, sides[1] - sides[1] % self.multiple)

    def _centred(self, image: Image.Image, geometry: Geometry) -> tuple[Image.Image, Geometry]:
        """Crop the centre; where the image is smaller than the size, a border is added."""
        top = _centre(image.height, self.size[0], self.rounding)
        left = _centre(image.width, self.size[1], self.rounding)
        fill = (self.fill,) * 3 if isinstance(self.fill, int) else self.fill
        canvas = Image.new(image.mode, self.size[::-1], fill[0] if image.mode == "L" else fill)
        canvas.paste(image, (-left, -top))
        return canvas, geometry.cropped((top, left), self.size)

    def _normalised(self, pixels: npt.NDArray[np.uint8]) -> Float[Tensor, "channel height width"]:
        values = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).float() / 255 * self.scale
        values = values.flip(0) if self.colours == "bgr" else values
        mean, std = self._statistics(2)
        return (values - mean) / std

    def _statistics(self, axes: int) -> tuple[Tensor, Tensor]:
        shape = (-1, *(1,) * axes)
        return torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)


def as_preprocessing(
    given: Preprocessing | Mapping[str, Any] | Callable[[Image.Image], Any], base: Preprocessing | None = None
) -> Preprocessing:
    """Accept what a caller gives as `preprocess=`: a Preprocess, its fields in a dict, torchvision transforms, any callable.

    Args:
        given: what the caller gives. With fit "squash" or "letterbox", or another size, the whole picture is scaled to the
            size unless `resize` is given too.
        base: the model's own preprocessing, which a dict changes.

    Raises:
        ImageError: unknown field, or neither a mapping nor callable.
    """
    if isinstance(given, Preprocessing):
        return given
    if isinstance(given, Mapping):
        known = {field.name for field in fields(Preprocess)}
        if unknown := set(given) - known:
            raise ImageError(f"preprocess= does not know {sorted(unknown)}. It knows: {', '.join(sorted(known))}.")
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        changes = {"resize": None, **plain} if {"fit", "size"} & set(plain) else plain
        return replace(base, **changes) if isinstance(base, Preprocess) else Preprocess(**changes)
    if callable(given):
        return from_torchvision(given) or CallablePreprocess(given)
    raise ImageError(
        f"preprocess= takes a Preprocess, a dict of its fields or a callable, not a {type(given).__name__}."
    )


def from_torchvision(transform: Any) -> Preprocess | None:
    """Read a Preprocess off torchvision's classification preset or a Compose of the usual steps; None if it has others."""
    if type(transform).__name__ == "ImageClassification" and hasattr(transform, "crop_size"):
        resize, crop = transform.resize_size[0], transform.crop_size[0]
        return Preprocess(
            size=(crop, crop),
            resize=(resize, resize),
            interpolation=transform.interpolation.value,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        )
    steps = getattr(transform, "transforms", None)
    if steps is None:
        return None
    found = Preprocess(size=(1, 1), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    cropped = is_tensor = is_unit = False
    for step in steps:
        name = type(step).__name__
        if name in _TO_TENSOR:
            is_tensor = True
            is_unit = is_unit or _makes_unit(name, step)
            continue
        if name == "Resize" and is_tensor and not getattr(step, "antialias", True):
            return None
        following = _with_step(found, name, step)
        if following is None:
            return None
        found = following
        cropped = cropped or name == "CenterCrop"
    return found if is_unit and (cropped or found.fit == "squash") else None


_TO_TENSOR = ("ToTensor", "MaybeToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "ToDtype")


def _makes_unit(name: str, step: Any) -> bool:
    """Return whether a torchvision step turns 0..255 into 0..1."""
    dtype = getattr(step, "dtype", None)
    is_float = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    return name in ("ToTensor", "MaybeToTensor") or (
        is_float and (name == "ConvertImageDtype" or bool(getattr(step, "scale", False)))
    )


def _with_step(so_far: Preprocess, name: str, step: Any) -> Preprocess | None:
    """Return the preprocessing with one torchvision step added, or None when the step is not a plain one."""
    if name == "Normalize":
        return replace(so_far, mean=tuple(map(float, step.mean)), std=tuple(map(float, step.std)))
    if name == "Resize" and so_far.resize is None and getattr(step, "max_size", None) is None:
        size = step.size if isinstance(step.size, int) else tuple(step.size)
        filter_name = getattr(step.interpolation, "value", step.interpolation)  # v2 may keep the plain word
        if filter_name not in _FILTERS:
            return None
        if isinstance(size, tuple) and len(size) == 2:
            return replace(so_far, size=size, resize=size, fit="squash", interpolation=filter_name)
        side = size[0] if isinstance(size, tuple) else size
        return replace(so_far, size=(side, side), resize=(side, side), fit="crop", interpolation=filter_name)
    if name == "CenterCrop" and so_far.resize is not None:
        height, width = (step.size, step.size) if isinstance(step.size, int) else step.size
        return replace(so_far, size=(int(height), int(width)))
    return None


def from_fraction(size: tuple[int, int], crop_fraction: float, crop_mode: str, **rest: Any) -> Preprocess:
    """Return timm's evaluation preprocessing: scale so that the crop is `crop_fraction` of the picture, then crop.

    Args:
        size: height and width of the model's input.
        crop_fraction: timm's `crop_pct`.
        crop_mode: timm's "center", "squash" or "border".
        rest: further fields of :class:`Preprocess`.
    """
    scaled = (math.floor(size[0] / crop_fraction), math.floor(size[1] / crop_fraction))
    if crop_mode == "border":
        fill = tuple(round(255 * value) for value in rest.get("mean", IMAGENET_MEAN))
        return Preprocess(size=size, resize=scaled, fit="border", fill=fill, **rest)
    return Preprocess(size=size, resize=scaled, fit="squash" if crop_mode == "squash" else "crop", **rest)


def _centre(length: int, wanted: int, rounding: Rounding) -> int:
    """Return where a centred piece begins; below 0 where a border has to be added."""
    if length < wanted:
        return -((wanted - length) // 2)
    return (length - wanted) // 2 if rounding == "down" else round((length - wanted) / 2.0)


def _pair(value: Any, name: str) -> tuple[int, int]:
    """Return (height, width) from one number or two."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(numbers) != 2 or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ImageError(
            f"A size must be positive whole numbers, (height, width) or one for both; got {name}={value!r}."
        )
    if numbers[0] * numbers[1] > PIXEL_LIMIT:
        raise ImageError(f"{name}={value!r} is over the limit of {PIXEL_LIMIT:,} pixels.")
    return numbers[0], numbers[1]


def _per_channel(value: Any, name: str, channels: int) -> tuple[float, ...]:
    """Return one number a channel."""
    given = value if isinstance(value, list | tuple) else (value,)
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError) as error:
        raise ImageError(f"{name}={value!r} must be numbers, one a channel.") from error
    if len(numbers) == channels:
        return numbers
    if len(numbers) == 1:
        return numbers * channels
    if channels == 1 and numbers:
        return (sum(numbers) / len(numbers),)
    raise ImageError(f"{name}={value!r} has {len(numbers)} numbers for {channels} channels.")
