"""Borrowing a model: whatever is done meanwhile, it is given back as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from seewhy.kept import buffers_kept, evaluation

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule", "_FabricModule", "FullyShardedDataParallel")

# One for the whole process: modes and hooks are shared by every wrapper of a module, random state by all models.
_lock = threading.RLock()


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside DataParallel, DDP, Fabric or `torch.compile`; any other module is returned as it is."""
    while type(module).__name__ in _WRAPPERS:
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


@contextmanager
def borrowed(module: nn.Module, seed: int) -> Iterator[None]:
    """Hold a model in evaluation mode, without a graph, with its random draws seeded; then restore everything.

    Restored, also after an exception: the mode of every submodule, the buffers, the random state, the caller's gradient
    mode. One thread at a time holds any model.
    """
    with ExitStack() as stack:
        stack.enter_context(_lock)
        parts = list(module.modules())
        stack.enter_context(evaluation(parts))
        # Torch's own modules change none in evaluation mode.
        stack.enter_context(buffers_kept([part for part in parts if not type(part).__module__.startswith("torch.nn.")]))
        stack.enter_context(_seeded(module, seed))
        if _is_compiled(parts):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # hooks do not exist in compiled code
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        yield


@contextmanager
def as_in_training(module: nn.Module, training: Sequence[nn.Module]) -> Iterator[None]:
    """While a model is held, let these parts of it be in training mode; what they change in their buffers is put back."""
    with buffers_kept(list(module.modules())):
        for part in training:
            part.training = True
        try:
            yield
        finally:
            for part in training:
                part.training = False


@contextmanager
def _seeded(module: nn.Module, seed: int) -> Iterator[None]:
    """Seed what the model itself may draw (a dropout that ignores eval), and put the random state back."""
    on_gpu = (p.device for p in module.parameters() if p.is_cuda) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    devices = set(on_gpu)
    state = torch.get_rng_state()
    cuda_states = {device: torch.cuda.get_rng_state(device) for device in devices}
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for device, cuda_state in cuda_states.items():
            torch.cuda.set_rng_state(cuda_state, device)


def _is_compiled(parts: list[nn.Module]) -> bool:
    return any(
        getattr(part, "_compiled_call_impl", None) is not None or type(part).__name__ == "OptimizedModule"
        for part in parts
    )
