"""What the doctor found: one row a check, in a table that prints well."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from seewhy.table import Table

Verdict = Literal["ok", "note", "warning", "fails"]

_GRAVITY: tuple[Verdict, ...] = ("ok", "note", "warning", "fails")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        verdict: "ok"; "note": good to know; "warning": maps may mislead; "fails": something does not work.
        found: what was found, with numbers.
        remedy: what to do; empty where nothing is to be done.
        numbers: what was measured, for programs.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Report(Table[Check]):
    """All checks of one model, in the order in which they were made; prints as a table.

    Attributes:
        rows: the checks.
        model: the model's name.
    """

    def __init__(self, rows: Sequence[Check], model: str) -> None:
        super().__init__(rows)
        self.model = model

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all."""
        return max((check.verdict for check in self.rows), key=_GRAVITY.index, default="ok")

    def check(self, name: str) -> Check:
        """Return the check of this name.

        Raises:
            KeyError: it was not made.
        """
        found = next((check for check in self.rows if check.name == name), None)
        if found is None:
            raise KeyError(f"No check is called '{name}'. There are: {', '.join(check.name for check in self.rows)}.")
        return found

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        body: list[tuple[str, ...]] = [(each.verdict, each.name, each.found, each.remedy) for each in self.rows]
        return ("verdict", "check", "found", "what to do"), body

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        checks = [
            {
                "check": each.name,
                "verdict": each.verdict,
                "found": each.found,
                "remedy": each.remedy,
                "numbers": dict(each.numbers),
            }
            for each in self.rows
        ]
        return {"model": self.model, "verdict": self.verdict, "checks": checks}

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield the report as text: a check a paragraph, wrapped to a width where one is given."""
        margin = max((len(each.name) for each in self.rows), default=0) + 11
        for each in self.rows:
            start = f"{each.verdict:<9}{each.name}".ljust(margin)
            yield from wrapped(each.found, start, margin, width)
            if each.remedy:
                yield from wrapped(each.remedy, " " * (margin - 2) + "> ", margin, width)
        yield f"{self.model}: {self.summary}"

    @property
    def summary(self) -> str:
        """How many checks have which verdict, in words."""
        counts = {verdict: sum(each.verdict == verdict for each in self.rows) for verdict in reversed(_GRAVITY)}
        words = {"fails": "failed", "warning": "with a warning", "note": "with a note", "ok": "ok"}
        return f"{len(self.rows)} checks: " + ", ".join(
            f"{count} {words[key]}" for key, count in counts.items() if count
        )

    def __str__(self) -> str:
        """Return the report as text, a check a line and its remedy under it."""
        return "\n".join(self.lines())


def wrapped(words: str, start: str, margin: int, width: int | None) -> list[str]:
    """Return words as lines that begin below each other, the first after its start."""
    words = " ".join(words.split())
    if width is None:
        return [start + words]
    return textwrap.wrap(
        words,
        max(width, margin + 30),
        initial_indent=start,
        subsequent_indent=" " * margin,
        break_on_hyphens=False,
        break_long_words=False,
    ) or [start]
