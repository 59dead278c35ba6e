"""Targets for models that answer with one score a class and place, such as semantic segmentation: a class over a region."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.images import Geometry
from seewhy.models.labels import Labels
from seewhy.targets.classes import ExpectedTarget, ProbabilityTarget
from seewhy.targets.protocol import Output, Target


@dataclass(frozen=True, eq=False)
class PlacesTarget:
    """What is asked about scores of classes, asked of their means over fixed places.

    The places are chosen once, from the output for the input as it is, so that runs of changed inputs are asked about the same.
    Introduced for Grad-CAM as Seg-Grad-CAM (Vinogradova et al. 2020, arXiv:2002.11434), with the mean in place of the sum.

    Attributes:
        what: a target on one score a class.
        weights: `(*grid)`, each place's share of the mean; they sum to 1.
        where: the places, in words.
        part: `(*original_shape)` bool, the places on the original; None: all of it.
        absent: whether the class is predicted nowhere.
        predicted: whether the caller left the class to the model.
        notes: what must be said.
    """

    what: Target
    weights: Float[Tensor, "*grid"]
    where: str
    part: npt.NDArray[np.bool_] | None = None
    absent: bool = False
    predicted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def index(self) -> int | None:
        return self.what.index

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        if isinstance(self.what, ProbabilityTarget | ExpectedTarget):
            # The mean of the places' probabilities, which is not the probability of their mean score.
            return self.what.of(self.means(self.what.chances(output)))
        return self.what(self.means(output))

    def means(self, output: Float[Tensor, "class *grid"]) -> Float[Tensor, " class"]:
        """Return each class's mean over the places."""
        values = output if output.dtype == torch.float64 else output.float()
        return values.flatten(1) @ self.weights.flatten().to(values)

    def asking(self, what: Target) -> PlacesTarget:
        """Return another question about the same places."""
        return replace(self, what=what)

    def describe(self, labels: Labels | None) -> str:
        return f"{self.what.describe(labels)} {self.where}"

    def outline(self, geometry: Geometry) -> npt.NDArray[np.bool_] | None:  # noqa: ARG002 - known since it was asked
        return self.part
