"""Many runs of one model for one batch: chunked, within memory and budget, shared by questions, with the progress told.

Everything here goes through a :class:`Backend`, so it is the same for every framework; a backend that can only run forwards
(a black box) still allows :meth:`Engine.score`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from seewhy.errors import RecordingError
from seewhy.recorder.biases import BiasShare, merged
from seewhy.recorder.conditions import Conditions
from seewhy.recorder.cost import Cost, Spent
from seewhy.recorder.memory import first_chunk, heap_kept
from seewhy.recorder.propagation import Propagation
from seewhy.recorder.table import LayerRow
from seewhy.recorder.variants import Derived, Part, Scores, Variants, in_chunks, interleaved, parts
from seewhy.targets import Question, Target

Result = TypeVar("Result")

MANY = 24
"""Runs of a sample from which on the model is rehearsed first: that takes as long as two."""

Score = Callable[[Tensor], Tensor]
"""From outputs `(number, *output)` to the scores `(number,)` that are explained."""

Rule = str | Propagation | None
"""What stands for the functions' own derivatives: a rule for ReLU by its name, rules for all that relevance goes through."""


@runtime_checkable
class Backend(Protocol):
    """What one framework's recorder offers for repeated runs; all of it only while it is held."""

    def holding(self, seed: int) -> AbstractContextManager[Any]:
        """Borrow the model for several runs."""

    @property
    def differentiable(self) -> bool:
        """Whether derivatives can be had at all."""

    @property
    def most(self) -> int | None:
        """The most images that the model is given at once; None: any number."""

    def rehearse(self, image: Tensor) -> None:
        """Find out with one image `(1, channel, *space)` how to be fast in the many runs that come while it is held."""

    def outputs(self, images: Tensor) -> Tensor:
        """Return `(number, *output)`."""

    def derivatives(self, images: Tensor, score: Score, rule: Rule) -> tuple[Tensor, Tensor]:
        """Return the scores `(number,)` and their derivatives `(number, channel, *space)` by the images."""

    def bias_shares(self, images: Tensor, score: Score) -> list[BiasShare]:
        """Return what every bias contributes to the scores of these images."""

    def module(self, target: Target, seed: int) -> AbstractContextManager[nn.Module]:
        """Hold the model as a module from images to one target's scores."""

    def replayer(self, image: Tensor, layer: LayerRow, call: int) -> Replayer:
        """Return the model's tail behind a layer, for one image `(1, channel, *space)`."""


@runtime_checkable
class Replayer(Protocol):
    """A model's tail."""

    def chunk(self, activations: Tensor) -> int:
        """Return how many copies of activations `(channel, *grid)` to run at once."""

    def __call__(self, activations: Tensor) -> Tensor:
        """Return the outputs `(number, *output)` for activations `(number, channel, *grid)` of the layer."""


