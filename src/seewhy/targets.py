"""The question: from one sample's output to the one number that is to be explained. High always means "supports it"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.models.labels import Labels

Output = Float[Tensor, "*output"]
TargetLike = None | SupportsIndex | str | Callable[[Tensor], Tensor]
"""What a caller may give as one target; any kind of integer is a class index."""


@runtime_checkable
class Target(Protocol):
    """One question about one sample."""

    @property
    def index(self) -> int | None:
        """The class asked about, where there is one."""

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        """Return the scalar to explain from one sample's output, with its graph."""

    def describe(self, labels: Labels | None) -> str:
        """Return the question in words."""


Question = tuple[Target, ...]
"""One target for each sample of a batch."""


@dataclass(frozen=True)
class ClassTarget:
    """The score (logit) of one class."""

    index: int
    predicted: bool = False

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return output[self.index]

    def describe(self, labels: Labels | None) -> str:
        return class_name(self.index, labels)


@dataclass(frozen=True)
class ProbabilityTarget:
    """The probability of one class: softmax of the scores, or the output itself when it is a distribution already."""

    index: int

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        if output.shape[0] < 2:
            raise TargetError(
                "target='probability' is softmax over classes, and this model's output has only one, whose softmax is always 1. "
                "Give a callable, such as `lambda output: output[0].sigmoid()`."
            )
        return probabilities(output)[self.index]

    def describe(self, labels: Labels | None) -> str:
        return f"probability of {class_name(self.index, labels)}"


@dataclass(frozen=True)
class ContrastTarget:
    """How much one class's score is above another's."""

    index: int
    against: int

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return output[self.index] - output[self.against]

    def describe(self, labels: Labels | None) -> str:
        return f"{class_name(self.index, labels)} vs {class_name(self.against, labels)}"


@dataclass(frozen=True)
class DirectionTarget:
    """One output upwards or downwards: what raises a regression's value or a binary logit, or what lowers it."""

    index: int
    up: bool
    predicted: bool = False
    alone: bool = True

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return output[self.index] if self.up else -output[self.index]

    def describe(self, labels: Labels | None) -> str:
        if self.alone and labels is not None and len(labels) == 2:
            return labels.name(int(self.up))
        name = "output" if self.alone and labels is None else class_name(self.index, labels)
        return f"a {'higher' if self.up else 'lower'} {name}"


@dataclass(frozen=True)
class SimilarContrastTarget:
    """A class's score minus `strength` times the mean score of others (Finer-CAM, arXiv:2501.11309)."""

    index: int
    others: tuple[int, ...]
    strength: float
    predicted: bool = False

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return output[self.index] - self.strength * output[list(self.others)].mean()

    def describe(self, labels: Labels | None) -> str:
        others = ", ".join(class_name(index, labels) for index in self.others)
        return f"{class_name(self.index, labels)} rather than {others}"


