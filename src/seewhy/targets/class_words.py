"""What a caller's words, names and numbers mean for a model that answers with one score a class."""

from __future__ import annotations

import operator
import re
from typing import Any

from seewhy.errors import TargetError
from seewhy.models.labels import Labels
from seewhy.targets.classes import ClassTarget, ContrastTarget, DirectionTarget, ExpectedTarget, ProbabilityTarget
from seewhy.targets.protocol import Output, Subject, Target

_WORDS = re.compile(r"[+-]?\d+|.*:.*|probability|expected", re.IGNORECASE)
"""What is no class's name, unless a class is called so."""


def class_target(wanted: Any, subject: Subject) -> Target:
    """Return the target that one sample is asked about: the predicted class, a class, a contrast, a direction.

    Raises:
        TargetError: index out of range, unknown or ambiguous name.
    """
    output, labels = subject.output, subject.labels
    if wanted is None:
        if len(output) == 1:
            return DirectionTarget(0, up=_side(subject), predicted=True)
        return ClassTarget(int(output.argmax()), predicted=True)
    if not isinstance(wanted, str):
        return ClassTarget(class_index(wanted, len(output), labels))
    text = wanted.strip()
    if match := re.fullmatch(r"(up|down)(?::(.+))?", text, re.IGNORECASE):
        return _direction(match[1].casefold() == "up", match[2], output, labels)
    # A name may hold " vs ", or be a word with a meaning of its own.
    named = None if labels is None else labels.exactly(text)
    if (
        labels is not None
        and tells_two_apart(len(output), labels)
        and (named is not None or not _WORDS.fullmatch(text))
    ):
        return DirectionTarget(0, up=labels.find(text) == 1)  # one score for two classes
    if named is not None and named < len(output):
        return ClassTarget(named)
    if text.casefold() == "probability":
        return _probability(None, subject)
    if text.casefold() == "expected":
        return ExpectedTarget(subject.chances)
    if match := re.fullmatch(r"(?:probability|prob):(.+)", text, re.IGNORECASE):
        return _probability(match[1], subject)
    if len(sides := re.split(r"\s*-vs-\s*|\s+vs\.?\s+", text, flags=re.IGNORECASE)) == 2:
        return _contrast(text, *(class_index(side, len(output), labels) for side in sides))
    if text.casefold().startswith("top:"):
        raise TargetError(f"target='{wanted}': write 'top:k' with a whole number, for all images at once.")
    return ClassTarget(class_index(text, len(output), labels))


def _contrast(text: str, index: int, against: int) -> ContrastTarget:
    if index == against:
        raise TargetError(
            f"target='{text}' names class {index} twice: nothing sets it apart from itself. Name two different classes."
        )
    return ContrastTarget(index, against)


def tells_two_apart(outputs: int, labels: Labels | None) -> bool:
    """Return whether a model has one logit for two named classes: high for the second, low for the first."""
    return outputs == 1 and labels is not None and len(labels) == 2


def class_index(wanted: Any, classes: int, labels: Labels | None) -> int:
    """Return a class index from an integer, digits or a label name, checked against the number of classes.

    Raises:
        TargetError: it is none, or out of range.
    """
    text = str(wanted).strip()
    if not isinstance(wanted, str):
        index = _whole_number(wanted)
    elif re.fullmatch(r"[+-]?\d+", text):
        index = int(text)
    elif labels is None:
        raise TargetError(
            f"target='{text}' is a name, and this model's class names are not known. Give labels=, or an index."
        )
    else:
        index = labels.find(text)
    if not 0 <= index < classes:
        raise TargetError(f"target={wanted!r} is class {index}; this model has {classes} classes, 0 to {classes - 1}.")
    return index


def _side(subject: Subject) -> bool:
    """Return whether a single output is explained upwards: always, but for two named classes that share one score."""
    return not tells_two_apart(len(subject.output), subject.labels) or bool(subject.output[0] > subject.chances.even)


def _probability(name: str | None, subject: Subject) -> ProbabilityTarget:
    """Return the probability of a named class, or of the predicted one."""
    output, labels = subject.output, subject.labels
    if tells_two_apart(len(output), labels):
        side = int(_side(subject)) if name is None else class_index(name, 2, labels)
        return ProbabilityTarget(0, subject.chances, side)
    index = int(output.argmax()) if name is None else class_index(name, len(output), labels)
    return ProbabilityTarget(index, subject.chances)


def _direction(up: bool, which: str | None, output: Output, labels: Labels | None) -> Target:
    word = "up" if up else "down"
    if which is not None:
        return DirectionTarget(class_index(which, len(output), labels), up, alone=False)
    if len(output) != 1:
        raise TargetError(
            f"target='{word}' is for a model with one output; this one has {len(output)}. Say which: '{word}:0' or "
            f"'{word}:NAME'."
        )
    return DirectionTarget(0, up)


def _whole_number(wanted: Any) -> int:
    """Return any kind of integer (Python's, numpy's, a tensor with one) as an int; a truth value is none."""
    is_truth = "bool" in str(getattr(wanted, "dtype", type(wanted).__name__))
    if is_truth or not hasattr(wanted, "__index__") or getattr(wanted, "ndim", 0) > 0:
        raise TargetError(
            f"target={wanted!r} is a {type(wanted).__name__}; give a class index, a label name, 'A-vs-B', 'top:k', a callable."
        )
    try:
        return operator.index(wanted)
    except TypeError as error:
        raise TargetError(f"target={wanted!r} is not a whole number, so it is no class index.") from error
