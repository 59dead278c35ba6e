"""Running a torch model, with whatever it needs to be run: memory order, precision, and a graph from where it is wanted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from seewhy.errors import RecordingError, SeewhyError
from seewhy.frameworks import Shell
from seewhy.recorder.attention import AttentionTap
from seewhy.recorder.call import Call
from seewhy.recorder.listening import Listening
from seewhy.recorder.memory import is_out_of_memory
from seewhy.recorder.outputs import OutputLike, read_scores
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape
from seewhy.recorder.torchvision_detectors import torchvision_detector
from seewhy.strides import in_rows
from seewhy.targets import Kind

Result = TypeVar("Result")

_contiguous_only: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Forward:
    """Runs one model; the caller holds it meanwhile.

    Args:
        module: the model.
        output: where in what it returns the scores are; see :func:`seewhy.recorder.outputs.read_scores`.
        inputs: its other inputs, where it takes several.
    """

    def __init__(self, module: nn.Module, output: OutputLike = None, inputs: Call | None = None) -> None:
        self.module = module
        self.inputs = inputs or Call()
        self._output = output
        # A caller who says where the scores are means what the model itself returns.
        self._detector = torchvision_detector(module) if output is None else None

    def about(self, inputs: Call | None) -> Forward:
        """Return the same for a call with other inputs."""
        return Forward(self.module, self._output, inputs)

    def answer(self, images: Tensor) -> Any:
        """Return whatever the model returns; of a detector that suppresses boxes, what it had before."""
        if self._detector is not None:
            return self._detector(images)
        args, kwargs = self.inputs.filled(images)
        return self.module(*args, **kwargs)

    def scores(self, images: Tensor) -> Tensor:
        """Run the model as it is, and return the scores `(batch, *output)`."""
        return self.read(self.answer(images), images, len(images))[0]

    def read(self, returned: Any, images: Tensor, samples: int) -> tuple[Tensor, Kind]:
        """Return the scores `(samples, *output)` in what the model returned for these images, and what they are."""
        found = read_scores(returned, samples, self._output, space=tuple(images.shape[2:]), module=self.module)
        if isinstance(self.module, Shell):
            self.module.check(found[0], tuple(images.shape[1:]))
        return found

    def placed(self, images: Tensor) -> Tensor:
        """Return the images where the model is and as precise as it is, free of inference mode."""
        reference = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        with torch.inference_mode(mode=False):
            images = images.clone() if images.is_inference() else images.detach()
            return images if reference is None else images.to(reference.device, reference.dtype)

    def connected(
        self, images: Tensor, layers: Sequence[LayerRow], *, gradients: bool, attention: AttentionTap | None = None
    ) -> tuple[Tape, Tensor]:
        """Run the model; where its own `no_grad` cut the graph off after a layer, run again and keep it on."""
        names = list(dict.fromkeys(row.name for row in layers))
        tape = Tape(gradients=gradients, attention=attention)
        outputs = self.run(images, names, tape)
        if gradients and not outputs.requires_grad:
            tape = Tape(gradients=True, insist=True, forwards=tape.forwards, attention=attention)
            outputs = self.run(images, names, tape)
        return tape, outputs

    def run(self, images: Tensor, layers: Sequence[str], tape: Tape, samples: int | None = None) -> Tensor:
        """Run the model with the tape on the layers and return its scores `(batch, *output)`.

        Args:
            images: `(batch, channel, *space)`, placed.
            layers: their names.
            tape: listens; where it has begun already, the graph goes back to the images.
            samples: how many samples come out; None: as many as go in.
        """
        fast = _channels_last_pays(images) and self.module not in _contiguous_only
        try:
            returned = self.call(images, layers, tape, torch.channels_last if fast else torch.preserve_format)
        except RecordingError as error:
            if not (fast and refuses_order(error)):
                raise
            _contiguous_only.add(self.module)  # it calls view() where only reshape() allows any memory order
            tape.clear()
            returned = self.call(images, layers, tape)
        with torch.set_grad_enabled(tape.gradients or tape.begun):  # the caller's function may compute them
            scores, tape.kind = self.read(returned, images, len(images) if samples is None else samples)
            return scores

    def call(
        self, images: Tensor, layers: Sequence[str], tape: Tape, order: torch.memory_format = torch.preserve_format
    ) -> Any:
        """Run the model and return whatever it returns.

        Raises:
            RecordingError: the model raised.
        """
        tape.forwards += 1
        alone = len(images) == 1 and images.device.type == "cpu" and (tape.gradients or tape.begun)
        with (
            tape.on(self.module, layers),
            _gradients_in_rows(self.module) if alone else nullcontext(),
            torch.set_grad_enabled(tape.begun),
        ):
            try:
                returned = self.answer(images.clone(memory_format=order))  # a copy: some models write into their input
            except SeewhyError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise RecordingError(
                    f"The model {type(self.module).__name__} raised {type(error).__name__} for an input of shape "
                    f"{tuple(images.shape)}: {str(error).rstrip('.')}. {_remedy(error, images)}"
                ) from error
        tape.inside = None if self._detector is None else self._detector.inside
        return returned


@contextmanager
def _gradients_in_rows(root: nn.Module) -> Iterator[None]:
    """Let every batch normalisation that runs meanwhile get gradients in rows; see :mod:`seewhy.strides`."""
    with Listening() as listening:
        for module in root.modules():
            if isinstance(module, _NormBase):
                listening.after(module, lambda _module, _inputs, output: in_rows(output))
        yield


def despite_overwriting(run: Callable[[], Result]) -> Result:
    """Run; where the model overwrites what a derivative needs, run again and let autograd keep copies (slower)."""
    try:
        return run()
    except RuntimeError as error:
        if not is_overwriting(error):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return run()


def is_overwriting(error: BaseException) -> bool:
    """Return whether an error says that the model has overwritten what a derivative needs."""
    return "modified by an inplace operation" in str(error)


def refuses_order(error: BaseException) -> bool:
    """Return whether an error says that the model takes its input in one memory order only."""
    return "view size is not compatible" in str(error)


def _channels_last_pays(images: Tensor) -> bool:
    """Return whether a channels-last input is worth its copy: measured on batches of pictures, not on single ones."""
    return images.ndim == 4 and images.shape[0] >= 4 and images.shape[1] > 1


def _remedy(error: Exception, images: Tensor) -> str:
    """Return what to do about an error of the model itself."""
    if isinstance(error, TypeError) and "required positional argument" in str(error):
        return "Give all inputs as a tuple, or as a dict by their names, and say with wrt= which one is explained."
    if images.ndim > 3 and images.shape[-1] in _COLOURS and images.shape[1] not in _COLOURS:
        return "A tensor is taken as (channel, height, width): bring channels that come last to the front, x.movedim(-1, 0)."
    return "Check that it takes such an input when called by itself."


_COLOURS = (1, 3, 4)
