"""How much is run at once: what an error says of memory, and the size of the first chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_PIXELS = 224 * 224
# Images of 224 x 224 in one run. On a CPU, for each thread, more are slower (the cache), and very many do not fit; on a GPU
# fewer leave it idle.
_ON_CPU = {False: 3, True: 3}
_MOST_ON_CPU = {False: 24, True: 12}
_ON_GPU = {False: 128, True: 32}
_MOST_REPLAYS = {"cpu": 256, "gpu": 1024}
_REPLAYED_BYTES = {"cpu": 64 << 20, "gpu": 256 << 20}


_BLOCK = 31 << 20


@contextmanager
def heap_kept() -> Iterator[None]:
    """Meanwhile, let the C library keep what is freed for what is needed next (about 128 MiB).

    glibc gives freed memory back to the system, which clears every page anew for the next layer: a fifth of a small network's
    time. It does not for blocks no larger than the largest that it ever saw freed (32 MiB at most), nor for what lies before
    one that is in use. That one here is never written to, so it takes no memory.
    """
    np.empty(_BLOCK, np.uint8)  # numpy's, because torch's may be made elsewhere, or be filled
    *freed, last = (np.empty(_BLOCK, np.uint8) for _ in range(5))
    del freed
    yield
    del last


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    words = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def first_chunk(image: Tensor, *, backward: bool) -> int:
    """Return how many inputs `(channel, *space)` to run at once, forwards only or backwards too."""
    images = _ON_GPU[backward]
    if image.device.type == "cpu":
        images = min(_MOST_ON_CPU[backward], _ON_CPU[backward] * torch.get_num_threads())
    return max(1, min(8 * images, round(images * _PIXELS / max(1, math.prod(image.shape[1:])))))


def first_replay(activations: Tensor) -> int:
    """Return how many copies of one sample's activations `(channel, *grid)` to send through a model's tail at once."""
    kind = "cpu" if activations.device.type == "cpu" else "gpu"
    return max(4, min(_MOST_REPLAYS[kind], _REPLAYED_BYTES[kind] // max(1, 4 * activations.numel())))
