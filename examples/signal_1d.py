"""Which stretch of a signal decided? A classifier of bumps at random places, and a map that falls on them.

    python examples/signal_1d.py [FOLDER]

A small network is trained in seconds on noisy signals with one bump or none; its shape is the class, its place says nothing.
The pointing game is the share of new signals with a bump in which the map's peak lies on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy

LENGTH, REACH = 256, 16
SHAPES = ["round", "pointed", "two-humped", "none"]
TESTED = 100


def signals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy signals (count, 1, LENGTH), their classes and the places of their bumps."""
    classes = torch.randint(len(SHAPES), (count,), generator=generator)
    places = torch.randint(REACH, LENGTH - REACH, (count,), generator=generator)
    away = (torch.arange(LENGTH) - places[:, None]) / REACH  # -1..1 on the bump
    bumps = torch.stack([(1 - away**2).clamp_min(0), (1 - away.abs()).clamp_min(0) ** 2, (torch.sin(3.14 * away) ** 2)])
    bumps = torch.cat([bumps * (away.abs() < 1), torch.zeros(1, count, LENGTH)])
    noise = 0.15 * torch.randn(count, LENGTH, generator=generator)
    return (bumps[classes, torch.arange(count)] + noise)[:, None], classes, places


def trained(generator: torch.Generator) -> nn.Module:
    """Return a small network that tells the shapes apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv1d(1, 16, 9, stride=2, padding=4), nn.ReLU()),
        *(nn.Conv1d(16, 32, 9, stride=2, padding=4), nn.ReLU(), nn.Conv1d(32, 32, 5, padding=2), nn.ReLU()),
        *(nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, len(SHAPES))),
    )
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(120):
        inputs, classes, _ = signals(32, generator)
        optimiser.zero_grad()
        functional.cross_entropy(model(inputs), classes).backward()
        optimiser.step()
    return model.eval()


def with_bump(inputs: Tensor, classes: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the signals that have a bump."""
    has = classes < SHAPES.index("none")
    return inputs[has], classes[has], places[has]


def main(folder: Path) -> float:
    """Train, explain, write one picture to the folder, and return the pointing game's share."""
    generator = torch.Generator().manual_seed(1)
    model = trained(generator)
    inputs, classes, places = (each[:TESTED] for each in with_bump(*signals(2 * TESTED, generator)))
    ask = seewhy.Explainer(model, labels=SHAPES, progress=False)
    # "Why round rather than none?": asked alone, a class may be told by what is missing everywhere.
    found = ask(inputs, target=[f"{SHAPES[int(number)]}-vs-none" for number in classes])
    hits = [abs(int(why.heatmap.argmax()) - int(place)) < REACH for why, place in zip(found, places, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    found[0].save(folder / "signal_1d.png")
    right = (model(inputs).argmax(1) == classes).float().mean()
    share = sum(hits) / TESTED
    print(f"{right:.0%} of {TESTED} signals are told apart; the map's peak lies on the bump in {share:.0%}")
    print(f"the first: bump at {int(places[0])}, evidence at {found[0].intervals()[0]}")
    return share


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
