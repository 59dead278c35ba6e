"""Train a small vision transformer on striped patches in noise, and see whether its maps point at them.

Run `python examples/transformer.py FOLDER`: prints, for several methods, the share of maps whose brightest place lies in the
patch, and writes one picture with all of them side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

NAMES = ["rows", "columns", "checks"]
SIDE = 48
METHODS = ["attention-rollout", "generic-attention", "legrad", "hires-cam", "integrated-gradients"]

Box = tuple[slice, slice]


def draw(draws: np.random.Generator) -> tuple[npt.NDArray[np.uint8], int, Box]:
    """Return a noisy picture with one patch of stripes or checks, the patch's class and where it is."""
    pixels = draws.integers(60, 120, (SIDE, SIDE, 3)).astype(float)
    side, kind = int(draws.integers(12, 20)), int(draws.integers(len(NAMES)))
    top, left = (int(value) for value in draws.integers(0, SIDE - side, 2))
    row, column = np.mgrid[:side, :side] // 2 % 2
    box = (slice(top, top + side), slice(left, left + side))
    pixels[box][[row == 0, column == 0, row == column][kind]] = draws.integers(140, 256, 3)
    return pixels.astype(np.uint8), kind, box


def as_input(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return a picture as the model takes it, `(3, height, width)`."""
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.25


PREPROCESS = {"size": (SIDE, SIDE), "fit": "squash", "mean": (0.5,) * 3, "std": (0.25,) * 3}


def train(steps: int = 150, batch: int = 64, seed: int = 0) -> nn.Module:
    """Return a transformer of three blocks, trained on pictures that are drawn as it learns."""
    torch.manual_seed(seed)
    draws = np.random.default_rng(seed)
    model = timm.models.VisionTransformer(
        img_size=SIDE, patch_size=6, embed_dim=48, depth=3, num_heads=4, num_classes=len(NAMES)
    ).train()
    learn = torch.optim.AdamW(model.parameters(), lr=2e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(learn, 2e-3, total_steps=steps)
    for _ in range(steps):
        pictures = [draw(draws) for _ in range(batch)]
        scores = model(torch.stack([as_input(pixels) for pixels, _, _ in pictures]))
        loss = functional.cross_entropy(scores, torch.tensor([kind for _, kind, _ in pictures]))
        learn.zero_grad()
        loss.backward()
        learn.step()
        plan.step()
    return model.eval()


def main(folder: str | Path, pictures: int = 60) -> float:
    """Train, explain the predicted class of each picture, and return which share of generic-attention's maps points there."""
    ask = seewhy.Explainer(train(), preprocess=PREPROCESS, labels=NAMES)
    draws = np.random.default_rng(1)
    drawn = [draw(draws) for _ in range(pictures)]
    shares = {}
    for method in METHODS:
        found = ask([pixels for pixels, _, _ in drawn], method=method)
        shares[method] = float(np.mean([_points_into(why, box) for why, (_, _, box) in zip(found, drawn, strict=True)]))
        print(f"{method}: {shares[method]:.0%} of the maps have their brightest place in the patch")
    Path(folder).mkdir(parents=True, exist_ok=True)
    ask.compare(drawn[0][0], METHODS).save(Path(folder) / "transformer.png")
    return shares["generic-attention"]


def _points_into(why: seewhy.Explanation, box: Box) -> bool:
    inside = np.zeros((SIDE, SIDE), bool)
    inside[box] = True
    return bool(inside[np.unravel_index(why.heatmap.argmax(), why.heatmap.shape)])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
