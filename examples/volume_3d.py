"""Where in a volume did the model look? A classifier of solids at random places, and a map that falls on them.

    python examples/volume_3d.py [FOLDER]

A small network is trained in under a minute on noisy volumes with one solid or none; its shape is the class, its place says
nothing. The pointing game is the share of new volumes with a solid in which the map's peak lies on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

SPACE = (16, 20, 24)  # not a cube, so that an axis that was mixed up would show
SOLIDS = ["ball", "frame", "rod", "nothing"]
REACH = 4
TESTED = 60


def volumes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy volumes (count, 1, *SPACE), their classes, and the block that each solid fills."""
    classes = torch.randint(len(SOLIDS), (count,), generator=generator)
    places = [torch.randint(REACH, side - REACH, (count,), generator=generator) for side in SPACE]
    away = [
        (torch.arange(side) - place[:, None]).view(count, *(-1 if axis == own else 1 for axis in range(3)))
        for own, (side, place) in enumerate(zip(SPACE, places, strict=True))
    ]
    z, y, x = (each.expand(count, *SPACE) for each in away)
    furthest = torch.stack([z, y, x]).abs().amax(0)
    ball = z**2 + y**2 + x**2 <= REACH**2
    frame = (furthest <= REACH) & ~((y.abs() < REACH - 1) & (x.abs() < REACH - 1)) & (z.abs() <= 1)
    rod = (y.abs() <= 1) & (x.abs() <= 1) & (z.abs() <= REACH)
    solid = torch.stack([ball, frame, rod, torch.zeros_like(ball)])[classes, torch.arange(count)]
    noise = 0.2 * torch.randn(count, *SPACE, generator=generator)
    return (solid + noise)[:, None], classes, furthest <= REACH


def trained(generator: torch.Generator) -> nn.Module:
    """Return a small network that tells the solids apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv3d(1, 8, 5, stride=2, padding=2), nn.BatchNorm3d(8), nn.ReLU()),
        *(nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(16, len(SOLIDS))),
    )
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(80):
        inputs, classes, _ = volumes(16, generator)
        optimiser.zero_grad()
        functional.cross_entropy(model(inputs), classes).backward()
        optimiser.step()
    return model.eval()


def with_solid(inputs: Tensor, classes: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the volumes that have a solid."""
    has = classes < SOLIDS.index("nothing")
    return inputs[has], classes[has], blocks[has]


def main(folder: Path) -> float:
    """Train, explain, write one picture to the folder, and return the pointing game's share."""
    generator = torch.Generator().manual_seed(1)
    model = trained(generator)
    inputs, classes, blocks = (each[:TESTED] for each in with_solid(*volumes(2 * TESTED, generator)))
    ask = seewhy.Explainer(model, labels=SOLIDS, progress=False)
    # "Why a ball rather than nothing?": asked alone, a class may be told by what is missing everywhere.
    found = ask(inputs, target=[f"{SOLIDS[int(number)]}-vs-nothing" for number in classes])
    hits = [bool(block.flatten()[int(why.heatmap.argmax())]) for why, block in zip(found, blocks, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    found[0].save(folder / "volume_3d.png")
    right = (model(inputs).argmax(1) == classes).float().mean()
    share = sum(hits) / TESTED
    print(f"{right:.0%} of {TESTED} volumes are told apart; the map's peak lies on the solid in {share:.0%}")
    print(f"the first: {SOLIDS[int(classes[0])]}, evidence at {found[0].regions()[0]}")
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
