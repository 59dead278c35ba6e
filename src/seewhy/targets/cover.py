"""Which class a model predicts at which place, and how much of the picture each covers."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.images import Geometry
from seewhy.models.labels import Labels
from seewhy.targets.chances import SHARED, Chances
from seewhy.targets.class_words import tells_two_apart
from seewhy.targets.protocol import Output, Subject, class_name

LEAST_SHARE = 0.01
"""The part of the picture that something must cover to be asked about before the background is."""

_BACKGROUND = ("background", "bg", "unlabeled", "unlabelled", "void", "none", "nothing", "other", "others")


class Cover:
    """What one sample's output `(class, *grid)` says of the places.

    The grid is taken to cover the model's input from edge to edge. A class is predicted where its score is the largest; a
    single score, where it speaks more for than against.

    Args:
        output: `(class, *grid)`.
        labels: the class names, where known.
        geometry: where the input lies in the original; None: the output's places are the original's.
        chances: how scores become probabilities.
    """

    def __init__(
        self,
        output: Output,
        labels: Labels | None = None,
        geometry: Geometry | None = None,
        chances: Chances = SHARED,
    ) -> None:
        self.output: Float[Tensor, "class *grid"] = output.detach().float().cpu()
        self.labels = labels
        self.chances = chances
        self.geometry = geometry or Geometry.identity(tuple(output.shape[1:]))

    @classmethod
    def of(cls, subject: Subject) -> Cover:
        """Return what a subject's output says."""
        return cls(subject.output, subject.labels, subject.geometry, subject.chances)

    @property
    def grid(self) -> tuple[int, ...]:
        """The output's spatial shape."""
        return tuple(self.output.shape[1:])

    @property
    def classes(self) -> int:
        """How many scores there are a place."""
        return len(self.output)

    @cached_property
    def picture(self) -> npt.NDArray[np.float32]:
        """Return which part of each place lies on the picture, and not on an added border: `(*grid)`, 0..1."""
        return self.geometry.to_grid(None, self.grid)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Return the class predicted at each place `(*grid)`; of a single score 0 where it is above its threshold, else -1."""
        if self.classes > 1:
            return np.asarray(self.output.argmax(0).numpy())
        return np.where((self.output[0] > self.chances.even).numpy(), 0, -1)

    def shares_within(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return which part of some weighted places `(*grid)` each class covers: `(class,)`, 0..1."""
        known = self.predicted >= 0
        found = np.bincount(self.predicted[known], weights[known], self.classes)
        return np.asarray(found / max(float(weights.sum()), 1e-12))

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """Return which part of the seen picture each class covers, by area: `(class,)`, 0..1."""
        return self.shares_within(self.picture)

    def weights(self, index: int) -> tuple[npt.NDArray[np.float32], bool]:
        """Return the places at which a class is predicted, and True; where it is predicted nowhere all places, and False."""
        own = self.picture * (self.predicted == index)
        return (own, True) if own.sum() > 0 else (self.picture, False)

    def mean(self, index: int) -> float:
        """Return a class's mean score over the places at which it is predicted; over all where there are none."""
        weights = torch.from_numpy(self.weights(index)[0])
        return float((self.output[index] * weights).sum() / weights.sum())

    @cached_property
    def ranked(self) -> list[int]:
        """The classes, the one that covers most first; those that cover nothing by their mean score."""
        shares = self.shares.tolist()
        return sorted(
            range(self.classes), key=lambda index: (-shares[index], 0 if shares[index] else -self.mean(index))
        )

    @property
    def background(self) -> int | None:
        """The class that stands for "nothing in particular": by its name; class 0 where names are not known."""
        if self.classes == 1:
            return None
        if self.labels is None:
            return 0
        names = [self.labels.name(index).strip("_ ").casefold() for index in range(self.classes)]
        return next((index for index, name in enumerate(names) if name in _BACKGROUND), None)

    @property
    def answer(self) -> int:
        """The class that covers most; the background only where nothing else covers a hundredth of the picture."""
        first, *others = self.ranked
        if first == self.background and others and self.shares[others[0]] >= LEAST_SHARE:
            return others[0]
        return first

    def name(self, index: int) -> str:
        """Return a class's name; of a single score what is above its threshold."""
        if self.classes > 1:
            return class_name(index, self.labels)
        if self.labels is None:
            return "foreground"
        return self.labels.name(1 if tells_two_apart(1, self.labels) else 0)
