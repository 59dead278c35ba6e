"""What was spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one image cost.

    Attributes:
        forwards: runs of the model forwards.
        backwards: runs backwards.
        seconds: a share of the time where images ran together.
        replays: runs of only the part of the model behind a layer.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    replays: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            round(self.seconds + other.seconds, 6),
            self.replays + other.replays,
        )

    def times(self, count: int) -> Cost:
        """Return the cost of so many."""
        return Cost(self.forwards * count, self.backwards * count, self.seconds * count, self.replays * count)

    @property
    def short(self) -> str:
        """The runs of the model and the time in few letters, such as "170 runs, 2.3 s"."""
        seconds = f"{self.seconds:.2f}" if self.seconds < 1 else f"{self.seconds:.1f}"
        return f"{self.runs}, {seconds} s"

    @property
    def runs(self) -> str:
        """All runs of the model and of its tail, such as "170 runs"."""
        return _counted(self.forwards + self.backwards + self.replays, "run")

    def __str__(self) -> str:
        """Return, say, "1 forward, 1 backward, 0.06 s"."""
        words = [_counted(self.forwards, "forward"), _counted(self.backwards, "backward")]
        words += [_counted(self.replays, "replay")] if self.replays else []
        return ", ".join([*words, f"{self.seconds:.2f} s"])


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Spent:
    """What a method's further runs took.

    Attributes:
        cost: of one image.
        done: the most runs that were made for any image.
        planned: as many as would have been made without a budget.
    """

    cost: Cost
    done: int = 1
    planned: int = 1
