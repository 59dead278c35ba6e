"""Exported programs (`torch.export`): graphs of operations, which are run one by one, so that layers can be listened to.

The layers of the module that was exported are gone; but each operation tells in which of them it lay. A layer's output is what
of its operations others use. A program that was exported for batches of one size is run as often as needed, all runs side by
side, so that what is listened to is still the whole batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as tree

from seewhy.frameworks.shell import TORCH_ONLY, Part, named
from seewhy.frameworks.torchscript import TorchShell
from seewhy.strides import in_rows

Program = torch.export.ExportedProgram | fx.GraphModule

Lane = dict[fx.Node, Any]
"""One run: the value of each operation that is still needed."""


class ExportedShell(TorchShell):
    """An exported program, or the graph module that is made of one."""

    framework = "torch.export"
    lacks: Mapping[str, str] = dict.fromkeys(
        TORCH_ONLY.keys() - {"CURVATURE", "PROPAGATION"},
        "it needs the modules, of which only operations are left. Use 'grad-cam', 'integrated-gradients' or 'rise', or the "
        "module that was exported.",
    )

    def __init__(self, model: Program) -> None:
        program = model if isinstance(model, fx.GraphModule) else model.module()
        image = next(node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
        shape = tuple(length if isinstance(length, int) else None for length in getattr(image, "shape", ()))
        known = len(shape) > 2
        super().__init__(model, program, len(shape) - 2 if known else 2, shape[1] if known else None)
        self.__class__ = named(type(self), _root(program.graph) or type(model).__name__)
        self.fixed = shape[0] if known else None
        if len(shape) == 4 and shape[2] is not None and shape[3] is not None:
            self.space = (shape[2], shape[3])
        self.ends: dict[fx.Node, list[str]] = defaultdict(list)
        for name, (kind, ends) in _layers(program.graph).items():
            order = "channels-first" if kind.startswith(("Conv", "BatchNorm")) else ""
            linear = kind == "Linear" and any(own == f"{name}.weight" for own, _ in program.named_parameters())
            weight = (lambda name=name: program.get_parameter(f"{name}.weight").detach()) if linear else None
            self._add_above(name)
            self.add(name, kind, Part(order, weight))
            for end in ends:
                self.ends[end].insert(0, name)  # the innermost is done first

    @property
    def words(self) -> str:
        """How messages speak of it."""
        return "this exported program"

    def _add_above(self, name: str) -> None:
        """Add parts for the modules around a layer of which no operation is known."""
        above = name.split(".")[:-1]
        for depth in range(1, len(above) + 1):
            parent, own = self.get_submodule(".".join(above[: depth - 1])), above[depth - 1]
            if own not in parent._modules:
                self.add(".".join(above[:depth]), "Module", Part())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, operation by operation; several times side by side where it takes batches of one size only."""
        graph: fx.Graph = self.program.graph  # type: ignore[assignment]
        order = [node.name for node in graph.nodes if node.op == "placeholder"]
        # By name in the program's order, as far as an input is called as it was exported.
        named_inputs = dict(
            sorted(kwargs.items(), key=lambda each: order.index(each[0]) if each[0] in order else len(order))
        )
        leaves, _ = tree.tree_flatten((args, named_inputs))
        number = next(len(each) for each in leaves if isinstance(each, Tensor))
        return _Run(self, number, leaves).result()


