"""What the command prints: tables for people, JSON for machines, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.errors import SeewhyError
    from seewhy.explanation import Explanation


def complain(error: SeewhyError, about: str = "") -> None:
    """Print an error to standard error, in one line."""
    told = " ".join(str(error).split())
    sys.stderr.write(f"seewhy: {about + ': ' if about else ''}{told}\n")


def as_json(content: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def table(head: Sequence[str], body: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table; words are printed as they are, never read as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=None if title is None else Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    for word in head:
        folds = word in ("what it does", "source")
        drawn.add_column(
            Text(word),
            overflow="fold",
            no_wrap=not folds,
            justify="right" if word in ("%", "score", "index") else "left",
        )
    for line in body:
        drawn.add_row(*(Text(cell) for cell in line))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def answer(explanation: Explanation) -> None:
    """Print the five likeliest classes."""
    body = [(f"{p.probability:.1%}", p.name, str(p.index), f"{p.score:.3f}") for p in explanation.prediction]
    table(("%", "class", "index", "score"), body, title=f"{explanation.name}: what {explanation.model} says")


def about(explanation: Explanation) -> None:
    """Print what is wrong with a map and what was assumed."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    for finding in explanation.diagnosis:
        console.print(f"! {finding}", style="bold yellow", markup=False, highlight=False)
    for note in explanation.notes:
        console.print(f"note: {note}", style="dim", markup=False, highlight=False)


def line(words: str) -> None:
    """Print one plain line."""
    sys.stdout.write(words + "\n")
