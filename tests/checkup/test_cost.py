"""How often methods run the model is read from what the registry says of them."""

from __future__ import annotations

import pytest
import torch

import seewhy
from seewhy.checkup.cost import Pace, Runs, count_runs, estimate
from seewhy.checkup.measuring import difference, in_seconds, likeness


@pytest.mark.parametrize(
    ("passes", "runs"),
    [
        ("1 + 1", Runs(1, 1)),
        ("1 + 16", Runs(1, 16)),
        ("2 + 50 x (1 + 1)", Runs(52, 50)),
        ("3 + 50 x 2 x (1 + 1)", Runs(103, 100)),
        ("1 + 0; a forward for each channel that is not the same everywhere", Runs(41, 0)),
        ("1 + 0; 8 forwards for each channel that is not the same everywhere", Runs(321, 0)),
        ("1 + 0; the model's tail for each channel that is not zero", Runs(1, 0, 40)),
        ("1 + 0; a forward a window, 169 at 224 pixels", Runs(170, 0)),
        ("1 + 0; 1000 forwards", Runs(1001, 0)),
        ("1 + 0; a forward a segment, about 64", Runs(65, 0)),
        ("as many as it takes", None),
        ("1 + 0; whatever it takes", None),
    ],
)
def test_runs_are_read(passes: str, runs: Runs | None) -> None:
    assert count_runs(passes, 40) == runs


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("grad-cam", 1 + 10),
        ("saliency", 2 + 100),
        ("smoothgrad", 26 + 25 * 100),
        ("ablation-cam", 1 + 7 * 1000),
        ("rise", 1001),
    ],
)
def test_seconds_are_runs_times_what_one_takes(name: str, seconds: float) -> None:
    pace = Pace(forward=1.0, to_layer=10.0, to_input=100.0, tail=1000.0, channels=7)
    entry = next(entry for entry in seewhy.methods() if entry.name == name)
    assert estimate(entry, pace) == seconds


def test_differences_are_parts_of_the_spread() -> None:
    assert difference(torch.tensor([1.0, 3.0, 5.5]), torch.tensor([1.0, 3.0, 5.0])) == 0.25
    assert difference(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5
    assert likeness(torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])) == pytest.approx(1)
    assert likeness(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])) == pytest.approx(-1)
    assert likeness(torch.ones(2), torch.tensor([2.0, 1.0])) == 0
    assert [in_seconds(each) for each in (0.0123, 2.34, 75.0, 600.0)] == ["0.012 s", "2.3 s", "75 s", "10 min"]
