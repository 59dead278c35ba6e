import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seewhy.errors import ImageError
from seewhy.images import Preprocess
from seewhy.inputs import chunks, prepare, spatial_axes, split

PREPROCESS = Preprocess(size=(16, 16), resize=(20, 20))
PIXELS = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("module", "axes"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3)), 1),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)), 2),
        (nn.Conv3d(1, 2, 3), 3),
        (nn.Linear(2, 2), 2),
    ],
)
def test_the_first_convolution_says_how_many_axes_the_input_has(module, axes):
    assert spatial_axes(module) == axes


SINGLE = {
    "path": ("a.png", 2),
    "bytes": (b"abc", 2),
    "PIL": (Image.fromarray(PIXELS), 2),
    "array": (PIXELS, 2),
    "uint8 tensor": (torch.from_numpy(PIXELS), 2),
    "input": (torch.zeros(3, 4, 4), 2),
    "signal": (torch.zeros(3, 4), 1),
    "volume": (torch.zeros(3, 4, 4, 4), 3),
}


@pytest.mark.parametrize(("image", "axes"), SINGLE.values(), ids=SINGLE)
def test_one_image_stays_one(image, axes):
    images, is_single = split(image, axes)
    assert is_single
    assert len(images) == 1
    assert images[0] is image


MANY = {
    "list": (["a.png", "b.png"], 2),
    "tuple": ((PIXELS, PIXELS), 2),
    "array of pictures": (np.stack([PIXELS, 255 - PIXELS]), 2),
    "uint8 batch": (torch.arange(2 * 3 * 4 * 4).byte().view(2, 3, 4, 4), 2),
    "batch": (torch.randn(2, 3, 4, 4), 2),
    "batch of signals": (torch.randn(2, 3, 4), 1),
    "batch of volumes": (torch.randn(2, 1, 4, 4, 4), 3),
}


@pytest.mark.parametrize(("given", "axes"), MANY.values(), ids=MANY)
def test_several_images_come_apart_in_order(given, axes):
    images, is_single = split(given, axes)
    assert not is_single
    assert len(images) == 2
    for found, expected in zip(images, given, strict=True):
        assert np.array_equal(found, expected)


def test_a_list_of_one_stays_a_list():
    assert split([PIXELS], 2)[1] is False
    assert split(torch.zeros(1, 3, 4, 4), 2)[1] is False


@pytest.mark.parametrize("nothing", [[], (), torch.zeros(0, 3, 4, 4), np.zeros((0, 4, 4, 3), np.uint8)])
def test_no_image_at_all_is_told(nothing):
    with pytest.raises(ImageError, match="No image was given"):
        split(nothing, 2)


@pytest.mark.parametrize(("shape", "axes"), [((4, 4), 2), ((1, 2, 3, 4, 4), 2), ((3, 4, 4, 4), 1), ((3, 4, 4), 3)])
def test_a_tensor_of_other_axes_is_told_what_is_expected(shape, axes):
    with pytest.raises(ImageError) as error:
        split(torch.zeros(shape), axes)
    assert str(shape) in str(error.value)
    assert f"expected {axes + 1} axes, or {axes + 2} with a batch axis" in str(error.value)


def test_a_picture_is_prepared_and_kept(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(PIXELS).save(path)
    sample = prepare(path, PREPROCESS)
    np.testing.assert_array_equal(sample.image, PIXELS)
    assert (sample.name, sample.geometry.original_shape) == ("cat.png", (24, 40))
    same = prepare(PIXELS, PREPROCESS)
    assert torch.equal(sample.tensor, same.tensor)


def test_what_was_lost_in_reading_is_noted():
    assert prepare(Image.fromarray(PIXELS).convert("RGBA"), PREPROCESS).notes == ("transparency was dropped",)


def test_a_float_tensor_is_the_input_itself_and_is_shown_as_the_picture_it_was():
    tensor = prepare(PIXELS, PREPROCESS).tensor
    before = tensor.clone()
    sample = prepare(tensor, PREPROCESS)
    assert sample.tensor is tensor
    assert torch.equal(tensor, before)
    assert sample.geometry.original_shape == sample.geometry.input_shape == (16, 16)
    assert torch.equal((torch.from_numpy(sample.image) / 255).permute(2, 0, 1), undone(tensor))


def undone(tensor):
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    return ((tensor * std + mean) * 255).round() / 255


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_input_of_unknown_range_is_shown_from_its_darkest_to_its_brightest(channels):
    tensor = torch.linspace(-40, 60, channels * 6).view(channels, 2, 3).half().requires_grad_()
    sample = prepare(tensor, PREPROCESS)
    values = tensor.detach().float()
    values = values if channels == 3 else values.mean(0, keepdim=True).expand(3, 2, 3)
    expected = (values - values.min()) / (values.max() - values.min()) * 255
    np.testing.assert_allclose(sample.image, expected.permute(1, 2, 0), atol=0.51)


def test_an_even_input_is_shown_without_dividing_by_zero():
    assert not prepare(torch.full((3, 4, 4), 50.0), PREPROCESS).image.any()


def test_a_signal_or_volume_has_no_picture():
    assert prepare(torch.randn(2, 9), PREPROCESS).image is None
    volume = prepare(torch.randn(1, 4, 5, 6), PREPROCESS)
    assert volume.image is None
    assert volume.geometry.original_shape == (4, 5, 6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_input_that_is_not_finite_is_told(bad):
    tensor = torch.zeros(3, 4, 4)
    tensor[1, 2, 3] = bad
    with pytest.raises(ImageError, match="NaN or infinite"):
        prepare(tensor, PREPROCESS)


def test_an_input_without_numbers_is_told():
    with pytest.raises(ImageError, match=r"\(3, 0, 4\) holds nothing"):
        prepare(torch.zeros(3, 0, 4), PREPROCESS)


def test_chunks_keep_the_order_and_never_mix_shapes():
    widths = [4, 4, 4, 5, 4, 4, 4, 4]
    samples = [(number, prepare(torch.zeros(3, 4, width), PREPROCESS)) for number, width in enumerate(widths)]
    runs = chunks(samples, 3)
    assert [[number for number, _ in run] for run in runs] == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert chunks([], 3) == []
