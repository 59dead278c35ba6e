"""What a caller's words and regions mean for a model that answers with one score a class and place."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seewhy.errors import TargetError
from seewhy.targets.class_words import class_target, tells_two_apart
from seewhy.targets.classes import ClassTarget, DirectionTarget
from seewhy.targets.cover import Cover
from seewhy.targets.places import PlacesTarget
from seewhy.targets.protocol import Subject, Target
from seewhy.targets.region import Region, is_box, mask_of

_TOLD_CROPPED = 0.01
_MARK = 60  # a single pixel is shown by a disc whose radius is the picture's longest side divided by this


def place_target(wanted: Any, subject: Subject) -> PlacesTarget:
    """Return the target that one sample is asked about.

    Args:
        wanted: None (the class that covers most, where it is predicted), what :func:`class_target` knows (over the places at
            which the class is predicted), "pixels:" and such words, "pixel:Y,X" or "pixel:Y,X:WORDS" (one place, in pixels of
            the original), "region:MASK.png" or "region:LEFT,TOP,RIGHT,BOTTOM", both also with ":WORDS", or a :class:`Region`.
        subject: the sample.

    Raises:
        TargetError: no such class, a place outside of the picture or cropped away, an empty mask or one of another size.
    """
    cover = Cover.of(subject)
    if wanted is None:
        return _predicted(cover)
    if isinstance(wanted, Region):
        return _in_region(wanted, cover)
    text = wanted.strip() if isinstance(wanted, str) else ""
    if cover.labels is not None and text and cover.labels.exactly(text) is not None:
        return _where_predicted(wanted, cover)
    if match := re.fullmatch(r"(pixels|pixel|region)\s*:\s*(.+)", text, re.IGNORECASE):
        kind, rest = match[1].casefold(), match[2]
        if kind == "pixels":
            return _where_predicted(rest, cover)
        return _at_pixel(rest, cover) if kind == "pixel" else _in_region(_region(rest), cover)
    return _where_predicted(wanted, cover)


def top_places(count: int, subject: Subject) -> list[Target]:
    """Return the `count` classes that cover most, each over the places at which it is predicted.

    Raises:
        TargetError: fewer or more than there are.
    """
    cover = Cover.of(subject)
    if not 1 <= count <= cover.classes:
        raise TargetError(
            f"target='top:{count}' must ask for 1 to {cover.classes} classes; this model has {cover.classes}."
        )
    return [_where_predicted(index, cover) for index in cover.ranked[:count]]


def _predicted(cover: Cover) -> PlacesTarget:
    """Return the question about what the model sees most of."""
    index = cover.answer
    name, share = cover.name(index), cover.shares[index]
    told = f"target: {name} ({share:.1%} of the picture), the predicted class that covers most, as none was given"
    if cover.background is not None and index != cover.background and cover.ranked[0] == cover.background:
        told += f"; {cover.name(cover.background)} ({cover.shares[cover.background]:.1%}) was taken for the background"
    what = DirectionTarget(0, up=True) if cover.classes == 1 else ClassTarget(index)
    return _over_predicted(what, index, cover, predicted=True, notes=(told,))


def _where_predicted(words: Any, cover: Cover) -> PlacesTarget:
    """Return the question about a class over the places at which it is predicted."""
    if isinstance(words, str) and words.strip().casefold() == "probability":
        words = f"probability:{int(tells_two_apart(cover.classes, cover.labels)) or cover.answer}"
    what = class_target(words, _means(cover, cover.picture))
    if what.index is None:  # about all classes together
        return PlacesTarget(what, _shares(cover.picture), "over the whole picture")
    return _over_predicted(what, what.index, cover)


def _over_predicted(
    what: Target, index: int, cover: Cover, *, predicted: bool = False, notes: tuple[str, ...] = ()
) -> PlacesTarget:
    weights, present = cover.weights(index)
    name = cover.name(index)
    plain = isinstance(what, ClassTarget) or (cover.classes == 1 and what.describe(cover.labels) == name)
    where = f"where {'it' if plain else name} is predicted" if present else "over the whole picture"
    part = cover.geometry.from_grid(cover.predicted == index) if present else None
    return PlacesTarget(what, _shares(weights), where, part, absent=not present, predicted=predicted, notes=notes)


def _in_region(region: Region, cover: Cover) -> PlacesTarget:
    mask = mask_of(region.part, cover.geometry.original_shape)
    where = "in the box" if is_box(region.part) else "in the region"
    seen = mask & cover.geometry.seen()
    notes: tuple[str, ...] = ()
    if (lost := 1 - seen.sum() / mask.sum()) > _TOLD_CROPPED:
        notes = (f"{lost:.0%} of the region was cropped away before the model saw anything; the rest is asked about",)
    return _over(mask, mask, region.of, cover, where, notes)


def _at_pixel(rest: str, cover: Cover) -> PlacesTarget:
    match = re.fullmatch(r"(-?\d+(?:\s*,\s*-?\d+)*)\s*(?::\s*(.+))?", rest)
    shape = cover.geometry.original_shape
    axes = ("Y,X", "Z,Y,X")[len(shape) == 3] if len(shape) > 1 else "X"
    if match is None or len(at := tuple(map(int, match[1].split(",")))) != len(shape):
        raise TargetError(
            f"target='pixel:{rest}' must be 'pixel:{axes}' or 'pixel:{axes}:NAME', in pixels of the original, from 0 on."
        )
    place = ", ".join(map(str, at))
    if not all(0 <= place < length for place, length in zip(at, shape, strict=True)):
        raise TargetError(
            f"Pixel ({place}) lies outside of the picture, which is {' x '.join(map(str, shape))} pixels: give {axes} from 0 to "
            f"{', '.join(str(length - 1) for length in shape)}."
        )
    mask = np.zeros(shape, bool)
    mask[at] = True
    radius = max(2, max(shape) // _MARK)
    away = sum((line - own) ** 2 for own, line in zip(at, np.ogrid[tuple(map(slice, shape))], strict=True))
    return _over(mask, np.asarray(away <= radius**2), match[2], cover, f"at ({place})", ())


def _over(
    mask: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.bool_],
    words: Any,
    cover: Cover,
    where: str,
    notes: tuple[str, ...],
) -> PlacesTarget:
    """Return the question about a part of the original, of the class that is predicted most there unless one is given."""
    weights = cover.geometry.to_grid(mask, cover.grid)
    if not (mask & cover.geometry.seen()).any() or weights.sum() <= 0:
        raise TargetError(
            f"What was asked about, {where}, was cropped away before the model saw anything "
            f"({'; '.join(cover.geometry.steps)}). Ask about another place, or keep the whole picture: "
            "preprocess={'fit': 'squash'} or 'letterbox'."
        )
    if words is not None:
        what = class_target(words, _means(cover, weights))
        return PlacesTarget(what, _shares(weights), where, shown, notes=notes)
    shares = cover.shares_within(weights)
    index = int(shares.argmax())
    what = DirectionTarget(0, up=bool(shares[0] >= 0.5)) if cover.classes == 1 else ClassTarget(index)
    share = shares[index] if cover.classes > 1 or shares[0] >= 0.5 else 1 - shares[0]
    told = f"target: {what.describe(cover.labels)}, which the model predicts at {share:.0%} of the places asked about"
    return PlacesTarget(what, _shares(weights), where, shown, predicted=True, notes=(told, *notes))


def _means(cover: Cover, weights: npt.NDArray[np.float32]) -> Subject:
    """Return each class's mean over weighted places as an answer with one score a class."""
    means = cover.output.flatten(1) @ _shares(weights).flatten()
    return Subject(means, "classes", cover.labels, chances=cover.chances)


def _shares(weights: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(weights / weights.sum(dtype=np.float64)).float()


def _region(rest: str) -> Region:
    """Return the region that is written behind "region:": a box or a mask's file, and what is asked about it."""
    if match := re.fullmatch(r"(-?\d+(?:\s*,\s*-?\d+)*)\s*(?::\s*(.+))?", rest):
        return Region(tuple(map(int, match[1].split(","))), match[2])
    if os.path.isfile(rest):  # noqa: PTH113 - Path.is_file raises on names that are too long
        return Region(rest)
    path, colon, words = rest.rpartition(":")
    return Region(path, words.strip()) if colon else Region(rest)
