"""Alternating measurement: A B C A B C ..., so that whatever slows the machine slows all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Runner:
    """One thing to measure.

    Attributes:
        name: a row's label.
        run: what is timed; its result is kept, so that maps can be compared.
        every: measured in each `every`-th round only: 1 for the cheap, more for what takes many forwards.
        warm: whether it is run before the clock counts; what takes half a minute a run is not.
    """

    name: str
    run: Callable[[], Any]
    every: int = 1
    warm: bool = True


@dataclass
class Times:
    """What was measured of one runner.

    Attributes:
        seconds: round number -> seconds.
        result: what the last run returned.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    result: Any = None

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds.values())

    def over(self, other: Times) -> float:
        """Return the median of the ratios to another runner, each of one round: unlike a ratio of medians, it bears drift."""
        return statistics.median(
            self.seconds[turn] / other.seconds[turn] for turn in self.seconds.keys() & other.seconds.keys()
        )


def alternate(
    runners: Sequence[Runner], *, repeats: int, warmups: int = 2, limit: float = 60.0, device: str = "cpu"
) -> dict[str, Times]:
    """Run each in turn, `repeats` rounds long, and return the times by name.

    Args:
        runners: in the order of a round.
        repeats: number of rounds.
        warmups: rounds before the clock counts; runners that are not measured in every round warm up once.
        limit: no new round after this many seconds (a busy machine); one round is always made.
        device: "cuda" waits for the device before and after each run.
    """
    times = {runner.name: Times() for runner in runners}
    for warmup in range(warmups):
        for runner in runners:
            if runner.warm and (warmup == 0 or runner.every == 1):
                _timed(runner, device)
    gc.collect()
    begin = time.perf_counter()
    for turn in range(repeats):
        for runner in runners:
            if turn % runner.every == 0:
                times[runner.name].seconds[turn], times[runner.name].result = _timed(runner, device)
        if time.perf_counter() - begin > limit:
            break
    return times


def _timed(runner: Runner, device: str) -> tuple[float, Any]:
    """Return the seconds of one run, and what it returned."""
    wait(device)
    begin = time.perf_counter()
    result = runner.run()
    wait(device)
    return time.perf_counter() - begin, result


def wait(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
