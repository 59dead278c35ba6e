"""What a recorder hands to the methods: plain arrays, and ways to ask the model again, whatever model and framework it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from seewhy.errors import MethodError
from seewhy.recorder.attended import Attention
from seewhy.recorder.biases import BiasShare
from seewhy.recorder.cost import Cost, Spent
from seewhy.recorder.engine import Engine, Rule
from seewhy.recorder.table import LayerRow
from seewhy.recorder.variants import Derived, Scores, Variants
from seewhy.targets import Kind, Question

if TYPE_CHECKING:
    from seewhy.recorder.recordings import Recordings


class Needs(Flag):
    """What a method needs of a recording. Only what is needed is computed."""

    IMAGES = auto()
    """The model's input."""
    ACTIVATIONS = auto()
    """The layer's output."""
    GRADIENTS = auto()
    """The layer's output, and the derivative of the score by it."""
    CURVATURE = auto()
    """The layer's output, the derivative of the score by it, and its second derivative along the output."""
    HEAD = auto()
    """The weights of the linear layer that follows global average pooling of the layer's output."""
    REPLAY = auto()
    """The layer's output, and the score for edited outputs of the layer."""
    SCORE = auto()
    """The score for other inputs: all that a black box can answer."""
    INPUT_GRADIENTS = auto()
    """The derivative of the score by the input, here and at other inputs."""
    RELU_RULE = auto()
    """The same by another rule for the derivative of ReLU."""
    PROPAGATION = auto()
    """The same by rules for all functions that relevance goes through."""
    BIASES = auto()
    """The derivative of the score by every bias."""
    MODULE = auto()
    """The model itself, for methods of other libraries."""
    ATTENTION = auto()
    """The weights of every attention layer, and which of the last tokens the score reads."""
    ATTENTION_GRADIENTS = auto()
    """The same, and the derivative of the score by the weights."""
    ATTENTION_FORMATION = auto()
    """The same, and for each layer the derivative by its weights of the score that the mean of its own tokens would have."""

    @property
    def layer(self) -> bool:
        """Whether a layer is looked at."""
        return bool(self & (Needs.ACTIVATIONS | Needs.GRADIENTS | Needs.CURVATURE | Needs.HEAD | Needs.REPLAY))

    @property
    def gradients(self) -> bool:
        """Whether the score must be differentiated by a layer's output."""
        return bool(self & (Needs.GRADIENTS | Needs.CURVATURE))

    @property
    def attention(self) -> bool:
        """Whether attention is looked at."""
        return bool(self & (Needs.ATTENTION | Needs.ATTENTION_GRADIENTS | Needs.ATTENTION_FORMATION))

    @property
    def backwards(self) -> int:
        """How often each score is differentiated for the recording itself."""
        return (2 if Needs.CURVATURE in self else int(self.gradients)) + self.attention


@runtime_checkable
class Perturbation(Protocol):
    """From one sample to the variants of it that are run. Hashable, so that those who ask for the same one share its runs."""

    def __hash__(self) -> int: ...

    def __call__(self, sample: Recording) -> Variants:
        """Return the variants of one sample, given as a recording of a batch of one."""


@runtime_checkable
class Variation(Protocol):
    """A way to vary the input of a whole batch: hashable, so that methods and layers that ask for the same one share it."""

    def __hash__(self) -> int: ...

    def __len__(self) -> int: ...

    def __call__(
        self, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "batch channel *space"]]:
        """Yield the varied inputs. What is drawn at random must be the same for every sample of the batch."""


@runtime_checkable
class Moving(Protocol):
    """A variation that moves what is in the image."""

    def undo(self, number: int) -> Callable[[Tensor], Tensor]:
        """Return what puts maps `(batch, ..., *grid)` of variant `number` back to where the image had it."""


@dataclass(frozen=True)
class _Itself:
    """The input as it is."""

    def __call__(self, sample: Recording) -> Variants:
        return Variants(1, lambda _: sample.images)


@dataclass(frozen=True)
class Sharing:
    """What a method is asked in one go, so that further runs of the model serve all of it and record nothing else.

    Attributes:
        questions: their numbers.
        layers: their names.
        needs: of the method.
    """

    questions: tuple[int, ...]
    layers: tuple[str, ...]
    needs: Needs


