"""The same question as a probability, or as its log-odds: what measures of faithfulness, and maps under masks, follow."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from seewhy.models.labels import Labels
from seewhy.targets.boxes import DetectionTarget
from seewhy.targets.chances import SHARED, Chances
from seewhy.targets.classes import ClassTarget, DirectionTarget, ProbabilityTarget, SimilarContrastTarget
from seewhy.targets.function import CallableTarget
from seewhy.targets.places import PlacesTarget
from seewhy.targets.protocol import Output, Target, class_name


@dataclass(frozen=True)
class LogOddsTarget:
    """The logarithm of p / (1 - p) for the probability p of one class: its derivative does not vanish where p is nearly 1.

    Attributes:
        index: the class, as a place in the output.
        chances: how scores become probabilities.
        side: of two named classes that share one score, which is meant: 1 the second, for which the score is high.
        predicted: whether the class was left to the model.
    """

    index: int
    chances: Chances = SHARED
    side: int | None = None
    predicted: bool = False

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        odds = self._odds(output)
        return -odds if self.side == 0 else odds

    def _odds(self, output: Output) -> Float[Tensor, ""]:
        own = output[self.index]
        if self.chances.ready:
            return (
                own.clamp_min(1e-12).log() - (1 - own).clamp_min(1e-7).log()
            )  # one of the two always has a derivative
        if self.chances.independent:
            return own
        others = [place for place in range(len(output)) if place != self.index]
        return own - output[others].logsumexp(0)

    def describe(self, labels: Labels | None) -> str:
        """Return the class's name."""
        return class_name(self.index if self.side is None else self.side, labels)


def likelihood(target: Target, output: Output, chances: Chances) -> Target:
    """Return the target's probability as a target; the target itself, where it has none.

    Args:
        target: about one class of several, or about one score that has a sigmoid.
        output: what the model answered about the sample, `(class,)`.
        chances: how scores become probabilities.
    """
    if isinstance(target, LogOddsTarget):
        return ProbabilityTarget(target.index, target.chances, target.side)
    found = log_odds(target, output, chances)
    return ProbabilityTarget(found.index, chances, found.side) if isinstance(found, LogOddsTarget) else target


def is_likelihood(target: Target, output: Output, chances: Chances) -> bool:
    """Return whether a target's number is a probability, or a detector's confidence.

    A caller's own function is taken for one where its value is in 0..1.
    """
    if isinstance(target, PlacesTarget):
        ready = chances.ready and isinstance(target.what, ClassTarget)
        return ready or is_likelihood(target.what, output, chances)
    if isinstance(target, CallableTarget):
        return 0 <= float(target(output)) <= 1
    return isinstance(target, ProbabilityTarget | DetectionTarget)


def log_odds(target: Target, output: Output, chances: Chances) -> Target:
    """Return the log-odds of the target's probability as a target; the target itself, where it has none."""
    has_one = output.ndim == 1 and (len(output) > 1 or chances.independent or chances.ready)
    predicted = bool(getattr(target, "predicted", False))
    if isinstance(target, ClassTarget | SimilarContrastTarget) and has_one:
        return LogOddsTarget(target.index, chances, predicted=predicted)
    if isinstance(target, DirectionTarget) and output.ndim == 1 and (chances.independent or chances.ready):
        return LogOddsTarget(target.index, chances, int(target.up), predicted)
    return target
