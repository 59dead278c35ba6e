"""Signals: the right lines, the right shade behind each place, and what was left out said."""

import matplotlib as mpl
import numpy as np
import pytest

from seewhy.comparison import Comparison
from seewhy.diagnosis import Finding
from seewhy.errors import RenderError
from seewhy.render import figure

RNG = np.random.default_rng(0)
RAW = np.array([0, 0.5, 1, 0, 0, 0.25, 0, 0], np.float32)


def signal(make, channels=3, raw=RAW, **more):
    return make(raw, image=None, input=RNG.normal(size=(channels, len(raw))).astype(np.float32), **more)


def rows(drawn):
    return [ax for ax in drawn.axes if ax.get_label() != "<colorbar>"]


def shade(ax):
    """Return the colours behind a line, one a sample."""
    [image] = ax.get_images()
    return np.asarray(image.get_array(), int)[0]


def expected(values, name="OrRd", opacity=0.75):
    colours = np.asarray(mpl.colormaps[name](np.asarray(values, float), bytes=True)[:, :3], float)
    return colours * opacity + 255 * (1 - opacity)


def test_each_channel_is_a_line_of_its_own_values_over_the_map(make):
    why = signal(make)
    drawn = why.figure()
    assert [ax.get_ylabel() for ax in rows(drawn)] == ["channel 0", "channel 1", "channel 2"]
    for ax, values in zip(rows(drawn), why.input, strict=True):
        [line] = ax.get_lines()
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(8))
        np.testing.assert_allclose(shade(ax), expected(RAW), atol=2)
        assert ax.get_images()[0].get_extent()[:2] == [-0.5, 7.5]
        assert ax.get_xlim() == (-0.5, 7.5)
        assert ax.get_ylim()[0] < values.min() < values.max() < ax.get_ylim()[1]
    for words in ("evidence for tabby, the model's answer (70.0%)", "grad-cam at body of net"):
        assert words in drawn.get_suptitle()
    [bar] = [ax for ax in drawn.axes if ax.get_label() == "<colorbar>"]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["no evidence", "most evidence"]


def test_a_signed_map_is_white_at_zero_blue_against_red_for(make):
    raw = np.array([1, 0, -1, 0.5], np.float32)
    found = shade(rows(signal(make, raw=raw, view="signed").figure(opacity=1.0))[0])
    np.testing.assert_allclose(found, expected((raw + 1) / 2, "RdBu_r", 1.0), atol=4)


def test_where_channels_were_kept_apart_each_line_has_its_own_map_on_one_scale(make):
    colours = np.zeros((2, 8), np.float32)
    colours[0, 1], colours[1, 5] = 2, 1
    drawn = signal(make, 2, colours.sum(0), colours=colours, reduction="sum").figure()
    for ax, values in zip(rows(drawn), colours / 2, strict=True):
        np.testing.assert_allclose(shade(ax), expected(values), atol=2)
    assert [ax.get_ylabel() for ax in rows(drawn)] == ["channel 0\n67%", "channel 1\n33%"]
    assert "that channel's own part" in drawn.get_suptitle()


def test_of_many_channels_some_are_drawn_and_that_is_said(make):
    drawn = signal(make, 40).figure()
    assert [ax.get_ylabel() for ax in rows(drawn)][::11] == ["channel 0", "channel 39"]
    assert "12 of 40 channels, evenly spread" in drawn.get_suptitle()
    colours = np.zeros((40, 8), np.float32)
    colours[20:32] = 1
    drawn = signal(make, 40, colours.sum(0), colours=colours, reduction="sum").figure()
    assert [ax.get_ylabel().split("\n")[0] for ax in rows(drawn)] == [f"channel {number}" for number in range(20, 32)]
    assert "12 of 40 channels: those with the largest shares" in drawn.get_suptitle()
    chosen = signal(make, 40).figure(channels="7,3")
    assert [ax.get_ylabel() for ax in rows(chosen)] == ["channel 7", "channel 3"]
    with pytest.raises(RenderError, match="40 channels, 0 to 39"):
        signal(make, 40).figure(channels=40)


def test_a_peak_of_one_sample_is_seen_in_a_long_signal(make):
    raw = np.zeros(50_001, np.float32)
    raw[33_333] = -1
    [ax] = rows(signal(make, 1, raw, view="signed").figure(opacity=1.0))
    found = shade(ax)
    assert len(found) <= 1600
    [at] = np.flatnonzero(found[:, 0] < 50)
    left, right, *_ = ax.get_images()[0].get_extent()
    width = (right - left) / len(found)
    assert left + at * width <= 33_333 <= left + (at + 1) * width


def test_several_maps_of_a_signal_stand_under_each_other(make):
    one = signal(make)
    maps = Comparison([one, make(RAW[::-1], image=None, input=one.input, method="cam", diagnosis=FLAGGED)])
    drawn = maps.figure(channels=1)
    assert [ax.get_ylabel() for ax in rows(drawn)] == ["grad-cam", "cam [flat]"]
    np.testing.assert_allclose(shade(rows(drawn)[1]), expected(RAW[::-1]), atol=2)
    for ax in rows(drawn):
        np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), one.input[1])
    assert "the line is channel 1" in drawn.get_suptitle()
    mean = rows(maps.figure())[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(mean, one.input.mean(0), atol=1e-6)


FLAGGED = (Finding("flat", "The map is the same everywhere (0).", "Choose another layer or method."),)


def test_what_is_wrong_with_a_map_and_that_it_was_cut_short_are_in_the_figure(make):
    told = signal(make, diagnosis=FLAGGED, cut_short=(3, 10)).figure().get_suptitle().replace("\n", " ")
    assert "The map is the same everywhere (0). Choose another layer" in told
    assert "Cut short after 3 of 10 runs" in told


@pytest.mark.parametrize("channels", [1, 5, 40])
def test_no_text_is_cut_off(make, channels):
    drawn = figure([signal(make, channels, target="a long name " * 20)])
    drawn.draw_without_rendering()
    texts = [drawn._suptitle, *(ax.yaxis.label for ax in rows(drawn))]
    for box in [text.get_window_extent() for text in texts]:
        assert box.x0 >= -1
        assert box.x1 <= drawn.bbox.x1 + 1
        assert box.y1 <= drawn.bbox.y1 + 1
