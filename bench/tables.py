"""What a case returns: a table of rows, and the helpers that all cases make them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import seewhy
from bench.maps import difference
from bench.peers import Maps, Task
from bench.subject import Subject
from bench.timing import Times

BARE = "bare forward"
OURS = "seewhy"


@dataclass(frozen=True)
class Row:
    """One measured thing. What is None, or empty, was not measured or says nothing there.

    Attributes:
        what: the method, when a table has several.
        who: the library.
        seconds: median.
        forwards: median ratio to the bare forward of the same round.
        rate: images a second, in a table about many.
        difference: largest difference between its maps and seewhy's, 0..1.
        note: what a reader should know.
        faster: a peer's time divided by seewhy's.
        share: of the bare forward's best rate, 0..1.
        mib: growth of memory.
        leaner: a peer's growth of memory divided by seewhy's.
    """

    what: str
    who: str
    seconds: float | None = None
    forwards: float | None = None
    rate: float | None = None
    difference: float | None = None
    note: str = ""
    faster: float | None = None
    share: float | None = None
    mib: float | None = None
    leaner: float | None = None


@dataclass(frozen=True)
class Table:
    """One case's result: a title, what was done in words, the rows, and how many rounds were measured.

    Attributes:
        title: the section's.
        text: what was done.
        rows: in order.
        rounds: how many were measured; 0 where nothing was measured in rounds.
        model: in words, where it is not the page's.
    """

    title: str
    text: str
    rows: tuple[Row, ...]
    rounds: int = 0
    model: str = ""


def make_row(
    what: str,
    who: str,
    times: Mapping[str, Times],
    *,
    apart: float | None = None,
    note: str = "",
    size: int | None = None,
) -> Row:
    """Return the row of one runner of `times`, which has a bare forward; peers are compared with seewhy's time."""
    measured = times[who]
    faster = measured.over(times[OURS]) if is_peer(who) and OURS in times else None
    rate = None if size is None else size / measured.median
    return Row(what, who, measured.median, measured.over(times[BARE]), rate, apart, note, faster)


def make_rows(
    times: Mapping[str, Times],
    what: str = "",
    *,
    notes: Mapping[str, str] | None = None,
    size: int | None = None,
    told: bool = True,
    how: str = "positive",
) -> list[Row]:
    """Return a row for each runner; peers' maps are compared with seewhy's.

    Args:
        times: by name.
        what: the method.
        notes: by name.
        size: of the batch, where images a second are told.
        told: whether the bare forward has a row here; tables of several methods tell it once.
        how: maps are compared; see :func:`bench.maps.difference`.
    """
    rows = []
    for who, measured in times.items():
        if who == BARE and not told:
            continue
        apart = difference(times[OURS].result, measured.result, how) if is_peer(who) else None
        note = (notes or {}).get(who, "")
        rows.append(make_row("" if who == BARE else what, who, times, apart=apart, note=note, size=size))
    return rows


def is_peer(who: str) -> bool:
    """Return whether a row's label is another library's."""
    return not who.startswith((BARE, OURS))


def ours(subject: Subject, task: Task, method: str, **options: Any) -> Callable[[], list[Maps]]:
    """Return a run of seewhy on the task, given the model's input as a tensor.

    Args:
        subject: the model.
        task: the question; without layers, seewhy chooses.
        method: its name.
        options: the method's own and those of the call, such as `smooth`.
    """
    ask = seewhy.Explainer(subject.loaded)
    alone = len(task.images) == 1
    image: Any = task.images[0] if alone else task.images
    target: Any = task.classes[0] if alone else list(task.classes)

    def run() -> list[Maps]:
        found = ask(image, target, method, task.layers or None, **options)
        return [found.raw[None]] if alone else [np.stack([each.raw for each in found])]

    return run
