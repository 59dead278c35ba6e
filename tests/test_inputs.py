from collections import UserDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small_models import make_small_net
from torch import nn

import seewhy
from seewhy.errors import ImageError
from seewhy.images import Preprocess
from seewhy.inputs import _of_torch, chunks, prepare, split
from seewhy.models import Convolutions, Expected

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
    assert Convolutions.of(module).axes[0] == axes


MODELS = {1: nn.Conv1d(3, 1, 1), 2: nn.Conv2d(3, 1, 1), 3: nn.Conv3d(3, 1, 1)}
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
    images, is_single = split(image, MODELS[axes])
    assert is_single
    assert len(images) == 1
    assert images[0] is image


MANY = {
    "list": (["a.png", "b.png"], 2),
    "array of pictures": (np.stack([PIXELS, 255 - PIXELS]), 2),
    "uint8 batch": (torch.arange(2 * 3 * 4 * 4).byte().view(2, 3, 4, 4), 2),
    "batch": (torch.randn(2, 3, 4, 4), 2),
    "batch of signals": (torch.randn(2, 3, 4), 1),
    "batch of volumes": (torch.randn(2, 1, 4, 4, 4), 3),
}


@pytest.mark.parametrize(("given", "axes"), MANY.values(), ids=MANY)
def test_several_images_come_apart_in_order(given, axes):
    images, is_single = split(given, MODELS[axes])
    assert not is_single
    assert len(images) == 2
    for found, expected in zip(images, given, strict=True):
        assert np.array_equal(found, expected)


def test_a_list_of_one_stays_a_list():
    assert split([PIXELS], MODELS[2])[1] is False
    assert split(torch.zeros(1, 3, 4, 4), MODELS[2])[1] is False


@pytest.mark.parametrize("nothing", [[], torch.zeros(0, 3, 4, 4), np.zeros((0, 4, 4, 3), np.uint8)])
def test_no_image_at_all_is_told(nothing):
    with pytest.raises(ImageError, match="No image was given"):
        split(nothing, MODELS[2])


@pytest.mark.parametrize(("shape", "axes"), [((4, 4), 2), ((1, 2, 3, 4, 4), 2), ((3, 4, 4, 4), 1), ((3, 4, 4), 3)])
def test_a_tensor_of_other_axes_is_told_what_is_expected(shape, axes):
    with pytest.raises(ImageError) as error:
        split(torch.zeros(shape), MODELS[axes])
    assert str(shape) in str(error.value)
    assert f"expected {axes + 1} axes, or {axes + 2} with a batch axis" in str(error.value)


def test_a_picture_is_one_although_signals_come_first_in_the_model():
    both = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Conv2d(3, 4, 3))
    images, is_single = split(PIXELS, both)
    assert is_single and images[0] is PIXELS
    assert [each.shape for each in split(np.stack([PIXELS] * 2), both)[0]] == [PIXELS.shape] * 2
    assert [tuple(each.shape) for each in split(torch.zeros(5, 2, 30), both)[0]] == [(2, 30)] * 5


@pytest.mark.parametrize("wrt", [None, 0, "input"])
@pytest.mark.parametrize("given", [PIXELS, [PIXELS], torch.zeros(2, 3, 4, 4)])
def test_the_only_input_may_be_named(wrt, given):
    assert len(split(given, MODELS[2], wrt)[0]) == len(split(given, MODELS[2])[0])


def test_a_model_that_hands_on_whatever_it_is_given_may_have_an_input_of_any_name():
    class Wrapper(nn.Module):
        def forward(self, *args, **kwargs):
            return args

    assert split(PIXELS, Wrapper(), "image") == ([PIXELS], True)


@pytest.mark.parametrize("given", [PIXELS, [PIXELS], torch.zeros(2, 3, 4, 4)])
@pytest.mark.parametrize(
    ("wrt", "told"),
    [
        ("nonsense", "wrt='nonsense' was asked for, and the model was given one input alone"),
        (1, "wrt=1 was asked for"),
        (["input"], r"wrt=\['input'\] is no position and no name of one input"),
        ([], r"wrt=\[\] is no position"),
        (0.5, r"wrt=0\.5 is no position"),
    ],
)
def test_an_input_that_cannot_be_it_is_refused(given, wrt, told):
    with pytest.raises(ImageError, match=told):
        split(given, MODELS[2], wrt)


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


