"""Small models, written out and seeded, that many tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Convolutions, batch norm, in-place ReLUs, dropout, pooling, one linear layer: cam exists at `second`."""

    def __init__(self, classes: int = 5, inner: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Sequential(nn.Conv2d(4, inner, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(inner, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.first(images)))
        features = self.second(features)
        return self.head(self.dropout(features.mean((2, 3))))


def make_small_net(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    model = SmallNet()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.2, 0.2)
        model.norm.running_var.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    return model.eval()
