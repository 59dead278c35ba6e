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
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError, ModelError
from seewhy.recorder.borrow import borrowed, unwrap
from seewhy.recorder.conditions import Conditions
from seewhy.recorder.cost import Cost
from seewhy.recorder.differentiate import differentiate, not_connected, read_as
from seewhy.recorder.engine import Engine
from seewhy.recorder.forward import Forward, despite_overwriting
from seewhy.recorder.head import HeadTap
from seewhy.recorder.outputs import OutputLike
from seewhy.recorder.recording import Needs
from seewhy.recorder.recordings import Recordings
from seewhy.recorder.table import LayerRow, LayerTable
from seewhy.recorder.torch_backend import TorchBackend, double_differentiable
from seewhy.recorder.tracing import trace
from seewhy.targets import Question

Structure = tuple[tuple[str, type, int], ...]

_tables: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[Structure, LayerTable]]]
_tables = weakref.WeakKeyDictionary()


class TorchRecorder:
    """Runs one torch model and records what its layers do.

    Args:
        module: any module; DataParallel, DDP, Fabric and `torch.compile` wrappers are taken off.
        device: where to run; None leaves the model where it is. The model is moved when it is elsewhere.
        output: where in what it returns the scores are; None: they are found.
    """

    def __init__(self, module: nn.Module, device: str | torch.device | None = None, output: OutputLike = None) -> None:
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
        self._output = output
        self._forward = Forward(self.module, output)

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
        space = tuple(images.shape[1:])
        key = (space, self._output)  # the default layer is one on which these scores depend
        parts = tuple((name, type(part), id(part)) for name, part in self.module.named_modules())
        if key not in known or known[key][0] != parts:
            noise = torch.randn((1, *space), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
            known[key] = (parts, trace(self._forward, self._forward.placed(noise)))
        return known[key][1]

    def record(
        self,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor], Sequence[Question]],
        *,
        needs: Needs,
        conditions: Conditions | None = None,
    ) -> Recordings:
        """Run the model once on a batch and record what the layers did about each question.

        Args:
            images: `(batch, channel, *space)`, any device and float type.
            layers: rows of :meth:`table`.
            ask: turns the outputs `(batch, *output)` into questions.
            needs: what the methods will use.
            conditions: the seed for all that is drawn at random, and what holds for further runs.

        Raises:
            RecordingError: the model raised, or returned no scores.
            LayerError: the score does not depend on a layer.
        """
        return despite_overwriting(lambda: self._record(images, layers, ask, needs, conditions or Conditions()))

    def _record(
        self,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor], Sequence[Question]],
        needs: Needs,
        conditions: Conditions,
    ) -> Recordings:
        begin = time.perf_counter()
        images = self._forward.placed(images)
        gradients = needs.gradients and bool(layers)
        curved = gradients and Needs.CURVATURE in needs
        head_tap = HeadTap()
        with (
            borrowed(self.module, conditions.seed),
            head_tap.on(self.module) if Needs.HEAD in needs else nullcontext(),
            double_differentiable() if curved else nullcontext(),
        ):
            tape, outputs = self._forward.connected(images, layers, gradients=gradients)
            if gradients and not outputs.requires_grad:
                raise LayerError(not_connected([row.name for row in layers]))
            questions = tuple(ask(outputs.detach()))
            activations = {row.name: read_as(tape.last(row.name), row) for row in layers}
            scores, found, curvatures = differentiate(
                tape if gradients else None, outputs, questions, layers, curved=curved
            )
            heads = {
                (number, name): weights
                for number, question in enumerate(questions if Needs.HEAD in needs else ())
                for name, values in activations.items()
                if (weights := head_tap.weights(values, outputs, question)) is not None
            }
        backwards = len(questions) * (1 + curved) if gradients else 0
        return Recordings(
            images=images,
            outputs=outputs.detach().float(),
            layers=tuple(layers),
            questions=questions,
            activations=activations,
            scores=scores,
            gradients=found,
            curvatures=curvatures,
            heads=heads,
            cost=Cost(tape.forwards, backwards, time.perf_counter() - begin),
            conditions=conditions,
            calls=tape.calls,
            engine=Engine(TorchBackend(self._forward), images, conditions),
            needs=needs,
            again=lambda varied, asked, sharing, then: self.record(
                varied,
                [row for row in layers if row.name in sharing.layers],
                lambda _: asked,
                needs=sharing.needs,
                conditions=then,
            ),
        )
