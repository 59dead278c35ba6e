"""Arrays from files: what numpy saved comes back, and nothing else is read, made or run."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from seewhy.errors import ImageError
from seewhy.images.arrays import is_array_file, read_array, refuse_other_formats

VALUES = np.random.default_rng(0).normal(size=(2, 3, 5))
KINDS = ["float32", "float64", "float16", ">f4", "int16", ">i2", "uint8", "bool"]


def npy(array, **how):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **how)
    return buffer.getvalue()


def claiming(shape, dtype="<f4", data=b""):
    """An .npy file with any header."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "CF")
def test_what_was_saved_comes_back(kind, order, tmp_path):
    array = np.asarray(VALUES * 10, kind, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        found = read_array(tmp_path / name)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


BAD = {
    "pickle": (pickle.dumps(Trap()), "no .npy file that can be read safely"),
    "objects": (npy(np.array([Trap()], object), allow_pickle=True), "object values"),
    "complex": (npy(VALUES + 0j), "complex128"),
    "words": (npy(np.array(["a"])), "<U1"),
    "fields": (npy(np.zeros(2, [("a", "f4")])), "values; a model's input is real numbers"),
    "nothing": (b"", "is empty"),
    "text": (b"1 2 3\n", "no .npy file"),
    "a huge claim": (claiming((10**6, 10**6)), "over the limit"),
    "a claim that overflows": (claiming((2**62, 2**62, 16)), "over the limit"),
    "a negative side": (claiming((-4, 3)), "no array has"),
    "cut off": (npy(VALUES)[:-8], "truncated"),
    "code in the header": (b"\x93NUMPY\x01\x00\x20\x00" + b"{'descr':__import__('os').getcwd()}\n", "read safely"),
}


@pytest.mark.parametrize(("data", "told"), BAD.values(), ids=BAD)
def test_what_is_no_array_of_numbers_is_refused_before_anything_is_made_of_it(data, told, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ImageError, match=told):
        read_array(tmp_path / "a.npy")
    if data:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("arr_0.npy", data)
        with pytest.raises(ImageError, match=told):
            read_array(tmp_path / "a.npz")


def test_a_small_archive_that_unpacks_to_a_huge_array_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", np.zeros(500_000, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 5_000
    with pytest.raises(ImageError, match=r"claims 500,\d+ bytes, over the limit of 100,000"):
        read_array(tmp_path / "a.npz", limit=100_000)
    assert read_array(tmp_path / "a.npz").sum() == 0


def test_several_arrays_are_told_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", signal=VALUES, label=np.array(3))
    with pytest.raises(ImageError, match=r"holds 2 arrays \(signal, label\)"):
        read_array(tmp_path / "a.npz")


def test_damaged_bytes_are_read_or_refused_but_never_crash(tmp_path):
    chance = np.random.default_rng(0)
    path, refused = tmp_path / "a.npz", 0
    np.savez_compressed(path, VALUES)
    data = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 3, 9))):
            damaged[chance.integers(len(data))] = chance.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_array(path).dtype.kind in "buif"
        except ImageError:
            refused += 1
    assert refused


def test_an_array_file_is_known_by_its_ending():
    assert [name for name in ("a.npy", "A.NPZ", "a.png", b"a.npy") if is_array_file(name)] == ["a.npy", "A.NPZ"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("scan.nii.gz", r"NIfTI.*nibabel\.load"),
        ("SCAN.DCM", r"DICOM.*pydicom\.dcmread"),
        ("a.h5", "HDF5"),
        ("a.mat", "MATLAB"),
        ("a.mp4", "video"),
    ],
)
def test_other_formats_are_told_how_to_convert(name, told, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageError, match=told):
        refuse_other_formats(tmp_path / name)
    refuse_other_formats(tmp_path / f"none-{name}")  # what is not there is told as that
