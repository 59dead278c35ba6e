"""The model's tail on edited activations: one image goes in, and in the layer's hook many edited outputs go on.

All that comes before the layer is then computed once for all edits of a run, and all behind broadcasts over them. A model
whose tail does not (it remembers the batch size, or concatenates with something from before the layer) gets a copy of the
image for each edit instead; which one a model needs is tried once, on two edits, by comparison.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import RecordingError
from seewhy.recorder.listening import Listening
from seewhy.recorder.memory import first_chunk, first_replay, is_out_of_memory
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import first_tensor, with_first_tensor

Run = Callable[[Tensor, int], Tensor]
"""From images and the number of samples that come out to their outputs."""

_broadcasting: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], bool]] = weakref.WeakKeyDictionary()

SAME = 1e-3
"""Largest difference, as a part of the largest output, at which both ways count as the same."""


class TorchReplayer:
    """Runs what is behind one layer of a torch model, for one image.

    Args:
        module: the model.
        run: runs it.
        image: `(1, channel, *space)`.
        layer: whose output is replaced.
        call: which of the layer's runs, 1 the first.
    """

    def __init__(self, module: nn.Module, run: Run, image: Tensor, layer: LayerRow, call: int) -> None:
        self._module = module
        self._model = run
        self._image = image
        self._layer = layer
        self._call = call
        self._key = (layer.name, call, tuple(image.shape))

    def chunk(self, activations: Tensor) -> int:
        """Return how many copies of activations `(channel, *grid)` to run at once."""
        copies = first_chunk(self._image[0], backward=False)
        return max(copies, first_replay(activations)) if self.broadcasts(activations) else copies

    def __call__(self, activations: Tensor) -> Tensor:
        """Return the outputs `(number, *output)` for activations `(number, channel, *grid)`."""
        if self.broadcasts(activations[0]):
            try:
                return self._run(self._image, activations)
            except RecordingError:  # the model was changed since this was found out
                _broadcasting[self._module][self._key] = False
        return self._run(self._copies(len(activations)), activations)

    def _copies(self, count: int) -> Tensor:
        return self._image.expand(count, *self._image.shape[1:])

    def _run(self, images: Tensor, activations: Tensor) -> Tensor:
        with self._replacing(activations):
            return self._model(images, len(activations))

    def broadcasts(self, activations: Tensor) -> bool:
        """Return whether one run of the body serves many edits of activations `(channel, *grid)`.

        Both ways must give the same for two edits; found out once for each model, layer and shape.
        """
        known = _broadcasting.setdefault(self._module, {})
        if self._key not in known:
            known[self._key] = self._both_ways_agree(torch.stack([activations, activations * 0.5]))
        return known[self._key]

    def _both_ways_agree(self, edits: Tensor) -> bool:
        try:
            expected = self._run(self._copies(len(edits)), edits)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False  # not even two fit: one by one, then
        try:
            found = self._run(self._image, edits)
        except RecordingError:
            return False
        scale = float(expected.abs().max()) or 1.0
        return found.shape == expected.shape and float((found - expected).abs().max()) <= SAME * scale

    @contextmanager
    def _replacing(self, activations: Tensor) -> Iterator[None]:
        """Let the layer hand on the activations instead of its own output."""
        calls = 0

        def begin(_module: nn.Module, _inputs: Any) -> None:
            nonlocal calls
            calls = 0  # the model may be run again, in another memory order

        def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            nonlocal calls
            found = first_tensor(output)
            if found is None:
                return None
            calls += 1
            if calls != self._call:
                return None
            edited = self._layer.layout.from_channels_first(activations, like=found)
            # A copy, for layers behind that work in place; in the memory order of the layer's own output, which some insist on.
            return with_first_tensor(output, edited.clone(memory_format=_memory_order(found)))

        with Listening() as listening:
            listening.before(self._module, begin)
            listening.after(self._module.get_submodule(self._layer.module), replace)
            yield


def _memory_order(tensor: Tensor) -> torch.memory_format:
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
