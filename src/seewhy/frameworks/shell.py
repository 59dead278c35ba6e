"""A model of another framework as a torch module whose parts can be listened to.

The recorder looks into a model in one way: by hooks on torch modules. A model of another framework gets a shell, a torch module
with a part for each of its layers, of the same names. Whenever a layer has run, its part is called with what the layer was
given and gave, as tensors: hooks on the part hear it, keep it, or hand on something else, with which the model then goes on.
Derivatives are taken by the framework itself, from what the model returned back to what was handed on; for torch they are one
step of its graph. So layers, layouts, targets, methods and figures know nothing of frameworks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from seewhy.errors import ModelError
from seewhy.images import Preprocess

Structure = tuple[tuple[str, type, int], ...]


_NO_ATTENTION = "attention is seen in models of PyTorch only. Use 'grad-cam', 'eigen-cam' or 'rise'."

TORCH_ONLY = {
    "CURVATURE": "second derivatives are taken in models of PyTorch only. Use 'grad-cam' or 'hires-cam'.",
    "PROPAGATION": "rules for all functions are given to models of PyTorch only. Use 'integrated-gradients'.",
    "BIASES": "biases are followed in models of PyTorch only. Use 'integrated-gradients', which is complete, too.",
    "MODULE": "methods of other libraries need a model of PyTorch. Use seewhy's own.",
    "ATTENTION": _NO_ATTENTION,
    "ATTENTION_GRADIENTS": _NO_ATTENTION,
    "ATTENTION_FORMATION": _NO_ATTENTION,
}
"""What no other framework is asked for, and why."""

LAYERS = ("ACTIVATIONS", "GRADIENTS", "CURVATURE", "HEAD", "REPLAY")
"""What looks at a layer."""


class Part(nn.Module):
    """Stands for one layer of the model.

    Attributes:
        order: how its output lies in memory, "channels-first" or "channels-last", where the framework says; else "".
        weight: `(out, in)` of a layer that is linear along the channels, else None.
    """

    def __init__(self, order: str = "", weight: Callable[[], Tensor] | None = None) -> None:
        super().__init__()
        self.order = order
        self._weight_of = weight

    @property
    def weight(self) -> Tensor | None:
        """The weights of a linear layer."""
        return None if self._weight_of is None else self._weight_of()

    @property
    def is_linear(self) -> bool:
        """Whether it has such weights."""
        return self._weight_of is not None

    @property
    def heard(self) -> bool:
        """Whether anyone listens."""
        return bool(self._forward_hooks or self._forward_pre_hooks)

    def forward(self, given: Tensor | None, gave: Tensor) -> Tensor:
        """Return what the layer gave; hooks hear that, and what it was given, where that is told."""
        del given
        return gave


class Shell(nn.Module):
    """A model of another framework. A framework's own class runs it: see `forward` there.

    Attributes:
        framework: its name.
        model: the model, as it was given.
        axes, channels: what its input is, where it says: spatial axes, and channels.
        preprocess: how pictures are prepared, where the model says so.
        space: the input's size `(*space)`, where it takes one only.
        lacks: what cannot be asked of it (names of :class:`seewhy.recorder.Needs`), and why, with the way out.
        usual: the method that is taken when none is named; None: as for other models.
        why_usual: why, in words.
        batch: the most images that it is given at once; None: any number.
        tally: the rule that ReLUs have now; None: their own.
        has_state: whether its weights are read and set by name, by `state_dict` and `load_state_dict`.
    """

    framework: ClassVar[str] = ""
    lacks: Mapping[str, str] = TORCH_ONLY
    usual: ClassVar[str | None] = None
    has_state: ClassVar[bool] = False
    why_usual: ClassVar[str] = ""
    model: Any

    def __init__(self, model: Any, axes: int = 2, channels: int | None = None) -> None:
        super().__init__()
        self.__class__ = named(type(self), type(model).__name__)  # by which messages tell it
        self.__dict__["model"] = model  # not as a part of this module, also where it is a torch module itself
        self.axes = axes
        self.channels = channels
        self.batch: int | None = None
        self.tally: Any = None
        self.space: tuple[int, ...] | None = None
        self.preprocess: Preprocess | None = None
        self.eval()

    @contextmanager
    def by_rule(self, tally: Any) -> Iterator[None]:
        """Give ReLUs another derivative meanwhile, where the framework can, and count them.

        Args:
            tally: a :class:`seewhy.recorder.rules.Tally`.
        """
        self.tally = tally
        try:
            yield
        finally:
            self.tally = None

    def weights(self) -> Mapping[str, Any]:
        """Return tensors, arrays or bytes by name that differ where what the model says does; nothing where none are known."""
        return self.state_dict() if self.has_state else {**dict(self.named_parameters()), **dict(self.named_buffers())}

    @property
    def words(self) -> str:
        """How messages speak of it."""
        return f"this model of {self.framework}"

    @property
    def has_layers(self) -> bool:
        """Whether anything of it can be listened to."""
        return "ACTIVATIONS" not in self.lacks

    @property
    def differentiable(self) -> bool:
        """Whether derivatives can be had at all."""
        return "INPUT_GRADIENTS" not in self.lacks

    @property
    def stands_for(self) -> Any:
        """What findings about the model are remembered by."""
        return self.model

    @property
    def prepared(self) -> Preprocess | None:
        """How pictures are usually prepared for such a model, where its input says more than its channels."""
        return None

    def structure(self) -> Structure:
        """Return what changes when the model's layers do."""
        return structure_of(self.named_modules())

    def name_of(self, layer: Any) -> str | None:
        """Return the name of one of the model's own layers; None: it has no such layer."""
        raise NotImplementedError

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load weights from a file of the framework's own.

        Raises:
            ModelError: they do not fit, or cannot be read.
        """
        raise ModelError(
            f"'{path}': weights for models of {self.framework} are loaded in Python; give the model object."
        )

    def check(self, scores: Tensor, space: tuple[int, ...]) -> None:
        """Raise RecordingError for scores `(number, *output)`, about inputs `(number, *space)`, that cannot be right."""

    def add(self, name: str, kind: str, part: Part) -> None:
        """Add a part under a dotted name; the parts it lies in are added before."""
        above, _, own = name.rpartition(".")
        parent = self.get_submodule(above) if above else self
        part.__class__ = named(type(part), kind)
        parent._modules[own] = part  # a layer may be called as something that every module has, such as "model"

    def get_submodule(self, target: str) -> nn.Module:
        """Return a part by its name."""
        found: nn.Module = self
        for level in target.split(".") if target else ():
            inner = found._modules.get(level)
            if inner is None:
                raise AttributeError(f"{type(self).__name__} has no part '{target}'")
            found = inner
        return found

    def heard(self) -> dict[str, Part]:
        """Return the parts that anyone listens to now, by name."""
        return {name: part for name, part in self.named_modules() if isinstance(part, Part) and part.heard}


def structure_of(named_layers: Iterable[tuple[str, Any]]) -> Structure:
    """Return what changes when layers do: their names, types and identities."""
    return tuple((name, type(layer), id(layer)) for name, layer in named_layers)


def without_layers(shell: Shell) -> str:
    """Return what is said where a layer of a model is asked for that has none."""
    return (
        f"Of {shell.words} no layer can be seen: only the whole is run. Leave layers= out; methods that need none, such as "
        "'rise' and 'occlusion', make maps of its input."
    )


def named(base: type, name: str) -> type:
    """Return the class under another name, by which the layers of a table, and messages, are told."""
    if (base, name) not in _named:
        _named[base, name] = type(name, (base,), {})
    return _named[base, name]


_named: dict[tuple[type, str], type] = {}


def mapped(tree: Any, kind: type | tuple[type, ...], change: Callable[[Any], Any]) -> Any:
    """Return a structure of tuples, lists and mappings with every value of a kind changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(value, kind, change) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(value, kind, change) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(value, kind, change) for value in tree)
    return tree


def first_of(output: Any) -> Any:
    """Return a layer's output, or the first of several."""
    return output[0] if isinstance(output, list | tuple) and output else output


def with_first(output: Any, first: Any) -> Any:
    """Return a layer's output with the first of several replaced."""
    return type(output)((first, *output[1:])) if isinstance(output, list | tuple) else first