class Recording:
    """What one layer did about one question, for a batch. All float32, on the model's device. Nothing in it may be changed.

    Attributes:
        generator: for a method's own random draws; seeded anew for every recording.
        reported: what the method told about its map, `(batch,)` each, by name.
        cost: what the method spent on one image, beyond the recording.
        cut_short: (runs made, runs planned) where a budget ended the work early.
        notes: what else must be said of the maps.
        notes_of_each: what must be said of each sample's map; empty where there is nothing.
        among: of how many maps each sample's was chosen by what the model says of parts of the input.
    """

    def __init__(self, of: Recordings, layer: str, question: int, sharing: Sharing, only: int | None = None) -> None:
        self._of = of
        self._layer = layer
        self._question = question
        self._sharing = sharing
        self._only = only
        self.generator = torch.Generator().manual_seed(of.conditions.seed)
        self.reported: dict[str, Tensor] = {}
        self.cost = Cost()
        self.cut_short: tuple[int, int] | None = None
        self.notes: tuple[str, ...] = ()
        self.notes_of_each: tuple[str, ...] = ()
        self.among = 1

    @property
    def images(self) -> Float[Tensor, "batch image_channel *space"]:
        """The model's input `(batch, channel, *space)`."""
        return self._mine(self._of.images.float())

    @property
    def kind(self) -> Kind:
        """What the model answers."""
        return self._of.kind

    @property
    def scores(self) -> Float[Tensor, " batch"]:
        """The number that is explained, `(batch,)`."""
        if not self._of.scores:  # a variant of which only images are known
            return self.score(_Itself()).values[:, 0]
        return self._mine(self._of.scores[self._question])

    @property
    def activations(self) -> Float[Tensor, "batch channel *grid"]:
        """The layer's output `(batch, channel, *grid)`, channels first, 1 to 3 spatial axes."""
        return self._get(Needs.ACTIVATIONS, self._of.activations.get(self._layer))

    @property
    def gradients(self) -> Float[Tensor, "batch channel *grid"]:
        """The derivative of each sample's score by its activations, of the same shape."""
        return self._get(Needs.GRADIENTS, self._of.gradients.get((self._question, self._layer)))

    def has(self, need: Needs) -> bool:
        """Whether the method can ask for what it needs; false only where it has another way and the model lacks this."""
        return need in self._sharing.needs

    @property
    def curvature(self) -> Float[Tensor, "batch channel *grid"]:
        """The score's second derivative by the activations, times the activations: of the same shape."""
        return self._get(Needs.CURVATURE, self._of.curvatures.get((self._question, self._layer)))

    @property
    def head(self) -> Float[Tensor, "batch channel"]:
        """The linear weights `(batch, channel)` between the layer's spatial mean and the score."""
        return self._get(Needs.HEAD, self._of.heads.get((self._question, self._layer)))

    @property
    def attention(self) -> Attention:
        """The model's attention, `(batch, heads, queries, keys)` a layer, and what the score reads of it."""
        if self._of.attention is None:
            raise MethodError(
                "The method reads ATTENTION, which was not recorded: declare needs=Needs.ATTENTION for it."
            )
        return self._of.attention.at(self._question, self._mine)

    def baseline(self, kind: Any) -> Float[Tensor, "batch image_channel *space"]:
        """Return inputs that stand for "nothing there", of the images' shape.

        Args:
            kind: "black", "white", "mean", "blur", "noise", "dataset", a number, a picture, or a tensor in the model's units.

        Raises:
            ImageError: another word, or a picture that does not fit.
        """
        generator = torch.Generator().manual_seed(self._of.conditions.seed)
        return self._of.conditions.baselines(kind, self.images, generator).to(self.images)

    def score(self, perturbation: Perturbation) -> Scores:
        """Return the scores of variants of the input."""
        return self._shared(("score", perturbation, self._layer), perturbation, self._engine.score)

    def replay(self, perturbation: Perturbation) -> Scores:
        """Return the scores for edited activations of the layer; what lies before the layer is run once a chunk."""
        row = self._of.row(self._layer)
        call = row.call or self._of.calls[self._layer]
        run = lambda variants, questions: self._engine.replay(row, call, variants, questions)  # noqa: E731
        return self._shared(("replay", perturbation, self._layer), perturbation, run)

    def derive(self, perturbation: Perturbation, take: Callable[[Derived], None], *, rule: Rule = None) -> None:
        """Hand the score's derivatives by variants of the input to `take`, chunk after chunk, which must not keep them.

        Args:
            perturbation: the variants.
            take: called for every sample and chunk.
            rule: "guided" or "deconvnet": what stands for the derivative of ReLU; or how relevance is propagated.

        Raises:
            MethodError: a rule was given, and the model has no ReLU.
        """
        variants = self._variants(perturbation)
        engine = self._engine
        self._account(engine.derive(variants, self._asked(self._question), take, rule))
        self.notes += engine.told if isinstance(rule, str) else ()

    def biases(self) -> list[BiasShare]:
        """Return what every bias of the model contributes to the score, to first order, place by place."""
        shares, spent = self._engine.biases(self._asked(self._question))
        self._account(spent)
        return shares

    def varied(self, variation: Variation) -> Iterator[Recording]:
        """Run the model on varied inputs; yield recordings of several variants each, `variant * batch + sample` by row."""
        batch, done = len(self._of.images), 0
        for chunk in self._of.varied(variation, self._sharing):
            part = chunk.at(self._layer, self._sharing.questions.index(self._question))
            yield part
            self.pay(chunk.spent(batch) + part.cost.times(len(chunk.images) // batch))
            done += len(chunk.images) // batch
            if part.cut_short is not None:
                self._cut(*part.cut_short)
        if done < len(variation):
            self._cut(done, len(variation))

    def varied_layers(self, variation: Variation, layers: Sequence[Recording]) -> Iterator[list[Recording]]:
        """Run the model on varied inputs once for several layers of one run; yield their recordings, as :meth:`varied` does."""
        batch, done = len(self._of.images), 0
        question = self._sharing.questions.index(self._question)
        for chunk in self._of.varied(variation, self._sharing):
            yield [chunk.at(layer._layer, question) for layer in layers]
            self.pay(chunk.spent(batch))
            done += len(chunk.images) // batch
        if done < len(variation):
            self._cut(done, len(variation))

    @property
    def asked(self) -> Question:
        """What is asked of each sample."""
        return self._asked(self._question)

    def module(self, row: int) -> AbstractContextManager[nn.Module]:
        """Hold the model as a module from images `(number, channel, *space)` to sample `row`'s scores `(number,)`."""
        return self._engine.module(self._asked(self._question)[row])

    def report(self, name: str, values: Shaped[Tensor, " batch"]) -> None:
        """Tell a number about each sample's map, such as how far it is from complete."""
        self.reported[name] = values.detach().float().cpu()

    def pay(self, cost: Cost) -> None:
        """Tell what was spent on one image by a method that runs the model by itself."""
        self.cost = self.cost + cost

    def tell(self, words: str) -> None:
        """Say something that a reader of the map must know."""
        self.notes += (words,)

    def chose(self, names: Sequence[str], places: Sequence[int]) -> None:
        """Tell which of several maps was chosen for each sample by what the model says of parts of the input."""
        self.among = len(names)
        self.notes_of_each = tuple(f"chosen of {len(names)} maps: {names[place]}" for place in places)

    @property
    def layer_row(self) -> LayerRow:
        """The layer's name and layout."""
        return self._of.row(self._layer)

    @property
    def seed(self) -> int:
        """The seed of every random draw."""
        return self._of.conditions.seed

    @property
    def place(self) -> int:
        """Which sample of the batch this is the recording of, where it is of one."""
        return self._only or 0

    def affordable(self, steps: int) -> int:
        """Return how many of a method's steps, each a run forwards and backwards, the budget allows, at least 1.

        For methods whose every step depends on the one before, so that nothing can be left out later.
        """
        budget = self._of.conditions.budget
        one = 4 * self._of.cost.seconds / len(self._of.images)
        allowed = max(1, min(budget.capped(steps), int(min(budget.limit / max(one, 1e-9), steps))))
        if allowed < steps:
            self._cut(allowed, steps)
        return allowed

    def _variants(self, perturbation: Perturbation) -> list[Variants]:
        return [perturbation(self.row(row)) for row in range(len(self.images))]

    def row(self, row: int) -> Recording:
        """Return the recording of one sample, as a batch of one."""
        return Recording(
            self._of, self._layer, self._question, self._sharing, row if self._only is None else self._only
        )

    def _asked(self, question: int) -> Question:
        asked = self._of.questions[question]
        return asked if self._only is None else asked[self._only : self._only + 1]

    @property
    def _engine(self) -> Engine:
        whole = self._of.engine
        return whole if self._only is None else whole.on(self._mine(self._of.images), self._of.conditions)

    def _shared(
        self,
        key: tuple[Any, ...],
        perturbation: Perturbation,
        run: Callable[[Sequence[Variants], Sequence[Any]], tuple[list[Scores], Spent]],
    ) -> Scores:
        """Return the scores for this question; those for its whole group are computed together, once."""
        memo, key = self._of.memo, (*key, self._sharing.questions, self._only)
        if key not in memo:
            memo[key] = run(self._variants(perturbation), [self._asked(number) for number in self._sharing.questions])
        scores, spent = memo[key]
        self._account(spent)
        mine: Scores = scores[self._sharing.questions.index(self._question)]
        device = self.images.device
        return Scores(mine.values.to(device), mine.known.to(device))

    def _account(self, spent: Spent) -> None:
        self.pay(spent.cost)
        if spent.done < spent.planned:
            self._cut(spent.done, spent.planned)

    def _cut(self, done: int, planned: int) -> None:
        """Remember that a budget ended the work; of several pieces of work, the largest is told."""
        if self.cut_short is None or planned > self.cut_short[1]:
            self.cut_short = (done, planned)

    def _mine(self, values: Tensor) -> Tensor:
        return values if self._only is None else values[self._only : self._only + 1]

    def _get(self, need: Needs, values: Tensor | None) -> Tensor:
        if values is None:
            raise MethodError(
                f"The method reads {need.name}, which was not recorded: declare needs=Needs.{need.name} for it."
            )
        return self._mine(values)
