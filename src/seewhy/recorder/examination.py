"""What can be found out about a torch model by running it a few times; everything is put back as it was.

Each method answers one question with numbers. Nothing here judges: that is for who asks.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seewhy.errors import RecordingError, SeewhyError
from seewhy.recorder.biases import running
from seewhy.recorder.borrow import as_in_training, borrowed
from seewhy.recorder.engine import Score, asked
from seewhy.recorder.forward import Forward, despite_overwriting, is_overwriting, refuses_order
from seewhy.recorder.listening import Listening
from seewhy.recorder.memory import is_out_of_memory
from seewhy.recorder.meter import seconds
from seewhy.recorder.outputs import listed
from seewhy.recorder.rules import Tally, refusal, relu_rule
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape
from seewhy.recorder.torch_backend import TorchBackend
from seewhy.recorder.tracing import gradient_peaks
from seewhy.targets import Kind, SurestTarget

Cut = Literal["none", "no_grad", "detach"]
"""What cuts the graph from the scores down to the input: nothing, the model's own `no_grad`, or something final."""


@dataclass(frozen=True, eq=False)
class Returned:
    """What a model returned for a batch.

    Attributes:
        shapes: of every tensor in it, by its name; "" where it is the tensor itself.
        taken: the name of the one that is read as the scores; None where a function made them.
        scores: `(batch, *output)`.
        kind: what they are.
    """

    shapes: dict[str, tuple[int, ...]]
    taken: str | None
    scores: Tensor
    kind: Kind


@dataclass(frozen=True)
class Facts:
    """What a model is made of, without running it.

    Attributes:
        parameters: how many numbers.
        bytes: what they and the buffers take.
        devices, precisions: where the parameters are, and their types.
        training: the parts that are in training mode now, by the names of their classes.
        dropouts, normalisations: how many parts are dropout, and batch normalisation.
    """

    parameters: int
    bytes: int
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    training: tuple[str, ...]
    dropouts: int
    normalisations: int


@dataclass(frozen=True)
class Normalised:
    """What the first batch normalisation that runs gets, against what it got while the model was trained.

    Attributes:
        name: the layer.
        shift: median over channels of |mean - running mean| in running standard deviations.
        spread: median over channels of standard deviation / running standard deviation.
        trained: whether the running statistics are other than those of a new layer.
    """

    name: str
    shift: float
    spread: float
    trained: bool


@dataclass(frozen=True)
class FoldingGain:
    """What folding batch normalisations into convolutions gives.

    Attributes:
        pairs: how many are folded; 0 where it is not possible.
        factor: the time of a run as the model is, divided by that of a folded one.
    """

    pairs: int
    factor: float


@dataclass(frozen=True, eq=False)
class Tail:
    """What of a model is behind a layer.

    Attributes:
        broadcasts: whether one run of what is before the layer serves many edits of it.
        edits: how many are run at once.
        run: runs them.
    """

    broadcasts: bool
    edits: int
    run: Callable[[], Tensor]


