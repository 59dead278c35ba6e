"""Arrays from a pickle, and nothing else: what other frameworks save weights in (`.pdparams`).

A pickle is a program that calls whatever it names. Here it finds stand-ins only, which take the numbers of an array and nothing
more: numpy's own classes could be told to take bytes for addresses.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seewhy.errors import ModelError

_NUMBERS = re.compile(r"[fiub][1248]")
_ARRAY = object()
"""Stands for the class of arrays, which a pickle only names and may not call."""


class _Foreign(pickle.UnpicklingError):
    """The pickle names, or does, something else."""


class _Type:
    """Stands for the type of an array's numbers."""

    def __init__(self, code: object, *_more: object) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise _Foreign(f"numbers of type {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|") or any(part not in (None, -1, 0) for part in state[2:]):
            raise _Foreign("a type with parts")
        self.order = str(state[1]).replace("|", "=")


class Stored:
    """Stands for an array; its values are in `array` when it is read."""

    array: npt.NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, values = state
        if not (isinstance(kind, _Type) and isinstance(values, bytes)):
            raise _Foreign("an array of objects")
        found = np.frombuffer(values, np.dtype(f"{kind.order}{kind.code}")).reshape(
            shape, order="F" if by_columns else "C"
        )
        self.array = found.astype(found.dtype.newbyteorder("="))


def _stored(kind: object, _shape: object, _code: object) -> Stored:
    if kind is not _ARRAY:
        raise _Foreign("an array of another class")
    return Stored()


def _as_bytes(text: str, coding: str) -> bytes:
    """Return the bytes that old protocols write as text."""
    if coding != "latin1":
        raise _Foreign(f"text in {coding}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _stored for core in ("core", "_core")},
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _Type,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("_codecs", "encode"): _as_bytes,
}


class _ArraysOnly(pickle.Unpickler):
    """Knows arrays and containers; any other name is refused before anything is made of it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Foreign(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_arrays(path: Path) -> object:
    """Return the containers and arrays in a pickle, arrays as :class:`Stored`.

    Raises:
        ModelError: it is damaged, or holds anything else, which is not run.
    """
    try:
        content = path.read_bytes()
        _check_memo(content)
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except _Foreign as error:
        raise ModelError(
            f"'{path.name}' holds more than arrays ({error}), and reading that could run code: it was refused. Save the "
            "state dict alone (`paddle.save(model.state_dict(), ...)`) where you trust it."
        ) from error
    except Exception as error:  # damaged bytes reach many corners of the reader
        raise ModelError(
            f"'{path.name}' is not a complete file of weights: {type(error).__name__}: {error}. Copy or save it again."
        ) from error


def _check_memo(content: bytes) -> None:
    """Refuse places in the reader's memo beyond the file's own length: it would make room for all before them."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise _Foreign(f"a memo of {argument} places")
