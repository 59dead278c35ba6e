"""The maps of the same methods once more, of something else: other inputs, another class, a model that learnt nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.explainer import Explainer
from seewhy.images import Geometry
from seewhy.measures.drawing import drawn_for
from seewhy.measures.trial import UNKNOWN
from seewhy.presented import Presented, by_name
from seewhy.recorder import Recordings
from seewhy.targets import ClassTarget, DirectionTarget, LogOddsTarget, ProbabilityTarget, Question, Target
from seewhy.untrained import untrained

Maps = Float[Tensor, "batch map *space"]


class Remaking:
    """Makes maps that were asked for by name again.

    Args:
        ask: the model.
        given: the maps under trial.
        recordings: what the model answered.
        question: what the maps are about.
        has_other_inputs: whether the model takes several, of which these images are one.
    """

    def __init__(
        self,
        ask: Explainer,
        given: Presented,
        recordings: Recordings,
        question: Question,
        *,
        has_other_inputs: bool = False,
    ) -> None:
        self._ask = ask
        self._given = given
        self._images = recordings.images
        self._outputs = recordings.outputs
        self._question = question
        self._has_other_inputs = has_other_inputs

    def of_images(self, images: Float[Tensor, "batch channel *space"]) -> Maps:
        """Return the maps of other inputs, about the same targets."""
        return self._made(self._ask, images, list(self._question))

    def of_other_class(self, seed: int) -> Maps:
        """Return the maps of the same inputs about another class, drawn at random and asked about in the same way.

        Raises:
            MetricError: the maps are not about one class of several.
        """
        classes = self._outputs.shape[1]
        indices = [target.index for target in self._question]
        if self._outputs.ndim != 2 or classes < 2 or None in indices:
            raise MetricError("The metric asks about another class, and these maps are not about one class of several.")
        for target in self._question:
            if not isinstance(target, _OF_ONE):
                asked = target.describe(self._ask.model.labels)
                raise MetricError(
                    f"The metric asks about another class in place of one, and '{asked}' is not about one alone. Ask "
                    "about one class (target='NAME'), or leave the metric out."
                )
        drawn = [
            int(torch.randint(1, classes, (), generator=drawn_for(image, seed, "other class")))
            for image in self._images
        ]
        others = [
            _about(target, (index + step) % classes)
            for target, index, step in zip(self._question, indices, drawn, strict=True)
            if index is not None
        ]
        return self._made(self._ask, self._images, others)

    def of_randomised(self, seed: int, part: float) -> Maps:
        """Return the maps of a copy of the model of whose layers with weights the last part, in 0..1, was drawn anew.

        Raises:
            MetricError: the model is of another framework, cannot be copied or has no weights, or its map is of another layer.
        """
        self._check_ways()
        made = []
        for row, target in enumerate(self._question):
            image = self._images[row : row + 1]
            other = untrained(
                self._ask, image, part, seed
            )  # an image at a time: batch norms measure noise as wide as it
            made.append(self._made(other, image, [target]))
        return torch.cat(made)

    def _check_ways(self) -> None:
        if not self._given.methods:
            raise MetricError(UNKNOWN)
        if self._has_other_inputs:
            raise MetricError(
                "The metric makes the maps again, which is not possible yet for a model that takes several inputs."
            )

    def _made(self, ask: Explainer, images: Tensor, targets: list[Any]) -> Maps:
        self._check_ways()
        inputs = list(images)
        made = by_name(ask, inputs, self._given.methods, targets, self._given.layers, self._given.how or {})
        if made.seen != self._given.seen:
            raise MetricError(
                f"The maps are of {_listed(self._given.seen)}, and those made again of {_listed(made.seen)}: they cannot be "
                "compared. Name layers=."
            )
        return made.on_inputs([Geometry.identity(tuple(image.shape[1:])) for image in inputs])


def _about(target: Target, index: int) -> Target:
    """Return the same question about another class: a logit, a probability or its log-odds, as before."""
    kept = {"predicted": False} if isinstance(target, ClassTarget | LogOddsTarget | DirectionTarget) else {}
    found: Target = replace(target, index=index, **kept)  # type: ignore[type-var]
    return found


_OF_ONE = (ClassTarget, ProbabilityTarget, LogOddsTarget, DirectionTarget)


def _listed(layers: tuple[tuple[str, ...], ...]) -> str:
    return "; ".join("+".join(each) or "no layer" for each in layers)
