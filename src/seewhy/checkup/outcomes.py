"""What the sanity checks found: one row a check and method, in a table that prints well."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from seewhy.checkup.report import wrapped
from seewhy.explanation import Explanation
from seewhy.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["passes", "fails", "cannot be asked"]
PICTURE_AXES = 2

Name = Literal["class", "weights", "input", "agreement"]


@dataclass(frozen=True)
class Outcome:
    """One check of one method's map.

    Attributes:
        check: "class", "weights", "input" or "agreement".
        method: the method's name.
        verdict: "passes", "fails" or "cannot be asked".
        value: the similarity that was found; NaN where there is none.
        threshold: from where on it would be judged otherwise.
        fails: whether what fails is "above" the threshold or not above it ("below").
        chance: how alike 95 % of maps are to this one that have its values elsewhere.
        found: what was found, and what it means.
        remedy: what to do; empty where nothing is to be done.
        numbers: what was measured, for programs.
    """

    check: Name
    method: str
    verdict: Verdict
    value: float
    threshold: float
    fails: Literal["above", "below"]
    chance: float
    found: str
    remedy: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> str:
        """The value beside what it is compared with, in words; empty where there is none."""
        return f"{self.value:.2f}, fails {self.fails} {self.threshold:.2f}" if np.isfinite(self.value) else ""


class Sanity(Table[Outcome]):
    """All checks of a model's maps of one image; prints as a table.

    Attributes:
        rows: check by check, in each the methods.
        model, target: the model's name, and the question in words.
        methods: whose maps were made; `skipped`: those that this model does not allow, and why.
        agreement: `(method, method)` float32, how alike their maps are: the correlation of ranks.
        maps: for each method its maps by what they are of: "the picture", "another class", ...; all on the model's input.
    """

    def __init__(
        self,
        rows: Sequence[Outcome],
        model: str,
        target: str,
        agreement: npt.NDArray[np.float32],
        maps: Mapping[str, Mapping[str, Explanation]],
        skipped: Mapping[str, str],
    ) -> None:
        super().__init__(rows)
        self.model = model
        self.target = target
        self.agreement = agreement
        self.maps = dict(maps)
        self.skipped = dict(skipped)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods' names, in the order of `agreement`."""
        return tuple(self.maps)

    @property
    def verdict(self) -> Verdict:
        """The word "fails" where any check does, else "passes" where any was asked."""
        found = {row.verdict for row in self.rows}
        return "fails" if "fails" in found else "passes" if "passes" in found else "cannot be asked"

    @property
    def is_drawn(self) -> bool:
        """Whether the maps are of pictures, of which there is a figure."""
        first = next(iter(next(iter(self.maps.values())).values()))
        return len(first.geometry.axes) == PICTURE_AXES

    def outcome(self, check: Name, method: str) -> Outcome:
        """Return one row.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.check, row.method) == (check, method):
                return row
        raise KeyError(f"There is no check '{check}' of '{method}'.")

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        body: list[tuple[str, ...]] = [
            (each.verdict, each.check, each.method, each.judged, each.found, each.remedy) for each in self.rows
        ]
        return ("verdict", "check", "method", "alike", "found", "what to do"), body

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield the checks as text: a check a paragraph, wrapped to a width where one is given."""
        verdicts, checks, methods = (
            max((len(getattr(each, name)) for each in self.rows), default=0) + 2
            for name in ("verdict", "check", "method")
        )
        margin = verdicts + checks + methods
        for each in self.rows:
            start = f"{each.verdict:<{verdicts}}{each.check:<{checks}}{each.method:<{methods}}"
            told = f"{each.judged}: {each.found}" if each.judged else each.found
            yield from wrapped(told, start, margin, width)
            if each.remedy:
                yield from wrapped(each.remedy, " " * (margin - 2) + "> ", margin, width)
        for method, why in self.skipped.items():
            yield from wrapped(f"left out: {method}: {why}", "", 4, width)
        counts = {word: sum(each.verdict == word for each in self.rows) for word in _WORDS}
        told = ", ".join(f"{count} {_WORDS[word]}" for word, count in counts.items() if count)
        yield f"{self.model}, {self.target}: {len(self.rows)} checks: {told}"

    def __str__(self) -> str:
        """Return the checks as text, one a line and its remedy under it."""
        return "\n".join(self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON; what has no value is None."""
        rows = [
            {
                "check": each.check,
                "method": each.method,
                "verdict": each.verdict,
                "value": _plain(each.value),
                "threshold": _plain(each.threshold),
                "fails": each.fails,
                "chance": _plain(each.chance),
                "found": each.found,
                "remedy": each.remedy,
                "numbers": {name: _plain(value) for name, value in each.numbers.items()},
            }
            for each in self.rows
        ]
        return {
            "model": self.model,
            "target": self.target,
            "verdict": self.verdict,
            "methods": list(self.methods),
            "agreement": _plain(self.agreement),
            "skipped": self.skipped,
            "checks": rows,
        }

    def figure(self, **style: Any) -> Figure:
        """Return the maps as a matplotlib figure, a row a method; arguments as in :func:`seewhy.render.overlay`."""
        from seewhy.render.sanity import maps_figure

        return maps_figure(self, **style)

    def save(self, path: str | os.PathLike[str], **style: Any) -> None:
        """Write the figure to .png, .jpg, .webp, .pdf, .svg or .html."""
        from seewhy.render.files import save_figure

        save_figure(lambda: self.figure(**style), path, "sanity")


_WORDS: dict[Verdict, str] = {"fails": "failed", "cannot be asked": "could not be asked", "passes": "passed"}


def _plain(value: Any) -> Any:
    """Return numbers as JSON has them: lists, and None for what is not finite."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
