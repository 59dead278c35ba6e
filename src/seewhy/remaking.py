"""The maps of the same methods once more, of something else: other inputs, another class, a model that learnt nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import MetricError
from seewhy.explainer import Explainer
from seewhy.frameworks import Shell
from seewhy.images import Geometry
from seewhy.presented import Presented, by_name
from seewhy.recorder import Recordings
from seewhy.targets import Question

UNKNOWN = (
    "The metric makes the maps again, of other inputs or weights, and does not know how these were made. Give maps= names of "
    "methods."
)

Maps = Float[Tensor, "batch map *space"]


class Remaking:
    """Makes maps that were asked for by name again.

    Args:
        ask: the model.
        given: the maps under trial.
        recordings: what the model answered.
        question: what the maps are about.
    """

    def __init__(self, ask: Explainer, given: Presented, recordings: Recordings, question: Question) -> None:
        self._ask = ask
        self._given = given
        self._images = recordings.images
        self._outputs = recordings.outputs
        self._question = question

    def of_images(self, images: Float[Tensor, "batch channel *space"]) -> Maps:
        """Return the maps of other inputs, about the same targets."""
        return self._made(self._ask, images, list(self._question))

    def of_other_class(self, seed: int) -> Maps:
        """Return the maps of the same inputs about another class, drawn at random.

        Raises:
            MetricError: the maps are not about one class of several.
        """
        classes = self._outputs.shape[1]
        indices = [target.index for target in self._question]
        if self._outputs.ndim != 2 or classes < 2 or None in indices:
            raise MetricError("The metric asks about another class, and these maps are not about one class of several.")
        drawn = torch.randint(1, classes, (len(indices),), generator=torch.Generator().manual_seed(seed))
        others = [
            (index + step) % classes for index, step in zip(indices, drawn.tolist(), strict=True) if index is not None
        ]
        return self._made(self._ask, self._images, others)

    def of_randomised(self, seed: int, down_to: int) -> Maps:
        """Return the maps of a copy of the model whose last `down_to` layers with weights were drawn anew.

        Raises:
            MetricError: the model is of another framework, or cannot be copied.
        """
        root = self._ask.model.module
        if isinstance(root, Shell):
            raise MetricError(
                "The metric draws weights anew in a copy of the model, which is possible for torch modules alone."
            )
        module = copy.deepcopy(root)
        generator = torch.Generator().manual_seed(seed)
        for layer in _weighted(module)[len(_weighted(module)) - down_to :]:
            _draw(layer, generator)
        other = Explainer(self._ask.model.with_(module=module), seed=self._ask.seed)
        return self._made(other, self._images, list(self._question))

    @property
    def weighted_layers(self) -> int:
        """How many layers of the model have weights of their own."""
        return len(_weighted(self._ask.model.module))

    def _made(self, ask: Explainer, images: Tensor, targets: list[Any]) -> Maps:
        if not self._given.methods:
            raise MetricError(UNKNOWN)
        inputs = list(images)
        made = by_name(ask, inputs, self._given.methods, targets, self._given.layers, self._given.how or {})
        return made.on_inputs([Geometry.identity(tuple(image.shape[1:])) for image in inputs])


def _weighted(module: nn.Module) -> list[nn.Module]:
    """Return the modules that have parameters of their own, in the order of their registration: the input's side first."""
    return [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw a layer's parameters anew, as widely spread as they are: normal, of their own mean and deviation."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            spread = parameter.float().std(unbiased=False) if parameter.numel() > 1 else parameter.new_zeros(())
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.copy_(parameter.mean() + spread * noise)
