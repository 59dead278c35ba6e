"""The file of finished pictures: a line each, written when it is done, so that work that was cut off goes on from there.

Each line tells by a digest of which settings it is: a call that still runs while another begins the file anew goes on writing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from seewhy.errors import MetricError
from seewhy.evaluation.finished import Finished
from seewhy.evaluation.settings import Settings, differences, digest_of, unidentified

FILE = "pictures.jsonl"

LONGEST = 50_000_000
"""Bytes of a line: a map and metric have about a thousand, and a file from elsewhere may be anything."""


class Ledger:
    """Finished pictures, in memory, and in a folder where one is given.

    Args:
        folder: where the file is; None: nothing is written.
        settings: what the results depend on; a file of other ones is refused.
        restart: whether a file that is there is begun anew.

    Attributes:
        finished: the pictures, by name.
        notes: what must be said of what was read.

    Raises:
        MetricError: the folder cannot be written to, or holds results of other settings.
    """

    def __init__(self, folder: Path | None, settings: Settings, *, restart: bool = False) -> None:
        self.finished: dict[str, Finished] = {}
        self.notes: tuple[str, ...] = ()
        self._path = None if folder is None else folder / FILE
        self._of = digest_of(settings)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not restart and self._path.is_file() and self._path.stat().st_size:
                self._take_up(self._path, settings)
            else:
                self._path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        except OSError as error:
            raise MetricError(f"'{self._path}' cannot be written: {error.strerror}. Check the folder.") from error

    def add(self, done: Finished) -> None:
        """Keep one picture, on the disk before this returns.

        Raises:
            MetricError: it cannot be written; what was kept before is whole.
        """
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"settings": self._of, **done.as_json()}) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise MetricError(
                    f"'{self._path}' cannot be written any more: {error.strerror}. What was done before is kept: the same call "
                    "goes on from there once there is room, and the folder can be written to."
                ) from error
        self.finished[done.picture] = done

    def has(self, name: str, digest: str) -> bool:
        """Return whether a picture was finished, as it is now."""
        return name in self.finished and self.finished[name].digest == digest

    def _take_up(self, path: Path, settings: Settings) -> None:
        """Read what was done before; a last line that was cut off is dropped, also from the file."""
        try:
            head, *others = [json.loads(line) for line in _whole_lines(path)]
            found = [Finished.of_json(each) for each in others if each["settings"] == self._of]
            other = differences(head["settings"], json.loads(json.dumps(settings)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MetricError(
                f"'{path}' is no file of results that can be gone on with: {type(error).__name__} {error}. Give another folder, "
                "or begin anew with restart=True (--restart), which overwrites it."
            ) from error
        if other:
            raise MetricError(
                f"'{path}' holds results of other settings ({', '.join(other)}). Give another folder, or begin anew with "
                "restart=True (--restart), which overwrites it."
            )
        if found and (unknown := unidentified(settings)):
            raise MetricError(
                f"'{path}' cannot be gone on with: of {', '.join(unknown)} nobody can tell whether they are what they were. "
                "Functions as models, lambdas, and objects without a repr() of their own are such. Give another folder, or begin "
                "anew with restart=True (--restart), which overwrites it."
            )
        _drop_rest(path)
        self.finished = {each.picture: each for each in found}
        if strange := len(others) - len(found):
            lines = "1 line is" if strange == 1 else f"{strange} lines are"
            told = (
                f"{lines} left out of '{path}', of other settings: another call was still writing there when the file was begun "
                "anew. Give each its own folder."
            )
            self.notes = (told,)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that were written to their end.

    Raises:
        ValueError: one is far too long.
    """
    with path.open("rb") as file:
        while line := file.readline(LONGEST):
            if line.endswith(b"\n"):
                yield line
            elif len(line) == LONGEST:
                raise ValueError(f"a line of over {LONGEST:,} bytes")


def _drop_rest(path: Path) -> None:
    """Cut off what stands after the last whole line, in one step: whenever the machine stops, the lines are there."""
    size = path.stat().st_size
    whole = sum(map(len, _whole_lines(path)))
    if whole < size:
        os.truncate(path, whole)
