"""A model of ONNX as a torch module: its inner tensors are heard as outputs of the graph, and edited as inputs of its rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from seewhy.errors import ModelError
from seewhy.frameworks.onnx.file import check_whole, inlined, read_model
from seewhy.frameworks.onnx.graph import Graph
from seewhy.frameworks.onnx.inputs import Input, inputs_of
from seewhy.frameworks.onnx.inputs import named as inputs_by_name
from seewhy.frameworks.onnx.layers import OnnxLayer, layers_of
from seewhy.frameworks.onnx.sessions import MANY, Array, Sessions
from seewhy.frameworks.shell import TORCH_ONLY, Part, Shell, named
from seewhy.images import Preprocess

_NO_DERIVATIVES = "ONNX Runtime gives no derivatives."
_INSTEAD_OF_GRADIENTS = (
    f"{_NO_DERIVATIVES} Use 'ablation-cam', which takes a layer's channels away instead, or 'eigen-cam'."
)
_INSTEAD_OF_INPUT_GRADIENTS = f"{_NO_DERIVATIVES} Use 'rise' or 'occlusion', which run the model on changed inputs."
_NO_ATTENTION = "attention is seen in models of PyTorch only. Use 'ablation-cam', 'eigen-cam' or 'rise'."


class OnnxShell(Shell):
    """A model of ONNX.

    Args:
        model: the path of a file, or a ModelProto.

    Raises:
        ModelError: it is no model, it is not whole, or ONNX Runtime does not run it.
    """

    framework = "ONNX"
    lacks: Mapping[str, str] = {
        **TORCH_ONLY,
        **dict.fromkeys(("GRADIENTS", "CURVATURE"), _INSTEAD_OF_GRADIENTS),
        **dict.fromkeys(("INPUT_GRADIENTS", "BIASES"), _INSTEAD_OF_INPUT_GRADIENTS),
        **dict.fromkeys(("ATTENTION", "ATTENTION_GRADIENTS", "ATTENTION_FORMATION"), _NO_ATTENTION),
    }
    usual = "ablation-cam"
    why_usual = "a model of ONNX gives no derivatives for grad-cam"

    def __init__(self, model: Any) -> None:
        if isinstance(model, str | os.PathLike):
            title, model = Path(model).name, read_model(model)
        elif isinstance(model, ModelProto):
            title = "ModelProto"
            check_whole(model)
        else:
            raise ModelError(
                f"An onnxruntime.{type(model).__name__} does not tell its graph. Give the path of the .onnx file that it was "
                "made from, or the onnx.ModelProto."
            )
        graph = Graph(inlined(model))
        takes = inputs_of(graph)
        image = next((each for each in takes if each.is_image), takes[0])
        super().__init__(model, max(1, len(image.dims) - 2), image.channels if image.is_image else None)
        self.__class__ = named(OnnxShell, title)
        self._takes: tuple[Input, ...] = takes
        self._image = image
        self._graph = graph
        self._sessions = Sessions(graph, image.dims[0] if image.dims else None)
        self._layers: dict[str, OnnxLayer] = {layer.name: layer for layer in layers_of(graph)}
        self._last: _World | None = None
        self._add_parts()

    def weights(self) -> Mapping[str, Any]:
        """Return the whole graph."""
        return {"graph": self._graph.model.SerializeToString(deterministic=True)}

    def _add_parts(self) -> None:
        """Add a part for each layer, and for each level of their names."""
        names = [".".join(words[:end]) for name in self._layers if (words := name.split(".")) for end in _ends(words)]
        for name in sorted(dict.fromkeys(names), key=lambda name: name.count(".")):
            layer = self._layers.get(name)
            if layer is None:
                self.add(name, name.rpartition(".")[2], Part())
            else:
                self.add(name, layer.node.op_type, Part(layer.order, layer.linear.weight if layer.linear else None))

    @property
    def stands_for(self) -> Any:
        """What findings about the model are remembered by: a ModelProto cannot be."""
        return self

    @property
    def prepared(self) -> Preprocess | None:
        """How pictures are usually prepared for such an input."""
        return self._image.prepared if self._image.is_image else None

    def name_of(self, layer: Any) -> str | None:
        """Return a layer's name by its node's or its tensor's own name in the graph."""
        return next((name for name, each in self._layers.items() if layer in (each.node.name, each.tensor)), None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on tensors, images with their channels first; see :class:`Shell`.

        Raises:
            ModelError: it takes other inputs.
            RecordingError: it takes another size.
        """
        model = type(self).__name__
        inputs = inputs_by_name(self._takes, model, args, kwargs)
        given = {each.name: each.array(inputs[each.name], model) for each in self._takes}
        heard = {self._layers[name].tensor: part for name, part in self.heard().items() if name in self._layers}
        order = [layer for layer in self._layers.values() if layer.tensor in heard]
        outputs = self._graph.outputs
        found = self._listened(given, order, heard) if order else self._sessions.run(given, outputs)
        space = next((tuple(each.shape[2:]) for each in inputs.values() if each.ndim == 4), ())
        turned = space if self._image.is_last else ()
        return _returned({name: _channels_first(turned, found[name]) for name in outputs})

    def _listened(
        self, given: Mapping[str, Array], order: Sequence[OnnxLayer], heard: Mapping[str, Part]
    ) -> dict[str, Array]:
        """Run the model while parts listen; where one hands on something else, go on from that."""
        outputs = self._graph.outputs
        beside = [layer.linear.given for layer in order if layer.linear is not None]
        wanted = dict.fromkeys((*(layer.tensor for layer in order), *beside, *outputs))
        # With what goes past the layers, so that the body need not run again for an edit.
        few = order if len(order) < MANY else ()
        crossing = [each for layer in few for each in self._crossing([layer.tensor], wanted)]
        world = self._world(given, keep=bool(few))
        world.have(dict.fromkeys((*wanted, *crossing)))
        own = dict(world.known)
        edited: dict[str, Array] = {}
        for layer in order:
            gave = _tensor(own[layer.tensor])
            if gave is None:
                continue
            before = None if layer.linear is None else _tensor(own[layer.linear.given])
            handed = heard[layer.tensor](before, gave)
            if handed is gave or handed.requires_grad:  # the same values, for a graph that cannot be had
                continue
            edited[layer.tensor] = own[layer.tensor] = np.ascontiguousarray(handed.detach().cpu().numpy())
            behind = self._graph.behind([layer.tensor])
            rest = [name for name in wanted if name in behind and name not in edited]
            if rest:
                world.have(self._crossing(list(edited), rest))
                own |= self._sessions.go_on(edited, world.known, rest)
        return own

    def _world(self, given: Mapping[str, Array], *, keep: bool) -> _World:
        """Return the model's run on these inputs; that on the last single sample is kept, since its edits come in many chunks."""
        if self._last is not None and self._last.is_of(given):
            return self._last
        keep = keep and given[self._image.name].shape[:1] == (1,)
        world = _World(self._sessions, {name: values.copy() for name, values in given.items()} if keep else given)
        self._last = world if keep else None
        return world

    def _crossing(self, edited: Sequence[str], wanted: Mapping[str, None] | Sequence[str]) -> list[str]:
        behind = self._graph.behind(edited)
        return self._sessions.crossing(edited, [name for name in wanted if name in behind])


class _World:
    """The tensors of the model's own run, of which more may be wanted later.

    Args:
        sessions: run it.
        given: its inputs.
    """

    def __init__(self, sessions: Sessions, given: Mapping[str, Array]) -> None:
        self._sessions = sessions
        self._given = given
        self.known: dict[str, Array] = {}

    def is_of(self, given: Mapping[str, Array]) -> bool:
        """Return whether it is the run on these inputs."""
        return all(np.array_equal(values, self._given[name]) for name, values in given.items())

    def have(self, wanted: Mapping[str, None] | Sequence[str]) -> None:
        """Get to know these tensors, too."""
        self.known |= {name: self._given[name] for name in wanted if name in self._given}
        if missing := [name for name in wanted if name not in self.known]:
            self.known |= self._sessions.run(self._given, missing)


class _Outputs(tuple[Tensor, ...]):  # noqa: SLOT001 - each has its own names
    """Several outputs, known by their names in the graph.

    Attributes:
        _fields: the names.
    """

    _fields: tuple[str, ...]

    @classmethod
    def of(cls, found: Mapping[str, Tensor]) -> _Outputs:
        """Return the outputs in the graph's order."""
        outputs = cls(found.values())
        outputs._fields = tuple(found)
        return outputs


def _channels_first(space: tuple[int, ...], values: Any) -> Any:
    """Return an output that lies over the picture as its channels-last input does `(number, height, width, channel)` turned."""
    if not space or getattr(values, "ndim", 0) != 4 or values.shape[1] * space[1] != values.shape[2] * space[0]:
        return values
    return np.moveaxis(values, -1, 1)


def _returned(found: Mapping[str, Any]) -> Any:
    """Return the only output, or all; what is no array of numbers (a list of scores by names) is left out."""
    tensors = {
        name: torch.from_numpy(np.array(values))  # a copy: what is known of the run must not change with it
        for name, values in found.items()
        if getattr(values, "dtype", None) is not None
    }
    return next(iter(tensors.values())) if len(tensors) == 1 else _Outputs.of(tensors)


def _tensor(values: Array) -> Tensor | None:
    """Return a layer's output as a tensor, where it is one of real numbers."""
    return torch.from_numpy(np.array(values)) if values.dtype.kind == "f" and values.ndim > 0 else None


def _ends(words: Sequence[str]) -> range:
    return range(1, len(words) + 1)
