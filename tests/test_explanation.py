"""The result: raw stays raw, and every way to look at it is a pure later step."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from seewhy.errors import RenderError
from seewhy.explanation import Explanation, Prediction
from seewhy.images import Geometry
from seewhy.recorder import Cost, Layout

RAW = np.array([[4, -8], [0, 2]], np.float32)


def explanation(raw: object = RAW, geometry: Geometry | None = None, **more: object) -> Explanation:
    raw = np.asarray(raw, np.float32)
    # One pixel a cell, so that the heat map can be written down.
    geometry = geometry or Geometry.identity(raw.shape)
    facts = {
        "raw": raw,
        "geometry": geometry,
        "image": np.zeros((*geometry.original_shape, 3), np.uint8),
        "name": "cat.jpg",
        "target": "tabby",
        "target_index": 1,
        "score": 3.0,
        "prediction": (Prediction(0, "tench", 4.0, 0.7), Prediction(1, "tabby", 3.0, 0.3)),
        "method": "grad-cam",
        "options": {},
        "layers": ("body",),
        "layouts": (Layout("channels-first", (2, 2), 3),),
        "view": "positive",
        "cost": Cost(1, 1, 0.1),
    }
    return Explanation(**(facts | more))


@pytest.mark.parametrize(("view", "expected"), [("positive", [[1, 0], [0, 0.5]]), ("signed", [[0.5, -1], [0, 0.25]])])
def test_the_heat_map_is_the_positive_part_or_the_signed_map_itself(view: str, expected: list[list[float]]) -> None:
    why = explanation(view=view)
    np.testing.assert_allclose(why.heatmap, expected)
    assert why.heatmap.dtype == np.float32
    np.testing.assert_array_equal(why.raw, RAW)


def test_the_sign_is_cut_before_the_map_is_enlarged() -> None:
    # Interpolating first would let the negative cell eat into its positive neighbour: 1/2 of +1 and -1 is 0, not 1/2.
    why = explanation([[1, -1]], Geometry.identity((1, 3)))
    np.testing.assert_allclose(why.heatmap, [[1, 0.5, 0]])
    np.testing.assert_allclose(why.viewed("signed").heatmap, [[1, 0, -1]], atol=1e-7)


def test_pixels_the_model_did_not_see_have_no_heat() -> None:
    cropped = Geometry.identity((2, 4)).cropped((0, 1), (2, 2))
    why = explanation([[1, 2], [3, 4]], cropped)
    np.testing.assert_allclose(why.heatmap, [[0, 0.25, 0.5, 0], [0, 0.75, 1, 0]])
    np.testing.assert_array_equal(why.seen, [[False, True, True, False]] * 2)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("per-image", [[1, 0], [0, 0.5]]),
        ("none", [[4, 0], [0, 2]]),
        (8.0, [[0.5, 0], [0, 0.25]]),
        (2.0, [[1, 0], [0, 1]]),
    ],
)
def test_scales(scaling: object, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(explanation().scaled(scaling), expected)


def test_percentile_scaling_lets_one_outlier_clip() -> None:
    raw = np.full((1, 1000), 0.5, np.float32)
    raw[0, 0] = 100
    found = explanation(raw).scaled("percentile")
    assert found[0, 0] == 1
    np.testing.assert_allclose(found[0, 1:], 1)  # the 99th percentile is 0.5
    # Where nearly all is zero the percentile is too: then the peak counts.
    np.testing.assert_allclose(explanation([[0] * 999 + [4]]).scaled("percentile")[0, -1], 1)


@pytest.mark.parametrize("scaling", [-1.0, 0.0])
def test_a_scale_that_is_not_known_is_refused(scaling: object) -> None:
    with pytest.raises(RenderError, match="per-image, percentile, none"):
        explanation().scaled(scaling)


@pytest.mark.parametrize("raw", [np.zeros((2, 2)), np.full((2, 2), np.nan), -np.ones((2, 2))])
def test_a_map_without_evidence_is_blank_rather_than_an_error(raw: np.ndarray) -> None:
    why = explanation(raw)
    np.testing.assert_array_equal(why.heatmap, np.zeros((2, 2)))
    assert not why.mask().any()
    assert why.boxes() == []


def test_an_explanation_is_frozen_and_looking_at_it_changes_nothing() -> None:
    why = explanation()
    signed = why.viewed("signed")
    assert (why.view, signed.view) == ("positive", "signed")
    assert signed.raw is why.raw
    with pytest.raises(FrozenInstanceError):
        why.raw = RAW


RAMP = np.arange(10, dtype=np.float32)[None] / 9


@pytest.mark.parametrize(
    ("how", "count"),
    [
        ({"threshold": 0.5}, 5),
        ({"threshold": 0.0}, 9),
        ({"threshold": 1.0}, 1),
        ({"top": 0.2}, 2),
        ({"top": 0.5}, 5),
        ({"top": 1.0}, 9),
    ],
)
def test_a_mask_takes_the_highest_pixels(how: dict[str, float], count: int) -> None:
    found = explanation(RAMP).mask(**how)
    np.testing.assert_array_equal(found[0], np.arange(10) >= 10 - count)


def test_otsu_parts_the_bright_from_the_dark() -> None:
    raw = np.full((4, 6), 0.1, np.float32)
    raw[1:3, 2:5] = [[0.8, 0.9, 1.0], [0.7, 0.9, 0.8]]
    np.testing.assert_array_equal(explanation(raw).mask(), raw > 0.5)


def test_all_of_a_flat_map_is_masked() -> None:
    assert explanation(np.full((3, 3), 7)).mask().all()


@pytest.mark.parametrize("top", [0.5, 1.0])
def test_a_part_of_the_pixels_means_the_seen_ones(top: float) -> None:
    cropped = Geometry.identity((1, 30)).cropped((0, 10), (1, 10))
    found = explanation(RAMP, cropped).mask(top=top)
    assert found[0].nonzero()[0].tolist() == list(range(max(20 - round(10 * top), 11), 20))  # the first of them is 0


@pytest.mark.parametrize("top", [0.001, 0.2, 1.0])
def test_a_part_that_reaches_into_places_without_evidence_ends_where_the_evidence_does(top: float) -> None:
    """One bright pixel of 256: the value that a fifth lies above is 0, and so is all the rest."""
    raw = np.zeros((16, 16), np.float32)
    raw[3, 5] = 1
    why = explanation(raw)
    assert np.argwhere(why.mask(top=top)).tolist() == [[3, 5]]
    assert [(each.start, each.stop, each.share) for each in why.regions(top=top)] == [((3, 5), (4, 6), 1.0)]
    assert [(each.start, each.stop) for each in explanation(raw[3]).intervals(top=top)] == [(5, 6)]
    assert not explanation(-raw).mask(top=top).any()


@pytest.mark.parametrize("how", [{"threshold": 1.5}, {"threshold": -0.1}, {"top": 0.0}, {"top": 1.1}])
@pytest.mark.parametrize("raw", [RAMP, np.zeros((1, 10))])
def test_a_threshold_out_of_range_is_refused(how: dict[str, float], raw: np.ndarray) -> None:
    with pytest.raises(RenderError, match=r"must be"):
        explanation(raw).mask(**how)


def test_boxes_are_the_connected_regions_with_their_share_of_the_map() -> None:
    raw = np.zeros((6, 8), np.float32)
    raw[1:3, 1:4] = 0.5  # sum 3
    raw[4, 6] = 1.0
    raw[5, 0] = 0.02
    large, small = explanation(raw).boxes(threshold=0.01)
    assert (large.left, large.top, large.right, large.bottom) == (1, 1, 4, 3)
    assert (small.left, small.top, small.right, small.bottom) == (6, 4, 7, 5)
    assert large.share == pytest.approx(3 / 4.02, abs=1e-4)
    assert small.share == pytest.approx(1 / 4.02, abs=1e-4)
    assert len(explanation(raw).boxes(threshold=0.01, least=0.001)) == 3


def test_boxes_of_other_than_pictures_are_refused_and_what_there_is_instead_is_told() -> None:
    for raw in (np.ones((2, 2, 2)), np.ones(5)):
        with pytest.raises(RenderError, match=rf"two axes; this one has {raw.ndim}.*intervals\(\).*regions\(\)"):
            explanation(raw).boxes()
    with pytest.raises(RenderError, match="one axis; this one has 2"):
        explanation().intervals()


def test_intervals_are_the_stretches_of_a_signal_with_their_share() -> None:
    raw = np.array([0, 0.5, 1, 0.5, 0, 0, 0.25, 0.25, 0, 0.02], np.float32)
    large, small = explanation(raw).intervals(threshold=0.1)
    assert (large.start, large.stop) == (1, 4)
    assert (small.start, small.stop) == (6, 8)
    assert large.share == pytest.approx(2 / 2.52, abs=1e-4)
    assert len(explanation(raw).intervals(threshold=0.01, least=0.001)) == 3
    assert explanation(np.zeros(9)).intervals() == []


def test_regions_are_blocks_along_all_axes_in_their_order() -> None:
    raw = np.zeros((3, 5, 7), np.float32)
    raw[1:3, 0:2, 4:7] = 1
    raw[0, 4, 0] = 1
    first, second = explanation(raw).regions(threshold=0.5)
    assert (first.start, first.stop, first.share) == ((1, 0, 4), (3, 2, 7), pytest.approx(12 / 13, abs=1e-4))
    assert (second.start, second.stop) == ((0, 4, 0), (1, 5, 1))
    flat = explanation(raw[1]).regions(threshold=0.5)
    assert [(each.start, each.stop) for each in flat] == [((0, 4), (2, 7))]


def test_the_share_of_a_channel_is_its_part_of_all_absolute_values() -> None:
    colours = np.array([[[1, -2], [0, 0]], [[0, 0], [0, -1]], [[0, 0], [0, 0]]], np.float32)
    np.testing.assert_allclose(explanation(colours.sum(0), colours=colours).channel_shares(), [0.75, 0.25, 0])
    assert not explanation(colours.sum(0), colours=0 * colours).channel_shares().any()
    with pytest.raises(RenderError, match="no channels to compare"):
        explanation().channel_shares()


def test_the_probability_is_that_of_the_asked_class() -> None:
    assert explanation().probability == 0.3
    assert explanation(target_index=7).probability is None


def test_it_says_in_one_line_what_it_is() -> None:
    assert repr(explanation()) == "<Explanation of 'cat.jpg': tabby, grad-cam at body, 2x2>"


def test_how_the_layers_were_read_is_told_in_words() -> None:
    assert explanation().layout == "channels-first, grid 2x2, 3 channels"
    assert replace(explanation(), layouts=(), layers=()).layout == "the input itself"
