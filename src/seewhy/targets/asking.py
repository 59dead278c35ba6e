"""From what a caller wrote to one target for each sample: who reads it depends on what the model answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seewhy.errors import TargetError
from seewhy.targets.boxes import box_target, top_boxes
from seewhy.targets.class_words import class_target
from seewhy.targets.classes import ClassTarget
from seewhy.targets.detections import BoxTarget
from seewhy.targets.function import CallableTarget
from seewhy.targets.place_words import place_target, top_places
from seewhy.targets.protocol import Kind, Question, Subject, Target, TargetLike
from seewhy.targets.region import Region
from seewhy.targets.similarity import no_vector


def ask(wanted: TargetLike | Sequence[TargetLike], subjects: Sequence[Subject]) -> list[Question]:
    """Turn what a caller wrote into questions about a batch.

    Args:
        wanted: None (the predicted class), a class index, a label name, "A-vs-B", "probability:NAME", "probability" (of the
            predicted class), "up" or "down" (a single output higher or lower; "up:NAME" of several), "top:k" (one question for
            each of the k likeliest classes), where there is a score a place what :func:`place_target` knows, for detectors what
            :func:`box_target` knows, any callable on one sample's output, or a list with one of these for each sample.
        subjects: the samples, with what the model answered.

    Returns:
        One question, or k for "top:k"; each has one target for each sample.

    Raises:
        TargetError: wrong length, index out of range, unknown or ambiguous name, or an output of which nothing such can be asked.
    """
    if isinstance(wanted, list | tuple):
        if len(wanted) != len(subjects):
            raise TargetError(
                f"{len(wanted)} targets were given for {len(subjects)} images. Give one for all, or exactly one for each image."
            )
        return [tuple(map(_one, wanted, subjects))]
    if isinstance(wanted, str) and (match := re.fullmatch(r"top:\s*(\d+)", wanted.strip(), re.IGNORECASE)):
        ranked = [_top(int(match[1]), subject) for subject in subjects]
        return list(zip(*ranked, strict=True))
    return [tuple(_one(wanted, subject) for subject in subjects)]


def _one(wanted: Any, subject: Subject) -> Target:
    """Return the target that one sample is asked about."""
    if isinstance(wanted, Region) and subject.kind != "places":
        return _unreadable("a Region", subject, "one score a class and place")
    if isinstance(wanted, BoxTarget) and subject.kind != "boxes":
        return _unreadable(wanted, subject, "predictions with boxes")
    if callable(wanted):
        return wanted if isinstance(wanted, Target) else CallableTarget(wanted)
    return _READERS[subject.kind](wanted, subject)


def _top(count: int, subject: Subject) -> list[Target]:
    """Return the `count` likeliest answers of one sample."""
    if subject.kind == "places":
        return top_places(count, subject)
    if subject.kind == "boxes":
        return top_boxes(count, subject)
    if subject.kind != "classes":
        return [_READERS[subject.kind](f"top:{count}", subject)]
    classes = len(subject.output)
    if not 1 <= count <= classes:
        raise TargetError(f"target='top:{count}' must ask for 1 to {classes} classes; this model has {classes}.")
    return [ClassTarget(index) for index in subject.output.float().topk(count).indices.tolist()]


def _unreadable(wanted: Any, subject: Subject, needed: str = "one score a class") -> Target:
    asked = "None, the predicted class," if wanted is None else repr(wanted)
    raise TargetError(
        f"target={asked} needs {needed}, and this model's output for one image has shape "
        f"{tuple(subject.output.shape)}. Give target= a callable that takes such an output and returns one number, or "
        "output= to say where the scores are."
    )


_READERS: Mapping[Kind, Callable[[Any, Subject], Target]] = {
    "classes": class_target,
    "places": place_target,
    "boxes": box_target,
    "vector": no_vector,
    "other": _unreadable,
}
