"""A sequence of rows that prints well, in a terminal and in a notebook."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

Row = TypeVar("Row")


class Table(Sequence[Row], Generic[Row]):
    """An unchanging sequence; a subclass says in :meth:`columns` what is shown of it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)

    @abstractmethod
    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        """Return the table as aligned text."""
        head, body = self.columns()
        widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
        lines = ["  ".join(map(str.ljust, line, widths)) for line in [head, *body]]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, body = self.columns()
        cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in body)
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"
