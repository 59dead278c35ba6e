"""Which shape does a text mean? Two towers are trained on pairs of a picture and a text, and a text's map falls on its shape.

    python examples/image_text.py [FOLDER]

A small model of images and texts is trained in under a minute. Each picture holds two shapes of different kind and colour at
random places; each text names one of them, and nobody tells the model where it is. The pointing game is the share of new
pictures in which the map's peak lies on the shape that the text names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

SIDE = 48
COLOURS = {"red": (220, 40, 40), "blue": (50, 80, 230), "green": (40, 170, 70), "yellow": (240, 210, 50)}
SHAPES = ("square", "circle")
WORDS = ("a", *COLOURS, *SHAPES)
TESTED = 60

Place = tuple[int, int, int]
"""A shape's row, column and radius."""


def tokenize(texts: list[str]) -> Tensor:
    """Return one number a word, (text, word)."""
    return torch.tensor([[WORDS.index(word) for word in text.split()] for text in texts])


def drawn(chance: np.random.Generator) -> tuple[np.ndarray, dict[str, Place]]:
    """Return a picture of two shapes in noise, and the place of what each text names."""
    picture = chance.integers(90, 150, (SIDE, SIDE, 3), np.uint8)
    places: dict[str, Place] = {}
    for shape, colour in zip(SHAPES, chance.choice(list(COLOURS), 2, replace=False), strict=True):
        while True:
            radius = int(chance.integers(5, 9))
            row, column = (int(each) for each in chance.integers(radius, SIDE - radius, 2))
            if all(max(abs(row - r), abs(column - c)) > radius + size + 2 for r, c, size in places.values()):
                break
        down, across = np.ogrid[-row : SIDE - row, -column : SIDE - column]
        away = np.maximum(abs(down), abs(across)) if shape == "square" else np.hypot(down, across)
        picture[away <= radius] = COLOURS[colour]
        places[f"a {colour} {shape}"] = (row, column, radius)
    return picture, places


class TwoTowers(nn.Module):
    """A small model of images and texts, with the names that open_clip's models have."""

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        widths = (3, 32, 64, 64)
        self.visual = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(into, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU())
                for into, out, stride in zip(widths, widths[1:], (2, 2, 1), strict=False)
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], features),
        )
        self.words = nn.Embedding(len(WORDS), 32)
        self.text = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, features))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-5.0))

    def encode_image(self, images: Tensor) -> Tensor:
        """Return a vector an image."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return a vector a text."""
        return self.text(self.words(tokens).mean(1))


def trained(chance: np.random.Generator, steps: int = 300, batch: int = 48) -> TwoTowers:
    """Return a model that tells which of a batch's texts fit a picture (a sigmoid for each pair, arXiv:2303.15343)."""
    torch.manual_seed(0)
    model = TwoTowers()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in range(steps):
        pictures, places = zip(*(drawn(chance) for _ in range(batch)), strict=True)
        texts = [str(chance.choice(list(own))) for own in places]
        fits = torch.tensor([[text in own for text in texts] for own in places])
        images = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        image, text = model.encode_image(images), model.encode_text(tokenize(texts))
        cosines = functional.normalize(image, dim=1) @ functional.normalize(text, dim=1).T
        logits = model.logit_scale.exp() * cosines + model.logit_bias
        optimiser.zero_grad()
        functional.binary_cross_entropy_with_logits(logits, fits.float()).mul(10).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def main(folder: Path) -> float:
    """Train, explain, write one picture to the folder, and return the pointing game's share."""
    chance = np.random.default_rng(0)
    ready = seewhy.image_text(
        trained(chance),
        tokenizer=tokenize,
        preprocess={"size": (SIDE, SIDE), "resize": None, "mean": (0.5,) * 3, "std": (0.25,) * 3},
    )
    pictures, places = zip(*(drawn(chance) for _ in range(TESTED)), strict=True)
    texts = [str(chance.choice(list(own))) for own in places]
    ask = seewhy.Explainer(ready, progress=False)
    hits = 0
    for why, text, own in zip(ask(list(pictures), [f"text:{text}" for text in texts]), texts, places, strict=True):
        row, column, radius = own[text]
        peak = np.unravel_index(why.heatmap.argmax(), why.heatmap.shape)
        hits += max(abs(peak[0] - row), abs(peak[1] - column)) <= radius
    folder.mkdir(parents=True, exist_ok=True)
    both = ask.compare(pictures[0], targets=[f"text:{text}" for text in places[0]])
    both.save(folder / "image_text.png", columns=3)
    named = seewhy.Explainer(ready, labels=[f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES])
    right = np.mean([named(picture).target in own for picture, own in zip(pictures, places, strict=True)])
    share = hits / TESTED
    print(
        f"the likeliest of 8 texts fits {right:.0%} of {TESTED} pictures; a text's map peaks on its shape in {share:.0%}"
    )
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
