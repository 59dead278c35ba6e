"""A picture of an input of any channels: the chosen ones, stretched by percentiles."""

import numpy as np
import pytest

from seewhy.errors import RenderError
from seewhy.images.display import picture_of

VALUES = np.random.default_rng(0).normal(size=(5, 40, 30)).astype(np.float32) * np.arange(1, 6)[:, None, None]


def stretched(values):
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / (high - low), 0, 1) * 255


def test_three_channels_become_red_green_and_blue_each_by_its_own_percentiles():
    for given in ((3, 0, 1), [3, 0, 1], "3,0,1", " 3, 0,1"):
        picture, told = picture_of(VALUES, given)
        for colour, channel in enumerate((3, 0, 1)):
            np.testing.assert_allclose(picture[..., colour], stretched(VALUES[channel]), atol=0.51)
        assert told == "channels 3, 0, 1 as red, green and blue"


def test_one_channel_is_grey():
    for given in (4, (4,), "4"):
        picture, told = picture_of(VALUES, given)
        np.testing.assert_allclose(picture, np.stack([stretched(VALUES[4])] * 3, -1), atol=0.51)
        assert told == "channel 4"


def test_when_none_is_chosen_it_is_the_mean_of_all_and_that_is_said():
    picture, told = picture_of(VALUES)
    np.testing.assert_allclose(picture[..., 1], stretched(VALUES.mean(0)), atol=0.51)
    assert told == "the mean of its 5 channels"


def test_three_channels_together_keep_their_colours():
    picture, _ = picture_of(VALUES[:3])
    np.testing.assert_allclose(np.moveaxis(picture, -1, 0), stretched(VALUES[:3]), atol=0.51)


def test_a_few_wild_values_do_not_make_the_rest_dark():
    values = np.linspace(0, 1, 1000, dtype=np.float32).reshape(1, 20, 50)
    values[0, 0, 0], values[0, -1, -1] = -1e6, 1e6
    assert 120 < picture_of(values)[0][9, 49, 0] < 135


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_is_black_and_a_single_bright_place_is_seen(value):
    values = np.full((1, 30, 30), value, np.float32)
    assert not picture_of(values)[0].any()
    values[0, 3, 4] += 1
    assert picture_of(values)[0][3, 4].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((0, 1), "one for a grey picture, or three"),
        ((0, 1, 5), "5 channels, 0 to 4"),
        (-1, "5 channels, 0 to 4"),
        ("red", "whole numbers"),
        ((), "5 channels"),
    ],
)
def test_channels_that_cannot_be_shown_are_told(given, told):
    with pytest.raises(RenderError, match=told):
        picture_of(VALUES, given)
