"""Reading an ONNX model from a file that may be a stranger's: data only, and only from the model's own folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

from seewhy.errors import ModelError

_POINTER = b"version https://git-lfs"
_NODES = 10**6
"""Operations of a model with its functions written out; the largest have some ten thousand."""

_MOST = 1 << 31
"""Bytes that one protobuf message may have; the runtime is given one."""


def read_model(path: str | os.PathLike[str]) -> ModelProto:
    """Return the model in a file, with the weights that it keeps in files beside it.

    Nothing is executed, and no file outside the model's folder is opened, whatever the model says.

    Raises:
        ModelError: there is no such file, it is not an ONNX model or not a whole one, or its weights are not beside it.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"'{file}' cannot be read: {error.strerror or error}. Check the path of the ONNX file."
        ) from error
    if content.startswith(_POINTER):
        raise ModelError(f"'{file}' is a pointer of Git LFS, not the model itself. Fetch it with `git lfs pull`.")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(_not_a_model(file, str(error))) from error
    if not model.graph.node:
        raise ModelError(_not_a_model(file, "it holds no graph"))
    _read_external(model, file)
    return model


def check_whole(model: ModelProto) -> None:
    """Raise ModelError where a model in memory has its weights elsewhere."""
    outside = next((tensor.name for tensor in _external(model)), None)
    if outside is not None:
        raise ModelError(
            f"The ModelProto keeps weights ('{outside}') in another file, and it is not known in which folder. Give the path "
            "of the .onnx file, or load the weights with onnx.load()."
        )


def _not_a_model(file: Path, why: str) -> str:
    return (
        f"'{file.name}' is not an ONNX model, or not a whole one: {why}. Export it again, or fetch it again if its download was "
        "cut short."
    )


def _external(message: Any) -> Iterator[TensorProto]:
    """Yield every tensor, wherever it stands in the model, that is kept in another file."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if not isinstance(part, TensorProto):
                yield from _external(part)
            elif part.data_location == TensorProto.EXTERNAL or part.external_data:
                yield part


def _read_external(model: ModelProto, file: Path) -> None:
    folder, whole = file.resolve().parent, model.ByteSize()
    for tensor in _external(model):
        told = {entry.key: entry.value for entry in tensor.external_data}
        beside = _beside(folder, told.get("location", ""), file.name)
        try:
            offset, length = int(told.get("offset", 0)), int(told.get("length", -1))
            with beside.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                length = size - offset if length < 0 else length
                if offset < 0 or offset + length > size:
                    raise ModelError(
                        f"'{file.name}' looks for bytes {offset} to {offset + length} of '{beside.name}', which has {size}: the "
                        "file with the weights is not a whole one. Fetch it again."
                    )
                whole += length
                if whole >= _MOST:
                    raise ModelError(
                        f"'{file.name}' asks for {whole / 2**30:.1f} GiB of weights and more; 2 GiB is the most that can be run "
                        "with its inner tensors exposed. Export it in float16."
                    )
                stream.seek(offset)
                tensor.raw_data = stream.read(length)
        except (ValueError, OSError) as error:
            raise ModelError(
                f"'{file.name}' keeps its weights in '{beside.name}', which cannot be read: {error}. The file must lie "
                "beside the model, under this name."
            ) from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _beside(folder: Path, location: str, name: str) -> Path:
    """Return the file that a model keeps weights in, which must be in its own folder, also behind links."""
    windows = PureWindowsPath(location)
    is_plain = location and not (PurePosixPath(location).is_absolute() or windows.drive or windows.root)
    found = (folder / location).resolve() if is_plain and "\0" not in location else folder
    if found == folder / name:
        raise ModelError(
            f"'{name}' keeps weights in itself, by which a small file may ask for any amount of memory: it was refused. Put the "
            "weights into a file of their own, or into the model proper."
        )
    if found == folder or not found.is_relative_to(folder):
        raise ModelError(
            f"'{name}' keeps weights in '{location}', outside its own folder. Such a file is not opened: a stranger's model "
            "could read any of yours. Put the weights beside the model and export it so."
        )
    if not found.is_file():
        raise ModelError(
            f"'{name}' keeps its weights in '{location}', which is not there. Put that file beside the model, under this name."
        )
    return found


def serialized(model: ModelProto) -> bytes:
    """Return a model as the runtime takes it.

    Raises:
        ModelError: it is too large for one message.
    """
    if model.ByteSize() >= _MOST:
        raise ModelError(
            f"The ONNX model has {model.ByteSize() / 2**30:.1f} GiB; 2 GiB is the most that can be run with its inner tensors "
            "exposed. Export it in float16."
        )
    content: bytes = model.SerializeToString()
    return content


def _written_out(model: ModelProto) -> int:
    """Return how many operations a model has with its own functions written out."""
    own = {(each.domain, each.name): each.node for each in model.functions}
    known: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[Any]) -> int:
        total = 0
        for node in nodes:
            name = (node.domain, node.op_type)
            if name in own and name not in known:
                known[name] = 1  # one that calls itself is refused by the runtime
                known[name] = size(own[name])
            total += known.get(name, 1)
        return total

    return size(model.graph.node)


def inlined(model: ModelProto) -> ModelProto:
    """Return the model with its own functions written out, so that what happens inside them can be seen."""
    if not model.functions:
        return model
    import onnx.inliner

    if (nodes := _written_out(model)) > _NODES:
        raise ModelError(
            f"The ONNX model has {len(model.functions)} functions that, written out, are {nodes:.1e} operations; {_NODES:.0e} "
            "is the most that is read. Export it without functions."
        )
    return onnx.inliner.inline_local_functions(model)
