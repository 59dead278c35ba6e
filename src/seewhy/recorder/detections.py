"""What object detectors answer, before anything is suppressed: every prediction's box and scores, with their graph.

One sample's answer becomes rows `(predictions, 5 + classes)`: left, top, right and bottom in pixels of the model's input, how
sure the model is that there is anything (objectness), and a score a class, both 0..1. Models are told apart by the structure
of what they return.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy.errors import RecordingError

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Input pixels a cell of the grids on which single-shot detectors predict."""

_MOST_KEPT = 1000
"""Predictions that a model which suppresses by itself gives at most."""


@dataclass(frozen=True, eq=False)
class RawBoxes:
    """A detector's predictions, `(batch, predictions, 5 + classes)`."""

    rows: Tensor


def as_rows(boxes: Tensor, classes: Tensor, objectness: Tensor | None = None) -> Tensor:
    """Return predictions as rows.

    Args:
        boxes: `(*batch, predictions, 4)`, left, top, right, bottom.
        classes: `(*batch, predictions, classes)`, 0..1.
        objectness: `(*batch, predictions)`, 0..1; None: the highest class score.
    """
    sure = classes.amax(-1) if objectness is None else objectness
    return torch.cat([boxes, sure[..., None], classes], -1)


def padded(samples: Sequence[Tensor], least: int = 1) -> Tensor:
    """Return samples with different numbers of rows as one tensor: rows of zeros, which no question finds, fill them up."""
    most = max(least, *(len(rows) for rows in samples))
    return torch.stack([functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in samples])


def from_centres(boxes: Tensor) -> Tensor:
    """Return boxes given as centre, width and height by their edges."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], -1)


def read_boxes(returned: Any, space: tuple[int, ...], module: nn.Module) -> Tensor | None:
    """Return a detector's predictions as rows `(batch, predictions, 5 + classes)`; None where this is no such answer.

    Args:
        returned: what the model gave: :class:`RawBoxes`; `logits` and `pred_boxes` (the DETR family of Hugging Face); or the
            tensor of a YOLO head, `(batch, 4 + classes, predictions)`, `(batch, predictions, 5 + classes)` with an objectness,
            or `(batch, at most 1000, 6)` with one class each.
        space: the input's height and width.
        module: the model, for the number of its classes.

    Raises:
        RecordingError: there are logits and boxes, and it is not known what the logits mean.
    """
    if isinstance(returned, RawBoxes):
        return returned.rows
    if len(space) != 2:
        return None
    found = _from_queries(returned, space, module)
    return found if found is not None else _from_grids(returned, space, module)


def from_pair(found: Any) -> Tensor | None:
    """Return rows from a caller's (boxes, class scores), `(batch, predictions, 4)` and `(batch, predictions, classes)`.

    Each may be a sequence with one tensor a sample, whose numbers of predictions differ. None where it is no such pair.
    """
    if not (isinstance(found, tuple | list) and len(found) == 2):
        return None
    if not all(isinstance(part, tuple | list) or (isinstance(part, Tensor) and part.ndim == 3) for part in found):
        return None
    boxes, classes = (list(part) for part in found)
    fitting = len(boxes) == len(classes) and all(
        isinstance(box, Tensor) and isinstance(scores, Tensor) and _belong(box, scores)
        for box, scores in zip(boxes, classes, strict=True)
    )
    if not boxes or not fitting:
        return None
    return padded([as_rows(box.to(scores), scores) for box, scores in zip(boxes, classes, strict=True)])


def _belong(boxes: Tensor, classes: Tensor) -> bool:
    return boxes.ndim == classes.ndim == 2 and boxes.shape == (len(classes), 4) and classes.is_floating_point()


def _from_queries(returned: Any, space: tuple[int, ...], module: nn.Module) -> Tensor | None:
    """Read the DETR family: one box, in parts of the input, and one set of scores a query."""
    logits, boxes = (_named(returned, name) for name in ("logits", "pred_boxes"))
    if logits is None or boxes is None or boxes.shape != (*logits.shape[:2], 4):
        return None
    height, width = space
    edges = from_centres(boxes) * boxes.new_tensor([width, height, width, height])
    config = next((c for part in module.modules() if hasattr(c := getattr(part, "config", None), "num_labels")), None)
    scores, classes = logits.shape[-1], getattr(config, "num_labels", None)
    # Of each class by itself in deformable DETR and its followers; of each text or token, however many the config has classes,
    # in models that are asked for objects in words (OWL-ViT, Grounding DINO).
    if scores == classes or hasattr(config, "text_config"):
        return as_rows(edges, logits.sigmoid())
    if classes is None or scores != classes + 1:
        has = "no config with num_labels" if classes is None else f"num_labels={classes} in its config"
        raise RecordingError(
            f"{type(module).__name__} gives {scores} logits a box and has {has}, by which it is not known whether the last means "
            "'nothing there' (softmax) or each is a class's own (sigmoid). Say it with output=, a function from what the model "
            "returns to (boxes, class scores): left, top, right, bottom in pixels of the input, and 0..1."
        )
    chances = logits.softmax(-1)  # the last is "nothing there"
    return as_rows(edges, chances[..., :-1], 1 - chances[..., -1])


def _from_grids(returned: Any, space: tuple[int, ...], module: nn.Module) -> Tensor | None:
    """Read a YOLO head, known by its number of predictions: one, or three, a cell of the usual grids."""
    first = returned[0] if isinstance(returned, tuple | list) and returned else returned
    if not (isinstance(first, Tensor) and first.ndim == 3 and first.is_floating_point()):
        return None
    cells = {sum(math.prod(-(-side // stride) for side in space) for stride in strides) for strides in _STRIDES}
    if first.shape[1] > 4 and first.shape[2] in cells:
        rows = first.transpose(1, 2)
        return as_rows(from_centres(rows[..., :4]), rows[..., 4:]) if _are_chances(rows[..., 4:]) else None
    if first.shape[2] > 5 and first.shape[1] in {3 * count for count in cells}:
        sure = first[..., 4]
        chances = first[..., 5:] * sure[..., None]
        return as_rows(from_centres(first[..., :4]), chances, sure) if _are_chances(first[..., 4:]) else None
    if first.shape[2] == 6 and first.shape[1] <= _MOST_KEPT:
        return _from_kept(first, module)
    return None


def _from_kept(rows: Tensor, module: nn.Module) -> Tensor | None:
    """Read boxes by their edges, one score each, and the class's number."""
    count: Any = next((part.nc for part in module.modules() if isinstance(getattr(part, "nc", None), int)), None)
    numbers = rows[..., 5].detach()
    if count is None or not _are_chances(rows[..., 4]) or not bool((numbers == numbers.round()).all()):
        return None
    if not 0 <= float(numbers.min()) <= float(numbers.max()) < count:
        return None
    own = functional.one_hot(numbers.long(), count).to(rows)
    return as_rows(rows[..., :4], own * rows[..., 4:5])


def _are_chances(values: Tensor) -> bool:
    return values.numel() > 0 and float(values.detach().min()) >= 0 and float(values.detach().max()) <= 1


def _named(returned: Any, name: str) -> Tensor | None:
    value = returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)
    return value if isinstance(value, Tensor) and value.ndim == 3 else None
