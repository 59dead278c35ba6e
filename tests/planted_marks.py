"""Models trained in seconds to look at a known mark, and pictures in which it is known where that is.

Each kind has classes 1 and 2, which differ in their mark alone, and class 0, which has none: without its mark a picture is of
class 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["shape", "tag", "texture"]
KINDS: tuple[Kind, ...] = ("shape", "tag", "texture")
SIDE = 64


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures `(number, 3, 64, 64)`, their classes `(number,)`, and where their marks are `(number, 64, 64)`, bool."""

    images: Tensor
    classes: Tensor
    marks: Tensor


def drawn(kind: Kind, number: int, generator: torch.Generator, *, with_mark: bool = False) -> Pictures:
    """Draw pictures: clouds of noise with a mark.

    Args:
        kind: "shape", a cross or a ring somewhere; "tag", a small bright tag in a corner, of two colours; "texture", a patch of
            stripes that run down or across.
        number: how many.
        generator: what is drawn from.
        with_mark: leave class 0 out.
    """
    coarse = torch.randn((number, 3, 9, 9), generator=generator)
    images = functional.interpolate(coarse, size=SIDE, mode="bicubic", align_corners=False)
    images = 0.6 * images + 0.3 * torch.randn(images.shape, generator=generator)
    classes = torch.randint(int(with_mark), 3, (number,), generator=generator)
    marks = torch.zeros((number, SIDE, SIDE), dtype=torch.bool)
    for image, mark, one in zip(images, marks, classes.tolist(), strict=True):
        if one:
            {"shape": _shape, "tag": _tag, "texture": _texture}[kind](image, mark, one, generator)
    return Pictures(images, classes, marks)


def _within(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _shape(image: Tensor, mark: Tensor, one: int, generator: torch.Generator) -> None:
    side = _within(14, 20, generator)
    top, left = (_within(0, SIDE - side, generator) for _ in range(2))
    down, across = torch.meshgrid(*(torch.linspace(-1, 1, side),) * 2, indexing="ij")
    far = (down**2 + across**2).sqrt()
    form = (far < 1) & (far > 0.55) if one == 1 else (down.abs() < 0.28) | (across.abs() < 0.28)
    colour = 2.2 * torch.randn(3, generator=generator).sign()
    image[:, top : top + side, left : left + side][:, form] = colour[:, None]
    mark[top : top + side, left : left + side] = True


def _tag(image: Tensor, mark: Tensor, one: int, generator: torch.Generator) -> None:
    side, edge = 12, 3
    top, left = (edge if _within(0, 2, generator) else SIDE - side - edge for _ in range(2))
    image[:, top : top + side, left : left + side] = torch.tensor([2.5, -2.5, 0.0] if one == 1 else [0.0, -2.5, 2.5])[
        :, None, None
    ]
    mark[top : top + side, left : left + side] = True


def _texture(image: Tensor, mark: Tensor, one: int, generator: torch.Generator) -> None:
    side = _within(18, 26, generator)
    top, left = (_within(0, SIDE - side, generator) for _ in range(2))
    stripes = (torch.arange(side) // 2 % 2 * 3.0 - 1.5).expand(side, side)
    image[:, top : top + side, left : left + side] += stripes if one == 1 else stripes.T
    mark[top : top + side, left : left + side] = True


@cache
def trained(kind: Kind, seed: int = 0, steps: int = 150) -> nn.Module:
    """Return a small network with 8 x 8 places before its pooling, trained on pictures that are drawn as it learns."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = (3, 16, 32, 48)
        blocks = [_block(entering, leaving) for entering, leaving in pairwise(widths)]
        model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3))
    return taught(model, kind, generator, rate=4e-3, steps=steps)


def taught(
    model: nn.Module,
    kind: Kind,
    generator: torch.Generator,
    *,
    rate: float,
    steps: int,
    decay: float = 0.01,
    longest: float = math.inf,
) -> nn.Module:
    """Return a network of three classes that learnt a kind of mark, on pictures that are drawn as it learns.

    Args:
        model: is changed.
        kind: of marks.
        generator: what pictures are drawn from.
        rate: of learning, at its highest.
        steps: batches of 48 pictures.
        decay: of the weights.
        longest: to which gradients are shortened.
    """
    learn = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    plan = torch.optim.lr_scheduler.OneCycleLR(learn, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        pictures = drawn(kind, 48, generator)
        loss = functional.cross_entropy(model(pictures.images), pictures.classes)
        learn.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), longest)
        learn.step()
        plan.step()
    return model.eval()


def _block(entering: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, 3, padding=1, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(),
        nn.Conv2d(leaving, leaving, 3, padding=1, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
