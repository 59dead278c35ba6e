"""Arrays of other libraries, and from files (.npy, .npz), read safely: no pickles, no size that is not there, no code."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seewhy.errors import ImageError
from seewhy.images.read import FILE_LIMIT, file_bytes

ARRAY_ENDINGS = (".npy", ".npz")
"""Files that hold arrays, which are a model's input as they are."""

_CONVERT = {
    "DICOM": "np.save('scan.npy', pydicom.dcmread('scan.dcm').pixel_array.astype('float32')[None])",
    "NIfTI": "np.save('scan.npy', nibabel.load('scan.nii.gz').get_fdata(dtype='float32')[None])",
    "NRRD or MetaImage": "np.save('scan.npy', SimpleITK.GetArrayFromImage(SimpleITK.ReadImage('scan.nrrd'))[None])",
    "HDF5": "np.save('signal.npy', h5py.File('signal.h5')['signal'][:])",
    "MATLAB": "np.save('signal.npy', scipy.io.loadmat('signal.mat')['signal'])",
    "EDF": "np.save('signal.npy', mne.io.read_raw_edf('signal.edf').get_data().astype('float32'))",
    "WAV": "np.save('signal.npy', soundfile.read('signal.wav', dtype='float32', always_2d=True)[0].T)",
    "video": "np.save('clip.npy', np.moveaxis(torchvision.io.read_video('clip.mp4')[0].numpy(), 3, 0) / np.float32(255))",
}
_FORMATS = {
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".nii", ".nii.gz", ".img.gz"), "NIfTI"),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), "NRRD or MetaImage"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    **dict.fromkeys((".edf", ".bdf"), "EDF"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "video"),
    ".mat": "MATLAB",
    ".wav": "WAV",
}


def is_array_file(source: Any) -> bool:
    """Return whether this is the path of a file that holds arrays, by its ending."""
    return isinstance(source, str | os.PathLike) and str(source).casefold().endswith(ARRAY_ENDINGS)


def refuse_other_formats(source: Any) -> None:
    """Raise ImageError for the path of a signal, volume or video in a format that is not read; how to convert it is told."""
    if not isinstance(source, str | os.PathLike):
        return
    name = str(source).casefold()
    kind = next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), None)
    if kind is None or not Path(source).is_file():
        return  # a file that is not there is told as that
    raise ImageError(
        f"'{Path(source).name}' is a {kind} file, which seewhy does not read: what the model was given depends on how it was "
        f"prepared (spacing, window, scale). Save the model's input as an array and give that file: {_CONVERT[kind]}"
    )


def read_array(path: str | os.PathLike[str], *, limit: int = FILE_LIMIT) -> npt.NDArray[Any]:
    """Read the one array of an .npy or .npz file: real numbers, in the machine's byte order.

    Args:
        path: the file. Nothing but numbers is read from it: pickled objects are refused.
        limit: most bytes, also after unpacking: a small file can claim any size.

    Raises:
        ImageError: missing, damaged, over the limit, several arrays, or no real numbers.
    """
    path = Path(path)
    data = file_bytes(path)
    name = path.name
    if not data:
        raise ImageError(f"'{name}' is empty (0 bytes). Copy or save it again.")
    if path.suffix.casefold() == ".npz":
        data = _only_member(data, name, limit)
    array = _parsed(data, name, limit)
    return np.array(array.astype(array.dtype.newbyteorder("="), copy=False), order="C")  # a copy may be written to


def _only_member(data: bytes, name: str, limit: int) -> bytes:
    """Return the bytes of the only array in an .npz file."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
    except Exception as error:  # damaged archives fail in the ways of each of their parts
        raise _damaged(name, error) from error
    if len(members) != 1:
        names = ", ".join(each.filename.removesuffix(".npy") for each in members[:9]) or "none"
        raise ImageError(f"'{name}' holds {len(members)} arrays ({names}); an input is one. Save it alone by np.save.")
    if members[0].file_size > limit:
        raise ImageError(f"'{name}' claims {members[0].file_size:,} bytes, over the limit of {limit:,}.")
    try:
        with archive, archive.open(members[0]) as member:
            return member.read(limit)
    except Exception as error:  # as above
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"'{name}' is damaged: {error}. Copy or save it again.")


def _parsed(data: bytes, name: str, limit: int) -> npt.NDArray[Any]:
    """Return the array in the bytes of an .npy file; its claims are checked before anything is made of them."""
    stream = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        shape, by_columns, dtype = readers[version](stream)
    except Exception as error:  # numpy reads the header by Python's own parsers, which fail in many ways
        told = " ".join(str(error).split())[:200]
        raise ImageError(
            f"'{name}' is no .npy file that can be read safely: {told}. Save it again with np.save(path, array)."
        ) from error
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ImageError(
            f"'{name}' holds {dtype} values; a model's input is real numbers. Convert it: np.save(path, array.astype('float32'))."
        )
    if any(not isinstance(length, int) or length < 0 for length in shape):
        raise ImageError(f"'{name}' claims the shape {shape}, which no array has. Save it again.")
    claimed, held = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if claimed > limit:
        raise ImageError(f"'{name}' claims {claimed:,} bytes, over the limit of {limit:,}. Cut or downsample it first.")
    if claimed > held:
        raise ImageError(
            f"'{name}' is truncated: its shape {shape} needs {claimed:,} bytes, and it holds {held:,}. Copy it again."
        )
    flat = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


def as_tensor(given: Any) -> Tensor | None:
    """Return another library's array, or lists of numbers, as a tensor of the same kind of numbers; None: of no real ones."""
    if hasattr(given, "__dlpack__") and not isinstance(given, np.ndarray):
        try:
            tensor: Tensor = torch.utils.dlpack.from_dlpack(given.detach() if hasattr(given, "detach") else given)
        except (RuntimeError, TypeError, BufferError, ValueError, AttributeError):
            pass  # some kinds of numbers, devices and lazy arrays cannot be handed over like this
        else:
            return tensor.detach()
    try:
        array = np.array(given)
    except Exception:  # noqa: BLE001 - another library's own way to an array, or lists of different lengths
        return None
    if array.dtype.kind not in "fiub":
        return None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
