"""Small models in torch and, of the same weights, as ONNX graphs built node by node: no exporter is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET, IR = 17, 8


class Builder:
    """Collects nodes and weights; a node's name is its path, as PyTorch's exporter writes it."""

    def __init__(self, precision: type = np.float32) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.precision = precision

    def weight(self, name: str, values: Any) -> str:
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        array = array.astype(self.precision) if array.dtype.kind == "f" else array
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, path: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        made = [f"{path}_output_{number}" for number in range(outputs)]
        self.nodes.append(
            helper.make_node(path.rpartition("/")[2].split("_")[0], inputs, made, name=path, **attributes)
        )
        return made[0] if outputs == 1 else made

    def model(self, inputs: dict[str, Sequence[Any]], outputs: Sequence[str], kind: int | None = None) -> ModelProto:
        kind = kind or helper.np_dtype_to_tensor_dtype(np.dtype(self.precision))
        real = helper.np_dtype_to_tensor_dtype(np.dtype(self.precision))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, dims) for name, dims in inputs.items()],
            [helper.make_tensor_value_info(name, real, None) for name in outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)

    def conv(self, path: str, module: nn.Conv2d, given: str) -> str:
        names = [self.weight(f"{path}.weight", module.weight)]
        if module.bias is not None:
            names.append(self.weight(f"{path}.bias", module.bias))
        pads = list(module.padding) * 2
        return self.node(f"{path}/Conv", [given, *names], strides=list(module.stride), pads=pads)

    def norm(self, path: str, module: nn.BatchNorm2d, given: str) -> str:
        names = ("weight", "bias", "running_mean", "running_var")
        own = [self.weight(f"{path}.{name}", getattr(module, name)) for name in names]
        return self.node(f"{path}/BatchNormalization", [given, *own], epsilon=module.eps)

    def layer_norm(self, path: str, module: nn.LayerNorm, given: str) -> str:
        own = [self.weight(f"{path}.{name}", getattr(module, name)) for name in ("weight", "bias")]
        return self.node(f"{path}/LayerNormalization", [given, *own], epsilon=module.eps, axis=-1)

    def linear(self, path: str, module: nn.Linear, given: str) -> str:
        product = self.node(f"{path}/MatMul", [given, self.weight(f"{path}.weight", module.weight.T)])
        return self.node(f"{path}/Add", [self.weight(f"{path}.bias", module.bias), product])


class Block(nn.Module):
    """Two convolutions and what goes past them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.past = nn.Conv2d(inner, outer, 1, stride=stride, bias=False)
        self.relu2 = nn.ReLU()

    def forward(self, given: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(given)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.past(given))

    def build(self, to: Builder, path: str, given: str) -> str:
        inner = to.norm(f"{path}/bn1", self.bn1, to.conv(f"{path}/conv1", self.conv1, given))
        inner = to.node(f"{path}/relu1/Relu", [inner])
        inner = to.norm(f"{path}/bn2", self.bn2, to.conv(f"{path}/conv2", self.conv2, inner))
        past = to.conv(f"{path}/past", self.past, given)
        return to.node(f"{path}/relu2/Relu", [to.node(f"{path}/Add", [inner, past])])


class Cnn(nn.Module):
    """A residual network of two blocks, its pooled features in one linear layer."""

    def __init__(self, channels: int = 3, classes: int = 5, widths: tuple[int, int, int] = (8, 12, 16)) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(channels, widths[0], 3, stride=2, padding=1)
        self.layers = nn.Sequential(Block(widths[0], widths[1], 2), Block(widths[1], widths[2], 2))
        self.head = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(images)).mean((2, 3)))

    def build(
        self,
        size: tuple[Any, Any] = (32, 48),
        batch: Any = "batch",
        *,
        last: bool = False,
        precision: type = np.float32,
        dead: bool = False,
        flat: Sequence[int] | None = None,
    ) -> ModelProto:
        """Build the graph.

        Args:
            size: of the picture.
            batch: a fixed number of samples, or a name.
            last: channels come last.
            precision: of all numbers.
            dead: with a branch behind the last features that leads nowhere, and one that leads to another output.
            flat: the shape that the pooled features are given; None: by Flatten.
        """
        to = Builder(precision)
        given = to.node("/Transpose", ["images"], perm=[0, 3, 1, 2]) if last else "images"
        features = to.conv("/stem", self.stem, given)
        for number, block in enumerate(self.layers):
            features = block.build(to, f"/layers/layers.{number}", features)
        if dead:
            to.node("/nowhere/Sigmoid", [features])
        pooled = to.node("/GlobalAveragePool", [features])
        if flat is None:
            pooled = to.node("/Flatten", [pooled])
        else:
            pooled = to.node("/Reshape", [pooled, to.weight("flat", np.array(flat))])
        names = [to.weight("head.weight", self.head.weight), to.weight("head.bias", self.head.bias)]
        scores = to.node("/head/Gemm", [pooled, *names], transB=1)
        channels = self.stem.in_channels
        dims = [batch, *size, channels] if last else [batch, channels, *size]
        outputs = [scores, to.node("/aside/Tanh", [features])] if dead else [scores]
        return to.model({"images": dims}, outputs)


