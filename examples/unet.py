"""Why are these pixels a disc? A small U-Net that segments shapes, and maps that must fall on the shape that was asked about.

    python examples/unet.py [FOLDER]

The network is trained in under a minute on noisy pictures with one disc and one cross at random places; what is neither is
background. The pointing game is the share of new pictures in which the map's peak lies within the drawn shape of the class
that was asked about: the other shape is there, too, so a map of whatever stands out would miss half of the time. (Grad-CAM
does: its weights are means over the whole picture, in which both shapes lie. LayerCAM weights each place by itself.)
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

SIDE, REACH = 48, 8
CLASSES = ["background", "disc", "cross"]
TESTED = 60


def shapes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy pictures (count, 3, SIDE, SIDE) and the class of each of their pixels."""
    # In opposite quarters, so that the shapes never overlap; which, and where in its own, is drawn.
    half, room = SIDE // 2, SIDE // 2 - 2 * REACH
    quarters = torch.randint(4, (count,), generator=generator)
    masks = []
    for quarter in (quarters, 3 - quarters):
        corner = torch.stack([quarter // 2, quarter % 2]) * half
        middle = corner + REACH + torch.randint(room + 1, (2, count), generator=generator)
        y, x = (torch.arange(SIDE) - each[:, None] for each in middle)
        masks.append((y[:, :, None], x[:, None, :]))
    (y, x), (v, u) = masks
    disc = y**2 + x**2 <= (REACH - 2) ** 2
    cross = ((v.abs() <= 1) & (u.abs() < REACH)) | ((u.abs() <= 1) & (v.abs() < REACH))
    classes = disc * 1 + cross * 2
    brightness = 0.35 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = 0.12 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return (brightness * (classes > 0)[:, None] + 0.15 + noise).clamp(0, 1), classes


def block(given: int, kept: int) -> nn.Sequential:
    """Return two convolutions with ReLU, normalised."""
    return nn.Sequential(
        *(nn.Conv2d(given, kept, 3, padding=1), nn.BatchNorm2d(kept), nn.ReLU()),
        *(nn.Conv2d(kept, kept, 3, padding=1), nn.BatchNorm2d(kept), nn.ReLU()),
    )


class UNet(nn.Module):
    """Three levels, joined by skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.deep = block(3, 8), block(8, 16), block(16, 32)
        self.up2, self.join2 = nn.ConvTranspose2d(32, 16, 2, stride=2), block(32, 16)
        self.up1, self.join1 = nn.ConvTranspose2d(16, 8, 2, stride=2), block(16, 8)
        self.out = nn.Conv2d(8, len(CLASSES), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return one score a class and pixel."""
        first = self.down1(images)
        second = self.down2(functional.max_pool2d(first, 2))
        found = self.up2(self.deep(functional.max_pool2d(second, 2)))
        found = self.up1(self.join2(torch.cat([found, second], 1)))
        return self.out(self.join1(torch.cat([found, first], 1)))


def trained(generator: torch.Generator) -> nn.Module:
    """Return the network after some hundred pictures."""
    torch.manual_seed(0)
    model = UNet()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        images, classes = shapes(16, generator)
        optimiser.zero_grad()
        functional.cross_entropy(model(images), classes).backward()
        optimiser.step()
    return model.eval()


def main(folder: Path) -> float:
    """Train, explain, write one picture to the folder, and return the pointing game's share."""
    generator = torch.Generator().manual_seed(1)
    model = trained(generator)
    images, classes = shapes(TESTED, generator)
    asked = 1 + torch.arange(TESTED) % 2
    preprocess = {"size": (SIDE, SIDE), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    ask = seewhy.Explainer(model, labels=CLASSES, preprocess=preprocess, progress=False)
    found = ask(images, target=asked, method="layer-cam")
    hits = [
        int(own.flatten()[int(why.heatmap.argmax())]) == int(index)
        for why, own, index in zip(found, classes, asked, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    ask.compare(images[0], ["layer-cam"], targets=["disc", "cross"]).save(folder / "unet.png")
    with torch.no_grad():
        right = (model(images).argmax(1) == classes).float().mean()
    share = sum(hits) / TESTED
    print(
        f"{right:.1%} of the pixels are told apart; the map's peak lies on the asked shape in {share:.0%} of {TESTED}"
    )
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
