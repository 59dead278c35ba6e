"""Models of other frameworks as torch modules that the recorder runs and listens to; none is imported before it is asked for."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seewhy.errors import ModelError
from seewhy.frameworks.shell import Part as Part
from seewhy.frameworks.shell import Shell as Shell
from seewhy.frameworks.shell import Structure as Structure


@dataclass(frozen=True)
class Framework:
    """One framework.

    Attributes:
        title: its name.
        extra: what `pip install 'seewhy[...]'` is told.
        package: what is imported for it.
        classes: (first word of a class's module, name of a class) of its models, or of what they inherit from.
        shell: (module, class) of their shell.
    """

    title: str
    extra: str
    package: str
    classes: tuple[tuple[str, str], ...]
    shell: tuple[str, str]

    def owns(self, model: Any) -> bool:
        """Return whether this is a model of the framework."""
        above = {(each.__module__.partition(".")[0], each.__name__) for each in type(model).__mro__}
        return not above.isdisjoint(self.classes)

    def ready(self) -> Any:
        """Import the framework's shell.

        Raises:
            ModelError: it is not installed.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about compilers and the like, which no explanation needs
                importlib.import_module(self.package)
            module = importlib.import_module(self.shell[0])
        except ImportError as error:
            raise ModelError(
                f"Models of {self.title} need the `{self.extra}` extra, which is not installed: "
                f"pip install 'seewhy[{self.extra}]'"
            ) from error
        return getattr(module, self.shell[1])


FRAMEWORKS: dict[str, Framework] = {
    "paddle": Framework(
        "PaddlePaddle", "paddle", "paddle", (("paddle", "Layer"),), ("seewhy.frameworks.paddle", "PaddleShell")
    ),
    "onnx": Framework(
        "ONNX",
        "onnx",
        "onnxruntime",
        (("onnx", "ModelProto"), ("onnxruntime", "InferenceSession")),
        ("seewhy.frameworks.onnx", "OnnxShell"),
    ),
    "keras": Framework("Keras", "keras", "keras", (("keras", "Layer"),), ("seewhy.frameworks.keras", "KerasShell")),
}


def is_foreign(model: Any) -> bool:
    """Return whether this is a model of another framework."""
    return any(framework.owns(model) for framework in FRAMEWORKS.values())


def shell_of(model: Any) -> Shell | None:
    """Return the shell of a model of another framework, of a sealed one of torch, or of a function; None: it is none.

    Raises:
        ModelError: its framework is not installed, or the model is not one that can be run.
    """
    for framework in FRAMEWORKS.values():
        if framework.owns(model):
            make: Callable[[Any], Shell] = framework.ready()
            return make(model)
    if isinstance(model, torch.jit.ScriptModule):
        from seewhy.frameworks.torchscript import ScriptShell

        return ScriptShell(model)
    if isinstance(model, torch.export.ExportedProgram | torch.fx.GraphModule):
        from seewhy.frameworks.exported import ExportedShell, is_exported

        return ExportedShell(model) if is_exported(model) else None
    if not callable(model) or isinstance(model, nn.Module | type):
        return None
    from seewhy.frameworks.function import FunctionShell

    return FunctionShell(model)
