"""Hooks on a model's modules: they are gone afterwards, and hear nothing of other threads that run the same model meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from torch import nn

Hook = Callable[..., Any]


class Listening(ExitStack):
    """Listens to modules until it is left, in the thread that asked for it."""

    def before(self, module: nn.Module, hook: Hook) -> None:
        """Call `hook(module, inputs)` before each run of a module."""
        self.callback(module.register_forward_pre_hook(only_here(hook)).remove)

    def after(self, module: nn.Module, hook: Hook, *, always: bool = False) -> None:
        """Call `hook(module, inputs, output)` after each run of a module; `always`: also where the run raised."""
        self.callback(module.register_forward_hook(only_here(hook), always_call=always).remove)


def only_here(hook: Hook) -> Hook:
    """Return a hook that does nothing in any other thread than this one."""
    thread = threading.get_ident()

    @wraps(hook)
    def heard(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == thread else None

    return heard
