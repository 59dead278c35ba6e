"""What an ONNX model takes: names, types, shapes, and whether channels come first or last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ValueInfoProto
from torch import Tensor

from seewhy.errors import ModelError, RecordingError
from seewhy.frameworks.onnx.graph import Graph
from seewhy.images import Preprocess
from seewhy.images.preprocess import from_fraction

_OF_PICTURES = (1, 3, 4)
_CROPPED = 224 / 256  # the part of a picture that is left by the usual preprocessing
_TO_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        name: in the graph.
        dtype: of its numbers.
        dims: along each axis, samples first; None where any length will do.
        is_last: whether channels come last.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]
    is_last: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it may be a picture, a signal or a volume."""
        return 3 <= len(self.dims) <= 5 and (self.dtype.kind == "f" or self.dtype == np.uint8)

    @property
    def channels(self) -> int | None:
        """How many channels it has."""
        return self.dims[-1 if self.is_last else 1]

    @property
    def space(self) -> tuple[int | None, ...]:
        """The lengths of its spatial axes."""
        return self.dims[1:-1] if self.is_last else self.dims[2:]

    def array(self, given: Any, model: str) -> npt.NDArray[Any]:
        """Return what was given, an image with its channels first, as the model takes it.

        Raises:
            RecordingError: it has another shape.
        """
        values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
        if self.is_last and values.ndim == len(self.dims):
            values = np.moveaxis(values, 1, -1)
        fits = len(values.shape) == len(self.dims) and all(
            wanted in (None, length) for wanted, length in zip(self.dims[1:], values.shape[1:], strict=True)
        )
        if not fits:
            shown = tuple(np.moveaxis(values, -1, 1).shape) if self.is_last and values.ndim > 2 else values.shape
            raise RecordingError(
                f"The model {model} takes {self}, as it was exported; an input of shape {tuple(shown)} was given. Give a "
                "picture, or an input of this shape; or export the model with dynamic axes."
            )
        if self.dtype.kind in "iu" and values.dtype.kind == "f":
            limits = np.iinfo(self.dtype)
            values = values.round().clip(limits.min, limits.max)
        return np.ascontiguousarray(values, dtype=self.dtype)

    @property
    def prepared(self) -> Preprocess | None:
        """The usual preprocessing of ImageNet models at the input's size, plain pixels for bytes; None: no picture gives it."""
        if len(self.space) != 2 or self.channels not in (None, 1, 3):
            return None
        channels = self.channels or 3
        how: dict[str, Any] = {"mean": (0.449,), "std": (0.226,)} if channels == 1 else {}
        if self.dtype == np.uint8:
            how = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "scale": 255.0}
        height, width = self.space
        size = (height or width or 224, width or height or 224)
        return from_fraction(size, _CROPPED, "center", channels=channels, **how)

    def __str__(self) -> str:
        """Return, say, "'images', float32 (any, 3, 224, 224)"."""
        dims = ", ".join("any" if length is None else str(length) for length in self.dims)
        return f"'{self.name}', {self.dtype} ({dims})"


def inputs_of(graph: Graph) -> tuple[Input, ...]:
    """Return what a model takes, in the graph's order.

    Raises:
        ModelError: it takes nothing, or something other than tensors of numbers.
    """
    if not graph.inputs:
        raise ModelError("The ONNX model takes no input. Export the model itself, with the picture as its input.")
    return tuple(_input(each, graph) for each in graph.inputs)


def named(takes: Sequence[Input], model: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of one call by their names.

    Raises:
        ModelError: there are more or fewer than the model takes.
    """
    names = [each.name for each in takes]
    given, number = dict(zip(names, args, strict=False)) | dict(kwargs), len(args) + len(kwargs)
    if number == len(names) and set(given) == set(names):
        return given
    raise ModelError(
        f"The model {model} takes {len(names)} input{'s' * (len(names) > 1)}: {'; '.join(map(str, takes))}. {number} "
        f"{'was' if number == 1 else 'were'} given. Give all as a tuple in this order, or as a dict by these names, and say "
        "with wrt= which one is explained."
    )


def _input(info: ValueInfoProto, graph: Graph) -> Input:
    kind = info.type.tensor_type.elem_type
    known = onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else None
    if known is None or known.kind not in "fiub":
        found = onnx.TensorProto.DataType.Name(kind) if kind else "no tensor"
        raise ModelError(
            f"The ONNX model takes '{info.name}' as {found}. Export it with an input of float32, float16 or uint8."
        )
    dims = tuple(each.dim_value or None for each in info.type.tensor_type.shape.dim)
    return Input(info.name, known, dims, _is_last(info.name, dims, graph))


def _is_last(name: str, dims: tuple[int | None, ...], graph: Graph) -> bool:
    """Return whether channels come last: where the graph itself puts them first, or by the lengths."""
    if len(dims) not in (3, 4, 5):
        return False
    if len(dims) == 4 and any(_turns(node) for node in graph.nodes if name in node.input):
        return True
    first, last = dims[1] in _OF_PICTURES, dims[-1] in _OF_PICTURES
    return last and not first


def _turns(node: onnx.NodeProto) -> bool:
    """Return whether a node puts channels first that came last."""
    return node.op_type == "Transpose" and any(
        attribute.name == "perm" and tuple(attribute.ints) == _TO_CHANNELS_FIRST for attribute in node.attribute
    )
