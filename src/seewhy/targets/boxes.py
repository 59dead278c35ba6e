"""Targets for object detectors: one box, its class, whether there is anything in it, where it lies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.images import Edges, Geometry
from seewhy.models.labels import Labels
from seewhy.targets.class_words import class_index
from seewhy.targets.detections import (
    LEAST,
    About,
    BoxTarget,
    Predictions,
    detected,
    overlaps,
)
from seewhy.targets.protocol import Output, Subject, Target, class_name

_SAME = 0.999
"""Overlap from which the prediction that was asked about is where it was: the input is the one it was asked for."""


@dataclass(frozen=True)
class DetectionTarget:
    """How much the model sees one object in one box.

    The score is the highest, over all predictions, of overlap (intersection over union) times the score that is asked about,
    as in D-RISE (Petsiuk et al. 2021, arXiv:2006.03204): on other inputs another prediction may be the one that finds the object.
    On the input itself it is the prediction's own score. "position" asks for the overlap itself.

    Attributes:
        box: left, top, right, bottom, in pixels of the model's input.
        index: the class.
        about: what is asked of the box.
        row: the prediction that it is; None: a box of the caller's own.
        words: how it was asked for.
        predicted: whether it was left to the model.
    """

    box: Edges
    index: int
    about: About = "class"
    row: int | None = field(default=None, compare=False)
    words: str = field(default="", compare=False)
    predicted: bool = field(default=False, compare=False)

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        found = Predictions.of(output)
        overlap = overlaps(output.new_tensor(self.box), found.boxes)
        wanted = found.objectness if self.about == "objectness" else found.classes[:, self.index]
        place = int((overlap * wanted).detach().argmax()) if (own := self._own(overlap)) is None else own
        if self.about == "position":
            return overlap[place]
        return wanted[place] if own is not None else overlap[place].detach() * wanted[place]

    def _own(self, overlap: Tensor) -> int | None:
        """Return the prediction that was asked about where it lies as it did."""
        there = self.row is not None and self.row < len(overlap) and float(overlap[self.row].detach()) >= _SAME
        return self.row if there else None

    def describe(self, labels: Labels | None) -> str:
        name = class_name(self.index, labels)
        asked = {"class": name, "objectness": f"anything at all, a {name}", "position": f"the place of a {name}"}
        return f"{self.words}: {asked[self.about]}"

    def outline(self, geometry: Geometry) -> npt.NDArray[np.bool_]:
        """Return the box on the original pixels."""
        left, top, right, bottom = geometry.box_to_original(self.box)
        inside = np.zeros(geometry.original_shape, bool)
        rows, columns = _pixels(top, bottom, inside.shape[0]), _pixels(left, right, inside.shape[1])
        inside[rows, columns] = True
        return inside


def _pixels(low: float, high: float, length: int) -> slice:
    """Return the pixels between two edges: at least one."""
    first = min(max(round(low), 0), length - 1)
    return slice(first, max(first + 1, min(round(high), length)))


def box_target(wanted: Any, subject: Subject) -> Target:
    """Return the box that one sample is asked about.

    Args:
        wanted: None (the most confident), "box:K" (the K-th most confident, from 0), "box:NAME" or a class (the most confident of
            that class), each with ":class", ":objectness", ":position" or ":NAME" (another class in that box); a BoxTarget.
        subject: the sample.

    Raises:
        TargetError: no such box was found, or the words are not understood.
    """
    if isinstance(wanted, BoxTarget):
        return _given(wanted, subject)
    if wanted is None:
        return _ranked(0, subject, predicted=True)
    if not isinstance(wanted, str):
        return _of_class(class_index(wanted, _classes(subject), subject.labels), subject)
    text = wanted.strip()
    if not (match := re.fullmatch(r"box:\s*(.+)", text, re.IGNORECASE)):
        return _of_class(class_index(text, _classes(subject), subject.labels), subject)
    which, about = _parted(match[1].strip(), subject.labels)
    target = (
        _ranked(int(which), subject)
        if re.fullmatch(r"\d+", which)
        else _of_class(class_index(which, _classes(subject), subject.labels), subject)
    )
    return target if about is None else _asking(target, about, subject)


def top_boxes(count: int, subject: Subject) -> list[Target]:
    """Return the `count` most confident boxes.

    Raises:
        TargetError: there are fewer.
    """
    if count < 1:
        raise TargetError(f"target='top:{count}' must ask for at least 1 box.")
    return [_ranked(rank, subject) for rank in range(count)]


def _parted(text: str, labels: Labels | None) -> tuple[str, str | None]:
    """Return which box, and what about it; a class's name may hold a colon itself."""
    if ":" not in text or (labels is not None and labels.exactly(text) is not None):
        return text, None
    which, _, about = text.rpartition(":")
    return which.strip(), about.strip()


