"""The same question as a probability: what measures of faithfulness follow."""

from __future__ import annotations

from seewhy.targets.chances import Chances
from seewhy.targets.classes import ClassTarget, DirectionTarget, ProbabilityTarget, SimilarContrastTarget
from seewhy.targets.protocol import Output, Target


def likelihood(target: Target, output: Output, chances: Chances) -> Target:
    """Return the target's probability as a target; the target itself, where it has none.

    Args:
        target: about one class of several, or about one score that has a sigmoid.
        output: what the model answered about the sample, `(class,)`.
        chances: how scores become probabilities.
    """
    has_one = len(output) > 1 or chances.independent or chances.ready
    if isinstance(target, ClassTarget | SimilarContrastTarget) and output.ndim == 1 and has_one:
        return ProbabilityTarget(target.index, chances)
    if isinstance(target, DirectionTarget) and (chances.independent or chances.ready):
        return ProbabilityTarget(target.index, chances, int(target.up))
    return target
