"""A planted object must come back to the pixels it was planted on, whatever was done to the picture in between."""

import numpy as np
import pytest
import torch

from seewhy.images import Axis, Geometry, Preprocess, read

WAYS = {
    "crop": Preprocess(),
    "crop only": Preprocess(resize=None, size=(96, 96)),
    "crop to a wide input": Preprocess(size=(64, 128), resize=(72, 144)),
    "crop beside the even pixel": Preprocess(size=(65, 65), resize=(90, 90), rounding="down"),
    "squash": Preprocess(fit="squash", resize=None),
    "squash and crop": Preprocess(fit="squash", size=(200, 224), resize=(240, 256)),
    "letterbox": Preprocess(fit="letterbox", fill=114),
    "letterbox to a tall input": Preprocess(fit="letterbox", size=(160, 96)),
    "border beyond the input": Preprocess(fit="border", size=(96, 96), resize=(120, 120)),
    "grey": Preprocess(channels=1),
}
PICTURES = {"wide": (120, 200), "tall": (211, 90), "square": (150, 150), "small": (33, 40)}


def planted(shape):
    """A dark picture with a bright block a little off its centre, and the block."""
    height, width = shape
    block = np.zeros(shape, bool)
    block[height * 4 // 10 : height * 6 // 10, width * 45 // 100 : width * 7 // 10] = True
    return np.where(block[:, :, None], 255, np.zeros((*shape, 3))).astype(np.uint8), block


def brightness(tensor, preprocess):
    """Undo the normalisation: the input itself is the map, 1 on the block and 0 beside it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return (tensor * std + mean).mean(0).numpy()


@pytest.mark.parametrize("shape", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("preprocess", WAYS.values(), ids=WAYS)
def test_a_planted_block_is_found_where_it_was_planted(preprocess, shape):
    picture, block = planted(shape)
    tensor, geometry = preprocess(read(picture))
    assert geometry.input_shape == tuple(tensor.shape[1:])

    found = geometry.to_original(brightness(tensor, preprocess))
    seen = geometry.seen()
    assert found.shape == seen.shape == shape
    assert block[seen].any()
    assert not found[~seen].any()
    # A pixel from the block's edge, or as far as the input's own pixels are apart, resampling may blur.
    blur = int(np.ceil(max(1 / axis.scale for axis in geometry.axes))) + 1
    inside, outside = shrunk(block, blur), ~shrunk(~block, blur)
    near_border = shrunk(seen, blur)  # the border's own colour blurs in at the picture's edge
    assert found[inside & near_border].min() > 0.6
    assert found[~outside & near_border].max() < 0.2
    for axis in (0, 1):  # neither moved nor stretched: centre and length are the block's
        rows = [np.flatnonzero(((mask > 0.5) & near_border).any(1 - axis)) for mask in (found, block)]
        assert rows[0].mean() == pytest.approx(rows[1].mean(), abs=blur / 2)
        assert len(rows[0]) == pytest.approx(len(rows[1]), abs=blur)


def shrunk(mask, count):
    for _ in range(count):
        padded = np.pad(mask, 1, constant_values=True)
        mask = mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return mask


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_a_block_in_a_turned_photograph_is_found_upright_and_as_it_lies_in_the_file(fit, orientation, stored, encoded):
    picture, block = planted((60, 100))
    preprocess = Preprocess(fit=fit, size=(64, 64), resize=(64, 64))
    tensor, geometry = preprocess(read(encoded(stored(picture, orientation), orientation=orientation)))
    found = geometry.to_original(brightness(tensor, preprocess)) > 0.5
    assert np.logical_xor(found, block & geometry.seen()).sum() < 0.15 * block.sum()
    np.testing.assert_array_equal(geometry.as_stored(found), stored(found, orientation))
    assert geometry.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_are_turned_back_as_whole_pixels(orientation, noise, stored):
    geometry = Geometry.identity(noise.shape[:2], orientation=orientation)
    np.testing.assert_array_equal(geometry.as_stored(noise), stored(noise, orientation))


def test_a_crop_sees_its_pixels_and_no_others():
    geometry = Geometry.identity((10, 20)).cropped((2, 5), (6, 8))
    expected = np.zeros((10, 20), bool)
    expected[2:8, 5:13] = True
    np.testing.assert_array_equal(geometry.seen(), expected)
    cells = np.arange(48, dtype=np.float32).reshape(6, 8) + 1
    found = geometry.to_original(cells)
    np.testing.assert_array_equal(found[2:8, 5:13], cells)
    assert not found[~expected].any()


def test_a_border_is_left_out():
    geometry = Geometry.identity((4, 6)).cropped((-3, 0), (10, 6))
    assert geometry.seen().all()
    padded = np.full((10, 6), 9, np.float32)
    padded[3:7] = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(geometry.to_original(padded), np.arange(24).reshape(4, 6))


@pytest.mark.parametrize("cells", [(7, 7), (3, 11), (1, 1)])
@pytest.mark.parametrize("shape", [(50, 31), (7, 7), (224, 224)])
def test_a_coarse_map_is_laid_over_the_picture_as_torch_interpolates(cells, shape):
    values = np.random.default_rng(3).normal(size=cells).astype(np.float32)
    geometry = Geometry.identity(shape).resized((224, 224))
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], shape, mode="bilinear")[0, 0]
    np.testing.assert_allclose(geometry.to_original(values), expected, atol=1e-5)


@pytest.mark.parametrize("preprocess", WAYS.values(), ids=WAYS)
def test_a_ramp_over_the_input_tells_each_pixel_where_it_went(preprocess):
    _, geometry = preprocess(read(np.zeros((75, 130, 3), np.uint8)))
    height, width = geometry.input_shape
    seen = geometry.seen()
    for axis, ramp in enumerate(np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")):
        positions = np.clip(geometry.axes[axis].input_positions(), 0.5, geometry.input_shape[axis] - 0.5)
        expected = np.broadcast_to(positions[:, None] if axis == 0 else positions, seen.shape)
        np.testing.assert_allclose(geometry.to_original(ramp.astype(np.float32))[seen], expected[seen], rtol=1e-4)


def test_the_centre_stays_the_centre_through_resize_and_crop():
    geometry = Geometry.identity((100, 200)).resized((50, 100)).cropped((5, 20), (40, 60)).resized((80, 120))
    for axis in geometry.axes:  # by hand: scale 1/2 then 2, and the crop is symmetric
        assert axis.original / 2 * axis.scale + axis.offset == axis.input / 2
        assert axis.scale == 1
    assert geometry.original_shape == (100, 200)
    assert geometry.input_shape == (80, 120)
    assert geometry.steps == ("resize to 50x100", "crop to 40x60 from (5, 20)", "resize to 80x120")


def test_a_volume_keeps_its_three_axes_and_a_signal_its_one():
    volume = Geometry.identity((4, 6, 8)).cropped((1, 0, 2), (2, 6, 4))
    cells = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    found = volume.to_original(cells)
    np.testing.assert_array_equal(found[1:3, :, 2:6], cells)
    assert np.count_nonzero(found) == cells.size
    assert volume.seen().sum() == cells.size
    signal = Geometry.identity((10,)).resized((5,))
    np.testing.assert_allclose(signal.to_original(np.arange(5, dtype=np.float32))[1:-1], np.arange(8) / 2 + 0.25)


def test_a_thumbnail_is_seen_as_the_picture_is():
    def prepared(shape):
        return Geometry.identity(shape).resized((256, 512)).cropped((16, 144), (224, 224))

    seen_small = prepared((480, 960)).viewed_at((120, 240))
    for found, expected in zip(seen_small.axes, prepared((120, 240)).axes, strict=True):
        assert (found.original, found.input) == (expected.original, expected.input)
        assert found.scale == pytest.approx(expected.scale)
        assert found.offset == pytest.approx(expected.offset)


@pytest.mark.parametrize("cells", [1, 4, 9])
def test_weights_of_a_seen_pixel_sum_to_one_and_an_even_map_stays_even(cells):
    axis = Axis(original=13, input=9, scale=1.1, offset=-2.5)
    weights = axis.weights(cells)
    np.testing.assert_allclose(weights.sum(1), axis.seen().astype(float), atol=1e-6)
    assert weights.min() >= 0
    assert not axis.seen().all()


@pytest.mark.parametrize("cells", [1, 7, 40, 90])
def test_a_long_line_is_laid_back_as_a_short_one_is(cells, monkeypatch):
    """The way without a matrix gives what the matrix gives, also where a part was cropped away."""
    values = np.random.default_rng(0).normal(size=(3, cells, 4)).astype(np.float32)
    ways = (Axis(40, 40), Axis(40, 90, 90 / 40), Axis(40, 20, 1.0, -7.0))
    by_matrix = [axis.interpolated(values, 1) for axis in ways]
    monkeypatch.setattr("seewhy.images.geometry._LARGEST_MATRIX", 0)
    for axis, expected in zip(ways, by_matrix, strict=True):
        np.testing.assert_allclose(axis.interpolated(values, 1), expected, atol=1e-6)
        plain = np.einsum("oc,acb->aob", axis.weights(cells), values)
        np.testing.assert_allclose(expected, plain, atol=1e-6)


def test_what_is_laid_back_is_a_copy():
    values = np.ones((3, 4), np.float32)
    Geometry.identity((3, 4)).to_original(values)[:] = 0
    assert values.all()


def test_a_box_goes_to_the_input_and_back() -> None:
    geometry = Geometry.identity((100, 200)).resized((50, 50)).cropped((5, 10), (40, 30))
    # x * 50 / 200 - 10, y * 50 / 100 - 5
    assert geometry.box_to_input((40.0, 20.0, 80.0, 60.0)) == pytest.approx((0, 5, 10, 25))
    assert geometry.box_to_original((0.0, 5.0, 10.0, 25.0)) == pytest.approx((40, 20, 80, 60))
