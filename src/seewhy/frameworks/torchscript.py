"""TorchScript modules, traced or scripted: only the whole can be run and differentiated; their layers run outside Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.frameworks.shell import LAYERS, TORCH_ONLY, Shell, Structure, named, structure_of
from seewhy.kept import buffers_kept, evaluation

_INSTEAD = "Use 'integrated-gradients', 'smoothgrad', 'rise' or 'occlusion', or the module that it was made from."


class TorchShell(Shell):
    """A model that is of torch, but not of modules that can be listened to; it is held in evaluation mode while it runs."""

    def __init__(self, model: Any, program: nn.Module, axes: int = 2, channels: int | None = None) -> None:
        super().__init__(model, axes, channels)
        self.__dict__["program"] = program  # not as a part, as the model
        self.program: nn.Module

    def name_of(self, layer: Any) -> str | None:  # noqa: ARG002
        """Return None: its own layers are no objects that a caller can have."""
        return None

    def structure(self) -> Structure:
        """Return what changes when the model's parts do."""
        return structure_of(self.program.named_modules())

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the model's own."""
        return self.program.named_parameters(*args, **kwargs)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's own."""
        return self.program.named_buffers(*args, **kwargs)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TorchShell:
        self.program._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class ScriptShell(TorchShell):
    """A TorchScript module."""

    framework = "TorchScript"
    usual = "integrated-gradients"
    why_usual = "a TorchScript module has no layers to listen to"
    lacks: Mapping[str, str] = {
        **dict.fromkeys(LAYERS, f"its layers cannot be listened to. {_INSTEAD}"),
        **dict.fromkeys(
            (TORCH_ONLY.keys() | {"RELU_RULE"}) - set(LAYERS), f"what is inside it cannot be seen. {_INSTEAD}"
        ),
    }

    def __init__(self, model: torch.jit.ScriptModule) -> None:
        super().__init__(model, model)
        self.__class__ = named(type(self), getattr(model, "original_name", type(model).__name__))

    @property
    def words(self) -> str:
        """How messages speak of it."""
        return "this TorchScript module"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module in evaluation mode."""
        parts = list(self.program.modules())
        with evaluation(parts), buffers_kept(parts):
            if len(args) == 1 and not kwargs and self._misread(args[0]):
                with suppress(RuntimeError):  # where it takes its input in rows only, by view()
                    return self.program(args[0].contiguous(memory_format=torch.channels_last))
            return self.program(*args, **kwargs)

    def _misread(self, images: Any) -> bool:
        """Return whether torch may misread a single image's derivative in batch normalisation, as it does in rows only."""
        on_cpu = isinstance(images, Tensor) and images.device.type == "cpu"
        alone = on_cpu and images.requires_grad and images.ndim == 4 and len(images) == 1
        return alone and any(name.endswith("running_mean") for name, _ in self.program.named_buffers())