@dataclass(frozen=True, eq=False)
class CallableTarget:
    """Whatever a caller's function makes of one sample's output."""

    function: Callable[[Tensor], Tensor]
    index: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        try:
            score = self.function(output)
        except Exception as error:
            raise TargetError(
                f"target={self._name} raised {type(error).__name__} for one sample's output, shape {tuple(output.shape)}: {error}"
            ) from error
        if not isinstance(score, Tensor) or score.numel() != 1:
            found = f"a tensor of shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise TargetError(
                f"target={self._name} must return one number as a tensor, from one sample's output of shape "
                f"{tuple(output.shape)}; it returned {found}."
            )
        if not score.is_floating_point():
            raise TargetError(
                f"target={self._name} returned a number of type {score.dtype}, which has no derivative (as argmax, round and "
                "comparisons have none). Return a real number that changes smoothly with the output."
            )
        return score.reshape(())

    def describe(self, labels: Labels | None) -> str:  # noqa: ARG002 - the same call for every target
        return self._name

    @property
    def _name(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "a function" if name == "<lambda>" else str(name)


def probabilities(outputs: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Return softmax over the last axis, or the outputs themselves when each already is a distribution."""
    return outputs if are_probabilities(outputs) else outputs.softmax(-1)


def are_probabilities(outputs: Float[Tensor, "*batch classes"]) -> bool:
    """Return whether each row is a distribution already: not negative, and summing to one within 0.001."""
    values = outputs.detach().float()
    if values.shape[-1] < 2:
        return False
    return bool((values >= 0).all() and ((values.sum(-1) - 1).abs() < 1e-3).all())


def class_name(index: int, labels: Labels | None) -> str:
    """Return a class's name, or "class 7" where names are not known."""
    return labels.name(index) if labels is not None else f"class {index}"


def ask(wanted: TargetLike | Sequence[TargetLike], outputs: Output, labels: Labels | None) -> list[Question]:
    """Turn what a caller wrote into questions about a batch.

    Args:
        wanted: None (the predicted class), a class index, a label name, "A-vs-B", "probability:NAME", "probability" (of the
            predicted class), "up" or "down" (a single output higher or lower; "up:NAME" of several), "top:k" (one question for
            each of the k likeliest classes), any callable on one sample's output, or a list with one of these for each sample.
        outputs: `(batch, *output)`, what the model answered.
        labels: the class names, where known.

    Returns:
        One question, or k for "top:k"; each has one target for each sample.

    Raises:
        TargetError: wrong length, index out of range, unknown or ambiguous name, or an output without classes.
    """
    batch = outputs.shape[0]
    if isinstance(wanted, list | tuple):
        if len(wanted) != batch:
            raise TargetError(
                f"{len(wanted)} targets were given for {batch} images. Give one for all, or exactly one for each image."
            )
        return [tuple(_one(each, outputs[row], labels) for row, each in enumerate(wanted))]
    if isinstance(wanted, str) and (match := re.fullmatch(r"top:\s*(\d+)", wanted.strip(), re.IGNORECASE)):
        return _top(int(match[1]), outputs)
    return [tuple(_one(wanted, outputs[row], labels) for row in range(batch))]


def _top(count: int, outputs: Output) -> list[Question]:
    classes = _class_count(outputs[0], f"top:{count}")
    if not 1 <= count <= classes:
        raise TargetError(f"target='top:{count}' must ask for 1 to {classes} classes; this model has {classes}.")
    best = outputs.float().topk(count, dim=-1).indices
    return [tuple(ClassTarget(int(best[row, rank])) for row in range(len(outputs))) for rank in range(count)]


def _one(wanted: Any, output: Output, labels: Labels | None) -> Target:
    """Return the target that one sample is asked about."""
    if callable(wanted):
        return wanted if isinstance(wanted, Target) else CallableTarget(wanted)
    if wanted is None:
        if _class_count(output, "None, the predicted class,") == 1:
            return DirectionTarget(0, up=_side(output, labels), predicted=True)
        return ClassTarget(int(output.argmax()), predicted=True)
    if not isinstance(wanted, str):
        return ClassTarget(_index(wanted, output, labels))
    text = wanted.strip()
    if match := re.fullmatch(r"(up|down)(?::(.+))?", text, re.IGNORECASE):
        return _direction(match[1].casefold() == "up", match[2], output, labels)
    one_logit = output.ndim == 1 and tells_two_apart(len(output), labels)
    if one_logit and labels is not None and not re.fullmatch(r"[+-]?\d+|.*:.*", text):
        return DirectionTarget(0, up=labels.find(text) == 1)  # one logit for two classes
    if labels is not None and output.ndim == 1 and (named := labels.exactly(text)) is not None and named < len(output):
        return ClassTarget(named)  # a name may hold " vs ", or be a word that means something else below
    if text.casefold() == "probability":
        _class_count(output, text)
        return ProbabilityTarget(int(output.argmax()))
    if match := re.fullmatch(r"(?:probability|prob):(.+)", text, re.IGNORECASE):
        return ProbabilityTarget(_index(match[1], output, labels))
    if len(sides := re.split(r"\s*-vs-\s*|\s+vs\.?\s+", text, flags=re.IGNORECASE)) == 2:
        return ContrastTarget(_index(sides[0], output, labels), _index(sides[1], output, labels))
    if text.casefold().startswith("top:"):
        raise TargetError(f"target='{wanted}': write 'top:k' with a whole number, for all images at once.")
    return ClassTarget(_index(text, output, labels))


def tells_two_apart(outputs: int, labels: Labels | None) -> bool:
    """Return whether a model has one logit for two named classes: high for the second, low for the first."""
    return outputs == 1 and labels is not None and len(labels) == 2


def _side(output: Output, labels: Labels | None) -> bool:
    """Return whether a single output is explained upwards: always, but for two named classes that share one logit."""
    return not tells_two_apart(len(output), labels) or bool(output[0] > (0.5 if 0 <= output[0] <= 1 else 0))


def _direction(up: bool, which: str | None, output: Output, labels: Labels | None) -> Target:
    word = "up" if up else "down"
    count = _class_count(output, word)
    if which is not None:
        return DirectionTarget(_index(which, output, labels), up, alone=False)
    if count != 1:
        raise TargetError(
            f"target='{word}' is for a model with one output; this one has {count}. Say which: '{word}:0' or '{word}:NAME'."
        )
    return DirectionTarget(0, up)


def _index(wanted: Any, output: Output, labels: Labels | None) -> int:
    """Return a class index from an integer, digits or a label name, checked against the output."""
    classes = _class_count(output, repr(wanted))
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


def _class_count(output: Output, wanted: str) -> int:
    if output.ndim != 1:
        raise TargetError(
            f"target={wanted} needs one score a class, and this model's output for one image has shape {tuple(output.shape)}. "
            "Give target= a callable that takes such an output and returns one number."
        )
    return int(output.shape[0])
