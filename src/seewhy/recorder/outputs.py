"""From whatever a model returns to the one tensor that answers the question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from seewhy.errors import RecordingError, did_you_mean
from seewhy.recorder.detections import from_pair, read_boxes
from seewhy.recorder.mask_queries import semantic_scores
from seewhy.targets import Kind

_USUAL_NAMES = ("logits", "out", "output", "scores", "pred", "prediction", "predictions")
_VECTORS = ("image_embeds", "pooler_output", "embeddings", "embedding")
"""Names under which models return a vector an image."""

_DEPTH = 4
"""Levels of a returned structure that are searched."""

OutputLike = None | str | int | Callable[[Any], Tensor]
"""What a caller may say about where the scores are: a key, field or position ("aux", 1, "decoder.logits"), or a function."""


def read_scores(
    returned: Any,
    batch: int,
    output: OutputLike = None,
    *,
    space: tuple[int, ...] = (),
    module: nn.Module | None = None,
) -> tuple[Tensor, Kind]:
    """Return the scores `(batch, *output)` in what a model returned, and what they are.

    A tensor is taken as it is. From a mapping, a sequence or an object the usual names are tried (`logits`, `out`, ...);
    otherwise the only 2-D tensor, the only vector (`pooler_output` with axes of one cell), or the first of a tuple.

    Args:
        returned: what the model gave.
        batch: the number of samples.
        output: where the scores are; None: as above. A function may also give an object detector's (boxes, class scores), see
            :func:`seewhy.recorder.detections.from_pair`.
        space: the input's shape, and
        module: the model, by which detectors are known.

    Raises:
        RecordingError: nothing fits; all that came out is listed.
    """
    if callable(output):
        given = output(returned)
        if (rows := from_pair(given)) is not None and len(rows) == batch:
            return rows, "boxes"
        found, name = _checked(given, returned, batch, output), ""
    else:
        if output is None and module is not None and (rows := read_boxes(returned, space, module)) is not None:
            return rows, "boxes"
        if output is None and (semantic := semantic_scores(returned, batch)) is not None:
            return semantic, "places"
        found, name = _find(returned, batch, output)
    if _is_pooled(name, found):
        return found.flatten(1), "vector"
    if found.ndim < 2:
        return found.reshape(batch, 1), "classes"  # one number a sample, its axis squeezed away
    if found.ndim == 2:
        return found, "classes"
    return found, "places" if found.ndim > 3 else "other"


def _find(returned: Any, batch: int, output: str | int | None) -> tuple[Tensor, str]:
    """Return the scores and the name under which they were found; "" for a tensor itself."""
    candidates = dict(_tensors(returned))
    if output is not None:
        name = str(output).replace("[", ".").replace("]", "").replace("'", "").replace('"', "").strip(".")
        if name not in candidates:
            raise RecordingError(
                f"output={output!r} is not in what the model returned.{did_you_mean(name, candidates)} {_listed(returned)}"
            )
        return _checked(candidates[name], returned, batch, output), name
    usable = {name: value for name, value in candidates.items() if _fits(value, batch)}
    near = {name: value for name, value in usable.items() if "." not in name} or usable
    for name in ("", *_USUAL_NAMES):
        if name in near:
            return near[name], name
    flat = [name for name, value in near.items() if value.ndim == 2]
    flat = flat or [name for name in near if _is_pooled(name, near[name])]
    if len(flat) == 1:
        return near[flat[0]], flat[0]
    if near and isinstance(returned, tuple | list):
        return next(iter(near.values())), next(iter(near))
    raise RecordingError(
        f"The model returned a {type(returned).__name__} in which no scores of shape ({batch}, classes) were found. "
        f"{_listed(returned)} Say which it is with output=, a key, field or position, or a function of what the model returns."
    )


def listed(returned: Any, taken: Tensor) -> tuple[dict[str, Tensor], str | None]:
    """Return every tensor in what a model returned by its name, and the name of the one whose values were taken, if one's were.

    Args:
        returned: what the model gave.
        taken: scores by :func:`read_scores`, which may see such a tensor in another shape.
    """
    tensors = dict(_tensors(returned))
    own = [name for name, value in tensors.items() if _same_values(value, taken)]
    return tensors, next(iter(own), None)


def _same_values(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.numel() == other.numel() and one.data_ptr() == other.data_ptr())


def _is_pooled(name: str, value: Tensor) -> bool:
    """Return whether this is a vector an image, by its name; a pooled map may have kept its axes, of one cell each."""
    return name.rpartition(".")[2] in _VECTORS and value.ndim >= 2 and value[0].numel() == value.shape[1]


def _checked(found: Any, returned: Any, batch: int, output: OutputLike) -> Tensor:
    if isinstance(found, Tensor) and _fits(found, batch):
        return found
    what = f"a {found.dtype} tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    told = f"output={output!r}" if not callable(output) else "The function given as output="
    raise RecordingError(
        f"{told} gives {what}, where real numbers of shape ({batch}, ...) are needed. {_listed(returned)}"
    )


def _fits(value: Tensor, batch: int) -> bool:
    alone = value.ndim == 0 and batch == 1  # squeezed to a bare number
    return (alone or (value.ndim >= 1 and value.shape[0] == batch)) and value.is_floating_point()


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
