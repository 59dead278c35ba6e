"""Watching which functions of torch a model calls, without touching its modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Watching(TorchFunctionMode):
    """Hands every function of torch that is called in this thread to :meth:`call`; torch takes the mode off meanwhile."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one function, or what stands for it."""
        raise NotImplementedError
