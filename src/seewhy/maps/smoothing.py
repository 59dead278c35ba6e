"""Smoothing around any method: over transformed inputs, over noisy inputs, and by the first principal component."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.noise import GaussianNoise
from seewhy.maps.principal import first_component, signed_like
from seewhy.recorder import Recording
from seewhy.targets import put_back

NEEDS_CHANNELS = "smooth='eigen' needs a method whose map is a sum over a layer's channels, such as grad-cam"

Maker = Callable[[Recording], Tensor]
"""From a recording to maps `(batch, *grid)` or `(batch, part, *grid)`."""
Statistic = Literal["mean", "square", "variance"]


@dataclass(frozen=True)
class Transform:
    """One invertible change of the input that keeps its shape.

    Attributes:
        name: in words.
        apply: from `(batch, channel, *space)` to the same shape.
        undo: puts a map `(batch, ..., *grid)` back where it was; questions about places and boxes are put back by it as well.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


def flip(axis: int = -1) -> Transform:
    """Return the reflection along an axis, counted from the end: -1 is left to right."""
    turn = lambda values: values.flip(axis)  # noqa: E731
    return Transform(f"flip {axis}", turn, turn)


def times(factor: float) -> Transform:
    """Return the multiplication of the model's input by a factor; a map stays where it is."""
    return Transform(f"times {factor}", lambda images: images * factor, lambda maps: maps)


def both(first: Transform, second: Transform) -> Transform:
    """Return two transforms, one after the other."""
    return Transform(
        f"{first.name}, {second.name}",
        lambda images: second.apply(first.apply(images)),
        lambda maps: first.undo(second.undo(maps)),
    )


_FLIP = flip()
USUAL = tuple(each for factor in (0.9, 1.0, 1.1) for each in (times(factor), both(times(factor), _FLIP)))
"""Left to right or not, times 0.9, 1 or 1.1: the six that "aug" means (as aug_smooth of pytorch-grad-cam)."""


