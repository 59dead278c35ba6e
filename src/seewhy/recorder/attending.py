"""Recording a model's attention about questions: derivatives by the weights, and which tokens each score reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import RecordingError
from seewhy.recorder.attended import Attended, AttentionLayer
from seewhy.recorder.attention import AttentionCall, AttentionTap
from seewhy.recorder.chain import Chain, chain_of, layouts_of, out_of_order
from seewhy.recorder.cost import Cost
from seewhy.recorder.differentiate import derivatives
from seewhy.recorder.forward import Forward
from seewhy.recorder.listening import Listening
from seewhy.recorder.recording import Needs
from seewhy.recorder.table import LayerRow, in_attention, made_of_others
from seewhy.recorder.tape import Tape, first_tensor, with_first_tensor
from seewhy.recorder.watching import Watching
from seewhy.targets import Question

SAME = 1e-3
"""Largest difference, as a part of the largest output, at which a model's tail counts as the same for more samples."""


class Attending:
    """Everything about the attention of one run.

    Args:
        forward: the model, which the caller holds.
        images: `(batch, channel, *space)`, placed.
        rows: the layers that yield a map.
        needs: what the methods will use.
    """

    def __init__(self, forward: Forward, images: Tensor, rows: Sequence[LayerRow], needs: Needs) -> None:
        self._forward = forward
        self._images = images
        self._rows = rows
        self._formation = Needs.ATTENTION_FORMATION in needs
        self._gradients = Needs.ATTENTION_GRADIENTS in needs
        self._last = _last_tokens(rows, forward.module)
        self._ran = 0  # how often the tail was, for the layers' own scores
        self.tap = AttentionTap(len(images), self._gradients or self._formation)

    @property
    def watched(self) -> list[LayerRow]:
        """The last layer that gives tokens: those on which the score depends are what it reads."""
        return [] if self._last is None else [self._last]

    @property
    def differentiates(self) -> bool:
        """Whether a graph is needed."""
        return self._last is not None or self.tap.gradients

    def record(self, tape: Tape, outputs: Tensor, questions: Sequence[Question]) -> Attended:
        """Return what was seen, and differentiate each question's score by it."""
        calls, model = self.tap.calls, type(self._forward.module).__name__
        layouts = layouts_of(self._rows, self._last)
        chain = chain_of(model, calls, layouts, self._rows)
        layers = tuple(
            AttentionLayer(
                call.name, tuple(call.weights.shape), None if call.heads is None else call.as_heads(call.weights)
            )
            for call in calls
        )
        found = Attended(model, layers, layouts, chain)
        for number, question in enumerate(questions):
            self._differentiate(found, number, tape, outputs, question)
        live = {place for _, place in found.gradients}
        chain = found.chain = out_of_order(model, [calls[place] for place in chain.layers if place in live]) or chain
        if self._formation and not chain.refusal:
            self._form([calls[place] for place in chain.layers], found, outputs, questions)
            found.formed = Cost(forwards=self._ran, backwards=1)
        return found

    def _differentiate(self, found: Attended, number: int, tape: Tape, outputs: Tensor, question: Question) -> None:
        """Add one question's derivatives by the weights, and what its score reads."""
        calls = [
            (place, call) for place, call in enumerate(self.tap.calls) if self._gradients and call.heads is not None
        ]
        ends = self._ends(found.chain, tape)
        by = [*(end.values for end in ends), *(call.weights for _, call in calls)]
        with torch.enable_grad():
            score = torch.stack([target(outputs[row]) for row, target in enumerate(question)])
        if not (by and score.requires_grad):
            return
        gradients = derivatives(score, by, keep_graph=True)
        for end, gradient in zip(ends, gradients[: len(ends)], strict=True):
            parts = None if gradient is None else end.read(gradient)
            if parts is not None:
                found.reading[number, parts.shape[1]] = parts
        for (place, call), gradient in zip(calls, gradients[len(ends) :], strict=True):
            if gradient is not None:
                found.gradients[number, place] = call.as_heads(gradient)

    def _ends(self, chain: Chain, tape: Tape) -> list[_End]:
        """Return the last tokens of each kind: what of them the score depends on is what it reads."""
        found = [
            _End(
                tape.last(row.name),
                partial(torch.movedim, source=1 if row.layout.order == "tokens" else 2, destination=1),
            )
            for row in self.watched
            if tape.calls[row.name]
        ]
        return [*found, *filter(None, (_end(self.tap.calls[place], len(self._images)) for place in chain.ends))]

    def _form(
        self, chain: Sequence[AttentionCall], found: Attended, outputs: Tensor, questions: Sequence[Question]
    ) -> None:
        """Add the derivatives of the scores that each layer's mean token would have."""
        blocks = [call.tokens_at for call in chain]
        means = [_mean_token(call, len(self._images)) for call in chain]
        if len(set(blocks)) < len(blocks) or any(mean is None for mean in means):
            return
        scored = self._scored(blocks[-1], [mean for mean in means if mean is not None], outputs)
        for number, question in enumerate(questions):
            for place, call, own in zip(found.chain.layers, chain, scored, strict=True):
                with torch.enable_grad():
                    score = torch.stack([target(own[row]) for row, target in enumerate(question)])
                [gradient] = derivatives(score, [call.weights], keep_graph=True) if score.requires_grad else [None]
                if gradient is not None:
                    found.formations[number, place] = call.as_heads(gradient)

    def _scored(self, block: str, means: Sequence[Tensor], outputs: Tensor) -> list[Tensor]:
        """Return the outputs `(batch, *output)` for each of the tokens `(batch, channel)` in the place of all of the block's.

        All at once, behind the model's own, where its tail takes more samples than went in; else one after the other.
        """
        batch = len(outputs)
        try:
            together = self._tail(block, means, keep=True)
        except RecordingError:
            together = outputs[:0]
        if together.shape == ((len(means) + 1) * batch, *outputs.shape[1:]):
            with torch.enable_grad():  # a view made without is cut off
                first, *rest = (together[at : at + batch] for at in range(0, len(together), batch))
            if float((first - outputs).detach().abs().max()) <= SAME * float(outputs.detach().abs().max()):
                return rest
        return [self._tail(block, [mean], keep=False) for mean in means]

    def _tail(self, block: str, means: Sequence[Tensor], *, keep: bool) -> Tensor:
        """Run the model with one or several tokens in the place of all that a block gives; `keep`: behind its own."""
        self._ran += 1
        module = self._forward.module.get_submodule(block)
        with _replacing(module, means, keep=keep):
            samples = (len(means) + keep) * len(self._images)
            return self._forward.run(self._images, (), Tape(gradients=True), samples)


