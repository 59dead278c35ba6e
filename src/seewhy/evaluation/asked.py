"""What each picture's maps are asked about: the class that it is said to show, and where that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from seewhy.datasets import Boxed, Entry, Truths
from seewhy.errors import MetricError, TargetError
from seewhy.explainer import Explainer
from seewhy.images import is_array_file, read, read_array
from seewhy.models import Labels

Matches = Callable[[str, str], bool]
"""From a box's class and the label's name to whether the box is of what the label says."""


LONGEST = 18
"""Digits of a class's number: more do not fit where models count classes."""


def class_of(label: str, labels: Labels | None, where: str = "") -> int:
    """Return the class that a label names: by its whole name (with _ for a blank), its number, or what finds one class alone.

    Args:
        label: what is written.
        labels: the model's classes.
        where: where that is written, for messages.

    Raises:
        MetricError: it names none.
    """
    at = f" ({where})" if where else ""
    words = label.replace("_", " ")
    for known in () if labels is None else (labels.exactly(label), labels.exactly(words)):
        if known is not None:
            return known
    if (digits := label.strip()).isdecimal():
        if len(digits) > LONGEST:
            raise MetricError(
                f"The pictures' label '{digits[:LONGEST]}…'{at} is a number of {len(digits):,} digits, which no class has. Give "
                "a class's number or name."
            )
        return int(digits)
    if labels is None:
        raise MetricError(
            f"The pictures' label '{label}'{at} is a name, and the model's classes have none: give labels= (--labels), or "
            "numbers, or classes='predicted' (--classes predicted), which explains what the model says."
        )
    try:
        return labels.find(words)
    except TargetError as error:
        raise MetricError(
            f"The pictures' label '{label}'{at} is none of the model's classes: {error} Or let what the model says be explained: "
            "classes='predicted' (--classes predicted)."
        ) from error


@dataclass(frozen=True)
class Asking:
    """Says what is asked about each picture.

    Attributes:
        ask: the model.
        truths: where things are, in the pictures' files; None: nobody tells.
        matches: which boxes count; None: those of the label's own name, and those without names.
    """

    ask: Explainer
    truths: Truths | None = None
    matches: Matches | None = None

    def digest(self, entry: Entry, index: int | None) -> str:
        """Return a text that changes when the picture, its label, the class that this is, or its truth does.

        Raises:
            ImageError: the picture's file cannot be read.
            MetricError: what is said of it cannot be.
        """
        from seewhy.images.read import file_bytes

        told = "" if self.truths is None else self.truths.digest(entry.name)
        words = f"\n{entry.label}\n{index}\n{told}"
        return sha256(file_bytes(entry.path) + words.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def truth(self, entry: Entry, index: int | None) -> Any:
        """Return where the thing asked about is, as :func:`seewhy.measure` takes it; None where nothing is said of it.

        Raises:
            SeewhyError: the picture, or what is said of it, cannot be read.
        """
        if self.truths is None:
            return None
        found = self.truths.of(entry.name, _shape(entry.path))
        if not isinstance(found, list):
            return found
        boxes = found if self._all(found) else self._matching(found, self._named(entry, index))
        return [box.edges for box in boxes] or None

    def _all(self, boxes: Sequence[Boxed]) -> bool:
        return self.matches is None and all(box.kind is None or not box.named for box in boxes)

    def _matching(self, boxes: Sequence[Boxed], name: str) -> list[Boxed]:
        return [box for box in boxes if self._is_of(box, name)]

    def _is_of(self, box: Boxed, name: str) -> bool:
        if self.matches is not None:
            return self.matches(box.kind or "", name)
        return box.kind is None or not box.named or self._same(box.kind, name)

    def _same(self, kind: str, name: str) -> bool:
        one, other = (words.replace("_", " ").strip().casefold() for words in (kind, name))
        labels = self.ask.model.labels
        known = None if labels is None else labels.exactly(one)
        return one == other or (labels is not None and known is not None and labels.name(known).casefold() == other)

    def _named(self, entry: Entry, index: int | None) -> str:
        """Return the name of the class asked about; where nothing is said, of the one that the model predicts."""
        if index is None:
            recorded, _ = self.ask.recorded(str(entry.path))
            index = recorded.recordings.questions[0][0].index
        labels = self.ask.model.labels
        if labels is not None and index is not None:
            return labels.name(index)
        return entry.label or str(index)


def _shape(path: Path) -> tuple[int, ...]:
    """Return a picture's `(height, width)`, upright."""
    if is_array_file(path):
        return tuple(read_array(path).shape[1:])
    return tuple(read(path).pixels.shape[:2])