class Engine:
    """Runs variants of a batch's inputs.

    Args:
        backend: the model.
        images: `(batch, channel, *space)`.
        conditions: seed, budget, progress.
    """

    def __init__(self, backend: Backend, images: Tensor, conditions: Conditions) -> None:
        self._backend = backend
        self._images = images
        self._conditions = conditions

    def on(self, images: Tensor, conditions: Conditions) -> Engine:
        """Return the same for other images."""
        return Engine(self._backend, images, conditions)

    @property
    def differentiable(self) -> bool:
        """Whether the model has derivatives."""
        return self._backend.differentiable

    @property
    def told(self) -> tuple[str, ...]:
        """What the model's runs by a rule for ReLU left to say."""
        return tuple(getattr(self._backend, "told", ()))

    def score(self, variants: Sequence[Variants], questions: Sequence[Question]) -> tuple[list[Scores], Spent]:
        """Return each question's scores of all variants of each sample, and what one sample cost."""
        found = _Tally(variants, questions)

        def run(chunk: Sequence[Part]) -> Tensor:
            return self._backend.outputs(_made(variants, chunk))

        size = first_chunk(self._images[0], backward=False)
        done, seconds = self._each(variants, size, run, found.add)
        return found.scores(), Spent(Cost(forwards=done, seconds=seconds), done, _most(variants))

    def replay(
        self, layer: LayerRow, call: int, variants: Sequence[Variants], questions: Sequence[Question]
    ) -> tuple[list[Scores], Spent]:
        """Return each question's scores of the model's tail on edited activations of a layer.

        Args:
            layer: whose output is replaced.
            call: which of its runs in one forward, 1 the first.
            variants: edited activations, one Variants a sample.
            questions: as in :meth:`score`.
        """
        found = _Tally(variants, questions)
        with self._backend.holding(self._conditions.seed):
            tails = [self._backend.replayer(self._images[row : row + 1], layer, call) for row in range(len(variants))]
            fit = [tail.chunk(own.make(range(1))[0]) for tail, own in zip(tails, variants, strict=True) if own.count]

        def run(chunk: Sequence[Part]) -> Tensor:
            return torch.cat([tails[row](variants[row].make(numbers)) for row, numbers in chunk])

        # A tail takes one sample at a time: as many of its variants as fit come one after the other.
        size = min(fit, default=1)
        done, seconds = self._each(variants, size, run, found.add, block=size)
        return found.scores(), Spent(Cost(replays=done, seconds=seconds), done, _most(variants))

    def derive(
        self, variants: Sequence[Variants], question: Question, take: Callable[[Derived], None], rule: Rule
    ) -> Spent:
        """Hand every sample's derivatives at its variants to `take`, a chunk at a time, and return what one sample cost.

        Args:
            variants: one Variants a sample.
            question: what is differentiated.
            take: must not keep the gradients.
            rule: "guided" or "deconvnet" instead of ReLU's own derivative, or how relevance is propagated.
        """

        def run(chunk: Sequence[Part]) -> tuple[Tensor, Tensor]:
            targets = [question[row] for row, numbers in chunk for _ in numbers]
            return self._backend.derivatives(_made(variants, chunk), lambda outputs: asked(targets, outputs), rule)

        def use(chunk: Sequence[Part], found: tuple[Tensor, Tensor]) -> None:
            (scores, gradients), at = found, 0
            for row, numbers in chunk:
                part = slice(at, at + len(numbers))
                places = torch.arange(numbers.start, numbers.stop, device=gradients.device)
                take(Derived(row, places, scores[part], gradients[part]))
                at = part.stop

        size = first_chunk(self._images[0], backward=True)
        done, seconds = self._each(variants, size, run, use)
        return Spent(Cost(done, done, seconds), done, _most(variants))

    def biases(self, question: Question) -> tuple[list[BiasShare], Spent]:
        """Return what every bias contributes to each sample's score, and what one sample cost."""

        def run(chunk: range) -> list[BiasShare]:
            rows = slice(chunk.start, chunk.stop)
            return self._backend.bias_shares(self._images[rows], lambda outputs: asked(question[rows], outputs))

        begin, batch = time.perf_counter(), len(self._images)
        with self._backend.holding(self._conditions.seed):
            found = [shares for _, shares in in_chunks(batch, first_chunk(self._images[0], backward=True), run)]
        return merged(found), Spent(Cost(1, 1, (time.perf_counter() - begin) / batch))

    def module(self, target: Target) -> AbstractContextManager[nn.Module]:
        """Hold the model as a module from images to one target's scores."""
        return self._backend.module(target, self._conditions.seed)

    def _each(
        self,
        variants: Sequence[Variants],
        size: int,
        run: Callable[[Sequence[Part]], Result],
        use: Callable[[Sequence[Part], Result], None],
        block: int = 0,
    ) -> tuple[int, float]:
        """Run everything in chunks within the budget; return the most runs of any sample, and seconds a sample.

        Args:
            variants: one Variants a sample.
            size: how many to run at once, at first.
            run: runs a chunk; called again for its halves when memory runs out.
            use: takes in what a chunk gave; called once for each run.
            block: how many of one sample's variants come one after the other; 0: an equal share of a chunk.
        """
        budget, watch, broken = self._conditions.budget, self._conditions.watch, self._conditions.broken
        if broken:
            raise broken[0]  # it is not asked once more
        size = min(size, self._backend.most or size)
        counts = [budget.capped(each.count) for each in variants]
        pairs = interleaved(counts, block * len(counts) or size)
        done = 0

        def chosen(chunk: range) -> list[Part]:
            return parts(pairs[chunk.start : chunk.stop])

        on_cpu = self._images.device.type == "cpu"
        with heap_kept() if on_cpu else nullcontext(), self._backend.holding(self._conditions.seed):
            begin = time.perf_counter()
            if max(counts, default=0) >= MANY and not block:  # a tail costs less than a rehearsal
                self._backend.rehearse(self._images[:1])
            limit = begin + budget.limit * max(1, sum(count > 0 for count in counts))
            if watch is not None:
                watch(0, len(pairs))
            try:
                for chunk, found in in_chunks(len(pairs), size, lambda chunk: run(chosen(chunk))):
                    use(chosen(chunk), found)
                    done = chunk.stop
                    late = time.perf_counter() > limit
                    if watch is not None:
                        watch(len(pairs) if late else done, len(pairs))
                    if late:
                        break
            except RecordingError as error:
                if not done or broken is None:
                    raise
                broken.append(error)  # what is done makes a map still, as where a budget ends the work
            seconds = time.perf_counter() - begin
        most = max((sum(row == other for other, _ in pairs[:done]) for row in range(len(counts))), default=0)
        return most, seconds / max(1, len(counts))


