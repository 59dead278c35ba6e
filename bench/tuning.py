"""The batch size at which a peer is fastest: found beforehand on a part of its work, so that nobody is measured at a bad one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bench.peers import Run, Task
from bench.timing import wait

Bind = Callable[[Task, int, ExitStack], Run]
"""From a task, a batch size and a stack for what must be closed to a run."""

SIZES = (1, 4, 8, 16, 32)
ON_CUDA = (*SIZES, 64, 128, 256)


class Enough(Exception):  # noqa: N818
    """Stops a library in the middle of its work."""


def sizes_for(device: str) -> tuple[int, ...]:
    """Return the batch sizes that are tried."""
    return ON_CUDA if device.startswith("cuda") else SIZES


def best_size(bind: Bind, task: Task, device: str) -> int:
    """Return the batch size at which a library sends the most images a second through the model."""
    sizes = sizes_for(device)
    images = 2 * sizes[-1]
    return max(sizes, key=lambda size: images_a_second(bind, task, size, images, device))


def images_a_second(bind: Bind, task: Task, size: int, images: int, device: str) -> float:
    """Return a library's rate between its first batch and the end, or the batch after `images` of them."""
    model = copy.deepcopy(task.model)
    with torch.no_grad():
        model(task.images[:1].expand(size, *task.images.shape[1:]))
    counter = Counter(size, images, device)
    model.register_forward_pre_hook(counter)
    with ExitStack() as stack:
        run = bind(replace(task, model=model), size, stack)
        try:
            run()
        except Enough:
            pass
        else:
            counter.stop()
    return counter.rate


class Counter:
    """A hook before a model's forwards that counts images and seconds, and stops the run when there are enough.

    Args:
        size: of a batch; the clock starts at the first of several images (size 1: at the third, before are other things).
        images: how many are enough.
        device: "cuda" is waited for.
    """

    def __init__(self, size: int, images: int, device: str) -> None:
        self._size, self._enough, self._device = size, images, device
        self._calls = self._images = 0
        self._begin: float | None = None
        self._end = 0.0

    def __call__(self, _model: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count one batch.

        Raises:
            Enough: there were enough before it.
        """
        self._calls += 1
        number = len(inputs[0])
        if self._begin is None:
            early = self._calls < 3 if self._size == 1 else number == 1
            if early:
                return
            wait(self._device)
            self._begin = time.perf_counter()
        elif self._images >= self._enough:
            self.stop()
            raise Enough
        self._images += number

    def __deepcopy__(self, _memo: dict[int, Any]) -> Counter:
        return self  # the copies that peers are given of a model count here

    def stop(self) -> None:
        """Stop the clock."""
        wait(self._device)
        self._end = time.perf_counter()

    @property
    def rate(self) -> float:
        """Images a second; 0 where the clock never started."""
        return 0.0 if self._begin is None else self._images / (self._end - self._begin)


def stop_after(model: nn.Module, calls: int) -> None:
    """Let a model raise :class:`Enough` in the forward after `calls` of them."""
    done = 0

    def count(_model: nn.Module, _inputs: Sequence[Any]) -> None:
        nonlocal done
        done += 1
        if done > calls:
            raise Enough

    model.register_forward_pre_hook(count)
