"""Targets for models that answer with one score a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.models.labels import Labels
from seewhy.targets.chances import SHARED, Chances
from seewhy.targets.protocol import Output, class_name


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
    """The probability of one class.

    Attributes:
        index: the class, as a place in the output.
        chances: how scores become probabilities.
        side: of two named classes that share one score, which is meant: 1 the second, for which the score is high.
    """

    index: int
    chances: Chances = SHARED
    side: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        if len(output) < 2 and not (self.chances.independent or self.chances.ready):
            raise TargetError(
                "target='probability' is softmax over classes, and this model's output has only one, whose softmax is always 1. "
                "Give multi_label=True for its sigmoid, or a callable, such as `lambda output: output[0].sigmoid()`."
            )
        return self.of(self.chances(output))

    def of(self, probabilities: Float[Tensor, " class"]) -> Float[Tensor, ""]:
        """Return the number to explain from the probabilities of all classes."""
        own = probabilities[self.index]
        return 1 - own if self.side == 0 else own

    def describe(self, labels: Labels | None) -> str:
        return f"probability of {class_name(self.index if self.side is None else self.side, labels)}"


@dataclass(frozen=True)
class ExpectedTarget:
    """The expected class of ordered ones (a grade, an age): the sum of each class's index times its probability.

    Where probabilities are independent, as in ordinal regression, each says whether the class is above one more threshold, and
    the expected class is their sum.
    """

    chances: Chances = SHARED
    index: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        return self.of(self.chances(output))

    def of(self, probabilities: Float[Tensor, " class"]) -> Float[Tensor, ""]:
        """Return the number to explain from the probabilities of all classes."""
        if self.chances.independent:
            return probabilities.sum()
        places = torch.arange(len(probabilities), device=probabilities.device, dtype=probabilities.dtype)
        return (probabilities * places).sum()

    def describe(self, labels: Labels | None) -> str:  # noqa: ARG002 - the same call for every target
        return "a higher expected class"


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
