"""A folder with a model, its labels and two pictures, and the command as it is typed in it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main

ZOO = '''
import torch
from torch import nn

class Colours(nn.Module):
    """Class 0 is red, 1 green, 2 blue; there is one linear layer after the mean, so that every method works."""
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 16, stride=16, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16) / 256)
            self.head.weight.copy_(torch.eye(3))
    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))

def line(axes=1, channels=2):
    """Class 0 is how bright channel 0 is."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[axes]
    model = nn.Sequential(conv(channels, 2, 2, stride=2, bias=False), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = 1.0
        model[4].weight.copy_(torch.eye(2))
    return model

def volume():
    return line(3, 1)

def bands():
    return line(2, 5)

class Two(Colours):
    def forward(self, images):
        scores = super().forward(images)
        return {"logits": scores.flip(1), "colours": scores}
'''

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model, its labels and two pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "zoo", raising=False)
    (tmp_path / "zoo.py").write_text(ZOO)
    (tmp_path / "names.txt").write_text("red, ruby\ngreen\nblue\n")
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32, 0] = 200
    picture[:, 32:, 2] = 150
    Image.fromarray(picture).save(tmp_path / "cat.png")
    Image.fromarray(picture[:, ::-1].copy()).save(tmp_path / "dog.png")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Run:
    """Return a function from words to (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seewhy", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def made(home: Path) -> Callable[[], list[str]]:
    """Return a function that lists the files that were made, as relative paths."""

    def listed() -> list[str]:
        own = ("zoo.py", "names.txt", "cat.png", "dog.png")
        files = [path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return sorted(str(path.relative_to(home)) for path in files if path.name not in own)

    return listed