@contextmanager
def _replacing(module: nn.Module, means: Sequence[Tensor], *, keep: bool) -> Iterator[None]:
    graph = _GraphKeptOn()

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        found = first_tensor(output)
        if found is None:
            return None
        graph.begun = True
        torch.set_grad_enabled(True)
        axis = 1 if len(found) == len(means[0]) else 0
        own = [found] if keep else []
        return with_first_tensor(
            output, torch.cat([*own, *(each.unsqueeze(axis).expand_as(found) for each in means)], 1 - axis)
        )

    with Listening() as listening, graph:
        listening.after(module, replace)
        yield


class _GraphKeptOn(Watching):
    """Keeps the graph on from where it has begun, also against a `no_grad` in the model's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one function with the graph on."""
        if self.begun:
            torch.set_grad_enabled(True)
        return func(*args, **kwargs)


def _mean_token(call: AttentionCall, batch: int) -> Tensor | None:
    """Return the mean `(batch, channel)` of the tokens that a layer's block gave, `(batch, tokens, channel)` or tokens first."""
    if call.tokens is None or not call.tokens.requires_grad:
        return None
    with torch.enable_grad():
        return call.tokens.mean(1 if len(call.tokens) == batch else 0)


def _last_tokens(rows: Sequence[LayerRow], root: nn.Module) -> LayerRow | None:
    """Return the last layer outside attention that gives tokens."""
    kinds = made_of_others(root)
    found = [row for row in rows if row.layout.order in ("tokens", "tokens-last") and not in_attention(row.name, kinds)]
    return found[-1] if found else None


@dataclass(frozen=True)
class _End:
    """The last tokens of one kind, or what tells of them.

    Attributes:
        values: a part of the graph.
        by_token: lays a derivative by them out as `(batch, tokens, ...)`.
    """

    values: Tensor
    by_token: Callable[[Tensor], Tensor]

    def read(self, gradient: Tensor) -> Tensor | None:
        """Return the part `(batch, tokens)` of each token among those the score depends on; None where it depends on none.

        What a score reads is the same for all samples: one whose derivative is zero all over takes it from the others.
        """
        depends = self.by_token(gradient.detach()).float().flatten(2).abs().sum(2) > 0
        depends = torch.where(depends.any(1, keepdim=True), depends, depends.any(0, keepdim=True)).float()
        counts = depends.sum(1, keepdim=True)
        return depends / counts if bool((counts > 0).all()) else None


def _end(call: AttentionCall, batch: int) -> _End | None:
    """Return the tokens that an attention layer gives, or, where only these are known, its weights, which have a row for each."""
    queries, found = call.weights.shape[-2], call.tokens
    if found is not None and found.requires_grad and (batch, queries) in (found.shape[:2], found.shape[1::-1]):
        return _End(found, partial(torch.movedim, source=1 if found.shape[1] == queries else 0, destination=1))
    if call.heads is not None and call.weights.requires_grad:
        return _End(call.weights, lambda gradient: call.as_heads(gradient).transpose(1, 2))
    return None
