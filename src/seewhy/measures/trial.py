"""What a metric is given: maps of a batch of inputs, and ways to ask the model about them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.maps.held import Held
from seewhy.measures.drawing import drawn_for
from seewhy.recorder import Budget, Conditions, Engine, Recordings, Variants
from seewhy.targets import Chances, Question, likelihood

Asked = Literal["probability", "score"]
Made = TypeVar("Made")

UNKNOWN = (
    "The metric makes the maps again, of other inputs or weights, and does not know how these were made. Give maps= names of "
    "methods."
)


@dataclass(frozen=True, eq=False)
class Examined:
    """One sample of a trial.

    Attributes:
        row: its place in the batch.
        image: `(channel, *space)`, the model's input.
        maps: `(map, *space)`.
        ranks: `(map, *space)`: 0 where a map is highest.
        nothing: from a fill to `(channel, *space)`, an input that stands for "nothing there".
        generator: seeded by the trial's seed and the image.
    """

    row: int
    image: Float[Tensor, " channel *space"]
    maps: Float[Tensor, " map *space"]
    ranks: Int[Tensor, " map *space"]
    nothing: Callable[[Any], Float[Tensor, " channel *space"]]
    generator: torch.Generator


@runtime_checkable
class Probe(Protocol):
    """From one sample to the variants of it that are run. Hashable, so that metrics that ask for the same share the runs."""

    def __hash__(self) -> int: ...

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""


@runtime_checkable
class Remaker(Protocol):
    """Makes the maps under trial again, by the same methods and layers, of something else."""

    def of_images(self, images: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch map *space"]:
        """Return the maps of other inputs, about the same targets."""

    def of_other_class(self, seed: int) -> Float[Tensor, "batch map *space"]:
        """Return the maps of the same inputs about another class, drawn at random."""

    def of_randomised(self, seed: int, part: float) -> Float[Tensor, "batch map *space"]:
        """Return the maps of a copy of the model of whose layers with weights the last part, in 0..1, was drawn anew."""


class Trial:
    """Maps of a batch, put to the test.

    Attributes:
        images: `(batch, channel, *space)`, the model's inputs.
        maps: `(batch, map, *space)` float32 on the CPU, signed, at the inputs' resolution; high means "supports the target".
        totals: `(batch, map)`, the sums of the raw maps, before they were resized: what completeness is about.
        seed: for random draws.
    """

    def __init__(
        self,
        engine: Engine,
        images: Float[Tensor, "batch channel *space"],
        questions: tuple[Question, Question],
        maps: Float[Tensor, "batch map *space"],
        conditions: Conditions,
        *,
        totals: Float[Tensor, "batch map"] | None = None,
        truth: Bool[Tensor, " batch *space"] | None = None,
        remade: Remaker | None = None,
    ) -> None:
        """Hold what is tried.

        Args:
            engine: the model, for this batch.
            images: its inputs.
            questions: the score that the maps explain, and the same as a probability (the score, where it has none).
            maps: as they are judged, at the inputs' resolution.
            conditions: seed and baselines; a trial is never cut short.
            totals: the raw maps' sums; None: those of `maps`.
            truth: where the thing asked about is.
            remade: makes the same maps of something else.
        """
        whole = replace(conditions, budget=Budget(), broken=None)
        self._engine = engine.on(images, whole)
        self._questions = questions
        self._conditions = whole
        self._truth = truth
        self._remade = remade
        self._memo: dict[Any, tuple[Tensor, Tensor]] = {}
        self._curve: Tensor | None = None
        self._made: dict[Hashable, Any] = {}
        self.images = images
        self.maps = maps
        self.totals = maps.flatten(2).sum(2) if totals is None else totals
        self.seed = conditions.seed
        self.runs = 0

    @classmethod
    def of(cls, recordings: Recordings, question: Question, chances: Chances, maps: Tensor, **more: Any) -> Trial:
        """Return a trial of maps of a recorded batch, about one question; `more` as in `__init__`."""
        pairs = zip(question, recordings.outputs, strict=True)
        likely = tuple(likelihood(target, output, chances) for target, output in pairs)
        questions = (question, likely)
        return cls(recordings.engine, recordings.images, questions, maps, recordings.conditions, **more)

    @property
    def likely(self) -> Question:
        """What is asked of each sample as a probability; the score itself, where it has none."""
        return self._questions[1]

    def score(self, probe: Probe, of: Asked = "probability") -> Float[Tensor, "batch results"]:
        """Return what the model says of variants of each input: the target's probability, or the score that is explained."""
        if probe not in self._memo:
            variants = [probe(self.sample(row)) for row in range(len(self.images))]
            found, spent = self._engine.score(variants, self._questions)
            self.runs += spent.done
            self._memo[probe] = (found[0].values, found[1].values)
        return self._memo[probe][0 if of == "score" else 1]

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` gives: made once for each key, so that metrics that remake the same maps share them."""
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found

    def whole(self, of: Asked = "probability") -> Float[Tensor, " batch"]:
        """Return what the model says of the inputs as they are."""
        return self.score(_Itself(), of)[:, 0]

    def blank(self, fill: Any, of: Asked = "probability") -> Float[Tensor, " batch"]:
        """Return what the model says of inputs of which nothing is left."""
        return self.score(_Blank(Held(fill)), of)[:, 0]

    def tell(self, curve: Float[Tensor, "batch map point"]) -> None:
        """Tell the curve of which a metric's value is the area, at evenly spaced parts from 0 to 1, for figures."""
        self._curve = curve

    def told(self) -> Float[Tensor, "batch map point"] | None:
        """Return the curve that was told since the last call; None where none was."""
        curve, self._curve = self._curve, None
        return curve

    def sample(self, row: int) -> Examined:
        """Return one sample."""
        image = self.images[row]
        return Examined(
            row, image, self.maps[row], self.ranks[row], lambda fill: self._nothing(fill, row), self.generator(row)
        )

    def generator(self, row: int) -> torch.Generator:
        """Return a new generator, which depends on the seed and the sample's image alone, not on its place in the batch."""
        return drawn_for(self.images[row], self.seed, "trial")

    @cached_property
    def ranks(self) -> Int[Tensor, "batch map *space"]:
        """`(batch, map, *space)`: 0 where a map is highest; places of the same value are in a random order of the image's own.

        Were it the same for all images, a map that is the same everywhere would name the same place in each.
        """
        flat = self.maps.flatten(2)
        each = [torch.randperm(flat.shape[2], generator=drawn_for(image, self.seed, "order")) for image in self.images]
        mixed = torch.stack(each)[:, None].expand_as(flat)
        order = mixed.gather(2, flat.gather(2, mixed).argsort(dim=2, descending=True, stable=True))
        ranks = torch.empty_like(order).scatter_(2, order, torch.arange(flat.shape[2]).expand_as(order))
        return ranks.view(self.maps.shape)

    @property
    def truth(self) -> Bool[Tensor, " batch *space"]:
        """`(batch, *space)`, where the thing asked about is.

        Raises:
            MetricError: nobody told.
        """
        if self._truth is None:
            raise MetricError(
                "The metric compares with where the thing is, which was not given: give truth=, a mask or boxes."
            )
        return self._truth

    @property
    def remade(self) -> Remaker:
        """The same maps of something else.

        Raises:
            MetricError: the maps were given as arrays, and nobody knows how they were made.
        """
        if self._remade is None:
            raise MetricError(UNKNOWN)
        return self._remade

    def _nothing(self, fill: Any, row: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return self._conditions.baselines(fill, self.images[row : row + 1], generator)[0]


@dataclass(frozen=True)
class _Itself:
    """The input as it is."""

    def __call__(self, sample: Examined) -> Variants:
        return Variants(1, lambda _: sample.image[None])


@dataclass(frozen=True)
class _Blank:
    """Nothing of the input."""

    fill: Any

    def __call__(self, sample: Examined) -> Variants:
        return Variants(1, lambda _: sample.nothing(self.fill.value)[None])
