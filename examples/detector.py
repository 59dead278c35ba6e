"""Train a small detector of shapes in seconds, ask it about single boxes, and see whether the maps point at them.

Run `python examples/detector.py FOLDER`: prints the share of maps whose brightest place lies in the box that was asked about, and
writes one picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

NAMES = ["square", "disc", "cross"]
SIDE = 96
STRIDES = (8, 16, 32)

Picture = tuple[npt.NDArray[np.uint8], list[tuple[int, tuple[int, int, int, int]]]]


def draw(draws: np.random.Generator) -> Picture:
    """Return a noisy picture with one to three shapes, none over another, and their classes and boxes."""
    pixels = draws.integers(60, 120, (SIDE, SIDE, 3)).astype(float)
    objects: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(draws.integers(1, 4)):
        for _ in range(20):
            side = int(draws.integers(14, 40))
            left, top = (int(value) for value in draws.integers(0, SIDE - side, 2))
            box = (left, top, left + side, top + side)
            if all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for _, b in objects):
                kind = int(draws.integers(len(NAMES)))
                pixels[top : top + side, left : left + side][_shape(kind, side)] = draws.integers(140, 256, 3)
                objects.append((kind, box))
                break
    return pixels.astype(np.uint8), objects


def _shape(kind: int, side: int) -> npt.NDArray[np.bool_]:
    across = np.abs(np.arange(side) + 0.5 - side / 2) / (side / 2)
    far, near = np.maximum.outer(across, across), np.minimum.outer(across, across)
    return [far < 1, np.hypot.outer(across, across) < 1, (near < 0.3) & (far < 1)][kind]


class Head(nn.Module):
    """From three grids to predictions `(batch, 4 + classes, predictions)`: centre, width, height, and a chance a class."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixed = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in STRIDES)
        self.last = nn.ModuleList(nn.Conv2d(channels, 4 + len(NAMES), 1) for _ in STRIDES)
        for layer in self.last:
            nn.init.constant_(layer.bias[4:], -4.0)  # most predictions find nothing

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the predictions at all places of the three grids."""
        found = []
        for level, mixed, last, stride in zip(levels, self.mixed, self.last, STRIDES, strict=True):
            raw = last(mixed(level).relu())
            rows, columns = (torch.arange(length) for length in raw.shape[2:])
            cell = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).to(raw)
            centre = (cell + 2 * raw[:, :2].sigmoid() - 0.5) * stride
            size = raw[:, 2:4].clamp(-3, 3).exp() * 2 * stride
            found.append(torch.cat([centre, size, raw[:, 4:].sigmoid()], 1).flatten(2))
        return torch.cat(found, 2)


class Detector(nn.Module):
    """Convolutions to an eighth, a sixteenth and a thirty-second of the input, joined from coarse to fine; a head at each."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 12), _block(12, 24), _block(24, channels))
        self.smaller, self.smallest = _block(channels, channels), _block(channels, channels)
        self.joined = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in STRIDES)
        self.head = Head(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return the predictions for pictures `(batch, 3, height, width)`."""
        fine = self.stem(images)
        middle = self.smaller(fine)
        coarse = self.smallest(middle)
        middle = middle + functional.interpolate(coarse, size=middle.shape[2:])
        fine = fine + functional.interpolate(middle, size=fine.shape[2:])
        return self.head([join(each).relu() for join, each in zip(self.joined, (fine, middle, coarse), strict=True)])


def _block(entering: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(entering, leaving, 3, 2, 1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU())


def _places(objects: list[tuple[int, tuple[int, int, int, int]]]) -> list[tuple[int, int, list[float]]]:
    """Return the prediction that is to find each object, its class, and its centre, width and height."""
    found = []
    for kind, (left, top, right, bottom) in objects:
        level = int(np.searchsorted([20, 30], right - left))
        cells, stride = [SIDE // each for each in STRIDES], STRIDES[level]
        column, row = ((low + high) / 2 // stride for low, high in ((left, right), (top, bottom)))
        place = sum(each**2 for each in cells[:level]) + int(row) * cells[level] + int(column)
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        found.append((place, kind, [float(edge) for edge in box]))
    return found


def train(steps: int = 300, batch: int = 16, seed: int = 0) -> Detector:
    """Return a detector trained on pictures that are drawn as it learns."""
    torch.manual_seed(seed)
    draws, model = np.random.default_rng(seed), Detector().train()
    learn = torch.optim.AdamW(model.parameters(), lr=4e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(learn, 4e-3, total_steps=steps)
    for _ in range(steps):
        pictures = [draw(draws) for _ in range(batch)]
        output = model(torch.stack([as_input(pixels) for pixels, _ in pictures]))
        wanted = torch.zeros_like(output[:, 4:])
        loss = output.new_zeros(())
        for number, (_, objects) in enumerate(pictures):
            for place, kind, box in _places(objects):
                wanted[number, kind, place] = 1
                loss = loss + 0.02 * functional.smooth_l1_loss(
                    output[number, :4, place], torch.tensor(box), reduction="sum"
                )
        chance = output[:, 4:].clamp(1e-6, 1 - 1e-6)
        off = (chance - wanted).abs()
        loss = (
            loss + (functional.binary_cross_entropy(chance, wanted, reduction="none") * off.detach() ** 1.5).sum() * 2
        )
        learn.zero_grad()
        (loss / batch).backward()
        learn.step()
        plan.step()
    return model.eval()


def as_input(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return a picture as the detector takes it, `(3, height, width)`."""
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.25


PREPROCESS = {"size": (SIDE, SIDE), "fit": "squash", "mean": (0.5,) * 3, "std": (0.25,) * 3}


def main(folder: str | Path, pictures: int = 60) -> float:
    """Train, ask about the most confident box of each picture, and return the share of maps that point at their box."""
    ask = seewhy.Explainer(train(), preprocess=PREPROCESS, labels=NAMES)
    draws = np.random.default_rng(1)
    found = ask([draw(draws)[0] for _ in range(pictures)], target="box:0")
    pointing = []
    for why in found:
        place = np.unravel_index(why.heatmap.argmax(), why.heatmap.shape)
        pointing.append(bool(why.outline[place]))
    shown = max(found, key=lambda why: (len(why.detections), why.score))
    Path(folder).mkdir(parents=True, exist_ok=True)
    shown.save(Path(folder) / "detector.png", max_side=480)
    share = sum(pointing) / len(pointing)
    print(f"{share:.0%} of the maps have their brightest place in the box that was asked about")
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
