"""The recorder for PyTorch: the one place that touches a torch model.

The body of the model runs without a graph. The first chosen layer's forward hook hands on a tensor that requires a
gradient and switches the graph on, so that only the model's tail is differentiated, and `autograd.grad` goes from the
score to the chosen layers and no further. Nothing of the model's own (parameters, `.grad`, modes, hooks) is changed.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError, ModelError, RecordingError, SeewhyError
from seewhy.recorder.borrow import borrowed, unwrap
from seewhy.recorder.differentiate import differentiate, is_out_of_memory, not_connected, read_as
from seewhy.recorder.head import HeadTap
from seewhy.recorder.layout import Evidence, infer
from seewhy.recorder.outputs import find_scores
from seewhy.recorder.recording import Cost, Needs, Recordings
from seewhy.recorder.table import LayerRow, LayerTable, in_attention, with_stages
from seewhy.recorder.tape import Tape
from seewhy.targets import Question

Result = TypeVar("Result")

CANDIDATES = 40
"""Layers at the end of the model that are tried for a gradient when the default layer is chosen."""

Structure = tuple[tuple[str, type, int], ...]

_tables: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], tuple[Structure, LayerTable]]]
_tables = weakref.WeakKeyDictionary()
_contiguous_only: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class TorchRecorder:
    """Runs one torch model and records what its layers do.

    Args:
        module: any module; DataParallel, DDP, Fabric and `torch.compile` wrappers are taken off.
        device: where to run; None leaves the model where it is. The model is moved when it is elsewhere.
    """

    def __init__(self, module: nn.Module, device: str | torch.device | None = None) -> None:
        self.module = unwrap(module)
        if isinstance(self.module, torch.jit.ScriptModule):
            raise ModelError("A TorchScript module has no layers to listen to. Give the module that it was made from.")
        if device is not None:
            try:
                self.module.to(device)
            except (RuntimeError, AssertionError) as error:
                raise ModelError(
                    f"The model cannot be moved to device '{device}': {str(error).splitlines()[0]} Leave device out to stay "
                    "where the model is, or give one that this machine has (cpu, cuda, mps, ...)."
                ) from error

    @property
    def on_cpu(self) -> bool:
        """Whether the model is in main memory."""
        return all(parameter.device.type == "cpu" for parameter in self.module.parameters())

    def table(self, images: Tensor) -> LayerTable:
        """Return the layers that yield a map for inputs of this shape; remembered while its parts are the same.

        Args:
            images: `(batch, channel, *space)`; only its shape counts. Noise is run through the model, so that the default
                layer does not depend on which image came first.
        """
        known = _tables.setdefault(self.module, {})
        key = tuple(images.shape[1:])
        parts = tuple((name, type(part), id(part)) for name, part in self.module.named_modules())
        if key not in known or known[key][0] != parts:
            noise = torch.randn((1, *key), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
            known[key] = (parts, self._trace(self._placed(noise)))
        return known[key][1]

    def record(
        self,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor], Sequence[Question]],
        *,
        needs: Needs,
        seed: int = 0,
    ) -> Recordings:
        """Run the model once on a batch and record what the layers did about each question.

        Args:
            images: `(batch, channel, *space)`, any device and float type.
            layers: rows of :meth:`table`.
            ask: turns the outputs `(batch, *output)` into questions.
            needs: what the methods will use.
            seed: for all that is drawn at random, here and in the methods.

        Raises:
            RecordingError: the model raised, or returned no scores.
            LayerError: the score does not depend on a layer.
        """
        return _despite_overwriting(lambda: self._record(images, layers, ask, needs, seed))

    def _record(
        self,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor], Sequence[Question]],
        needs: Needs,
        seed: int,
    ) -> Recordings:
        begin = time.perf_counter()
        images = self._placed(images)
        gradients = Needs.GRADIENTS in needs and bool(layers)
        head_tap = HeadTap()
        with borrowed(self.module, seed), head_tap.on(self.module) if Needs.HEAD in needs else nullcontext():
            tape, outputs = self._forward_connected(images, layers, gradients=gradients)
            if gradients and not outputs.requires_grad:
                raise LayerError(not_connected([row.name for row in layers]))
            questions = tuple(ask(outputs.detach()))
            activations = {row.name: read_as(tape.last(row.name), row) for row in layers}
            scores, found = differentiate(tape if gradients else None, outputs, questions, layers)
            heads = {
                (number, name): weights
                for number, question in enumerate(questions if Needs.HEAD in needs else ())
                for name, values in activations.items()
                if (weights := head_tap.weights(values, outputs, question)) is not None
            }
        cost = Cost(tape.forwards, len(questions) if gradients else 0, time.perf_counter() - begin)
        return Recordings(
            images=images,
            outputs=outputs.detach().float(),
            layers=tuple(layers),
            questions=questions,
            activations=activations,
            scores=scores,
            gradients=found,
            heads=heads,
            cost=cost,
            seed=seed,
            calls=tape.calls,
            again=lambda varied, asked: self.record(varied, layers, lambda _: asked, needs=needs, seed=seed),
        )

    def _placed(self, images: Tensor) -> Tensor:
        """Return the images where the model is and as precise as it is, free of inference mode."""
        reference = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        with torch.inference_mode(mode=False):
            images = images.clone() if images.is_inference() else images.detach()
            return images if reference is None else images.to(reference.device, reference.dtype)

    def _forward_connected(self, images: Tensor, layers: Sequence[LayerRow], *, gradients: bool) -> tuple[Tape, Tensor]:
        """Run the model; where its own `no_grad` cut the graph off after a layer, run again and keep it on."""
        tape = Tape(gradients=gradients)
        outputs = self._forward(images, [row.name for row in layers], tape)
        if gradients and not outputs.requires_grad:
            tape = Tape(gradients=True, insist=True, forwards=tape.forwards)
            outputs = self._forward(images, [row.name for row in layers], tape)
        return tape, outputs

    def _forward(self, images: Tensor, layers: Sequence[str], tape: Tape) -> Tensor:
        """Run the model with the tape on the layers and return its scores `(batch, *output)`."""
        fast = _channels_last_pays(images) and self.module not in _contiguous_only
        try:
            returned = self._call(images, layers, tape, torch.channels_last if fast else torch.preserve_format)
        except RecordingError as error:
            if not (fast and "view size is not compatible" in str(error)):
                raise
            _contiguous_only.add(self.module)  # it calls view() where only reshape() allows any memory order
            tape.clear()
            returned = self._call(images, layers, tape)
        return find_scores(returned, images.shape[0])

    def _call(
        self, images: Tensor, layers: Sequence[str], tape: Tape, order: torch.memory_format = torch.preserve_format
    ) -> Any:
        tape.forwards += 1
        with tape.on(self.module, layers), torch.set_grad_enabled(False):
            try:
                return self.module(images.clone(memory_format=order))  # a copy: some models write into their input
            except SeewhyError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise RecordingError(
                    f"The model {type(self.module).__name__} raised {type(error).__name__} for an input of shape "
                    f"{tuple(images.shape)}: {error} Check that it takes such an input when called by itself."
                ) from error

    def _trace(self, image: Tensor) -> LayerTable:
        """Run once, list every layer that yields a map, and find the default one."""
        space = tuple(image.shape[2:])
        with borrowed(self.module, seed=0):
            shapes = self._shapes(image)
        evidence = Evidence([], set())
        modules = dict(self.module.named_modules())
        kinds = {
            name: type(module).__name__ for name, module in modules.items() if any(True for _ in module.children())
        }
        rows, others = [], {}
        for name, shape in shapes.items():
            attends = in_attention(name, kinds)
            layout = infer(shape, space, modules[name], evidence, in_attention=attends) if shape[0] == 1 else None
            if layout is None:
                others[name] = shape
                continue
            stride = tuple(round(length / cells, 3) for length, cells in zip(space, layout.grid, strict=True))
            rows.append(LayerRow(name, type(modules[name]).__name__, layout, stride))
        default = self._last_with_gradient(image, rows, kinds)
        return LayerTable(with_stages(rows, default, kinds), others)

    def _shapes(self, image: Tensor) -> dict[str, tuple[int, ...]]:
        """Return the shape of what each module gave last, in the order in which they finished."""
        shapes: dict[str, tuple[int, ...]] = {}
        names = [name for name, _ in self.module.named_modules() if name]

        def note(name: str, tensor: Tensor) -> None:
            shapes.pop(name, None)
            shapes[name] = tuple(tensor.shape)

        self._call(image, names, Tape(gradients=False, note=note))
        return shapes

    def _last_with_gradient(self, image: Tensor, rows: Sequence[LayerRow], kinds: dict[str, str]) -> str:
        """Return the last layer larger than one cell on whose places the score depends.

        Layers outside attention and like the very last one (same channels and grid) come first: inside a block other
        things than features have the shape of a map.
        """
        larger = [row for row in rows if max(row.layout.grid) > 1]
        usual = [row for row in larger if not row.kind.startswith("AdaptiveAvgPool")] or larger
        if not usual:
            raise LayerError(
                f"No layer of {type(self.module).__name__} yields a map larger than one cell for an input of "
                f"{tuple(image.shape[2:])}. Give a larger image, or a method that works on the input itself."
            )
        features = [row for row in usual if not in_attention(row.name, kinds)] or usual
        alike = [row for row in features if _same_map(row, features[-1])]
        for candidates in (alike, features, usual):
            if live := _despite_overwriting(partial(self._with_gradient, image, candidates[-CANDIDATES:])):
                return live[-1]
        return features[-1].name

    def _with_gradient(self, image: Tensor, rows: Sequence[LayerRow]) -> list[str]:
        """Return the names of the layers at whose places the largest score has a gradient other than zero."""
        with borrowed(self.module, seed=0):
            tape, outputs = self._forward_connected(image, rows, gradients=True)
            if not outputs.requires_grad:
                return []
            kept = [tape.last(row.name) for row in rows]
            with torch.enable_grad():
                best = outputs.flatten().max()
            found = torch.autograd.grad(best, kept, allow_unused=True)
        return [
            row.name
            for row, gradient in zip(rows, found, strict=True)
            if gradient is not None and row.layout.to_channels_first(gradient).count_nonzero() > 0
        ]


def _despite_overwriting(run: Callable[[], Result]) -> Result:
    """Run; where the model overwrites what a derivative needs, run again and let autograd keep copies (slower)."""
    try:
        return run()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return run()


def _same_map(row: LayerRow, other: LayerRow) -> bool:
    return (row.layout.channels, row.layout.grid) == (other.layout.channels, other.layout.grid)


def _channels_last_pays(images: Tensor) -> bool:
    """Return whether a channels-last input is worth its copy: measured on batches of pictures, not on single ones."""
    return images.ndim == 4 and images.shape[0] >= 4 and images.shape[1] > 1
