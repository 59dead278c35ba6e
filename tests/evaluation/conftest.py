"""A model of which every number is known, and folders of pictures for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.measures import Trial, Wants, registry

SIDE = 8


class Colours(nn.Module):
    """Class 0 is red, 1 green, 2 blue: a class's score is four times the mean of its colour."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.second = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)
            self.second.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(4 * torch.eye(3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.body(images)).mean((2, 3)))


@pytest.fixture
def ask() -> seewhy.Explainer:
    """The model, which sees pictures as they are."""
    plain = {"size": (SIDE, SIDE), "fit": "squash", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return seewhy.Explainer(Colours().eval(), preprocess=plain, labels=["red", "green", "blue"])


def paint(path: Path, left: int, right: int) -> None:
    """Write a picture whose halves are each of one colour, at full brightness."""
    values = np.zeros((SIDE, SIDE, 3), np.uint8)
    values[:, : SIDE // 2, left] = 255
    values[:, SIDE // 2 :, right] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture of each of two classes: what it is asked about is on the left of one, on the right of the other."""
    paint(tmp_path / "pictures" / "red" / "one.png", 0, 2)
    paint(tmp_path / "pictures" / "blue" / "two.png", 0, 2)
    return tmp_path / "pictures"


@pytest.fixture
def inside() -> Iterator[str]:
    """A metric that compares with the truth: the share of a map's positive part inside."""
    before = dict(registry._ENTRIES)

    @seewhy.metric("share-inside", better="higher", range=(0.0, 1.0), source="test", wants=Wants.TRUTH)
    def share(trial: Trial) -> Tensor:
        """How much of a map is where the thing is."""
        positive = trial.maps.clamp(min=0).flatten(2)
        return (positive * trial.truth[:, None].flatten(2)).sum(2) / positive.sum(2)

    yield "share-inside"
    registry._ENTRIES.clear()
    registry._ENTRIES.update(before)
