"""What the command prints: tables for people, JSON for machines, errors in one line."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from seewhy.errors import PARTIAL

if TYPE_CHECKING:
    from seewhy.checkup.outcomes import Sanity
    from seewhy.checkup.report import Report
    from seewhy.errors import SeewhyError
    from seewhy.explanation import Explanation
    from seewhy.table import Table


_FOLDS = ("what it does", "source")
_FOLDED = 16  # letters: the narrowest that a folded column may become


BOXES = 20
"""Boxes that are printed, the most confident ones."""


def complain(error: SeewhyError, about: str = "") -> None:
    """Print an error to standard error, in one line."""
    told = " ".join(str(error).replace(PARTIAL, " What is written is made of what was done before.").split())
    aside(f"seewhy: {about + ': ' if about else ''}{told}")


def as_json(content: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def rows(found: Table[Any], *, machine: bool) -> None:
    """Print all rows, as a table or, for a machine, as JSON."""
    head, body = found.columns()
    if machine:
        as_json([dict(zip(head, row, strict=True)) for row in body])
    else:
        table(head, body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Print a table; words are printed as they are, never read as markup.

    To a file or pipe each row is one line. On a terminal long texts are folded; where it is too narrow even for that, each
    row becomes a paragraph, so that nothing is cut off.
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
    frame = 3 * len(head) + 1  # a blank on each side of a cell, one between cells, and the two edges
    console = Console(width=None if sys.stdout.isatty() else sum(widths) + frame)
    least = sum(min(_FOLDED, width) if word in _FOLDS else width for word, width in zip(head, widths, strict=True))
    if least + frame > console.width:
        for line in body:
            console.print(Text(line[0], style="bold"))
            told = [f"{word}: {cell}" if word else cell for word, cell in zip(head[1:], line[1:], strict=True) if cell]
            console.print(Padding(Text("; ".join(told)), (0, 0, 0, 4)))
        return
    drawn = Table(box=box.SIMPLE_HEAD)
    for word in head:
        justify: Literal["left", "right"] = "right" if word in ("%", "score", "index") else "left"
        drawn.add_column(Text(word), overflow="fold", no_wrap=word not in _FOLDS, justify=justify)
    for line in body:
        drawn.add_row(*(Text(cell) for cell in line))
    console.print(drawn)


def answer(explanation: Explanation) -> None:
    """Print the five likeliest classes, those that cover most, or a detector's boxes; nothing for what answers otherwise."""
    if explanation.detections:
        line(f"{explanation.name}: what {explanation.model} finds; edges in pixels of the picture")
        found = list(enumerate(explanation.detections[:BOXES]))
        boxes = [
            (str(n), f"{d.score:.1%}", d.name, str(d.index), *(f"{edge:.0f}" for edge in d.edges)) for n, d in found
        ]
        table(("box", "%", "class", "index", "left", "top", "right", "bottom"), boxes)
    elif explanation.prediction:
        body = [
            ("" if math.isnan(p.probability) else f"{p.probability:.1%}", p.name, str(p.index), f"{p.score:.3f}")
            for p in explanation.prediction
        ]
        covers = any(p.means == "area" for p in explanation.prediction)
        told = ", place by place: % of the picture, mean score there" if covers else ""
        line(f"{explanation.name}: what {explanation.model} says{told}")
        table(("%", "class", "index", "score"), body)


def about(explanation: Explanation) -> None:
    """Print what is wrong with a map and what was assumed."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    for finding in explanation.diagnosis:
        console.print(f"! {finding}", style="bold yellow", markup=False, highlight=False)
    if (evidence := explanation.evidence) is not None:
        from seewhy.evidence import TEST

        style = "green" if evidence.word == "supported" else "bold yellow"
        told = f"{TEST} ({evidence.forwards} further runs): {evidence}"
        console.print(told, style=style, markup=False, highlight=False)
    for name, value in explanation.reported.items():
        console.print(f"{name}: {value:.4g}", style="dim", markup=False, highlight=False)
    for note in explanation.notes:
        console.print(f"note: {note}", style="dim", markup=False, highlight=False)


def report(found: Report | Sanity) -> None:
    """Print what checks found, wrapped to the terminal; in a file or pipe each text is one line."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for words in found.lines(width):
        line(words)


def line(words: str) -> None:
    """Print one plain line."""
    sys.stdout.write(printable(words) + "\n")


def aside(words: str) -> None:
    """Print one plain line to standard error."""
    sys.stderr.write(printable(words) + "\n")


def printable(words: str) -> str:
    """Return words without control characters: a file's or a class's name must not steer the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in words)