class _Run:
    """One run for a batch, in lanes of as many images as the program takes."""

    def __init__(self, shell: ExportedShell, number: int, given: list[Any]) -> None:
        self._shell = shell
        self._number = number
        self._graph: fx.Graph = shell.program.graph  # type: ignore[assignment]
        self._at_once = shell.fixed or number
        starts = range(0, max(number, 1), self._at_once)
        placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        self._lanes: list[Lane] = [
            dict(zip(placeholders, (self._cut(each, at) for each in given), strict=True)) for at in starts
        ]
        self._heard = shell.heard()

    def _cut(self, given: Any, at: int) -> Any:
        """Return a lane's part of an input with a row for each image; the last lane is filled up with the last image."""
        if not (isinstance(given, Tensor) and given.ndim > 0 and len(given) == self._number):
            return given
        rows = torch.arange(at, at + self._at_once, device=given.device).clamp(max=self._number - 1)
        return given if self._at_once == self._number else given[rows]

    def result(self) -> Any:
        """Return what the program returns."""
        run = _Interpreter(self._shell.program, garbage_collect_values=False)
        for node, done in _with_last_uses(self._graph):
            if node.op == "output":
                break
            if node.op != "placeholder":
                for lane in self._lanes:
                    run.env = lane
                    lane[node] = _in_order(node, run.run_node(node))
                for name in self._shell.ends.get(node, ()) if self._heard else ():
                    if name in self._heard:
                        self._hear(node, self._heard[name])
            for lane in self._lanes:
                for each in done:
                    lane.pop(each, None)
        outputs = [fx.node.map_arg(node.args[0], lane.__getitem__) for lane in self._lanes]
        columns = [
            self._whole(list(column)) for column in zip(*(tree.tree_flatten(each)[0] for each in outputs), strict=True)
        ]
        return self._graph.process_outputs(tree.tree_unflatten(columns, tree.tree_flatten(outputs[0])[1]))

    def _hear(self, node: fx.Node, part: Part) -> None:
        """Let a layer's part hear what it gave, and go on with what is handed back."""
        values = [lane[node] for lane in self._lanes]
        if not (isinstance(values[0], Tensor) and values[0].is_floating_point() and values[0].ndim > 0):
            return
        given = [lane.get(node.args[0]) for lane in self._lanes] if part.weight is not None else [None]  # type: ignore[arg-type]
        gave = self._whole(values)
        handed = part(self._whole(given) if isinstance(given[0], Tensor) else None, gave)
        if handed is gave:
            return
        rows = len(values[0])
        if self._shell.fixed is None:
            self._lanes[0][node] = handed
            return
        if len(handed) != len(gave):  # many edits for one image: as many lanes as they fill
            self._lanes = [dict(self._lanes[0]) for _ in range(-(-len(handed) // rows))]
            self._number = len(handed)
        for place, lane in enumerate(self._lanes):
            chosen = torch.arange(place * rows, (place + 1) * rows, device=handed.device).clamp(max=len(handed) - 1)
            lane[node] = handed if len(self._lanes) == 1 and rows == len(handed) else handed[chosen]

    def _whole(self, values: list[Any]) -> Any:
        """Return the lanes' values of one operation as one, without those of images that only fill the last lane."""
        first = values[0]
        if not isinstance(first, Tensor) or first.ndim == 0 or (len(values) == 1 and self._at_once == self._number):
            return first
        whole = torch.cat(values)
        return whole[: self._number] if len(first) == self._at_once else whole


class _Interpreter(fx.Interpreter):
    """Runs one operation after the other; while functions of torch are watched, as Python would have called them."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation."""
        watched = torch._C._len_torch_function_stack() > 0
        return super().call_function(_function(target) if watched else target, args, kwargs)


def _function(target: Any) -> Any:
    """Return the function or method of torch of the same arguments that does what an operation does, if there is one."""
    if getattr(target, "namespace", "") != "aten":
        return target
    name = target._schema.name.partition("::")[2]
    found = (getattr(home, name, None) for home in (torch, torch._C._nn, Tensor))
    return next((each for each in found if isinstance(each, BuiltinFunctionType | MethodDescriptorType)), target)


def _in_order(node: fx.Node, value: Any) -> Any:
    """Return what an operation gave; a batch normalisation's gets its gradient in rows."""
    if "batch_norm" in str(node.target):
        in_rows(value)
    return value


def is_exported(model: Any) -> bool:
    """Return whether this is an exported program, or a graph module made of one, whose layers are gone."""
    if isinstance(model, torch.export.ExportedProgram):
        return True
    if not isinstance(model, fx.GraphModule):
        return False
    calls = [node for node in model.graph.nodes if node.op == "call_module" and node.target != "_guards_fn"]
    return not calls and any("nn_module_stack" in node.meta for node in model.graph.nodes if node.op == "call_function")


def _root(graph: fx.Graph) -> str:
    """Return the class of the module that was exported."""
    stacks = (node.meta.get("nn_module_stack", {}) for node in graph.nodes)
    kinds = (kind for stack in stacks for path, kind in stack.values() if not path)
    return _kind(next(kinds, ""))


def _kind(told: Any) -> str:
    return str(getattr(told, "__name__", told)).rpartition(".")[2]


def _layers(graph: fx.Graph) -> dict[str, tuple[str, list[fx.Node]]]:
    """Return each layer's type and the operations that give its outputs, one for each of its runs, by its name."""
    kinds: dict[str, str] = {}
    inside: dict[str, set[fx.Node]] = defaultdict(set)
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        for path, kind in node.meta.get("nn_module_stack", {}).values():
            name = path.partition("@")[0]
            if name:
                kinds.setdefault(name, _kind(kind))
                inside[name].add(node)
    found = {}
    for name in sorted(kinds, key=lambda name: name.count(".")):
        ends = [node for node in graph.nodes if node in inside[name] and not inside[name].issuperset(node.users)]
        found[name] = (kinds[name], ends)
    return found


def _with_last_uses(graph: fx.Graph) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """Yield each operation, and what is needed no more after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        last[node] = node
        for each in node.all_input_nodes:
            last[each] = node
    done = defaultdict(list)
    for node, user in last.items():
        done[user].append(node)
    for node in graph.nodes:
        yield node, done[node]
