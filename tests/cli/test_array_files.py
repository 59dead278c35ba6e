"""Signals, volumes and pictures of many channels on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Run = Callable[..., tuple[int, str, str]]
ZOO_MODEL = ("--model", "zoo:Colours", "--labels", "names.txt")


def test_a_signal_is_explained_from_an_array_file(run: Run, home: Path) -> None:
    signal = np.zeros((2, 60))
    signal[0, 40:44] = 1
    np.save(home / "ecg.npy", signal)
    code, out, err = run("explain", "ecg.npy", "--model", "zoo:line", "-t", "0", "-f", "png", "-f", "npz")
    assert (code, err) == (0, "")
    assert "ecg.npy: what" in out
    heatmap = np.load(home / "ecg.why.npz")["heatmap"]
    assert heatmap.shape == (60,)
    assert 39 <= heatmap.argmax() <= 44
    with Image.open(home / "ecg.why.png") as picture:
        assert picture.width > 700
    code, out, _ = run("layers", "zoo:line", "--image", "ecg.npy", "--json")
    assert json.loads(out)[0]["grid"] == "30"
    assert run("compare", "ecg.npy", "--model", "zoo:line", "-m", "grad-cam", "-m", "saliency")[0] == 0


def test_a_volume_is_explained_from_an_array_file_and_animated(run: Run, home: Path) -> None:
    scan = np.zeros((1, 8, 10, 14), np.int16)
    scan[0, 4:6, 2:4, 10:12] = 900
    np.savez_compressed(home / "scan.npz", scan)
    code, out, _ = run("explain", "scan.npz", "--model", "zoo:volume", "-t", "0", "-f", "gif", "-f", "npz", "-f", "png")
    assert code == 0
    assert "note: whole numbers (int16) were given to the model as they are" in out
    heatmap = np.load(home / "scan.why.npz")["heatmap"]
    assert heatmap.shape == scan.shape[1:]
    peak = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert all(low <= at < low + 2 for at, low in zip(peak, (4, 2, 10), strict=True))
    with Image.open(home / "scan.why.gif") as found:
        assert found.n_frames == 8


def test_the_channels_that_are_shown_are_chosen_on_the_command_line(run: Run, home: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(home / "field.npy", rng.random((5, 40, 40)))
    words = ("explain", "field.npy", "--model", "zoo:bands", "-t", "0")
    code, out, _ = run(*words)
    assert code == 0
    assert "note: picture: the mean of its 5 channels" in out
    grey = np.asarray(Image.open(home / "field.why.png"), int)[:300, :300]
    assert run(*words, "--channels", "3,2,1")[0] == 0
    coloured = np.asarray(Image.open(home / "field.why.png"), int)[:300, :300]
    # The picture is enlarged eightfold; where the map is clear its colours are the channels', else grey.
    assert np.median(np.ptp(grey, axis=-1)) < np.median(np.ptp(coloured, axis=-1))
    code, _, err = run(*words, "--channels", "3,2,9")
    assert code == 1
    assert "5 channels, 0 to 4" in err
    code, _, err = run("explain", "cat.png", *ZOO_MODEL, "--channels", "0")
    assert code == 1
    assert "is a picture already" in err


def test_array_files_that_are_not_safe_or_do_not_fit_are_told(run: Run, home: Path) -> None:
    np.save(home / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(home / "wrong.npy", np.zeros((60, 2)))
    (home / "scan.nii.gz").write_bytes(b"x")
    for name, told in (("objects.npy", "object values"), ("wrong.npy", "channels last"), ("scan.nii.gz", "nibabel")):
        code, _, err = run("explain", name, "--model", "zoo:line")
        assert code == 1
        assert told in err
