"""Everything one run of the model gave, and what was asked of it since."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.recorder.attended import Attended
from seewhy.recorder.conditions import Conditions
from seewhy.recorder.cost import Cost
from seewhy.recorder.engine import Engine
from seewhy.recorder.memory import first_chunk
from seewhy.recorder.recording import Moving, Needs, Recording, Sharing, Variation
from seewhy.recorder.table import LayerRow
from seewhy.recorder.torchvision_detectors import Inside
from seewhy.recorder.variants import in_chunks
from seewhy.targets import Kind, MovedTarget, Question, Target, put_back

KEPT_BYTES = 256 << 20
"""Recordings of varied inputs up to this size are kept for other layers and methods."""

Again = Callable[[Tensor, tuple[Question, ...], "Sharing", Conditions], "Recordings"]


@dataclass(eq=False)
class Recordings:
    """Several layers and several questions about one batch.

    Attributes:
        images: `(batch, channel, *space)`.
        outputs: `(batch, *output)`, the model's scores.
        kind: what they are.
        layers: what was recorded, in the order asked for.
        questions: what was asked; each has one target a sample.
        activations: layer name -> `(batch, channel, *grid)`.
        scores: one `(batch,)` a question.
        gradients: (question number, layer name) -> `(batch, channel, *grid)`.
        curvatures: the same for the second derivative times the activations.
        heads: (question number, layer name) -> `(batch, channel)`.
        attention: what was seen of attention; None where no method looks at it.
        cost: what the run took, all samples together.
        conditions: for this and all further runs.
        inside: what the model made of its input before its first layer, where it scales and pads pictures itself.
        calls: how often each layer ran; the last time is what was recorded.
        engine: further runs.
        needs: what the methods use, all together.
        again: record the given questions for other inputs.
        memo: what was scored, by what was asked.
    """

    images: Tensor
    outputs: Tensor
    kind: Kind
    layers: tuple[LayerRow, ...]
    questions: tuple[Question, ...]
    activations: dict[str, Tensor]
    scores: list[Tensor]
    gradients: dict[tuple[int, str], Tensor]
    curvatures: dict[tuple[int, str], Tensor]
    heads: dict[tuple[int, str], Tensor]
    attention: Attended | None
    cost: Cost
    conditions: Conditions
    calls: Mapping[str, int]
    engine: Engine
    needs: Needs
    again: Again
    inside: Inside | None = None
    memo: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def at(self, layer: str, question: int, sharing: Sharing | None = None) -> Recording:
        """Return what a method sees: one layer, one question.

        Args:
            layer: a recorded layer's name.
            question: the question's number.
            sharing: what the method will be asked, and of what; if it runs the model again, all of it shares the runs.
        """
        return Recording(self, layer, question, sharing or self._all)

    @property
    def _all(self) -> Sharing:
        return Sharing(tuple(range(len(self.questions))), tuple(row.name for row in self.layers), self.needs)

    def row(self, layer: str) -> LayerRow:
        """Return a recorded layer's row."""
        return next(row for row in self.layers if row.name == layer)

    def has_head(self, layer: str, question: int) -> bool:
        """Return whether the score is linear in the spatial mean of this layer, so that its weights are known."""
        return (question, layer) in self.heads

    def spent(self, samples: int) -> Cost:
        """Return what one of `samples` images spent on the recording of these variants of them."""
        return replace(self.cost, seconds=self.cost.seconds / len(self.images)).times(len(self.images) // samples)

    def varied(self, variation: Variation, sharing: Sharing) -> Iterator[Recordings]:
        """Yield recordings of varied inputs, several variants each; kept for the next who asks, unless they are large.

        Args:
            variation: how to vary them.
            sharing: what is recorded; of no layer and no attention, nothing is run before it is asked for.
        """
        key = ("varied", variation, sharing)
        if key in self.memo:
            yield from self.memo[key]
            return
        kept: list[Recordings] = []
        size = 0
        for recordings in self._vary(variation, sharing):
            size += recordings.bytes
            if size <= KEPT_BYTES:
                kept.append(recordings)
            yield recordings
        if size <= KEPT_BYTES:
            self.memo[key] = kept

    def _not_yet(
        self, images: Tensor, asked: tuple[Question, ...], sharing: Sharing, conditions: Conditions
    ) -> Recordings:
        """Return recordings of no layer, whose scores are asked for when they are needed."""
        return replace(
            self,
            images=images,
            outputs=images.new_zeros(len(images), 0),
            layers=(),
            questions=asked,
            activations={},
            scores=[],
            gradients={},
            curvatures={},
            heads={},
            attention=None,
            needs=sharing.needs,
            cost=Cost(),
            conditions=conditions,
            engine=self.engine.on(images, conditions),
            memo={},
        )

    @property
    def bytes(self) -> int:
        """The size of what is held."""
        held = [self.images, *self.activations.values(), *self.gradients.values(), *self.curvatures.values()]
        held += [] if self.attention is None else self.attention.tensors
        return sum(each.numel() * each.element_size() for each in held)

    def _vary(self, variation: Variation, sharing: Sharing) -> Iterator[Recordings]:
        batch = len(self.images)
        asked = [self.questions[number] for number in sharing.questions]
        record = self.again if sharing.layers or sharing.needs.attention else self._not_yet
        at_once = max(1, first_chunk(self.images[0], backward=sharing.needs.backwards > 0) // batch)
        variants = variation(self.images, torch.Generator().manual_seed(self.conditions.seed))
        shared = replace(self.conditions, budget=self.conditions.budget.shared(len(variation)))
        left = self.conditions.budget.capped(len(variation))
        deadline = time.perf_counter() + self.conditions.budget.limit * batch
        first = 0
        while some := list(islice(variants, min(at_once, left))):
            left -= len(some)

            def run(chunk: range, some: list[Tensor] = some, first: int = first) -> Recordings:
                images = torch.cat([some[number] for number in chunk])
                undone = [self._put_back(variation, first + number) for number in chunk]
                questions = tuple(tuple(back(each) for back in undone for each in question) for question in asked)
                return record(images, questions, sharing, shared)

            for _, recordings in in_chunks(len(some), len(some), run):
                yield recordings
            first += len(some)
            if time.perf_counter() > deadline:
                return

    def _put_back(self, variation: Variation, number: int) -> Callable[[Target], Target]:
        """Return what makes a question one about a variant in which places and boxes lie elsewhere (a reflected image)."""
        if not isinstance(variation, Moving) or self.kind not in ("places", "boxes"):
            return lambda target: target
        back = put_back(variation.undo(number), self.kind, self.images.shape[2:])
        if back is None:
            raise MethodError(
                f"A question about a box cannot be asked of variant {number} of the input, since it is not known where its boxes "
                "lie in the input itself. Vary the input by what reflects it, turns it by quarters or leaves all where it is."
            )
        return lambda target: MovedTarget(target, back)