def _asking(target: DetectionTarget, about: str, subject: Subject) -> DetectionTarget:
    """Return the same box with another question: about its class, whether there is anything, its place, or another class."""
    word = about.casefold()
    known: dict[str, About] = {each: each for each in get_args(About)}
    if word in known:
        return DetectionTarget(target.box, target.index, known[word], target.row, target.words)
    other = class_index(about, _classes(subject), subject.labels)
    return DetectionTarget(target.box, other, "class", target.row, target.words)


def _ranked(rank: int, subject: Subject, *, predicted: bool = False) -> DetectionTarget:
    rows = detected(subject.output).tolist()
    if rank >= len(rows):
        raise TargetError(
            f"target='box:{rank}' asks for the box number {rank}, counted from 0, and {_how_many(len(rows), subject)}"
        )
    return _row(rows[rank], f"box {rank}", subject, predicted=predicted)


def _of_class(index: int, subject: Subject) -> DetectionTarget:
    rows = detected(subject.output).tolist()
    classes = Predictions.of(subject.output).classes.argmax(1)
    for rank, row in enumerate(rows):
        if int(classes[row]) == index:
            return _row(row, f"box {rank}", subject)
    name = class_name(index, subject.labels)
    best = Predictions.of(subject.output).classes[:, index]
    raise TargetError(
        f"No {name} was detected in this picture: the highest score that any box has for it is {float(best.max()):.3g}, and "
        f"{_how_many(len(rows), subject)} To ask why there is none, give the place: "
        f"seewhy.BoxTarget((left, top, right, bottom), of={index})."
    )


def _how_many(count: int, subject: Subject) -> str:
    if count:
        return f"{count} {'was' if count == 1 else 'were'} detected (0 to {count - 1}; confidence at least {LEAST})."
    highest = float(Predictions.of(subject.output).classes.max())
    return (
        f"nothing was detected: the highest score of any class in any box is {highest:.3g}, and {LEAST} is needed. Check that "
        "the picture is prepared as the model wants it (preprocess=), that its weights are loaded, or ask about a place of "
        "your own with seewhy.BoxTarget."
    )


def _row(row: int, words: str, subject: Subject, *, predicted: bool = False) -> DetectionTarget:
    found = Predictions.of(subject.output)
    left, top, right, bottom = map(float, found.boxes[row])
    index = int(found.classes[row].argmax())
    return DetectionTarget((left, top, right, bottom), index, "class", row, words, predicted)


def _given(wanted: BoxTarget, subject: Subject) -> DetectionTarget:
    left, top, right, bottom = map(float, wanted.box)
    box = (left, top, right, bottom)
    box = box if subject.geometry is None else subject.geometry.box_to_input(box)
    index = class_index(wanted.of, _classes(subject), subject.labels)
    return DetectionTarget(box, index, wanted.about, None, "your box")


def _classes(subject: Subject) -> int:
    return Predictions.of(subject.output).classes.shape[1]
