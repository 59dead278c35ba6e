"""Small models in Keras, and the same in torch with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import torch
from keras import layers
from torch import Tensor, nn

EPS = 1e-5


def cnn(classes: int = 5, *, activation: str | None = None, size: tuple[int, int] = (24, 40)) -> keras.Model:
    """Two convolutions, a batch normalisation that is not the identity, one linear layer on the mean."""
    keras.utils.set_random_seed(0)
    images = keras.Input((*size, 3))
    x = layers.Conv2D(6, 3, padding="same", name="first")(images)
    x = layers.BatchNormalization(epsilon=EPS, name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(8, 3, padding="same", name="second")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(images, layers.Dense(classes, activation=activation, name="head")(x), name="cnn")
    return _shuffled(model)


class TorchCNN(nn.Module):
    def __init__(self, of: keras.Model) -> None:
        super().__init__()
        self.first, self.norm, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, EPS), nn.ReLU()
        self.pool, self.second, self.relu2 = nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(8, 5)
        for name in ("first", "second", "head"):
            _copy(getattr(self, name), of.get_layer(name))
        norm = of.get_layer("norm")
        self.norm.weight.data, self.norm.bias.data = _numbers(norm.gamma), _numbers(norm.beta)
        self.norm.running_mean.data, self.norm.running_var.data = (
            _numbers(norm.moving_mean),
            _numbers(norm.moving_variance),
        )
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(images))))
        return self.head(self.relu2(self.second(x)).mean((2, 3)))


class Positions(layers.Layer):
    """A table of positions, added to the tokens: a layer of one's own."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=(1, *shape[1:]), initializer="normal", name="table")

    def call(self, tokens: object) -> object:
        return tokens + self.table


def vit(classes: int = 5) -> keras.Model:
    """A transformer of patches of 8 pixels, of two layers."""
    keras.utils.set_random_seed(1)
    images = keras.Input((24, 40, 3))
    x = layers.Conv2D(8, 8, strides=8, name="patches")(images)
    x = Positions(name="positions")(layers.Reshape((-1, 8), name="tokens")(x))
    for number in range(2):
        y = layers.LayerNormalization(epsilon=EPS, name=f"before{number}")(x)
        x = layers.Add(name=f"mixed{number}")([x, layers.MultiHeadAttention(2, 4, name=f"attention{number}")(y, y)])
        y = layers.LayerNormalization(epsilon=EPS, name=f"between{number}")(x)
        y = layers.Dense(8, name=f"out{number}")(layers.Dense(16, activation="relu", name=f"in{number}")(y))
        x = layers.Add(name=f"block{number}")([x, y])
    x = layers.LayerNormalization(epsilon=EPS, name="norm")(x)
    return _shuffled(keras.Model(images, layers.Dense(classes, name="head")(layers.GlobalAveragePooling1D()(x))))


class TorchViT(nn.Module):
    def __init__(self, of: keras.Model) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8, EPS), nn.Linear(8, 5)
        self.table = nn.Parameter(_numbers(of.get_layer("positions").table))
        for name in ("patches", "head"):
            _copy(getattr(self, name), of.get_layer(name))
        _copy_norm(self.norm, of.get_layer("norm"))
        for number in range(2):
            self.add_module(f"before{number}", _copy_norm(nn.LayerNorm(8, EPS), of.get_layer(f"before{number}")))
            self.add_module(f"between{number}", _copy_norm(nn.LayerNorm(8, EPS), of.get_layer(f"between{number}")))
            self.add_module(f"in{number}", _copy(nn.Linear(8, 16), of.get_layer(f"in{number}")))
            self.add_module(f"out{number}", _copy(nn.Linear(16, 8), of.get_layer(f"out{number}")))
            self.add_module(f"block{number}", nn.Identity())
            attention = of.get_layer(f"attention{number}")
            for part in ("query", "key", "value"):
                dense = getattr(attention, f"{part}_dense")
                self.add_module(f"{part}{number}", _linear(_numbers(dense.kernel).reshape(8, 8), dense.bias))
            last = attention.output_dense
            self.add_module(f"attended{number}", _linear(_numbers(last.kernel).reshape(8, 8), last.bias))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.table
        for number in range(2):
            part = lambda name, n=number: self.get_submodule(f"{name}{n}")  # noqa: E731
            y = part("before")(x)
            q, k, v = (part(name)(y).unflatten(-1, (2, 4)).transpose(1, 2) for name in ("query", "key", "value"))
            mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
            x = x + part("attended")(mixed.transpose(1, 2).flatten(2))
            x = part("block")(x + part("out")(part("in")(part("between")(x)).relu()))
        return self.head(self.norm(x).mean(1))


class Blocks(keras.Model):
    """A subclassed model whose layers have no names of their own but one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = layers.Conv2D(4, 3, padding="same")
        self.blocks = [layers.Conv2D(4, 3, padding="same", activation="relu") for _ in range(2)]
        self.last = layers.Conv2D(6, 3, padding="same", name="features")
        self.add = layers.Dropout(0.5)
        self.head = layers.Dense(3)

    def call(self, images: object, training: bool = False) -> object:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        x = self.add(self.last(x), training=training)
        return self.head(keras.ops.mean(x, (1, 2)))


def blocks() -> keras.Model:
    keras.utils.set_random_seed(2)
    model = Blocks()
    model(np.zeros((1, 16, 24, 3), "float32"))
    return model


def nested() -> keras.Model:
    """A model on another's features, as in transfer learning."""
    body = keras.Model((inner := cnn()).input, inner.get_layer("relu2").output, name="body")
    images = keras.Input((24, 40, 3))
    x = layers.GlobalAveragePooling2D()(body(layers.Rescaling(1.0 / 255)(images)))
    return keras.Model(images, layers.Dense(2, name="head")(x))


def _shuffled(model: keras.Model) -> keras.Model:
    """Give every variable numbers of its own: no bias of 0, no variance of 1."""
    draw = np.random.default_rng(0)
    for variable in model.variables:
        values = draw.normal(size=variable.shape).astype("float32")
        around = 1.0 if variable.name in ("gamma", "moving_variance") else 0.0
        scale = 0.2 if len(variable.shape) == 1 else 1 / np.sqrt(np.prod(variable.shape[:-1]))
        if "seed" not in variable.name:
            variable.assign(around + scale * values)
    return model


def _copy(module: nn.Module, of: layers.Layer) -> nn.Module:
    kernel = _numbers(of.kernel)
    module.weight.data = kernel.permute(3, 2, 0, 1).contiguous() if kernel.ndim == 4 else kernel.T.contiguous()
    module.bias.data = _numbers(of.bias)
    return module


def _copy_norm(module: nn.LayerNorm, of: layers.Layer) -> nn.LayerNorm:
    module.weight.data, module.bias.data = _numbers(of.gamma), _numbers(of.beta)
    return module


def _linear(kernel: Tensor, bias: object) -> nn.Linear:
    module = nn.Linear(*kernel.shape)
    module.weight.data, module.bias.data = kernel.T.contiguous(), _numbers(bias).reshape(-1)
    return module


def _numbers(variable: object) -> Tensor:
    value = variable.value
    return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(np.array(value))