class _Tally:
    """Collects the scores of all questions, in whatever order they come."""

    def __init__(self, variants: Sequence[Variants], questions: Sequence[Question]) -> None:
        self._variants = variants
        self._questions = questions
        self._values = [[torch.zeros(each.count) for each in variants] for _ in questions]
        self._known = [torch.zeros(each.count, dtype=torch.bool) for each in variants]

    def add(self, chunk: Sequence[Part], outputs: Tensor) -> None:
        """Take in the outputs of a chunk."""
        for number, question in enumerate(self._questions):
            scores = asked([question[row] for row, places in chunk for _ in places], outputs).float().cpu()
            at = 0
            for row, places in chunk:
                self._values[number][row][places.start : places.stop] = scores[at : at + len(places)]
                at += len(places)
        for row, places in chunk:
            self._known[row][places.start : places.stop] = True

    def scores(self) -> list[Scores]:
        """Return each question's scores, results in their own order, padded to one length."""
        index = [each.results for each in self._variants]
        width = max((len(each) for each in index), default=0)
        known = torch.zeros(len(index), width, dtype=torch.bool)
        for row, each in enumerate(index):
            known[row, : len(each)] = self._known[row][each]
        found = []
        for own in self._values:
            values = torch.zeros(len(index), width)
            for row, each in enumerate(index):
                values[row, : len(each)] = own[row][each]
            found.append(Scores(values, known))
        return found


def asked(targets: Sequence[Target], outputs: Tensor) -> Tensor:
    """Return each sample's score `(number,)` by its own target."""
    return torch.stack([target(outputs[row]) for row, target in enumerate(targets)])


def _most(variants: Sequence[Variants]) -> int:
    return max((each.count for each in variants), default=0)


def _made(variants: Sequence[Variants], chunk: Sequence[Part]) -> Tensor:
    """Return a chunk's inputs `(number, channel, *space)`."""
    made = [variants[row].make(numbers) for row, numbers in chunk]
    return made[0] if len(made) == 1 else torch.cat(made)
