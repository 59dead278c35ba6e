"""How a model's scores become probabilities: decided once for a run, so that all that is told of it is in one unit."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

WITHIN = 1e-3
"""How far outside of 0..1 a probability, and from 1 their sum, may be by rounding."""


@dataclass(frozen=True)
class Chances:
    """From one sample's scores to probabilities.

    Attributes:
        independent: whether each class's is the sigmoid of its own score, rather than a softmax over all.
        ready: whether the scores are probabilities already.
    """

    independent: bool = False
    ready: bool = False

    def __call__(self, scores: Float[Tensor, "class *grid"]) -> Float[Tensor, "class *grid"]:
        """Return the probabilities."""
        if self.ready:
            return scores
        return scores.sigmoid() if self.independent else scores.softmax(0)

    @property
    def even(self) -> float:
        """A single score that speaks as much for as against."""
        return 0.5 if self.ready else 0.0


SHARED = Chances()
"""The usual: scores of classes that share one probability."""


def are_distributions(outputs: Float[Tensor, "*batch classes"]) -> bool:
    """Return whether each row is a distribution over classes: within 0..1, and summing to 1."""
    values = outputs.detach().float()
    return values.shape[-1] > 1 and are_between_0_and_1(values) and bool(((values.sum(-1) - 1).abs() < WITHIN).all())


def are_between_0_and_1(outputs: Float[Tensor, "*output"]) -> bool:
    """Return whether no score lies outside of 0..1: probabilities do not, and logits may happen not to."""
    return bool(((outputs >= -WITHIN) & (outputs <= 1 + WITHIN)).all())
