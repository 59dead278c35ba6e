"""What is raised when some of the work failed: the errors, with what was done before."""

from __future__ import annotations

from seewhy.errors import PARTIAL, ImageError, PartialError, RecordingError, SeewhyError
from seewhy.explanation import Explanation
from seewhy.inputs import Sample


def told(done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> SeewhyError:
    """Return the error to raise: where nothing was done and all failed alike just that, else the work done and all errors."""
    if len(done) == 1 or are_all_alike(done, failures):
        return next(iter(failures.values()))
    return PartialError(done, dict(sorted(failures.items())))


def are_all_alike(done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> bool:
    """Return whether nothing was done, all failed alike, and none of the errors has maps that it would be lost with."""
    kept = any(isinstance(error, RecordingError) and error.partial for error in failures.values())
    return not any(done) and not kept and len(set(map(str, failures.values()))) == 1


def with_partial(error: RecordingError, made: list[Explanation]) -> RecordingError:
    """Return the error with the explanations that could be made of what was done before."""
    found = RecordingError(f"{error}{PARTIAL}")
    found.partial = made
    found.__cause__ = error.__cause__
    return found


def are_about_images(failures: dict[int, SeewhyError]) -> bool:
    """Return whether any failure lies in an image itself."""
    return any(isinstance(error, ImageError) for error in failures.values())


def too_large(sample: Sample, error: BaseException) -> RecordingError:
    """Return the error for a single image that memory does not suffice for."""
    return RecordingError(
        f"Memory ran out for a single image of shape {tuple(sample.tensor.shape)}: {error}. Choose fewer or later layers, a "
        "smaller image, or another device."
    )
