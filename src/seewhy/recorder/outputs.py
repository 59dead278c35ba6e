"""From whatever a model returns to the one tensor that answers the question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from seewhy.errors import RecordingError, did_you_mean

_USUAL_NAMES = ("logits", "out", "output", "scores", "pred", "prediction", "predictions")
_DEPTH = 4
"""Levels of a returned structure that are searched."""

OutputLike = None | str | int | Callable[[Any], Tensor]
"""What a caller may say about where the scores are: a key, field or position ("aux", 1, "decoder.logits"), or a function."""


def find_scores(returned: Any, batch: int, output: OutputLike = None) -> Tensor:
    """Return the floating tensor `(batch, ...)` that holds the scores.

    A tensor is taken as it is. From a mapping, a sequence or an object the usual names are tried (`logits`, `out`, ...);
    otherwise the only 2-D tensor, or the first of a tuple.

    Args:
        returned: what the model gave.
        batch: the number of samples.
        output: where the scores are; None: as above.

    Raises:
        RecordingError: nothing fits; all that came out is listed.
    """
    if callable(output):
        return _checked(output(returned), returned, batch, output)
    candidates = dict(_tensors(returned))
    if output is not None:
        name = str(output).replace("[", ".").replace("]", "").replace("'", "").replace('"', "").strip(".")
        if name not in candidates:
            raise RecordingError(
                f"output={output!r} is not in what the model returned.{did_you_mean(name, candidates)} {_listed(returned)}"
            )
        return _checked(candidates[name], returned, batch, output)
    usable = {name: value for name, value in candidates.items() if _fits(value, batch)}
    near = {name: value for name, value in usable.items() if "." not in name} or usable
    for name in ("", *_USUAL_NAMES):
        if name in near:
            return near[name]
    flat = [value for value in near.values() if value.ndim == 2]
    if len(flat) == 1:
        return flat[0]
    if near and isinstance(returned, tuple | list):
        return next(iter(near.values()))
    raise RecordingError(
        f"The model returned a {type(returned).__name__} in which no scores of shape ({batch}, classes) were found. "
        f"{_listed(returned)} Say which it is with output=, a key, field or position, or a function of what the model returns."
    )


def _checked(found: Any, returned: Any, batch: int, output: OutputLike) -> Tensor:
    if isinstance(found, Tensor) and _fits(found, batch):
        return found
    what = f"a {found.dtype} tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    told = f"output={output!r}" if not callable(output) else "The function given as output="
    raise RecordingError(
        f"{told} gives {what}, where real numbers of shape ({batch}, ...) are needed. {_listed(returned)}"
    )


def _fits(value: Tensor, batch: int) -> bool:
    return value.ndim >= 1 and value.shape[0] == batch and value.is_floating_point()


def _listed(returned: Any) -> str:
    found = "; ".join(f"{name or 'tensor'} {tuple(value.shape)}" for name, value in _tensors(returned))
    return f"It returned: {found or 'no tensor'}."


def _tensors(returned: Any, above: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a structure, named by the keys, fields and positions that lead to them, joined by dots."""
    if isinstance(returned, Tensor):
        yield above, returned
        return
    if depth == 0:
        return
    for name, value in _parts(returned):
        yield from _tensors(value, f"{above}.{name}" if above else name, depth - 1)


def _parts(returned: Any) -> list[tuple[str, Any]]:
    if isinstance(returned, Mapping):
        return [(str(key), value) for key, value in returned.items()]
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return [(field.name, getattr(returned, field.name)) for field in dataclasses.fields(returned)]
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return list(zip(returned._fields, returned, strict=True))
    if isinstance(returned, Sequence) and not isinstance(returned, str | bytes):
        return [(str(index), value) for index, value in enumerate(returned)]
    return list(vars(returned).items()) if hasattr(returned, "__dict__") and not callable(returned) else []
