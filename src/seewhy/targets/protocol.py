"""What a target is: from one sample's output to the one number that is to be explained. High always means "supports it"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, SupportsIndex, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from seewhy.images import Geometry
from seewhy.models.labels import Labels
from seewhy.targets.chances import SHARED, Chances
from seewhy.targets.detections import BoxTarget
from seewhy.targets.region import Region

Output = Float[Tensor, "*output"]
Kind = Literal["classes", "places", "boxes", "vector", "other"]
"""What a model answers about one sample: `(class,)` one score a class, `(class, *space)` one score a class and place,
`(predictions, 5 + classes)` boxes: left, top, right, bottom in pixels of the model's input, objectness, one score a class;
`(feature,)` a vector that is compared with others; or something of which only a callable can make a number."""


@runtime_checkable
class Target(Protocol):
    """One question about one sample."""

    @property
    def index(self) -> int | None:
        """The class asked about, where there is one."""

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        """Return the scalar to explain from one sample's output, with its graph."""

    def describe(self, labels: Labels | None) -> str:
        """Return the question in words."""


class Ahead:
    """What a caller may give as a target that can be asked only when the model has answered about something else before."""


TargetLike = None | SupportsIndex | str | Callable[[Tensor], Tensor] | Ahead | Region | BoxTarget
"""What a caller may give as one target; any kind of integer is a class index."""


@runtime_checkable
class Outlined(Protocol):
    """A target that is about a part of the picture: a box, a region."""

    def outline(self, geometry: Geometry) -> npt.NDArray[np.bool_] | None:
        """Return that part on the original pixels, `(*original_shape)`; None where there is none."""


@runtime_checkable
class Noted(Protocol):
    """A target about which something must be said."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What: how it was chosen, what was left out."""


Question = tuple[Target, ...]
"""One target for each sample of a batch."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One sample about which something is asked.

    Attributes:
        output: `(*output)`, what the model answered.
        kind: what that is.
        labels: the class names, where known.
        geometry: where the model's input lies in the original picture; None where there is none.
        chances: how its scores become probabilities.
    """

    output: Output
    kind: Kind = "classes"
    labels: Labels | None = None
    geometry: Geometry | None = None
    chances: Chances = SHARED


def class_name(index: int, labels: Labels | None) -> str:
    """Return a class's name, or "class 7" where names are not known."""
    return labels.name(index) if labels is not None else f"class {index}"
