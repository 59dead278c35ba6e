"""The one family of errors: each names what was asked, what was found and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seewhy.explanation import Explanation


_PAGE = "docs/troubleshooting.md says more about this message."
_DOCTOR = "`seewhy doctor MODEL`, or seewhy.doctor(model), looks for the cause; docs/troubleshooting.md says more."


PARTIAL = " What was done before is not lost: the maps made of it are in this error's `.partial`."
"""What a message ends in where the model failed on the way and maps could be made of what was done before."""


class SeewhyError(Exception):
    """Base of every error that a caller can cause.

    Attributes:
        see: where there is more. The command prints it, and so does a traceback (from Python 3.11 on); the message is without.
    """

    see = _PAGE

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if sys.version_info >= (3, 11):
            self.add_note(self.see)


class ImageError(SeewhyError):
    """The picture cannot be read or does not fit the model."""


class ModelError(SeewhyError):
    """The model, its weights or its metadata cannot be found or do not fit together."""

    see = _DOCTOR


class LayerError(SeewhyError):
    """The layer does not exist, or yields no spatial map, or is not connected to the target."""

    see = _DOCTOR


class TargetError(SeewhyError):
    """The question does not fit the model's output or its labels."""


class MethodError(SeewhyError):
    """The method does not exist, does not have this option, or cannot work on this model."""


class MetricError(SeewhyError):
    """The metric does not exist, does not have this option, or lacks what it compares with."""


class RecordingError(SeewhyError):
    """The model itself failed while it was being recorded.

    Attributes:
        partial: where it failed in one of many runs, the explanations made of those before; each says so in its notes.
    """

    see = _DOCTOR

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.partial: list[Explanation] = []


class RenderError(SeewhyError):
    """The picture, file or colour map that was asked for cannot be made."""


class PartialError(SeewhyError):
    """Some images of a list failed; what was done for the others is kept here.

    Attributes:
        done: one entry an image, in order: its explanations, or None where it failed.
        failures: the failed images' positions and their errors.
    """

    def __init__(self, done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> None:
        first, error = next(iter(failures.items()))
        super().__init__(
            f"{len(failures)} of {len(done)} images failed; the first is number {first}: {error} "
            "The explanations of the others are in this error's `.done`."
        )
        self.done = done
        self.failures = failures


def nearest(wanted: str, names: Iterable[str], count: int = 3) -> str:
    """Return up to `count` names most like `wanted`, as one readable phrase."""
    by_folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(wanted.casefold(), by_folded, n=count, cutoff=0.4)
    inside = [folded for folded in by_folded if wanted.casefold() in folded and folded not in close]
    found = [by_folded[folded] for folded in [*close, *inside][:count]]
    return ", ".join(f"'{name}'" for name in found)


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Return a sentence with the nearest names, or nothing when none is near."""
    found = nearest(wanted, names)
    return f" Nearest: {found}." if found else ""
