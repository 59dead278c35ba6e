"""What an ONNX graph says about itself: which tensors depend on which, and what is needed to go on from edited ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

_TELL_SHAPES = ("Shape", "Size")

_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Pow", "Where", "Mean")
"""Operators that take one sample of an input beside many of another."""


@dataclass(frozen=True)
class Cut:
    """What a model needs to go on from tensors that are given.

    Attributes:
        nodes: what is run.
        values: tensors from before the cut that depend on what the model's input shows.
        shapes: the same of shapes, of which the first number is that of samples.
        alone: those of `values` of which one sample serves many.
    """

    nodes: tuple[NodeProto, ...]
    values: tuple[str, ...]
    shapes: tuple[str, ...]
    alone: frozenset[str]


class Graph:
    """An ONNX graph.

    Args:
        model: its nodes in the order in which they can run, as ONNX wants it.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        constant = {*self.initialisers, *(tensor.values.name for tensor in graph.sparse_initializer)}
        self.inputs: tuple[ValueInfoProto, ...] = tuple(each for each in graph.input if each.name not in constant)
        self.outputs: tuple[str, ...] = tuple(output.name for output in graph.output)
        self.nodes: tuple[NodeProto, ...] = tuple(graph.node)
        self._needs = {id(node): frozenset(needs(node)) for node in self.nodes}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.shown, self.shapes = self._depending_on_input()

    def _depending_on_input(self) -> tuple[set[str], set[str]]:
        """Return the tensors that depend on what the input shows, and those that depend on its shape only."""
        shown, shapes = {each.name for each in self.inputs}, set[str]()
        for node in self.nodes:
            given = self._needs[id(node)]
            if node.op_type in _TELL_SHAPES and given & (shown | shapes):
                shapes.update(filter(None, node.output))
            elif given & shown:
                shown.update(filter(None, node.output))
            elif given & shapes:
                shapes.update(filter(None, node.output))
        return shown, shapes

    def layers(self) -> list[NodeProto]:
        """Return the nodes that an output depends on and that depend on what the input shows."""
        return [node for node in self.leading_to(self.outputs) if node.output[0] in self.shown]

    def leading_to(self, outputs: Iterable[str], given: Collection[str] = ()) -> list[NodeProto]:
        """Return the nodes that must run for these tensors, where others are given."""
        wanted, found = set(outputs).difference(given), []
        for node in reversed(self.nodes):
            if wanted.isdisjoint(node.output):
                continue
            found.append(node)
            wanted |= self._needs[id(node)].difference(given)
        return found[::-1]

    def needed_by(self, nodes: Iterable[NodeProto]) -> set[str]:
        """Return all tensors that some nodes take."""
        return {name for node in nodes for name in needs(node)}

    def inputs_of(self, nodes: Iterable[NodeProto], outputs: Iterable[str]) -> list[ValueInfoProto]:
        """Return the model's own inputs that some nodes take."""
        taken = self.needed_by(nodes).union(outputs)
        return [each for each in self.inputs if each.name in taken]

    def behind(self, edited: Collection[str]) -> set[str]:
        """Return the tensors that depend on some others, and these."""
        found = set(edited)
        for node in self.nodes:
            if not self._needs[id(node)].isdisjoint(found):
                found.update(filter(None, node.output))
        return found

    def cut(self, edited: Collection[str], outputs: Iterable[str]) -> Cut:
        """Return what is needed for some outputs where tensors are given instead of computed."""
        behind, wanted = self.behind(edited), set(outputs).difference(edited)
        nodes: list[NodeProto] = []
        values, shapes = dict.fromkeys(name for name in wanted if name not in self.producers), dict[str, None]()
        for node in reversed(self.nodes):
            made = wanted.intersection(node.output)
            if not made:
                continue
            is_behind = not behind.isdisjoint(set(node.output).difference(edited))
            if not is_behind and made & self.shown:
                values.update(dict.fromkeys(made))
                continue
            if not is_behind and node.op_type in _TELL_SHAPES and made & self.shapes:
                shapes.update(dict.fromkeys(made))
                continue
            nodes.append(node)
            wanted |= self._needs[id(node)].difference(edited)
        own = {each.name for each in self.inputs}
        values.update(dict.fromkeys(name for name in wanted if name in own))
        values = {name: None for name in values if name in self.shown}
        return Cut(tuple(nodes[::-1]), tuple(values), tuple(shapes), self._alone(values, nodes))

    def _alone(self, values: Iterable[str], nodes: Sequence[NodeProto]) -> frozenset[str]:
        takers = {name: [node for node in nodes if name in self._needs[id(node)]] for name in values}
        return frozenset(name for name, takes in takers.items() if all(node.op_type in _BROADCASTING for node in takes))

    def begins_with(self, shape: str) -> bool:
        """Return whether a shape's first number is that of the samples."""
        return all(attribute.name != "start" or attribute.i == 0 for attribute in self.producers[shape].attribute)


def needs(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node takes, also those that graphs inside it take from outside."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            for graph in (attribute.g, *attribute.graphs):
                yield from _needs_of(graph)


def _needs_of(graph: GraphProto) -> Iterator[str]:
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from needs(node)
