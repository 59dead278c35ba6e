"""Train a model of two inputs, a picture and a question about it, and see whether maps follow the question.

Every picture holds a red and a green shape; the second input says which one's form is asked for. Run
`python examples/two_inputs.py FOLDER`: prints the share of maps whose brightest place lies in the box of the shape that was asked
for, and writes one picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

import seewhy

FORMS = ["square", "disc", "cross"]
COLOURS = {"red": (230, 60, 50), "green": (60, 200, 70)}
SIDE = 64

Box = tuple[slice, slice]


def draw(draws: np.random.Generator) -> tuple[npt.NDArray[np.uint8], list[int], list[Box]]:
    """Return a noisy picture with a red and a green shape, and of each its form and where it is."""
    pixels = draws.integers(60, 120, (SIDE, SIDE, 3)).astype(np.uint8)
    forms, boxes = [], []
    halves = draws.permutation(2)
    for half, colour in zip(halves, COLOURS.values(), strict=True):
        side, form = int(draws.integers(18, 26)), int(draws.integers(len(FORMS)))
        top = int(draws.integers(0, SIDE - side))
        left = int(draws.integers(0, SIDE // 2 - side)) + int(half) * SIDE // 2
        box = (slice(top, top + side), slice(left, left + side))
        pixels[box][_form(form, side)] = colour
        forms.append(form)
        boxes.append(box)
    return pixels, forms, boxes


def _form(form: int, side: int) -> npt.NDArray[np.bool_]:
    across = np.abs(np.arange(side) + 0.5 - side / 2) / (side / 2)
    far, near = np.maximum.outer(across, across), np.minimum.outer(across, across)
    return [far < 1, np.hypot.outer(across, across) < 1, (near < 0.3) & (far < 1)][form]


class Asked(nn.Module):
    """Looks at a picture with a question: the question scales the channels of what is seen (FiLM, arXiv:1709.07871)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.seen = nn.Sequential(_block(3, 16, 2), _block(16, channels, 2), _block(channels, channels, 1))
        self.question = nn.Linear(len(COLOURS), 2 * channels)
        self.joined = nn.Sequential(_block(channels, channels, 1), _block(channels, channels, 2))
        self.head = nn.Linear(channels, len(FORMS))

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        """Return a score a form for pictures `(batch, 3, height, width)` and questions `(batch, 2)`."""
        scale, shift = self.question(question)[..., None, None].chunk(2, 1)
        found = self.joined(functional.relu(self.seen(picture) * (1 + scale) + shift))
        return self.head(found.amax((2, 3)))


def _block(entering: int, leaving: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(entering, leaving, 3, stride, 1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU())


def as_input(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return a picture as the model takes it, `(3, height, width)`."""
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.25


def train(steps: int = 200, batch: int = 32, seed: int = 0) -> Asked:
    """Return a model trained on pictures that are drawn as it learns."""
    torch.manual_seed(seed)
    draws, model = np.random.default_rng(seed), Asked().train()
    learn = torch.optim.AdamW(model.parameters(), lr=4e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(learn, 4e-3, total_steps=steps)
    for _ in range(steps):
        pictures = [draw(draws) for _ in range(batch)]
        asked = torch.from_numpy(draws.integers(len(COLOURS), size=batch))
        scores = model(
            torch.stack([as_input(pixels) for pixels, _, _ in pictures]), functional.one_hot(asked, 2).float()
        )
        wanted = [forms[number] for (_, forms, _), number in zip(pictures, asked.tolist(), strict=True)]
        loss = functional.cross_entropy(scores, torch.tensor(wanted))
        learn.zero_grad()
        loss.backward()
        learn.step()
        plan.step()
    return model.eval()


PREPROCESS = {"size": (SIDE, SIDE), "fit": "squash", "mean": (0.5,) * 3, "std": (0.25,) * 3}


def main(folder: str | Path, pictures: int = 40) -> float:
    """Train, ask about both shapes of each picture, and return the share of maps that point at the one that was asked for."""
    ask = seewhy.Explainer(train(), preprocess=PREPROCESS, labels=FORMS)
    draws = np.random.default_rng(1)
    pointing, shown = [], []
    for _ in range(pictures):
        pixels, _, boxes = draw(draws)
        for question, (rows, columns) in zip(torch.eye(2), boxes, strict=True):
            why = ask((pixels, question), wrt="picture", method="hires-cam")  # the question is handed on as it is
            y, x = np.unravel_index(why.heatmap.argmax(), why.heatmap.shape)
            pointing.append(rows.start <= y < rows.stop and columns.start <= x < columns.stop)
            shown.append(why)
    Path(folder).mkdir(parents=True, exist_ok=True)
    _figure(shown[0], shown[1]).savefig(Path(folder) / "two_inputs.png")
    share = sum(pointing) / len(pointing)
    print(f"{share:.0%} of the maps have their brightest place in the box of the shape that was asked for")
    return share


def _figure(*answers: seewhy.Explanation) -> Figure:
    drawn, axes = plt.subplots(1, len(answers), figsize=(8, 4.2), layout="constrained")
    for at, why, colour in zip(axes, answers, COLOURS, strict=True):
        at.imshow(why.overlay())
        at.set_title(f"which form is {colour}? {why.target}", fontsize=10)
        at.axis("off")
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
