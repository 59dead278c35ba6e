"""Small models, written out and seeded, that many tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seewhy.maps import find_method


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
        return self.classified(self.second(self.relu(self.norm(self.first(images)))))

    def classified(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features.mean((2, 3))))


class SmallBlock(nn.Module):
    """A transformer's layer with torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        return tokens + self.inner(self.between(tokens))


class SmallViT(SmallNet):
    """A transformer with the same parts: patches of 8 pixels, batch norm, a class token, two layers, one linear layer."""

    def __init__(self, classes: int = 5, inner: int = 8) -> None:
        super().__init__(classes, inner)
        self.first = nn.Conv2d(3, inner, 8, stride=8)
        self.norm = nn.BatchNorm2d(inner)
        self.relu = nn.Identity()
        self.second = nn.Sequential(Tokens(inner), SmallBlock(inner, 2), SmallBlock(inner, 2))

    def classified(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features[:, 0]))


class Tokens(nn.Module):
    """From a map to tokens behind a class token; nothing is added for their places, so any size will do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(features), -1, -1), features.flatten(2).transpose(1, 2)], 1)


class FailsLate:
    """Works for a while, then raises after the recorded layer, inside the model: mixed into a small model."""

    calls_left = 10**9

    def classified(self, features: Tensor) -> Tensor:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ValueError("the model broke")
        return super().classified(features)


class WritesIntoItsInput:
    """Normalises in place, as many models of the field do: mixed into a small model."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(0.3).mul_(2))


def small_model_for(method: str, seed: int = 0, mixin: type | None = None) -> SmallNet:
    """Return a small model that has what a method looks at, with a mixin's changes."""
    kind = SmallViT if find_method(method).needs.attention else SmallNet
    return make_small_net(seed, kind if mixin is None else type(mixin.__name__, (mixin, kind), {}))


def make_small_net(seed: int = 0, kind: type[SmallNet] = SmallNet) -> SmallNet:
    torch.manual_seed(seed)
    model = kind()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.2, 0.2)
        model.norm.running_var.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
        for block in (part for part in model.modules() if isinstance(part, SmallBlock)):
            block.qkv.bias.zero_()  # or all places have much the same value
            for norm in (block.before, block.between):
                norm.weight.fill_(1)
                norm.bias.zero_()
    return model.eval()
