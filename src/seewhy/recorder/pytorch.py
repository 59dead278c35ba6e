"""The recorder for PyTorch: the one place that touches a torch model.

The body of the model runs without a graph. The first chosen layer's forward hook hands on a tensor that requires a
gradient and switches the graph on, so that only the model's tail is differentiated, and `autograd.grad` goes from the
score to the chosen layers and no further. Nothing of the model's own (parameters, `.grad`, modes, hooks) is changed.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError, ModelError, RecordingError, SeewhyError
from seewhy.frameworks import Shell, Structure
from seewhy.frameworks.shell import structure_of, without_layers
from seewhy.models import ImageTower
from seewhy.recorder.attending import Attending
from seewhy.recorder.borrow import borrowed, unwrap
from seewhy.recorder.bounds import bounded
from seewhy.recorder.call import Call
from seewhy.recorder.conditions import Conditions
from seewhy.recorder.cost import Cost
from seewhy.recorder.differentiate import differentiate, not_connected, read_as
from seewhy.recorder.engine import Engine
from seewhy.recorder.examination import Examination
from seewhy.recorder.forward import Forward, despite_overwriting
from seewhy.recorder.head import HeadTap
from seewhy.recorder.outputs import OutputLike
from seewhy.recorder.recording import Needs, Sharing
from seewhy.recorder.recordings import Recordings
from seewhy.recorder.table import LayerRow, LayerTable
from seewhy.recorder.tape import Tape
from seewhy.recorder.torch_backend import TorchBackend, double_differentiable
from seewhy.recorder.tracing import trace
from seewhy.targets import Chances, Kind, Question, are_between_0_and_1, are_distributions

TEXTS = 64
"""Texts that go through a text tower at once."""

Result = TypeVar("Result")

KEPT = 8
"""Findings that are remembered of a module, those used last: functions and values of other inputs tell them apart."""

_found: weakref.WeakKeyDictionary[Any, OrderedDict[tuple[Any, ...], tuple[Structure, Any]]]
_found = weakref.WeakKeyDictionary()
"""What was found out about models, by what it depends on."""


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
            raise ModelError("A TorchScript module has no layers to listen to. Give it without a wrapper around it.")
        if device is not None:
            try:
                self.module.to(device)
            except (RuntimeError, AssertionError) as error:
                raise ModelError(
                    f"The model cannot be moved to device '{device}': {str(error).splitlines()[0]} Leave device out to stay "
                    "where the model is, or give one that this machine has (cpu, cuda, mps, ...)."
                ) from error
        self.output = output
        self._forward = Forward(self.module, output)

    @property
    def usual(self) -> str | None:
        """The method that is taken when none is named, where the model says."""
        return self.module.usual if isinstance(self.module, Shell) else None

    @property
    def batch_size(self) -> int:
        """How many images to record at once; of what has no layers one, so that what fails later keeps those before."""
        if isinstance(self.module, Shell) and not self.module.has_layers:
            return 1
        return 8 if self.on_cpu else 32

    @property
    def on_cpu(self) -> bool:
        """Whether the model is in main memory."""
        return all(parameter.device.type == "cpu" for parameter in self.module.parameters())

    def examination(self, inputs: Call | None = None) -> Examination:
        """Return ways to find out how the model behaves, with other inputs where it takes several."""
        return Examination(self._forward.about(inputs))

    def table(self, images: Tensor, inputs: Call | None = None) -> LayerTable:
        """Return the layers that yield a map for inputs of this shape; remembered while its parts are the same.

        Args:
            images: `(batch, channel, *space)`; only its shape counts. Noise is run through the model, so that the default
                layer does not depend on which image came first.
            inputs: the other inputs of a model that takes several; only layers on the way of the explained one are listed.
        """
        if isinstance(self.module, Shell) and not self.module.has_layers:
            raise LayerError(without_layers(self.module))
        forward = self._forward.about(inputs)
        space = tuple(images.shape[1:])

        def find() -> LayerTable:
            noise = torch.randn((1, *space), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
            return trace(forward, forward.placed(noise))

        # The default layer is one on which these scores depend.
        return self._remembered((space, self.output, forward.inputs.signature), find)

    def chances(
        self, images: Tensor, outputs: Tensor, kind: Kind, *, independent: bool, inputs: Call | None = None
    ) -> Chances:
        """Return how the model's scores become probabilities.

        A distribution over classes is known by its values. Whether scores of their own, or a single one, are probabilities is
        found out from the model itself, once, and remembered while its parts are the same: see :func:`bounded`.

        Args:
            images: `(batch, channel, *space)`.
            outputs: `(batch, *output)`, what the model answers about them.
            kind: what that is.
            independent: whether each class has a probability of its own.
            inputs: the other inputs of a model that takes several.
        """
        if kind not in ("classes", "places"):
            return Chances(independent)
        alone = outputs.shape[1] == 1
        if not (independent or alone):
            return Chances(ready=are_distributions(outputs.movedim(1, -1)))
        independent = independent or kind == "places"  # one score a place tells something from what is around it
        if not are_between_0_and_1(outputs):
            return Chances(independent)
        forward = self._forward.about(inputs)
        ready = self._remembered(
            ("bounded", self.output, forward.inputs.signature),
            lambda: bounded(forward, forward.placed(images[:1]), outputs[:1].detach()),
        )
        return Chances(independent, ready)

    def _remembered(self, key: tuple[Any, ...], find: Callable[[], Result]) -> Result:
        """Return what was found out before about the model, or find it out, as long as its parts are the same."""
        shell = self.module if isinstance(self.module, Shell) else None
        known = _found.setdefault(self.module if shell is None else shell.stands_for, OrderedDict())
        parts = structure_of(self.module.named_modules()) if shell is None else shell.structure()
        kept = known.pop(key, None)
        if kept is None or kept[0] != parts:
            kept = (parts, find())
        known[key] = kept  # the last in order is the one used last
        while len(known) > KEPT:
            known.popitem(last=False)
        found: Result = kept[1]
        return found

    def _rows(self, images: Tensor, inputs: Call) -> tuple[LayerRow, ...]:
        """Return the layers that yield a map for these inputs; none where there is none."""
        try:
            return self.table(images, inputs).rows
        except LayerError:
            return ()

    def answers(self, images: Tensor, seed: int, inputs: Call | None = None) -> Tensor:
        """Return what the model answers `(batch, *output)` about a batch, float32 in main memory; nothing is recorded."""
        forward = self._forward.about(inputs)
        with borrowed(self.module, seed):
            return forward.run(forward.placed(images), (), Tape(gradients=False)).detach().float().cpu()

    def text_vectors(self, texts: Sequence[str], seed: int) -> Tensor:
        """Return the vectors `(text, feature)`, each of length 1, that a model of images and texts has for texts.

        Raises:
            RecordingError: the text tower raised.
            SeewhyError: the tokenizer or a text does not do.
        """
        tower = self.module
        if not isinstance(tower, ImageTower):
            raise ModelError(f"{type(tower).__name__} has no text tower.")
        found = []
        for chunk in (texts[at : at + TEXTS] for at in range(0, len(texts), TEXTS)):
            tokens = tower.tokens(chunk)
            with borrowed(tower, seed):
                try:
                    found.append(tower.text_vectors(tokens).cpu())
                except SeewhyError:
                    raise
                except Exception as error:
                    raise RecordingError(
                        f"The text tower of {type(tower.model).__name__} raised {type(error).__name__} for {len(chunk)} texts: "
                        f"{error} Check that it takes what the tokenizer gives when called by itself."
                    ) from error
        return torch.cat(found)

    def record(
        self,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor, Kind], Sequence[Question]],
        *,
        needs: Needs,
        conditions: Conditions | None = None,
        inputs: Call | None = None,
    ) -> Recordings:
        """Run the model once on a batch and record what the layers did about each question.

        Args:
            images: `(batch, channel, *space)`, any device and float type.
            layers: rows of :meth:`table`.
            ask: turns the outputs `(batch, *output)`, and what they are, into questions.
            needs: what the methods will use.
            conditions: the seed for all that is drawn at random, and what holds for further runs.
            inputs: the other inputs of a model that takes several, of one sample.

        Raises:
            RecordingError: the model raised, or returned no scores.
            LayerError: the score does not depend on a layer.
        """
        forward, conditions = self._forward.about(inputs), conditions or Conditions()
        return despite_overwriting(lambda: self._record(forward, images, layers, ask, needs, conditions))

    def _record(
        self,
        forward: Forward,
        images: Tensor,
        layers: Sequence[LayerRow],
        ask: Callable[[Tensor, Kind], Sequence[Question]],
        needs: Needs,
        conditions: Conditions,
    ) -> Recordings:
        begin = time.perf_counter()
        images = forward.placed(images)
        gradients = needs.gradients and bool(layers)
        attending = Attending(forward, images, self._rows(images, forward.inputs), needs) if needs.attention else None
        curved = gradients and Needs.CURVATURE in needs
        head_tap = HeadTap()
        with (
            borrowed(self.module, conditions.seed),
            head_tap.on(self.module) if Needs.HEAD in needs else nullcontext(),
            double_differentiable() if curved else nullcontext(),
        ):
            tape, outputs = forward.connected(
                images,
                [*layers, *(attending.watched if attending else ())],
                gradients=gradients or (attending is not None and attending.differentiates),
                attention=attending.tap if attending else None,
            )
            if gradients and not outputs.requires_grad:
                raise LayerError(not_connected([row.name for row in layers]))
            questions = tuple(ask(outputs.detach(), tape.kind))
            attention = attending.record(tape, outputs, questions) if attending else None
            activations = {row.name: read_as(tape.last(row.name), row) for row in layers}
            scores, found, curvatures = differentiate(
                tape if gradients else None, outputs, questions, layers, curved=curved
            )
            heads = head_tap.found(activations, outputs, questions if Needs.HEAD in needs else ())
        backwards = len(questions) * (needs.backwards if layers else int(needs.attention))
        return Recordings(
            images=images,
            outputs=outputs.detach().float(),
            kind=tape.kind,
            layers=tuple(layers),
            questions=questions,
            activations=activations,
            scores=scores,
            gradients=found,
            curvatures=curvatures,
            heads=heads,
            attention=attention,
            cost=Cost(tape.forwards, backwards, time.perf_counter() - begin),
            conditions=conditions,
            calls=tape.calls,
            engine=Engine(TorchBackend(forward), images, conditions),
            needs=needs,
            inside=tape.inside,
            again=partial(self._again, forward.inputs, layers),
        )

    def _again(
        self,
        inputs: Call,
        layers: Sequence[LayerRow],
        varied: Tensor,
        asked: tuple[Question, ...],
        sharing: Sharing,
        conditions: Conditions,
    ) -> Recordings:
        """Record the given questions for varied images, with the other inputs as they were."""
        rows = [row for row in layers if row.name in sharing.layers]
        ask = lambda _outputs, _kind: asked  # noqa: E731
        return self.record(varied, rows, ask, needs=sharing.needs, conditions=conditions, inputs=inputs)
