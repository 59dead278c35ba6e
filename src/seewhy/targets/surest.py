"""What a model is asked about where any question would do: the answer that it is most sure of."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from seewhy.models.labels import Labels
from seewhy.targets.detections import Predictions
from seewhy.targets.protocol import Kind, Output


@dataclass(frozen=True)
class SurestTarget:
    """The highest score: of a class over all places together, as one place depends on few others; of any box, not where it lies.

    Attributes:
        kind: what the model answers.
    """

    kind: Kind

    @property
    def index(self) -> int | None:
        return None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        if self.kind == "boxes":
            return Predictions.of(output).classes.max()
        return (output.flatten(1).mean(1) if self.kind == "places" else output).max()

    def describe(self, labels: Labels | None) -> str:  # noqa: ARG002 - the same call for every target
        return "the highest score"
