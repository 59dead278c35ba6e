"""From whatever a model returns to the one tensor that answers the question."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from seewhy.errors import RecordingError

_USUAL_NAMES = ("logits", "out", "output", "scores", "pred", "prediction", "predictions")


def find_scores(returned: Any, batch: int) -> Tensor:
    """Return the floating tensor `(batch, ...)` that holds the scores.

    A tensor is taken as it is. From a mapping or an object the usual names are tried (`logits`, `out`, ...); otherwise the
    only 2-D tensor, or the first of a tuple.

    Raises:
        RecordingError: nothing fits; all that came out is listed.
    """
    candidates = dict(_tensors(returned))
    usable = {
        name: value
        for name, value in candidates.items()
        if value.ndim >= 1 and value.shape[0] == batch and value.is_floating_point()
    }
    for name in ("", *_USUAL_NAMES):
        if name in usable:
            return usable[name]
    flat = [value for value in usable.values() if value.ndim == 2]
    if len(flat) == 1:
        return flat[0]
    if "0" in usable:
        return usable["0"]
    listed = "; ".join(f"{name or 'tensor'} {tuple(value.shape)}" for name, value in candidates.items()) or "no tensor"
    raise RecordingError(
        f"The model returned a {type(returned).__name__} in which no scores of shape ({batch}, classes) were found: {listed}. "
        "Wrap the model so that its forward returns the scores."
    )


def _tensors(returned: Any) -> list[tuple[str, Tensor]]:
    """Return the tensors one level down, named by key, field or position."""
    if isinstance(returned, Tensor):
        return [("", returned)]
    if isinstance(returned, Mapping):
        items = [(str(key), value) for key, value in returned.items()]
    elif dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        items = [(field.name, getattr(returned, field.name)) for field in dataclasses.fields(returned)]
    elif isinstance(returned, Sequence) and not isinstance(returned, str):
        items = [(str(index), value) for index, value in enumerate(returned)]
    else:
        items = list(vars(returned).items()) if hasattr(returned, "__dict__") else []
    return [(name, value) for name, value in items if isinstance(value, Tensor)]
