"""Running parts of an ONNX graph: a session for each set of tensors that are given and wanted, kept for the next run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, ValueInfoProto

from seewhy.errors import ModelError
from seewhy.frameworks.onnx.file import serialized
from seewhy.frameworks.onnx.graph import Graph

Array = npt.NDArray[Any]

KEPT = 6
"""Sessions that are kept beside that of the whole model; each has a copy of the weights that it needs."""

MANY = 64
"""Wanted tensors from which on a session is not kept: it is there to see all layers once."""

_QUIET = 4  # severity from which on the runtime itself writes to the terminal: what it raises is told by seewhy


class Sessions:
    """Runs one graph, whole or in part.

    Args:
        graph: its nodes and weights.
        samples: how many samples the model takes at once, no more and no fewer; None: any number.
    """

    def __init__(self, graph: Graph, samples: int | None) -> None:
        self._graph = graph
        self._samples = samples
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self.whole = self._session(graph.leading_to(graph.outputs), graph.inputs, graph.outputs)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return some tensors for the model's inputs, each of which has the samples along its first axis."""
        if set(outputs) <= set(self._graph.outputs):
            return self._run(self.whole, inputs, frozenset(), outputs, _samples(inputs.values()))
        nodes = self._graph.leading_to(outputs)
        taken = self._graph.inputs_of(nodes, outputs)
        session = self._cached(("body", tuple(outputs)), nodes, taken, outputs)
        given = {each.name: inputs[each.name] for each in taken}
        return self._run(session, given, frozenset(), outputs, _samples(inputs.values()))

    def go_on(
        self, edited: Mapping[str, Array], known: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Return some tensors that depend on edited ones.

        Args:
            edited: instead of what the model makes, `(number, ...)`.
            known: the tensors of :meth:`crossing`, of as many samples or of one.
            outputs: which tensors.
        """
        cut = self._graph.cut(tuple(edited), outputs)
        number = _samples(edited.values())
        given = dict(edited)
        for name in cut.values:
            given[name] = known[name] if name in cut.alone else _repeated(known[name], number)
        for name in cut.shapes:
            given[name] = self._of_samples(name, known[name], number)
        taken = [_info(name, values) for name, values in given.items()]
        key = ("tail", tuple((each.name, each.type.tensor_type.elem_type) for each in taken), tuple(outputs))
        session = self._cached(key, cut.nodes, taken, outputs)
        return self._run(session, given, frozenset(cut.shapes), outputs, number)

    def crossing(self, edited: Collection[str], outputs: Iterable[str]) -> list[str]:
        """Return the other tensors that are needed to go on from edited ones."""
        cut = self._graph.cut(edited, outputs)
        return [*cut.values, *cut.shapes]

    def _of_samples(self, name: str, shape: Array, number: int) -> Array:
        """Return a shape of one sample's tensor as that of so many."""
        counts = self._samples is None and shape.ndim == 1 and len(shape) > 0 and self._graph.begins_with(name)
        return np.array([number, *shape[1:]], shape.dtype) if counts and shape[0] == 1 else shape

    def _cached(
        self, key: Any, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[str]
    ) -> Any:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        session = self._session(nodes, inputs, outputs)
        if len(outputs) < MANY:
            self._kept[key] = session
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return session

    def _session(
        self, nodes: Sequence[NodeProto], inputs: Iterable[ValueInfoProto], outputs: Sequence[str]
    ) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return onnxruntime.InferenceSession(
                serialized(part_of(self._graph, nodes, inputs, outputs)), options, providers=_providers()
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(_refusal(error, self._graph)) from error

    def _run(
        self, session: Any, given: Mapping[str, Array], shapes: Collection[str], outputs: Sequence[str], number: int
    ) -> dict[str, Array]:
        """Run a session, in as many runs as the model needs for these samples."""
        if self._samples is None:
            return dict(zip(outputs, _call(session, outputs, given), strict=True))
        found: list[list[Array]] = []
        for at in range(0, number, self._samples):
            feeds = {
                name: values if name in shapes else _padded(values, at, number, self._samples)
                for name, values in given.items()
            }
            found.append(_call(session, outputs, feeds))
        joined = (
            each[0] if name in self._graph.shapes else np.concatenate([np.atleast_1d(part) for part in each])[:number]
            for name, each in zip(outputs, zip(*found, strict=True), strict=True)
        )
        return dict(zip(outputs, joined, strict=True))


def part_of(
    graph: Graph, nodes: Iterable[NodeProto], inputs: Iterable[ValueInfoProto], outputs: Iterable[str]
) -> ModelProto:
    """Return a part of a model as a model of its own, with those weights only that it needs."""
    taken = list(inputs)
    own = {each.name for each in taken}
    part = ModelProto(ir_version=graph.model.ir_version)
    part.opset_import.extend(graph.model.opset_import)
    part.functions.extend(graph.model.functions)
    part.graph.name = "part"
    for node in nodes:
        kept = part.graph.node.add()
        kept.CopyFrom(node)
        for place, name in enumerate(node.output):
            if name in own:  # given, while another output of the node is computed
                kept.output[place] = f"{name}/replaced"
    used = {*graph.needed_by(part.graph.node), *outputs}
    part.graph.initializer.extend(tensor for name, tensor in graph.initialisers.items() if name in used)
    part.graph.sparse_initializer.extend(
        tensor for tensor in graph.model.graph.sparse_initializer if tensor.values.name in used
    )
    part.graph.input.extend(taken)
    by_name = {each.name: each for each in graph.model.graph.output}
    part.graph.output.extend(by_name.get(name, ValueInfoProto(name=name)) for name in outputs)
    return part


def _call(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    try:
        found: list[Array] = session.run(list(outputs), dict(feeds))
    except Exception as error:
        if "Failed to allocate memory" in str(error) or "bad allocation" in str(error):
            raise MemoryError(str(error)) from error
        raise
    return found


def _samples(arrays: Iterable[Array]) -> int:
    return max((len(each) for each in arrays if each.ndim), default=1)


def _repeated(values: Array, number: int) -> Array:
    """Return one sample as so many; what has another first axis is left as it is."""
    if number == 1 or values.ndim == 0 or len(values) != 1:
        return values
    return np.repeat(values, number, axis=0)


def _padded(values: Array, at: int, number: int, samples: int) -> Array:
    """Return as many samples as the model takes, from the one at `at` on, the last one repeated where there are fewer."""
    if values.ndim == 0 or len(values) not in (1, number):
        return values
    part = values if len(values) == 1 else values[at : at + samples]
    missing = samples - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def _info(name: str, values: Array) -> ValueInfoProto:
    """Return what a tensor is as an input of a part: its type, and nothing about its shape but how many axes it has."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * values.ndim)


def _providers() -> list[str]:
    on_gpu = "CUDAExecutionProvider"
    found = [on_gpu] if on_gpu in onnxruntime.get_available_providers() else []
    return [*found, "CPUExecutionProvider"]


def _refusal(error: Exception, graph: Graph) -> str:
    """Return why the runtime does not take a model, and what to do."""
    said = str(error).splitlines()[0].rstrip(".")
    opsets = ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in graph.model.opset_import)
    return f"ONNX Runtime {onnxruntime.__version__} cannot run the model (opset {opsets}): {said}. {_remedy(said)}"


def _remedy(said: str) -> str:
    if "opset" in said.casefold() or "IR version" in said:
        return "Update onnxruntime, or export the model with an older opset."
    if "is not a registered function" in said or "not implemented" in said.casefold():
        return (
            "It has operators of its own, whose code is not in the file; nothing is loaded for them. Export it with the standard "
            "operators only."
        )
    return "Check that onnxruntime runs it by itself."