@dataclass(frozen=True)
class Augment:
    """The mean of the maps of transformed inputs, each put back.

    Attributes:
        transforms: at least one; the input itself counts only if it is among them. About a box only those are used that reflect
            the input, turn it by quarters, or leave all where it is.
    """

    transforms: Sequence[Transform] = USUAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if not self.transforms or not all(isinstance(each, Transform) for each in self.transforms):
            raise MethodError("Augment needs at least one seewhy.Transform(name, apply, undo).")

    def __len__(self) -> int:
        return len(self.transforms)

    def __str__(self) -> str:
        """Return, say, "aug over 6 inputs"."""
        return f"aug over {len(self)} inputs"

    def __call__(self, images: Tensor, _generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the transformed inputs."""
        for transform in self.transforms:
            changed = transform.apply(images)
            if changed.shape != images.shape:
                raise MethodError(
                    f"The transform '{transform.name}' makes {tuple(changed.shape[1:])} of an input of shape "
                    f"{tuple(images.shape[1:])}; it must keep the shape."
                )
            yield changed

    def undo(self, number: int) -> Callable[[Tensor], Tensor]:
        """Return what puts maps of the transformed input back."""
        return self.transforms[number].undo

    def around(self, make: Maker) -> Maker:
        """Return a maker of the smoothed map."""

        def smoothed(rec: Recording) -> Tensor:
            total, at, possible = torch.zeros(()), 0, self._possible(rec)
            for maps in variants_of(make, rec, possible):
                for one in maps:
                    total = total + possible.transforms[at].undo(one)
                    at += 1
            return total / at

        return smoothed

    def _possible(self, rec: Recording) -> Augment:
        """Return the same without the transforms behind which a question about a box cannot be put back; they are told."""
        space = rec.images.shape[2:]
        kept = [each for each in self.transforms if put_back(each.undo, rec.kind, space) is not None]
        left_out = ", ".join(f"'{each.name}'" for each in self.transforms if each not in kept)
        if not (kept and left_out):
            return self
        rec.tell(f"smoothing: {left_out} left out, as it is not known where its boxes lie in the input itself")
        return replace(self, transforms=kept)


@dataclass(frozen=True)
class Noise:
    """A statistic of the maps of noisy inputs (the noise tunnel; Smilkov et al. 2017, arXiv:1706.03825).

    Attributes:
        samples: number of noisy inputs.
        spread: the noise's standard deviation, as a part of the input's range.
        statistic: "mean" (SmoothGrad), "square" (the mean square; Hooker et al. 2019, arXiv:1806.10758) or "variance"
            (VarGrad; Adebayo et al. 2018, arXiv:1810.03307).
    """

    samples: int = 16
    spread: float = 0.15
    statistic: Statistic = "mean"

    def __post_init__(self) -> None:
        if self.statistic not in ("mean", "square", "variance"):
            raise MethodError(f"statistic='{self.statistic}' is not known. Known: mean, square, variance.")

    def __str__(self) -> str:
        """Return, say, "noise: mean of 16, 0.15"."""
        return f"noise: {self.statistic} of {self.samples}, {self.spread:g}"

    def around(self, make: Maker) -> Maker:
        """Return a maker of the statistic."""

        def smoothed(rec: Recording) -> Tensor:
            # Around the first map: a variance as a difference of large numbers would lose its digits.
            count, shift = 0, None
            first, second = torch.zeros(()), torch.zeros(())
            for maps in variants_of(make, rec, GaussianNoise(self.samples, self.spread, relative=True)):
                # Only the mean may be taken of the channels' parts: the others are not sums of their parts' own.
                each = maps if self.statistic == "mean" else _whole(maps, rec)
                shift = each[0] if shift is None and self.statistic == "variance" else shift
                each = each if shift is None else each - shift
                first, second, count = first + each.sum(0), second + (each**2).sum(0), count + len(each)
            if self.statistic == "mean":
                return first / count
            found = second / count
            return (found - (first / count) ** 2).clamp_min(0) if self.statistic == "variance" else found

        return smoothed


@dataclass(frozen=True)
class Eigen:
    """The first principal component of the channels' parts of a map, instead of their sum; signed like the sum."""

    def __str__(self) -> str:
        return "eigen"

    def around(self, make: Maker) -> Maker:
        """Return a maker of the component."""

        def smoothed(rec: Recording) -> Tensor:
            parts = make(rec)
            if parts.ndim != rec.images.ndim or _are_colours(parts, rec):
                raise MethodError(f"{NEEDS_CHANNELS}.")
            return signed_like(first_component(parts), parts.sum(1))

        return smoothed


Smoothing = Augment | Noise | Eigen
SmoothLike = str | Smoothing | Sequence[str | Smoothing] | None
_WORDS: dict[str, Callable[[], Smoothing]] = {"aug": Augment, "eigen": Eigen, "noise": Noise}


def as_smoothing(given: Any) -> tuple[Smoothing, ...]:
    """Return what a caller wrote, such as "aug,eigen", as smoothings, the innermost first.

    Raises:
        MethodError: an unknown word.
    """
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else [given]
    found: list[Smoothing] = []
    for part in parts:
        if part is None or part == "":
            continue
        if isinstance(part, Augment | Noise | Eigen):
            found.append(part)
            continue
        word = str(part).strip().casefold()
        if word not in _WORDS:
            raise MethodError(f"smooth='{part}' is not known.{did_you_mean(word, _WORDS)} Known: {', '.join(_WORDS)}.")
        found.append(_WORDS[word]())
    order = (Eigen, Noise, Augment)
    return tuple(sorted(found, key=lambda each: order.index(type(each))))


def smoothed(make: Maker, around: Sequence[Smoothing]) -> Maker:
    """Return a maker with smoothings around it, the innermost first."""
    for smoothing in around:
        make = smoothing.around(make)
    return make


def _are_colours(parts: Tensor, rec: Recording) -> bool:
    """Return whether the parts of maps are the input's colours, which are kept apart, rather than a layer's channels."""
    return parts.shape[-rec.images.ndim + 1 :] == rec.images.shape[1:]


def _whole(maps: Float[Tensor, "variant batch *rest"], rec: Recording) -> Float[Tensor, "variant batch *grid"]:
    """Return the maps of several variants with the channels' parts summed."""
    return maps.sum(2) if maps.ndim > rec.images.ndim and not _are_colours(maps, rec) else maps


def variants_of(make: Maker, rec: Recording, variation: Any) -> Iterator[Float[Tensor, "variant batch *rest"]]:
    """Yield the maps of the varied inputs, several variants at a time."""
    batch = len(rec.images)
    for part in rec.varied(variation):
        maps = make(part)
        yield maps.view(-1, batch, *maps.shape[1:])
