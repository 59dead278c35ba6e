"""The layers of an ONNX graph: its nodes under levels of names, and what their type says about what they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor

from seewhy.frameworks.onnx.graph import Graph
from seewhy.frameworks.onnx.names import layer_names

_CHANNELS_FIRST = (
    *("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "DepthToSpace", "SpaceToDepth"),
)
_CHANNELS_LAST = ("Gemm", "MatMul", "Add", "LayerNormalization")


@dataclass(frozen=True)
class Linear:
    """That a node is linear along the channels.

    Attributes:
        given: the tensor that it is linear in.
        weight: gives the weights `(out, in)`.
    """

    given: str
    weight: Callable[[], Tensor]


@dataclass(frozen=True)
class OnnxLayer:
    """One node.

    Attributes:
        name: under which it is listed.
        node: the node; its first output is the layer's.
        linear: where it is linear along the channels.
    """

    name: str
    node: NodeProto
    linear: Linear | None = None

    @property
    def tensor(self) -> str:
        """The name of what it gives."""
        return str(self.node.output[0])

    @property
    def order(self) -> str:
        """How its output lies in memory, as far as its type says."""
        if self.node.op_type in _CHANNELS_FIRST:
            return "channels-first"
        is_last = self.node.op_type == "LayerNormalization" or self.linear is not None
        return "channels-last" if is_last and self.node.op_type in _CHANNELS_LAST else ""


def layers_of(graph: Graph) -> list[OnnxLayer]:
    """Return the layers of a graph, in the order in which they run."""
    nodes = graph.layers()
    return [OnnxLayer(name, node, _linear(node, graph)) for name, node in zip(layer_names(nodes), nodes, strict=True)]


def _linear(node: NodeProto, graph: Graph) -> Linear | None:
    if node.op_type == "Add":  # the bias of a product
        product = next((graph.producers[name] for name in node.input if name in graph.producers), None)
        biases = [graph.initialisers[name] for name in node.input if name in graph.initialisers]
        is_bias = len(biases) == 1 and len(biases[0].dims) == 1 and product is not None
        return _linear(product, graph) if is_bias and product is not None and product.op_type == "MatMul" else None
    if node.op_type not in ("Gemm", "MatMul", "Conv") or node.input[1] not in graph.initialisers:
        return None
    initialiser = graph.initialisers[node.input[1]]
    told = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        is_linear = set(initialiser.dims[2:]) == {1} and ("group" not in told or told["group"].i == 1)
    else:
        plain = "transA" not in told or told["transA"].i == 0
        is_linear = len(initialiser.dims) == 2 and plain and ("alpha" not in told or told["alpha"].f == 1)
    is_turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not ("transB" in told and told["transB"].i))

    def weight() -> Tensor:
        values = torch.from_numpy(np.array(numpy_helper.to_array(initialiser))).flatten(1)
        return values.T if is_turned else values

    return Linear(node.input[0], weight) if is_linear else None