def test_an_input_of_unknown_range_is_shown_from_its_darkest_to_its_brightest():
    tensor = torch.linspace(-40, 60, 18).view(3, 2, 3).half().requires_grad_()
    sample = prepare(tensor, PREPROCESS)
    values = tensor.detach().float()
    expected = (values - values.min()) / (values.max() - values.min()) * 255
    np.testing.assert_allclose(sample.image, expected.permute(1, 2, 0), atol=0.51)
    assert sample.values is None


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_input_of_other_channels_is_kept_and_shown_as_their_mean(channels):
    tensor = torch.linspace(-40, 60, channels * 6).view(channels, 2, 3).half().requires_grad_()
    sample = prepare(tensor, PREPROCESS)
    np.testing.assert_array_equal(sample.values, tensor.detach().float())
    mean = sample.values.mean(0)
    low, high = np.percentile(mean, (1, 99))
    expected = np.clip((mean - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(sample.image, np.stack([expected] * 3, -1), atol=0.51)
    assert [f"mean of its {channels} channels" in note for note in sample.notes] == [True] * (channels > 1)


def test_what_is_kept_of_an_input_is_a_copy():
    tensor = torch.ones(2, 9)
    sample = prepare(tensor, PREPROCESS)
    tensor.zero_()
    assert sample.values.all()


SIGNALS, VOLUMES, MANY_CHANNELS = (Convolutions((Expected(*each),)) for each in ((1, 2), (3, 1), (2, 4)))
ARRAYS = {
    "signal": (SIGNALS, (2, 9), "float64"),
    "batch of one": (SIGNALS, (1, 2, 9), "float32"),
    "volume": (VOLUMES, (1, 4, 5, 6), "float32"),
    "volume of whole numbers": (VOLUMES, (1, 4, 5, 6), "int16"),
    "volume without channels": (VOLUMES, (4, 5, 6), "float32"),
    "bands": (MANY_CHANNELS, (4, 5, 6), "float32"),
}


@pytest.mark.parametrize(("expected", "shape", "kind"), ARRAYS.values(), ids=ARRAYS)
def test_an_array_for_a_model_of_no_pictures_is_the_input_itself(expected, shape, kind, tmp_path):
    [axes] = expected.axes
    array = (np.random.default_rng(0).normal(size=shape) * 9).astype(kind)
    np.save(tmp_path / "a.npy", array)
    for given in (array, tmp_path / "a.npy", str(tmp_path / "a.npy"), torch.from_numpy(array).to(torch.float32)):
        if isinstance(given, torch.Tensor) and given.ndim != axes + 1:
            continue
        sample = prepare(given, PREPROCESS, convolutions=expected)
        assert sample.tensor.dtype == torch.float32
        np.testing.assert_array_equal(sample.tensor.flatten(), array.ravel().astype(np.float32))
        assert sample.tensor.ndim == axes + 1
        assert sample.tensor.shape[1:] == shape[-axes:]  # nothing is transposed
    assert prepare(tmp_path / "a.npy", PREPROCESS, convolutions=expected).name == "a.npy"
    notes = " ".join(prepare(array, PREPROCESS, convolutions=expected).notes)
    assert ("whole numbers" in notes) == (kind == "int16")
    assert ("one channel" in notes) == (len(shape) == axes)


@pytest.mark.parametrize(
    ("expected", "shape", "told"),
    [
        (SIGNALS, (9,), r"shape \(9,\), and the model takes one input \(2, T\)"),
        (SIGNALS, (5, 2, 9), "several inputs one by one"),
        (SIGNALS, (9, 2), r"channels last.*np.moveaxis\(array, -1, 0\)"),
        (VOLUMES, (4, 5, 6, 1), "channels last"),
        (MANY_CHANNELS, (5, 6, 4), "channels last"),
    ],
)
def test_an_array_of_another_shape_is_told(expected, shape, told):
    with pytest.raises(ImageError, match=told):
        prepare(np.zeros(shape, np.float32), PREPROCESS, convolutions=expected)


def test_an_array_file_of_a_picture_is_a_picture_and_of_floats_the_input(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    sample = prepare(tmp_path / "a.npy", PREPROCESS)
    np.testing.assert_array_equal(sample.image, PIXELS)
    assert sample.name == "a.npy"
    np.save(tmp_path / "b.npy", np.ones((3, 5, 7)))
    assert prepare(tmp_path / "b.npy", PREPROCESS).tensor.shape == (3, 5, 7)
    with pytest.raises(ImageError, match="NIfTI"):
        (tmp_path / "scan.nii").write_bytes(b"x")
        prepare(tmp_path / "scan.nii", PREPROCESS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_an_array_that_is_not_finite_is_told(bad, tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, bad]]))
    with np.errstate(over="ignore"), pytest.raises(ImageError, match="NaN or infinite"):
        prepare(tmp_path / "a.npy", PREPROCESS, convolutions=Convolutions((Expected(1, 1),)))


def test_a_model_without_convolutions_takes_what_a_tensors_shape_says():
    unsaid = Convolutions()
    assert [unsaid.axes_of(torch.zeros(shape)) for shape in ((2, 9), (3, 4, 4), (1, 1, 2, 2, 2))] == [1, 2, 3]
    assert Convolutions.of(nn.Sequential(nn.ReLU(), nn.Conv1d(7, 2, 3))).each == (Expected(1, 7),)


SIGNAL_FIRST = ((1, 2), (2, 3), (2, 8))
HEAD_FIRST = ((2, 8), (2, 3))
SQUEEZED = ((2, 3), (2, 32), (2, 4))  # as in squeeze and excitation, whose inner convolutions take few channels
ADAPTED = ((2, 12), (2, 3))
MEANT = {
    "a picture for a model that has its signals' part first": (SIGNAL_FIRST, (40, 40, 3), "uint8", (2, 3)),
    "the same, square and grey": (SIGNAL_FIRST, (40, 40), "uint8", (2, 3)),
    "the same, colours first": (SIGNAL_FIRST, (3, 40, 50), "float32", (2, 3)),
    "its signal": (SIGNAL_FIRST, (2, 30), "float32", (1, 2)),
    "its signal of other channels": (SIGNAL_FIRST, (5, 30), "float32", (1, 2)),
    "a picture for a model that has its head first": (HEAD_FIRST, (40, 50, 3), "uint8", (2, 3)),
    "a picture with opacity": (SQUEEZED, (40, 50, 4), "float32", (2, 3)),
    "bands for a model that makes colours of them": (ADAPTED, (12, 40, 50), "float32", (2, 12)),
    "bands, head first": (((2, 8), (2, 12)), (12, 40, 50), "float32", (2, 12)),
    "a volume of whole numbers, slices as well": (((3, 1), (2, 3)), (1, 9, 40, 50), "uint8", (3, 1)),
    "a batch of one": (((3, 2), (2, 3)), (1, 3, 40, 50), "float32", (2, 3)),
}


@pytest.mark.parametrize(("each", "shape", "kind", "meant"), MEANT.values(), ids=MEANT)
def test_an_array_is_for_the_convolution_that_it_fits_whatever_their_order(each, shape, kind, meant):
    convolutions = Convolutions(tuple(Expected(*one) for one in each))
    assert convolutions.for_input(np.zeros(shape, kind)) == Expected(*meant)


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


def test_a_picture_in_0_to_255_that_is_taken_as_prepared_is_doubted(small_net: nn.Module) -> None:
    def notes(scale: float) -> list[str]:
        image = scale * torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0))
        found = seewhy.explain(small_net, image, preprocess={"size": (24, 40), "mean": (0.5,) * 3, "std": (0.5,) * 3})
        return [note for note in found.notes if "0..255" in note]

    assert notes(1.0) == notes(9.0) == []  # black and white are -1 and 1
    [told] = notes(255.0)
    assert "values go to 255, a prepared picture's to 1:" in told


@pytest.mark.parametrize("batch", [(), (2,)])
def test_channels_that_come_last_are_told_where_the_model_fails(batch: tuple[int, ...]) -> None:
    with pytest.raises(seewhy.RecordingError, match=r"bring channels that come last to the front, x\.movedim\(-1, 0\)"):
        seewhy.explain(make_small_net(), torch.rand((*batch, 24, 40, 3)))
    with pytest.raises(seewhy.RecordingError, match="Check that it takes such an input when called by itself"):
        seewhy.explain(make_small_net(), torch.rand((*batch, 5, 24, 40)))


def test_a_class_of_ones_own_stays_what_it_is_where_its_tensors_are_torchs() -> None:
    class Pair(NamedTuple):
        image: torch.Tensor
        other: torch.Tensor

    pair = Pair(torch.rand(3, 4, 4), torch.rand(2))
    assert _of_torch(pair) is pair
    batch = UserDict(image=pair.image)
    assert _of_torch(batch) is batch
    foreign = _of_torch((pair.image, _Array()))
    assert isinstance(foreign, tuple)
    assert torch.equal(foreign[1], torch.arange(3.0))


class _Array:
    """An array of another library."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.arange(3, dtype=np.float32)
