"""What a recorder hands to the methods: plain arrays, whatever the model and its framework were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.recorder.table import LayerRow
from seewhy.targets import Question


class Needs(Flag):
    """What a method needs of a recording. Only what is needed is computed."""

    IMAGES = auto()
    """The model's input."""
    ACTIVATIONS = auto()
    """The layer's output."""
    GRADIENTS = auto()
    """The layer's output, and the derivative of the score by it."""
    HEAD = auto()
    """The weights of the linear layer that follows global average pooling of the layer's output."""


@dataclass(frozen=True)
class Cost:
    """What was spent: runs of the model forwards and backwards (a batch counts as one), and seconds."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards, self.backwards + other.backwards, round(self.seconds + other.seconds, 6)
        )

    def __str__(self) -> str:
        """Return, say, "1 forward, 1 backward, 0.06 s"."""
        plural = ("" if self.forwards == 1 else "s", "" if self.backwards == 1 else "s")
        return f"{self.forwards} forward{plural[0]}, {self.backwards} backward{plural[1]}, {self.seconds:.2f} s"


@runtime_checkable
class Variation(Protocol):
    """A way to vary the input: hashable, so that methods and layers that ask for the same one share its runs."""

    def __hash__(self) -> int: ...

    def __call__(
        self, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "batch channel *space"]]:
        """Yield the varied inputs. What is drawn at random must be the same for every sample of the batch."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What one layer did about one question, for a batch. All float32, on the model's device.

    Attributes:
        images: `(batch, channel, *space)`, the model's input.
        scores: `(batch,)`, the number that is explained.
        generator: for a method's own random draws; seeded anew for every recording.
        varied: run the model again on varied inputs; returns one Recording a variant.
    """

    images: Float[Tensor, "batch image_channel *space"]
    scores: Float[Tensor, " batch"]
    generator: torch.Generator
    varied: Callable[[Variation], list[Recording]]
    _recorded: Mapping[Needs, Tensor]

    @property
    def activations(self) -> Float[Tensor, "batch channel *grid"]:
        """The layer's output `(batch, channel, *grid)`, channels first, 1 to 3 spatial axes."""
        return self._get(Needs.ACTIVATIONS)

    @property
    def gradients(self) -> Float[Tensor, "batch channel *grid"]:
        """The derivative of each sample's score by its activations, of the same shape."""
        return self._get(Needs.GRADIENTS)

    @property
    def head(self) -> Float[Tensor, "batch channel"]:
        """The linear weights `(batch, channel)` between the layer's spatial mean and the score."""
        return self._get(Needs.HEAD)

    def _get(self, need: Needs) -> Tensor:
        if need not in self._recorded:
            raise MethodError(
                f"The method reads {need.name}, which was not recorded: declare needs=Needs.{need.name} for it."
            )
        return self._recorded[need]


@dataclass(eq=False)
class Recordings:
    """Everything one run of the model gave: several layers and several questions about one batch.

    Attributes:
        images: `(batch, channel, *space)`.
        outputs: `(batch, *output)`, the model's scores.
        layers: what was recorded, in the order asked for.
        questions: what was asked; each has one target a sample.
        activations: layer name -> `(batch, channel, *grid)`.
        scores: one `(batch,)` a question.
        gradients: (question number, layer name) -> `(batch, channel, *grid)`.
        heads: (question number, layer name) -> `(batch, channel)`.
        cost: what it took so far, variations included.
        seed: for every random draw.
        calls: how often each layer ran; the last time is what was recorded.
        again: record the same layers and the given questions for other inputs.
    """

    images: Tensor
    outputs: Tensor
    layers: tuple[LayerRow, ...]
    questions: tuple[Question, ...]
    activations: dict[str, Tensor]
    scores: list[Tensor]
    gradients: dict[tuple[int, str], Tensor]
    heads: dict[tuple[int, str], Tensor]
    cost: Cost
    seed: int
    calls: Mapping[str, int]
    again: Callable[[Tensor, tuple[Question, ...]], Recordings]
    _variants: dict[tuple[Variation, tuple[int, ...]], list[Recordings]] = field(default_factory=dict)

    def at(self, layer: str, question: int, together: tuple[int, ...] | None = None) -> Recording:
        """Return what a method sees: one layer, one question.

        Args:
            layer: a recorded layer's name.
            question: the question's number.
            together: all the questions that the method will be asked; if it varies the input, they share its runs.
        """
        group = together or (question,)
        parts = {
            Needs.ACTIVATIONS: self.activations.get(layer),
            Needs.GRADIENTS: self.gradients.get((question, layer)),
            Needs.HEAD: self.heads.get((question, layer)),
        }
        return Recording(
            images=self.images.float(),
            scores=self.scores[question],
            generator=self._generator(),
            varied=lambda variation: [each.at(layer, group.index(question)) for each in self._varied(variation, group)],
            _recorded={need: values for need, values in parts.items() if values is not None},
        )

    def has_head(self, layer: str, question: int) -> bool:
        """Return whether the score is linear in the spatial mean of this layer, so that its weights are known."""
        return (question, layer) in self.heads

    def _varied(self, variation: Variation, group: tuple[int, ...]) -> list[Recordings]:
        """Return a recording of the same layers for each varied input; run once, kept for other layers and methods."""
        key = (variation, group)
        if key not in self._variants:
            asked = tuple(self.questions[number] for number in group)
            variants = [self.again(images, asked) for images in variation(self.images, self._generator())]
            self._variants[key] = variants
            self.cost = sum((each.cost for each in variants), self.cost)
        return self._variants[key]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
