"""Whether a map depends on what the model has learnt, and on the class it is about."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.measures.agreement import Similarity, alike
from seewhy.measures.registry import Wants, metric
from seewhy.measures.trial import Trial

Values = Float[Tensor, "batch map"]


@metric(
    "cascading-randomisation",
    better="lower",
    range=(0.0, 1.0),
    source="Adebayo et al. 2018, arXiv:1810.03292",
    wants=Wants.REMADE,
    baseline="none",
    passes="{steps} x the method's",
)
def cascading_randomisation(trial: Trial, *, steps: int = 3, similarity: Similarity = "spearman") -> Values:
    """How alike a map stays while the model's layers are drawn anew, the last first: a map of what was learnt does not.

    Formula: the mean over k = 1..steps of the absolute similarity of the map and that of a copy of the model whose last k/steps
        of all layers with weights were drawn anew. Absolute: a map with its signs turned shows the same places.
    Options: steps, how many copies; similarity, "spearman" or "pearson" over the places, or "ssim"; 0 to a map that is the
        same everywhere.
    Elsewhere: Quantus' number is signed, -1 for a map with its signs turned.
    """
    if steps < 1:
        raise MetricError(f"steps={steps} must be at least 1.")
    found = [alike(similarity, trial.maps, _randomised(trial, (step + 1) / steps)).abs() for step in range(steps)]
    return torch.stack(found).mean(0)


@metric(
    "random-logit",
    better="lower",
    range=(0.0, 1.0),
    source="Sixt et al. 2020, arXiv:1912.09818",
    wants=Wants.REMADE,
    baseline="none",
    passes="the method's",
)
def random_logit(trial: Trial, *, similarity: Similarity = "spearman") -> Values:
    """How alike a map is to that of another class, drawn at random: a map of the class asked about differs.

    Formula: the absolute similarity of map(x, target) and map(x, another class): a map with its signs turned shows
        the same places.
    Options: similarity, "spearman" or "pearson" over the places, or "ssim", which is the paper's; 0 to a map that is the same
        everywhere.
    Elsewhere: Quantus' number is signed, -1 for a map with its signs turned.
    """
    other = trial.once("other class", lambda: trial.remade.of_other_class(trial.seed))
    return alike(similarity, trial.maps, other).abs()


def _randomised(trial: Trial, part: float) -> Float[Tensor, "batch map *space"]:
    return trial.once(("randomised", part), lambda: trial.remade.of_randomised(trial.seed, part))