class Examination:
    """Runs one model to find out how it behaves; see :attr:`seewhy.recorder.TorchRecorder.examination`."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def facts(self) -> Facts:
        """Return what the model is made of."""
        parts = list(self._forward.module.modules())
        own = list(self._forward.module.parameters())
        held = [*own, *self._forward.module.buffers()]
        return Facts(
            parameters=sum(each.numel() for each in own),
            bytes=sum(each.numel() * each.element_size() for each in held),
            devices=tuple(sorted({str(each.device) for each in own})),
            precisions=tuple(sorted({str(each.dtype).removeprefix("torch.") for each in own})),
            training=tuple(type(part).__name__ for part in parts if part.training),
            dropouts=sum(isinstance(part, nn.modules.dropout._DropoutNd) for part in parts),
            normalisations=sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts),
        )

    def returned(self, images: Tensor) -> Returned:
        """Return all that the model gives for a batch, and what is taken of it."""
        images = self._forward.placed(images)
        with borrowed(self._forward.module, seed=0):
            given = self._forward.call(images, (), Tape(gradients=False))
            scores, kind = self._forward.read(given, images, len(images))
            shapes, taken = listed(given, scores)
        return Returned({name: tuple(value.shape) for name, value in shapes.items()}, taken, scores.detach(), kind)

    def scores(self, images: Tensor, times: int = 1) -> list[Tensor]:
        """Return the scores `(batch, *output)` of runs that follow each other, with the random state going on."""
        images = self._forward.placed(images)
        with borrowed(self._forward.module, seed=0):
            return [self._forward.run(images, (), Tape(gradients=False)).detach() for _ in range(times)]

    def scores_in_training(self, images: Tensor) -> Tensor | None:
        """Return the scores with those parts in training mode that are so now; None where none is."""
        module = self._forward.module
        training = [part for part in module.modules() if part.training]
        if not training:
            return None
        images = self._forward.placed(images)
        with borrowed(module, seed=0), as_in_training(module, training):
            return self._forward.run(images, (), Tape(gradients=False)).detach()

    def calls(self, images: Tensor) -> Counter[str]:
        """Return how often each part that gives a tensor runs in one forward."""
        names = [name for name, _ in self._forward.module.named_modules() if name]
        tape = Tape(gradients=False, note=lambda _name, _tensor: None)
        with borrowed(self._forward.module, seed=0):
            self._forward.call(self._forward.placed(images), names, tape)
        return tape.calls

    def gradient_peaks(self, images: Tensor, rows: Sequence[LayerRow]) -> dict[str, float | None]:
        """Return the largest |derivative| of the largest score at each layer; None where none gets there."""
        placed = self._forward.placed(images)
        return despite_overwriting(lambda: gradient_peaks(self._forward, placed, rows))

    def cut(self, images: Tensor) -> Cut:
        """Return what cuts the graph from the scores down to the input, if anything."""
        ways: tuple[tuple[bool, Cut], ...] = ((False, "none"), (True, "no_grad"))
        for insist, cut in ways:
            if despite_overwriting(partial(self._reaches_input, images, insist=insist)):
                return cut
        return "detach"

    def _reaches_input(self, images: Tensor, *, insist: bool) -> bool:
        """Return whether a derivative of the scores by the input exists, be it zero."""
        with borrowed(self._forward.module, seed=0):
            leaf = self._forward.placed(images).requires_grad_()
            outputs = self._forward.run(leaf, (), Tape(gradients=False, insist=insist, begun=True))
            if not outputs.requires_grad:
                return False
            with torch.enable_grad():
                [found] = torch.autograd.grad(outputs.float().sum(), [leaf], allow_unused=True)
        return found is not None

    def overwrites(self, images: Tensor, rows: Sequence[LayerRow]) -> bool:
        """Return whether the model overwrites what a derivative by these layers needs, or, without layers, by the input."""
        images = self._forward.placed(images)
        try:
            if rows:
                gradient_peaks(self._forward, images, rows)
            else:
                target = SurestTarget(self.returned(images).kind)
                with borrowed(self._forward.module, seed=0):
                    TorchBackend(self._forward).plain_derivatives(
                        images, lambda outputs: asked([target] * len(outputs), outputs), None
                    )
        except (RuntimeError, RecordingError) as error:
            if not is_overwriting(error):
                raise
            return True
        return False

    def refuses_channels_last(self, images: Tensor) -> bool:
        """Return whether the model takes pictures in the usual memory order only, as `view` needs it."""
        with borrowed(self._forward.module, seed=0):
            try:
                self._forward.call(self._forward.placed(images), (), Tape(gradients=False), torch.channels_last)
            except RecordingError as error:
                if not refuses_order(error):
                    raise
                return True
        return False

    def first_normalisation(self, images: Tensor) -> Normalised | None:
        """Return what the first batch normalisation gets; None where there is none with statistics of its own."""
        heard: list[tuple[str, nn.Module, Tensor]] = []
        with borrowed(self._forward.module, seed=0), Listening() as listening:
            for name, part in self._forward.module.named_modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                    listening.before(part, _hear(name, heard))
            self._forward.call(self._forward.placed(images), (), Tape(gradients=False))
        if not heard:
            return None
        name, part, given = heard[0]
        statistics = running(part)
        if statistics is None:
            return None
        mean, variance = statistics
        values = given.float().movedim(1, 0).flatten(1)
        deviation = (variance + 1e-12).sqrt()
        shift = ((values.mean(1) - mean).abs() / deviation).median()
        spread = (values.std(1, correction=0) / deviation).median()
        trained = not (bool((mean == 0).all()) and bool((variance == 1).all()))
        return Normalised(name, float(shift), float(spread), trained)

    def tail(self, images: Tensor, row: LayerRow, edits: int = 16) -> Tail:
        """Return what is behind a layer, for so many edits of it at once."""
        with borrowed(self._forward.module, seed=0):
            tape = Tape(gradients=False)
            self._forward.run(self._forward.placed(images), [row.name], tape)
            activations = row.layout.to_channels_first(tape.last(row.name))[:1]
            call = row.call or tape.calls[row.name]
            replayer = TorchBackend(self._forward).replayer(images[:1], row, call)
            broadcasts = replayer.broadcasts(activations[0])

        def run() -> Tensor:
            with borrowed(self._forward.module, seed=0):
                return replayer(activations.expand(edits, *activations.shape[1:]))

        return Tail(broadcasts, edits, run)

    def folding(self, images: Tensor) -> FoldingGain:
        """Return how many batch normalisations can be folded, and how much faster the model then is."""
        backend = TorchBackend(self._forward)
        with backend.holding(0):
            plain = seconds(lambda: backend.outputs(images))
            backend.rehearse(images[:1])
            pairs = backend.folded_pairs
            return FoldingGain(pairs, plain / seconds(lambda: backend.outputs(images)) if pairs else 1.0)

    def activation_functions(self, images: Tensor) -> tuple[Tally, str | None]:
        """Return which activation functions run, and why guided backpropagation is not possible; None where it is."""
        images = self._forward.placed(images)
        with borrowed(self._forward.module, seed=0), relu_rule("guided") as tally:
            self._forward.run(images.requires_grad_(), (), Tape(gradients=False, begun=True))
        return tally, refusal(tally, type(self._forward.module).__name__)

    def input_gradients(self, images: Tensor, score: Score) -> Tensor:
        """Return the derivatives of the scores by the images, `(batch, channel, *space)` float32."""
        backend = TorchBackend(self._forward)
        with backend.holding(0):
            return backend.derivatives(images, score, None)[1]

    def copied(self, precision: torch.dtype) -> nn.Module:
        """Return a copy of the model in another precision.

        Raises:
            RecordingError: it cannot be copied.
        """
        try:
            return copy.deepcopy(self._forward.module).to(precision)
        except SeewhyError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise RecordingError(
                f"The model {type(self._forward.module).__name__} cannot be copied: {type(error).__name__}: {error} "
                "Copy it yourself where another precision is to be tried."
            ) from error


def _hear(name: str, heard: list[tuple[str, nn.Module, Tensor]]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hear(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not heard and inputs and isinstance(inputs[0], Tensor):
            heard.append((name, part, inputs[0].detach().clone()))

    return hear
