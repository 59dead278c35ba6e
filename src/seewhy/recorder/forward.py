"""Running a torch model, with whatever it needs to be run: memory order, precision, and a graph from where it is wanted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seewhy.errors import RecordingError, SeewhyError
from seewhy.recorder.memory import is_out_of_memory
from seewhy.recorder.outputs import OutputLike, find_scores
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape

Result = TypeVar("Result")

_contiguous_only: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Forward:
    """Runs one model; the caller holds it meanwhile.

    Args:
        module: the model.
        output: where in what it returns the scores are; see :func:`seewhy.recorder.outputs.find_scores`.
    """

    def __init__(self, module: nn.Module, output: OutputLike = None) -> None:
        self.module = module
        self._output = output

    def scores(self, returned: Any, batch: int) -> Tensor:
        """Return the scores `(batch, *output)` in what the model returned."""
        return find_scores(returned, batch, self._output)

    def placed(self, images: Tensor) -> Tensor:
        """Return the images where the model is and as precise as it is, free of inference mode."""
        reference = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        with torch.inference_mode(mode=False):
            images = images.clone() if images.is_inference() else images.detach()
            return images if reference is None else images.to(reference.device, reference.dtype)

    def connected(self, images: Tensor, layers: Sequence[LayerRow], *, gradients: bool) -> tuple[Tape, Tensor]:
        """Run the model; where its own `no_grad` cut the graph off after a layer, run again and keep it on."""
        tape = Tape(gradients=gradients)
        outputs = self.run(images, [row.name for row in layers], tape)
        if gradients and not outputs.requires_grad:
            tape = Tape(gradients=True, insist=True, forwards=tape.forwards)
            outputs = self.run(images, [row.name for row in layers], tape)
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
            if not (fast and "view size is not compatible" in str(error)):
                raise
            _contiguous_only.add(self.module)  # it calls view() where only reshape() allows any memory order
            tape.clear()
            returned = self.call(images, layers, tape)
        with torch.set_grad_enabled(tape.gradients or tape.begun):  # the caller's function may compute them
            return self.scores(returned, images.shape[0] if samples is None else samples)

    def call(
        self, images: Tensor, layers: Sequence[str], tape: Tape, order: torch.memory_format = torch.preserve_format
    ) -> Any:
        """Run the model and return whatever it returns.

        Raises:
            RecordingError: the model raised.
        """
        tape.forwards += 1
        with tape.on(self.module, layers), torch.set_grad_enabled(tape.begun):
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


def despite_overwriting(run: Callable[[], Result]) -> Result:
    """Run; where the model overwrites what a derivative needs, run again and let autograd keep copies (slower)."""
    try:
        return run()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return run()


def _channels_last_pays(images: Tensor) -> bool:
    """Return whether a channels-last input is worth its copy: measured on batches of pictures, not on single ones."""
    return images.ndim == 4 and images.shape[0] >= 4 and images.shape[1] > 1
