"""How much is run at once: what an error says of memory, and the size of the first chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PIXELS = 224 * 224
# Images of 224 x 224 in one run. On a CPU, for each thread, more are slower (the cache); on a GPU fewer leave it idle.
_ON_CPU = {False: 4, True: 2}
_ON_GPU = {False: 128, True: 32}
_REPLAYED_BYTES = {"cpu": 16 << 20, "gpu": 256 << 20}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    words = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def first_chunk(image: Tensor, *, backward: bool) -> int:
    """Return how many inputs `(channel, *space)` to run at once, forwards only or backwards too."""
    images = _ON_CPU[backward] * min(16, torch.get_num_threads()) if image.device.type == "cpu" else _ON_GPU[backward]
    return max(1, min(8 * images, round(images * _PIXELS / max(1, math.prod(image.shape[1:])))))


def first_replay(activations: Tensor) -> int:
    """Return how many copies of one sample's activations `(channel, *grid)` to send through a model's tail at once."""
    limit = _REPLAYED_BYTES["cpu" if activations.device.type == "cpu" else "gpu"]
    return max(4, min(1024, limit // max(1, 4 * activations.numel())))
