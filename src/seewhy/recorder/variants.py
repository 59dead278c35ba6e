"""Many variants of one input (or of one layer's activations): how they are described, and the chunks they are run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.recorder.memory import is_out_of_memory

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Variants:
    """What is run for one sample, in an order of which any beginning is a fair part of the whole.

    Attributes:
        count: how many there are.
        make: from a range of their numbers to `(number, channel, *space)`, variants of the model's input; for
            :meth:`Recording.replay` to `(number, channel, *grid)`, edited activations.
        index: `(results,)`: which variant's score each result is, for results that share one; None: one each, in order.
    """

    count: int
    make: Callable[[range], Float[Tensor, "number channel *space"]]
    index: Int[Tensor, " results"] | None = None

    @property
    def results(self) -> Int[Tensor, " results"]:
        """Which variant's score each result is."""
        return torch.arange(self.count) if self.index is None else self.index.cpu()


@dataclass(frozen=True, eq=False)
class Scores:
    """What the variants scored.

    Attributes:
        values: `(batch, results)`; 0 where not known.
        known: which results were computed: a budget may end the work early, and samples may have different numbers.
    """

    values: Float[Tensor, "batch results"]
    known: Bool[Tensor, "batch results"]


@dataclass(frozen=True, eq=False)
class Derived:
    """One sample's scores and derivatives at some of its variants.

    Attributes:
        row: the sample's place in the batch.
        numbers: `(number,)`, which variants these are.
        scores: `(number,)`.
        gradients: `(number, channel, *space)`, d score / d input.
    """

    row: int
    numbers: Int[Tensor, " number"]
    scores: Float[Tensor, " number"]
    gradients: Float[Tensor, "number channel *space"]


Part = tuple[int, range]
"""A sample's place in the batch, and a range of its variants."""


def interleaved(counts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Return (sample, variant) pairs so that every sample advances alike, in blocks that fill chunks of `size`."""
    block = max(1, size // max(1, len(counts)))
    return [
        (row, number)
        for start in range(0, max(counts, default=0), block)
        for row, count in enumerate(counts)
        for number in range(start, min(start + block, count))
    ]


def parts(pairs: Sequence[tuple[int, int]]) -> list[Part]:
    """Return the pairs as runs of consecutive variants of one sample."""
    found = []
    for _, run in groupby(enumerate(pairs), key=lambda each: (each[1][0], each[1][1] - each[0])):
        pair = [each for _, each in run]
        found.append((pair[0][0], range(pair[0][1], pair[-1][1] + 1)))
    return found


def in_chunks(total: int, size: int, run: Callable[[range], Result]) -> Iterator[tuple[range, Result]]:
    """Yield (range, result) over `total` things in chunks; a chunk that needs too much memory is halved, none is lost.

    Raises:
        RuntimeError: memory runs out for a single one.
    """
    at = 0
    while at < total:
        chunk = range(at, min(at + size, total))
        result = _unless_out_of_memory(run, chunk)
        if result is None:
            size = max(1, len(chunk) // 2)
        else:
            yield chunk, result[0]
            at = chunk.stop


def _unless_out_of_memory(run: Callable[[range], Result], chunk: range) -> tuple[Result] | None:
    """Return (result,), or None when memory ran out; the error, which holds the tensors, is gone by then."""
    try:
        return (run(chunk),)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(chunk) == 1:
            raise
    return None
