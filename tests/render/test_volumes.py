"""Volumes: the right slices, in their own order and on one scale, side by side and as an animation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.comparison import Comparison
from seewhy.errors import RenderError
from seewhy.render import overlay

RNG = np.random.default_rng(0)
SHAPE = (20, 6, 9)


def volume(make, channels=1, raw=None, **more):
    raw = RNG.random(SHAPE).astype(np.float32) if raw is None else raw
    return make(raw, image=None, input=RNG.normal(size=(channels, *raw.shape)).astype(np.float32), **more)


def cells(drawn):
    return [ax for ax in drawn.axes if ax.get_images()]


def titles(drawn):
    return [ax.get_title() for ax in cells(drawn)]


def marked(*places):
    raw = np.zeros(SHAPE, np.float32)
    for place, value in places:
        raw[place] = value
    return raw


def test_slices_with_the_most_of_the_map_are_shown_with_their_numbers_and_shares(make):
    raw = marked(((17, 2, 3), 3.0), ((4, 5, 8), 1.0))
    drawn = volume(make, raw=raw).figure()
    assert len(titles(drawn)) == 12
    assert "slice 4 (25%)" in titles(drawn)
    assert "slice 17 (75%)" in titles(drawn)
    assert "12 of 20 slices, those with the most of the map, along axis 0" in drawn.get_suptitle()


def test_a_slice_is_the_overlay_of_its_own_cut_on_the_scale_of_the_whole(make):
    raw = marked(((17, 2, 3), 2.0), ((4, 5, 8), 1.0))
    why = volume(make, raw=raw)
    drawn = why.figure(slices=[4, 17])
    low, high = np.percentile(why.input, (1, 99))
    grey = np.rint(np.clip((why.input[0] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    for ax, number in zip(cells(drawn), (4, 17), strict=True):
        flat = make(raw[number], image=np.stack([grey[number]] * 3, -1))
        np.testing.assert_array_equal(ax.get_images()[0].get_array(), np.asarray(overlay(flat, scaling=2.0)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_may_be_cut_and_the_others_keep_their_order(make, axis):
    why = volume(make)
    drawn = why.figure(slices=[3], axis=axis)
    rest = [side for number, side in enumerate(SHAPE) if number != axis]
    assert cells(drawn)[0].get_images()[0].get_array().shape == (*rest, 3)
    assert f"1 of {SHAPE[axis]} slices along axis {axis}" in drawn.get_suptitle()
    plain = np.asarray(cells(why.figure(slices=[3], axis=axis, opacity=0.0))[0].get_images()[0].get_array())
    cut = np.take(why.input[0], 3, axis)
    order = np.argsort(cut, axis=None)
    assert (np.diff(plain[..., 0].ravel()[order].astype(int)) >= 0).all()


def test_evenly_spread_slices_begin_and_end_with_the_volume(make):
    found = titles(volume(make).figure(slices="even"))
    assert (found[0].split(" (")[0], found[-1].split(" (")[0]) == ("slice 0", "slice 19")
    assert len(found) == 12


def test_a_video_has_frames_in_colour(make):
    why = volume(make, 3)
    drawn = why.figure(slices=[0], opacity=0.0)
    assert titles(drawn)[0].startswith("frame 0")
    assert "red, green and blue" in drawn.get_suptitle()
    picture = np.asarray(cells(drawn)[0].get_images()[0].get_array())
    assert not (picture[..., 0] == picture[..., 1]).all()
    grey = np.asarray(cells(why.figure(slices=[0], opacity=0.0, channels=2))[0].get_images()[0].get_array())
    assert (grey[..., 0] == grey[..., 2]).all()


def test_several_maps_show_the_same_slices(make):
    one = volume(make, raw=marked(((17, 2, 3), 1.0)))
    other = make(marked(((4, 2, 3), 1.0)), image=None, input=one.input, method="cam")
    drawn = Comparison([one, other]).figure()
    found = titles(drawn)
    assert found[0].startswith("grad-cam\nslice ")
    assert found[6].startswith("cam\nslice ")
    assert [title.split("\n")[-1] for title in found[:6]] == [title.split("\n")[-1] for title in found[6:]]
    assert {"slice 4", "slice 17"} <= {title.split("\n")[-1] for title in found}


def test_volumes_of_other_depths_show_slices_of_their_own(make):
    """The deep one's bright slice is not there in the shallow one, whose own is shown instead."""
    deep = volume(make, raw=marked(((17, 2, 3), 1.0)))
    shallow = volume(make, raw=marked(((7, 5, 8), 1.0))[:8])
    flat = volume(make, raw=marked(((1, 0, 0), 1.0))[:2])
    drawn = Comparison([deep, shallow, flat, deep]).figure()
    found = [ax.get_title().split("\n")[-1] for ax in drawn.axes[:24]]
    rows = [found[6 * row : 6 * row + 6] for row in range(4)]
    assert "slice 17" in rows[0] and "slice 7" in rows[1]
    assert rows[2] == ["slice 0", "slice 1", "", "", "", ""]
    assert rows[3] == rows[0]
    for row, stack in enumerate((deep, shallow, flat)):
        for ax, title in zip(drawn.axes[6 * row :], rows[row], strict=False):
            if title:
                number = int(title.split()[1])
                raw = stack.raw[number]
                is_bright = np.ptp(np.asarray(ax.get_images()[0].get_array(), int)[..., 0] - grey_of(stack, number)) > 0
                assert is_bright == bool(raw.any())
    told = drawn.get_suptitle().replace("\n", " ")
    for each in ("6 of 20 slices, those with", "6 of 8 slices, those with", "all 2 slices along axis 0"):
        assert each in told
    with pytest.raises(RenderError, match="there are 8 along this axis, 0 to 7"):
        Comparison([deep, shallow]).figure(slices=[17])


