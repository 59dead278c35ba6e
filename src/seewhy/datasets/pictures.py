"""The pictures of a folder, and what each is said to show."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from seewhy.datasets.text import text_of
from seewhy.errors import MetricError

_PICTURES = {
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".avif",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".tga",
    ".ico",
    ".jp2",
}
ENDINGS = frozenset({*_PICTURES, ".npy", ".npz"})
"""Of files that are taken for pictures, or inputs as they are."""

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name", "picture")
LABEL_COLUMNS = ("label", "class", "class_name", "target", "category")


_Row = tuple[list[str], str]
"""A line's cells, and where it stands."""


@dataclass(frozen=True)
class Entry:
    """One picture of a folder.

    Attributes:
        name: its path in the folder, with forward slashes.
        path: where it is.
        label: what it is said to show, a name or an index in words; None: nothing is said.
        where: where that is said, for messages.
    """

    name: str
    path: Path
    label: str | None = None
    where: str = field(default="", compare=False)


def counted(number: int) -> str:
    """Return a number of pictures in words."""
    return f"{number:,} picture{'' if number == 1 else 's'}"


def entries(
    folder: Path, classes: str | os.PathLike[str] | Mapping[str, object] | None, apart: Sequence[Path] = ()
) -> list[Entry]:
    """Return the pictures of a folder, by name.

    Args:
        folder: where they are, in it and in its sub-folders.
        classes: "folders": the first sub-folder on a picture's way names its class; "predicted": nothing is said; a CSV file,
            or a mapping, from names to labels: only these pictures are taken. None: "folders" where every picture is in a
            sub-folder, else "predicted".
        apart: folders that are left out: results, masks.

    Raises:
        MetricError: no such folder, no picture, or labels that cannot be read.
    """
    if folder.is_file():
        raise MetricError(
            f"'{folder}' is a file, and many pictures are asked for. Give the folder that it is in; for one picture there are "
            "`seewhy explain` and seewhy.measure."
        )
    if not folder.is_dir():
        raise MetricError(f"There is no folder '{folder}'. Give one with pictures; it is taken from where you are.")
    if isinstance(classes, Mapping):
        return _said(folder, ((str(name), str(label), "classes=") for name, label in classes.items()))
    if classes is not None and classes not in ("folders", "predicted"):
        return _from_csv(folder, Path(classes))
    found = sorted(_pictures(folder, [path.resolve() for path in apart]))
    if not found:
        raise MetricError(
            f"There is no picture in '{folder}' or its sub-folders. Known endings: {' '.join(sorted(ENDINGS))}."
        )
    loose = [name for name in found if "/" not in name]
    if classes == "folders" and loose:
        raise MetricError(
            f"No sub-folder of '{folder}' names the class of {counted(len(loose))}, such as '{loose[0]}'. Move each into one, or "
            "give a CSV of labels, or let the model's own predictions be explained ('predicted')."
        )
    named = classes != "predicted" and not loose
    return [Entry(name, folder / name, name.partition("/")[0] if named else None) for name in found]


def _pictures(folder: Path, apart: Sequence[Path]) -> Iterator[str]:
    """Yield the names of all pictures; hidden files and folders are left out."""
    for at, folders, files in os.walk(folder):
        here = Path(at)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in apart]
        for name in files:
            if name[0] != "." and PurePosixPath(name).suffix.casefold() in ENDINGS:
                yield (here / name).relative_to(folder).as_posix()


def _from_csv(folder: Path, table: Path) -> list[Entry]:
    """Return the pictures that a CSV of labels names; those that are not there fail when they are read."""
    reader = csv.reader(io.StringIO(text_of(table)), strict=True)
    try:
        rows = [(row, f"'{table}', line {reader.line_num}") for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise MetricError(
            f"'{table}' cannot be read as CSV: {error}, in line {reader.line_num}. Expected lines such as: cat.jpg,tabby"
        ) from error
    columns, rows = _columns(folder, rows)
    for row, where in rows:
        if len(row) <= max(columns):
            other = next((f" '{sign}' parts no columns here." for sign in ";\t|" if sign in row[0]), "")
            raise MetricError(
                f"{where} has no file name and label: '{','.join(row)[:80]}'.{other} Part them by a comma: cat.jpg,tabby"
            )
    found = _said(folder, ((row[columns[0]].strip(), row[columns[1]].strip(), where) for row, where in rows))
    if not found:
        raise MetricError(f"'{table}' names no picture. Expected lines such as: cat.jpg,tabby")
    return found


def _columns(folder: Path, rows: list[_Row]) -> tuple[tuple[int, int], list[_Row]]:
    """Return the columns of file names and labels, and the rows below the head, where there is one."""
    first = rows[0][0] if rows else []
    head = [cell.strip().casefold() for cell in first]
    files = [number for number, word in enumerate(head) if word in FILE_COLUMNS]
    labels = [number for number, word in enumerate(head) if word in LABEL_COLUMNS]
    if files and labels and not (folder / first[files[0]].strip()).is_file():
        return (files[0], labels[0]), rows[1:]
    return (0, 1), rows


def _said(folder: Path, said: Iterable[tuple[str, str, str]]) -> list[Entry]:
    """Return the pictures of which a label is said: names, labels, and where that is written.

    Raises:
        MetricError: a name leads out of the folder, or a picture has two labels.
    """
    found: dict[str, Entry] = {}
    for written, label, where in said:
        name = _inside(written, where)
        if name in found and found[name].label != label:
            raise MetricError(f"{where} gives '{name}' two labels, '{found[name].label}' and '{label}'. Leave one.")
        found.setdefault(name, Entry(name, folder / name, label, where))
    return list(found.values())


def _inside(name: str, where: str) -> str:
    """Return a name as a path in the folder.

    Raises:
        MetricError: it leads out of it.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or "\0" in name or path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise MetricError(
            f"{where} names {name!r}, which is no path within the folder of pictures. Name files inside it."
        )
    return path.as_posix()
