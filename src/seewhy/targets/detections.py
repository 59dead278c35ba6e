"""From a detector's raw predictions to the detections that a person would call its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.images import Edges, Geometry
from seewhy.models.labels import Labels

About = Literal["class", "objectness", "position"]

LEAST = 0.05
"""Confidence below which a prediction is no detection."""

OVERLAP = 0.5
"""Overlap (intersection over union) from which the less confident of two predictions of a class is suppressed."""

_SMALLEST = 0.01
"""Pixels that a box must be wide and high."""

_MOST = 1000
"""Predictions, the most confident, among which detections are looked for."""


@dataclass(frozen=True)
class BoxTarget:
    """A box of one's own: why does the model (not) see such an object there?

    Attributes:
        box: left, top, right, bottom, in pixels of the original picture (of a tensor: of the input).
        of: the class, a name or an index.
        about: "class", "objectness" or "position".
    """

    box: Sequence[float | int]
    of: str | int
    about: About = "class"

    def __post_init__(self) -> None:
        box = tuple(float(edge) for edge in self.box)
        if len(box) != 4 or not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
            raise TargetError(
                f"BoxTarget(box={self.box!r}) must be (left, top, right, bottom) in pixels, left < right and top < bottom."
            )
        if self.about not in get_args(About):
            raise TargetError(f"about='{self.about}' is not known. Known: {', '.join(get_args(About))}.")
        object.__setattr__(self, "box", box)


@dataclass(frozen=True, eq=False)
class Predictions:
    """One sample's rows `(predictions, 5 + classes)`, taken apart."""

    boxes: Float[Tensor, "predictions 4"]
    objectness: Float[Tensor, " predictions"]
    classes: Float[Tensor, "predictions classes"]

    @classmethod
    def of(cls, output: Float[Tensor, "predictions columns"]) -> Predictions:
        """Take rows apart."""
        return cls(output[:, :4], output[:, 4], output[:, 5:])


@dataclass(frozen=True)
class Detection:
    """One object that a detector found.

    Attributes:
        index: its class; `name` is the class's name.
        score: how confident the model is, 0..1.
        left, top, right, bottom: its edges in pixels of the original picture; they may lie between pixels, and beyond what
            was cropped away.
    """

    index: int
    name: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def edges(self) -> Edges:
        """Left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom


def detected(output: Float[Tensor, "predictions columns"]) -> Int[Tensor, " detections"]:
    """Return which rows are detections, the most confident first.

    A prediction's class is its likeliest, which must have a score of 0.05; of predictions of one class that overlap by more than
    0.5 only the most confident is left (greedy non-maximum suppression).
    """
    from torchvision.ops import batched_nms

    found = Predictions.of(output.detach().float())
    confidence, classes = found.classes.max(1)
    best = confidence.topk(min(_MOST, len(confidence))).indices
    sides = found.boxes[best, 2:] - found.boxes[best, :2]
    best = best[(confidence[best] >= LEAST) & (sides > _SMALLEST).all(1)]
    return best[batched_nms(found.boxes[best], confidence[best], classes[best], OVERLAP)]


def detections(
    output: Float[Tensor, "predictions columns"], geometry: Geometry, labels: Labels | None
) -> tuple[Detection, ...]:
    """Return a sample's detections on its original pixels, the most confident first."""
    found = Predictions.of(output)
    told = []
    for row in detected(output).tolist():
        index = int(found.classes[row].argmax())
        left, top, right, bottom = map(float, found.boxes[row])
        edges = geometry.box_to_original((left, top, right, bottom))
        name = labels.name(index) if labels is not None else f"class {index}"
        told.append(Detection(index, name, float(found.classes[row, index]), *edges))
    return tuple(told)


def overlaps(box: Float[Tensor, "4"], boxes: Float[Tensor, "predictions 4"]) -> Float[Tensor, " predictions"]:
    """Return the intersection over union of one box and each of others.

    At the box itself it is highest, and has no derivative; what is taken for it there is the one from inside: how it would fall
    if an edge moved inwards.
    """
    low = torch.where(boxes[:, :2] >= box[:2], boxes[:, :2], box[:2])
    high = torch.where(boxes[:, 2:] <= box[2:], boxes[:, 2:], box[2:])
    common = (high - low).clamp_min(0).prod(1)
    union = _areas(boxes) + _areas(box[None]) - common
    return common / union.clamp_min(1e-9)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