class Attention(nn.Module):
    """Heads that look from all tokens at all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, count, width))

    def build(self, to: Builder, path: str, given: str, count: int, width: int) -> str:
        split = to.weight(f"{path}.split", np.array([0, count, 3, self.heads, width // self.heads]))
        all_three = to.node(f"{path}/Reshape", [to.linear(f"{path}/qkv", self.qkv, given), split])
        turned = to.node(f"{path}/Transpose", [all_three], perm=[2, 0, 3, 1, 4])
        one = [to.weight(f"{path}.{at}", np.array(at)) for at in range(3)]
        q, k, v = (to.node(f"{path}/Gather_{at}", [turned, one[at]], axis=0) for at in range(3))
        turned = to.node(f"{path}/Transpose_1", [k], perm=[0, 1, 3, 2])
        scale = to.weight(f"{path}.scale", np.array((width // self.heads) ** -0.5))
        found = to.node(f"{path}/Mul", [to.node(f"{path}/MatMul", [q, turned]), scale])
        weights = to.node(f"{path}/Softmax", [found], axis=-1)
        mixed = to.node(f"{path}/Transpose_2", [to.node(f"{path}/MatMul_1", [weights, v])], perm=[0, 2, 1, 3])
        # The shape of what was given, as exporters write it.
        shape = to.node(f"{path}/Shape", [given])
        return to.linear(f"{path}/proj", self.proj, to.node(f"{path}/Reshape_1", [mixed, shape]))


class ViTBlock(nn.Module):
    """One layer of a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, 2)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.act = nn.ReLU()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.fc2(self.act(self.fc1(self.norm2(tokens))))

    def build(self, to: Builder, path: str, given: str, count: int, width: int) -> str:
        inner = to.layer_norm(f"{path}/norm1", self.norm1, given)
        tokens = to.node(f"{path}/Add", [given, self.attn.build(to, f"{path}/attn", inner, count, width)])
        inner = to.linear(f"{path}/fc1", self.fc1, to.layer_norm(f"{path}/norm2", self.norm2, tokens))
        inner = to.linear(f"{path}/fc2", self.fc2, to.node(f"{path}/act/Relu", [inner]))
        return to.node(f"{path}/Add_1", [tokens, inner])


class Vit(nn.Module):
    """A vision transformer of two layers whose class token is read."""

    def __init__(self, classes: int = 5, width: int = 16, size: tuple[int, int] = (32, 48)) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.grid = (size[0] // 8, size[1] // 8)
        self.patch = nn.Conv2d(3, width, 8, stride=8)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 1 + self.grid[0] * self.grid[1], width))
        self.blocks = nn.Sequential(ViTBlock(width), ViTBlock(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1) + self.place
        return self.head(self.norm(self.blocks(tokens))[:, 0])

    def build(self, batch: Any = "batch") -> ModelProto:
        """Build the graph; the class token is made as often as the input's own shape says, as exporters write it."""
        to = Builder()
        count, width = self.place.shape[1:]
        tokens = to.conv("/patch", self.patch, "images")
        tokens = to.node("/Reshape", [tokens, to.weight("flat", np.array([0, width, -1]))])
        tokens = to.node("/Transpose", [tokens], perm=[0, 2, 1])
        first = to.node("/Gather", [to.node("/Shape", ["images"]), to.weight("zero", np.array([0]))], axis=0)
        shape = to.node("/Concat", [first, to.weight("rest", np.array([1, width]))], axis=0)
        cls = to.node("/Expand", [to.weight("cls", self.cls), shape])
        tokens = to.node("/Add", [to.node("/Concat_1", [cls, tokens], axis=1), to.weight("place", self.place)])
        for number, block in enumerate(self.blocks):
            tokens = block.build(to, f"/blocks/blocks.{number}", tokens, count, width)
        tokens = to.layer_norm("/norm", self.norm, tokens)
        read = to.node("/Gather_1", [tokens, to.weight("at", np.array(0))], axis=1)
        scores = to.linear("/head", self.head, read)
        return to.model({"images": [batch, 3, self.grid[0] * 8, self.grid[1] * 8]}, [scores])


def as_bytes(model: ModelProto) -> bytes:
    return model.SerializeToString()


FLOAT = TensorProto.FLOAT
