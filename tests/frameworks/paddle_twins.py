"""The same small models in PyTorch and in PaddlePaddle, with the same weights."""

from __future__ import annotations

import paddle
import torch
from paddle import nn as pnn
from paddle.nn import functional as pf
from torch import Tensor, nn
from torch.nn import functional


class TorchNet(nn.Module):
    """A residual convolutional network: stem, two blocks, pooling, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.block = nn.Conv2d(8, 8, 3, 1, 1)
        self.last = nn.Conv2d(8, 12, 3, 2, 1)
        self.relu2, self.relu3 = nn.ReLU(), nn.ReLU()
        self.classes = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        found = self.relu(self.norm(self.stem(images)))
        found = self.relu2(found + self.block(found))
        return self.classes(self.relu3(self.last(found)).mean((2, 3)))


class PaddleNet(pnn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.stem = pnn.Conv2D(3, 8, 3, 2, 1)
        self.norm = pnn.BatchNorm2D(8)
        self.relu = pnn.ReLU()
        self.block = pnn.Conv2D(8, 8, 3, 1, 1)
        self.last = pnn.Conv2D(8, 12, 3, 2, 1)
        self.relu2, self.relu3 = pnn.ReLU(), pnn.ReLU()
        self.classes = pnn.Linear(12, 4)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        found = self.relu(self.norm(self.stem(images)))
        found = self.relu2(found + self.block(found))
        return self.classes(self.relu3(self.last(found)).mean((2, 3)))


class TorchViT(nn.Module):
    """A transformer of two layers behind patches, with a class token, in a dict of outputs."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(TorchBlock(width) for _ in range(2))
        self.classes = nn.Linear(width, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        places = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(places), -1, -1), places], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return {"logits": self.classes(tokens[:, 0]), "tokens": tokens}


class TorchBlock(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        parts = self.qkv(self.norm1(tokens)).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(parts[0] @ parts[1].transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        tokens = tokens + self.out((weights @ parts[2]).transpose(1, 2).reshape(batch, count, width))
        return tokens + self.second(functional.gelu(self.first(self.norm2(tokens))))


class PaddleViT(pnn.Layer):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.patches = pnn.Conv2D(3, width, 8, 8)
        self.token = self.create_parameter([1, 1, width])
        self.blocks = pnn.LayerList([PaddleBlock(width) for _ in range(2)])
        self.classes = pnn.Linear(width, 4)

    def forward(self, images: paddle.Tensor) -> dict[str, paddle.Tensor]:
        places = self.patches(images).flatten(2).transpose([0, 2, 1])
        tokens = paddle.concat([self.token.expand([len(places), -1, -1]), places], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return {"logits": self.classes(tokens[:, 0]), "tokens": tokens}


class PaddleBlock(pnn.Layer):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = pnn.LayerNorm(width), pnn.LayerNorm(width)
        self.qkv, self.out = pnn.Linear(width, 3 * width), pnn.Linear(width, width)
        self.first, self.second = pnn.Linear(width, 2 * width), pnn.Linear(2 * width, width)

    def forward(self, tokens: paddle.Tensor) -> paddle.Tensor:
        batch, count, width = tokens.shape
        parts = self.qkv(self.norm1(tokens)).reshape([batch, count, 3, self.heads, -1]).transpose([2, 0, 3, 1, 4])
        weights = pf.softmax(parts[0] @ parts[1].transpose([0, 1, 3, 2]) * (width // self.heads) ** -0.5, -1)
        tokens = tokens + self.out((weights @ parts[2]).transpose([0, 2, 1, 3]).reshape([batch, count, width]))
        return tokens + self.second(pf.gelu(self.first(self.norm2(tokens))))


def drawn(model: nn.Module) -> nn.Module:
    """Give a model weights that matter, and statistics of its own, in float64."""
    generator = torch.Generator().manual_seed(5)
    for name, values in model.double().state_dict().items():
        if values.is_floating_point():
            around = float("norm" in name and name.endswith("weight")) + 1.5 * name.endswith("running_var")
            spread = 0.3 if "norm" in name else 0.4
            values.copy_(around + spread * torch.randn(values.shape, generator=generator))
    return model.eval()


def with_weights_of(model: nn.Module, twin: pnn.Layer) -> pnn.Layer:
    """Copy weights over: Paddle has other names for a normalisation's statistics, and linear layers the other way round."""
    turned = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    names = {"running_mean": "_mean", "running_var": "_variance"}
    twin.to(dtype="float64")
    own = twin.state_dict()
    for name, values in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        if last != "num_batches_tracked":
            given = values.T if name in turned else values
            own[f"{stem}.{names.get(last, last)}" if stem else name].set_value(given.numpy())
    twin.train()
    return twin
