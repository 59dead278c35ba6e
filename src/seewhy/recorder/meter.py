"""How long a run takes and how much memory: measured, not guessed."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    """Return the median seconds of some runs after a first one that does not count."""
    run()
    found = []
    for _ in range(times):
        _wait()
        begin = time.perf_counter()
        run()
        _wait()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most bytes that tensors made during a run held at the same time.

    Not counted is what was there before (parameters, inputs), and what a kernel needs for itself while it works.
    """
    alive = _Alive()
    with alive:
        run()
    return alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of tensors from when an operation gives them until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in given and id(storage) not in self._held:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._now += size
        self.most = max(self.most, self._now)
        self._held[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        self._held.pop(key, None)
        self._now -= size


def _tensors(structure: Any) -> list[Tensor]:
    return [each for each in tree_leaves(structure) if isinstance(each, Tensor)]


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