def grey_of(why, number):
    """Return a slice's plain picture `(height, width)`."""
    plain = why.figure(slices=[number], opacity=0.0)
    return np.asarray(cells(plain)[0].get_images()[0].get_array(), int)[..., 0]


@pytest.mark.parametrize(
    ("style", "told"),
    [
        ({"slices": [20]}, "20 along this axis, 0 to 19"),
        ({"slices": "best"}, "Known: top, even"),
        ({"axis": 3}, "0, 1 or 2"),
        ({"channels": 1}, "1 channels, 0 to 0"),
        ({"opacity": 2.0}, "0 to 1"),
    ],
)
def test_a_style_that_does_not_fit_is_refused(make, style, told):
    with pytest.raises(RenderError, match=told):
        volume(make).figure(**style)


def test_a_gif_shows_every_slice_in_its_order(make, tmp_path: Path):
    raw = np.zeros((5, 40, 60), np.float32)
    for number in range(5):
        raw[number, 20:30, 10 * number : 10 * number + 10] = 1
    why = make(raw, image=None, input=np.zeros((1, *raw.shape), np.float32))
    why.save(tmp_path / "a.gif", legend=False, fps=4.0)
    with Image.open(tmp_path / "a.gif") as found:
        assert (found.n_frames, found.size, found.info["duration"]) == (5, (60, 40), 250)
        for number in range(5):
            found.seek(number)
            bright = np.asarray(found.convert("RGB"), int)[20:30].sum((0, 2)).reshape(6, 10).sum(1)
            assert bright.argmax() == number
    why.save(tmp_path / "b.gif")
    with Image.open(tmp_path / "b.gif") as found:
        assert found.height > 40 * 5  # enlarged, with the legend below


@pytest.mark.parametrize("style", [{"fps": 0.0}, {"axis": 5}])
def test_an_animation_of_other_maps_or_styles_is_refused(make, tmp_path: Path, style):
    with pytest.raises(RenderError):
        volume(make).save(tmp_path / "a.gif", **style)
    with pytest.raises(RenderError, match="2 axes, not 3"):
        make(np.ones((2, 2))).save(tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []
