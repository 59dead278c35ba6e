"""The conditions of a recording: the seed, how much it may cost, what stands for "nothing there", who watches."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import MethodError, RecordingError

Watch = Callable[[int, int], None]
"""Called with how many runs of the model are done and how many there will be."""


@dataclass(frozen=True)
class Budget:
    """The most that one map of one image may cost beyond its recording.

    Attributes:
        forwards: runs of the model (of its tail, where only that is run); None: any number.
        seconds: None: any time.
    """

    forwards: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, given: Any) -> Budget:
        """Return a budget from None, a whole number or text of forwards, or text of seconds ("30s").

        Raises:
            MethodError: anything else.
        """
        if given is None or isinstance(given, Budget):
            return given or cls()
        text = str(given).strip().casefold()
        if isinstance(given, bool) or not (
            match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds|m|min|minutes|f|forwards|)", text)
        ):
            raise MethodError(
                f"budget={given!r} is neither a number of forwards, such as 500, nor a time, such as '30s' or '2min'."
            )
        number, unit = float(match[1]), match[2]
        if unit[:1] in ("s", "m") and number > 0:
            return cls(seconds=number * (60 if unit.startswith("m") else 1))
        if unit[:1] in ("s", "m") or number < 1 or not number.is_integer():
            raise MethodError(f"budget={given!r} must be at least one whole forward, or more than 0 seconds ('30s').")
        return cls(forwards=int(number))

    def shared(self, among: int) -> Budget:
        """Return each one's part when several runs share this budget."""
        return Budget(
            None if self.forwards is None else max(1, self.forwards // among),
            None if self.seconds is None else self.seconds / among,
        )

    def capped(self, count: int) -> int:
        """Return how many of `count` forwards are allowed."""
        return count if self.forwards is None else min(count, self.forwards)

    @property
    def limit(self) -> float:
        """The seconds, infinite where there is no limit."""
        return math.inf if self.seconds is None else self.seconds


def _zeros(_kind: Any, images: Tensor, _generator: torch.Generator) -> Tensor:
    return torch.zeros_like(images)


@dataclass(frozen=True)
class Conditions:
    """What holds for a recording and all further runs that its methods ask for.

    Attributes:
        seed: for every random draw.
        budget: for each map of each image.
        baselines: from (kind, `(batch, channel, *space)`, generator) to inputs of that shape that stand for "nothing there".
        watch: told of the progress.
        broken: takes what ended further runs before all were made, so that the work done until then is kept; None: it is raised.
    """

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    baselines: Callable[[Any, Tensor, torch.Generator], Tensor] = _zeros
    watch: Watch | None = None
    broken: list[RecordingError] | None = None
