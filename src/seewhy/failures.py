"""What is raised when some of the work failed: the errors, with what was done before."""

from __future__ import annotations

from seewhy.errors import ImageError, PartialError, RecordingError, SeewhyError
from seewhy.explanation import Explanation
from seewhy.inputs import Sample


def told(done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> SeewhyError:
    """Return the error to raise: where nothing was done and all failed alike just that, else the work done and all errors."""
    alike = len({str(error) for error in failures.values()}) == 1
    if alike and not any(done):
        return next(iter(failures.values()))
    return PartialError(done, dict(sorted(failures.items())))


def with_partial(error: RecordingError, made: list[Explanation]) -> RecordingError:
    """Return the error with the explanations that could be made of what was done before."""
    found = RecordingError(
        f"{error} What was done before is not lost: the maps made of it are in this error's `.partial`."
    )
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
