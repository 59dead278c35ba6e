import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import transforms
from torchvision.transforms import v2

from seewhy.errors import ImageError
from seewhy.images import CallablePreprocess, Picture, Preprocess, as_preprocessing, read
from seewhy.models import adopt

SHAPES = [(37, 53), (301, 200), (480, 641), (64, 64), (9, 150)]


def photograph(shape):
    """Smooth waves and noise, so that both a shifted pixel and another filter show."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 5)], axis=2)
    grain = np.random.default_rng(5).normal(0, 0.2, waves.shape)
    return np.clip(128 + 90 * (waves + grain), 0, 255).astype(np.uint8)


TIMM = {
    "three quarters": {"crop_pct": 0.75},
    "usual": {"crop_pct": 0.875, "interpolation": "bilinear"},
    "bicubic": {"crop_pct": 0.95, "interpolation": "bicubic"},
    "whole": {"crop_pct": 1.0, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    "299": {"crop_pct": 0.897, "input_size": (3, 299, 299)},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "input_size": (3, 256, 256)},
    "squash and crop": {"crop_pct": 0.9, "crop_mode": "squash"},
    "border": {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"},
    "border and crop": {"crop_pct": 0.9, "crop_mode": "border"},
    "wide": {"crop_pct": 0.9, "input_size": (3, 96, 160)},
    "tall": {"crop_pct": 0.875, "input_size": (3, 161, 97), "interpolation": "bicubic"},
}


@pytest.mark.parametrize("settings", TIMM.values(), ids=TIMM)
def test_a_timm_model_gets_to_the_bit_what_timm_would_give_it(settings):
    module = timm.create_model("resnet10t", pretrained=False)
    module.pretrained_cfg = module.default_cfg = {**module.pretrained_cfg, **settings}
    theirs = create_transform(**resolve_data_config({}, model=module), is_training=False)
    ours = adopt(module).preprocess
    for shape in SHAPES:
        pixels = photograph(shape)
        tensor, geometry = ours(read(pixels))
        assert torch.equal(tensor, theirs(Image.fromarray(pixels)))
        assert geometry.original_shape == shape


@pytest.mark.parametrize(
    "weights",
    [
        tv.ResNet18_Weights.IMAGENET1K_V1,
        tv.ResNet50_Weights.IMAGENET1K_V2,
        tv.Inception_V3_Weights.IMAGENET1K_V1,
        tv.EfficientNet_B3_Weights.IMAGENET1K_V1,
        tv.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
        tv.Swin_V2_T_Weights.IMAGENET1K_V1,
    ],
    ids=str,
)
def test_a_torchvision_model_gets_to_the_bit_what_its_weights_ask_for(weights):
    ours = as_preprocessing(weights.transforms())
    assert isinstance(ours, Preprocess)
    for shape in SHAPES:
        pixels = photograph(shape)
        assert torch.equal(ours(read(pixels))[0], weights.transforms()(Image.fromarray(pixels)))


NORMALISE = transforms.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
COMPOSED = {
    "usual": [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), NORMALISE],
    "oblong crop": [transforms.Resize(100), transforms.CenterCrop((60, 90)), transforms.ToTensor()],
    "crop larger than the picture": [transforms.Resize(40), transforms.CenterCrop(64), transforms.ToTensor()],
    "squash": [transforms.Resize((50, 70), transforms.InterpolationMode.BICUBIC), transforms.ToTensor(), NORMALISE],
    "v2": [v2.Resize(80), v2.CenterCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), NORMALISE],
    "old conversion": [
        transforms.Resize(64),
        transforms.CenterCrop(64),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
    ],
}


@pytest.mark.parametrize("steps", COMPOSED.values(), ids=COMPOSED)
@pytest.mark.parametrize("compose", [transforms.Compose, v2.Compose])
def test_usual_transforms_are_understood_step_by_step(compose, steps):
    ours = as_preprocessing(compose(steps))
    assert isinstance(ours, Preprocess)
    for shape in SHAPES:
        pixels = photograph(shape)
        torch.testing.assert_close(
            ours(read(pixels))[0], torch.as_tensor(compose(steps)(Image.fromarray(pixels))), rtol=0, atol=1e-6
        )


UNUSUAL = {
    "no crop": [transforms.Resize(64), transforms.ToTensor()],
    "values left at 0..255": [v2.Resize((40, 50)), v2.ToImage(), v2.ToDtype(torch.float32), NORMALISE],
    "longest side held": [transforms.Resize(64, max_size=70), transforms.CenterCrop(64), transforms.ToTensor()],
    "blurred": [
        transforms.Resize(64),
        transforms.CenterCrop(64),
        transforms.GaussianBlur(3, sigma=1.0),
        transforms.ToTensor(),
    ],
    "jagged resize": [transforms.ToTensor(), transforms.Resize((40, 50), antialias=False), NORMALISE],
    "unknown filter": [
        transforms.Resize((40, 50), transforms.InterpolationMode.NEAREST_EXACT),
        transforms.ToTensor(),
    ],
}


@pytest.mark.parametrize("steps", UNUSUAL.values(), ids=UNUSUAL)
def test_transforms_with_other_steps_are_run_as_they_are(steps):
    composed = transforms.Compose(steps)
    ours = as_preprocessing(composed)
    assert isinstance(ours, CallablePreprocess)
    pixels = photograph((90, 120))
    tensor, geometry = ours(read(pixels))
    assert torch.equal(tensor, composed(Image.fromarray(pixels)))
    assert geometry.original_shape == (90, 120)
    assert geometry.input_shape == tuple(tensor.shape[1:])


RETURNS = {
    "nothing": (lambda image: None, "returned NoneType"),
    "an image": (lambda image: image, "returned Image"),
    "an array": (lambda image: np.zeros((3, 4, 4)), r"returned ndarray \(3, 4, 4\)"),
    "whole numbers": (transforms.PILToTensor(), r"returned Tensor \(3, 6, 8\)"),
    "two axes": (lambda image: torch.zeros(4, 4), r"returned Tensor \(4, 4\)"),
    "five crops": (lambda image: torch.zeros(5, 3, 4, 4), r"returned Tensor \(5, 3, 4, 4\)"),
    "not a number": (lambda image: torch.full((3, 4, 4), torch.nan), "NaN or infinite"),
    "an error": (lambda image: 1 / 0, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize(("transform", "told"), RETURNS.values(), ids=RETURNS)
def test_a_transform_that_makes_no_input_is_told_what_it_made(transform, told):
    with pytest.raises(ImageError, match=told):
        as_preprocessing(transform)(read(np.zeros((6, 8, 3), np.uint8)))


def test_a_transform_may_add_the_batch_axis_itself():
    to_tensor = transforms.ToTensor()
    picture = read(photograph((6, 8)))
    tensor, _ = as_preprocessing(lambda image: to_tensor(image)[None])(picture)
    assert torch.equal(tensor, to_tensor(picture.pixels))


def test_fields_in_a_dict_may_be_numbers_and_lists_as_json_has_them(unchecked):
    given = {"size": 64, "resize": [70, 70], "mean": 0.5, "std": [0.2, 0.3, 0.4], "fill": [1, 2, 3]}
    expected = Preprocess(size=(64, 64), resize=(70, 70), mean=(0.5,) * 3, std=(0.2, 0.3, 0.4), fill=(1, 2, 3))
    assert as_preprocessing(given) == expected
    assert as_preprocessing(expected) is expected


WRONG = {
    "unknown field": ({"sizes": 3}, r"does not know \['sizes'\]. It knows: .*size"),
    "colours": ({"colours": "brg"}, "'brg' is not known. Known: rgb, bgr"),
    "filter": ({"interpolation": "cubic"}, "'cubic' is not known. Known: .*bicubic"),
    "fit": ({"fit": "stretch"}, "Known: crop, squash, letterbox"),
    "rounding": ({"rounding": "up"}, "Known: even, down"),
    "no pixels": ({"size": (0, 224)}, r"size=\(0, 224\)"),
    "three sizes": ({"resize": (1, 2, 3)}, r"resize=\(1, 2, 3\)"),
    "words": ({"size": "large"}, "size='large'"),
    "more pixels than memory": ({"size": 100_000}, "over the limit"),
    "no spread": ({"std": (0.2, 0.0, 0.2)}, "holds a zero"),
    "two means": ({"mean": (0.1, 0.2)}, "2 numbers for 3 channels"),
    "mean in words": ({"mean": "imagenet"}, "mean='imagenet'"),
    "not a transform": (5, "not a int"),
}


@pytest.mark.parametrize(("given", "told"), WRONG.values(), ids=WRONG)
def test_settings_that_make_no_sense_are_told(given, told, unchecked):
    with pytest.raises(ImageError, match=told):
        as_preprocessing(given)


def test_a_grey_model_gets_one_channel_with_the_average_statistics():
    preprocess = Preprocess(channels=1, size=(20, 20), resize=None)
    pixels = photograph((20, 20))
    luma = np.asarray(Image.fromarray(pixels).convert("L")) / 255
    tensor, _ = preprocess(read(pixels))
    np.testing.assert_allclose(tensor[0], (luma - 0.449) / 0.226, atol=1e-5)
    assert len(tensor) == 1


def test_a_model_of_four_channels_asks_for_a_tensor():
    preprocess = Preprocess(channels=4, mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(ImageError, match=r"takes 4.*Give a float tensor"):
        preprocess(read(photograph((20, 20))))


def test_a_sliver_that_would_fill_the_memory_is_refused_with_a_way_out():
    sliver = read(np.zeros((1, 40_000, 3), np.uint8))  # its shorter side to 256: 256 x 10 million pixels
    with pytest.raises(ImageError, match=r"40000 x 1 pixels and would be scaled to 10240000 x 256.*letterbox"):
        Preprocess()(sliver)
    tensor, geometry = Preprocess(fit="letterbox")(sliver)
    assert tensor.shape == (3, 224, 224)
    assert geometry.seen().all()


@pytest.mark.parametrize("fill", [7, (10, 20, 30)])
def test_a_letterbox_keeps_the_whole_picture_between_borders_of_its_colour(fill):
    preprocess = Preprocess(fit="letterbox", size=(40, 40), fill=fill, mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = photograph((20, 40))
    tensor, _ = preprocess(read(pixels))
    found = (tensor * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found[10:30], pixels)
    np.testing.assert_array_equal(found[:10], np.broadcast_to(np.array(fill, np.uint8), (10, 40, 3)))
    np.testing.assert_array_equal(found[30:], found[:10])


@pytest.mark.parametrize("scale", [1.0, 255.0, 2.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_input_is_shown_again_as_the_picture_it_was(channels, scale):
    mean, std = tuple(0.4 * scale for _ in range(channels)), (0.3 * scale,) * channels
    preprocess = Preprocess(size=(24, 24), resize=None, channels=channels, scale=scale, mean=mean, std=std)
    pixels = photograph((24, 24))
    expected = pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))
    shown = preprocess.to_display(preprocess(read(pixels))[0])
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("tensor", [torch.full((3, 4, 4), 9.0), torch.zeros(1, 4, 4), torch.zeros(5, 4, 4)])
def test_an_input_that_is_no_normalised_picture_is_not_shown_as_one(tensor):
    assert Preprocess().to_display(tensor) is None
    assert CallablePreprocess(lambda image: image).to_display(tensor) is None


def test_the_steps_can_be_read():
    assert str(Preprocess()).startswith("shorter side to 256, centre crop to 224x224 (bilinear)")
    assert "longer side to 256" in str(Preprocess(fit="border"))


def test_colours_in_another_order_have_their_own_means_and_come_back() -> None:
    pixels = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3) * 20
    caffe = Preprocess((2, 2), None, mean=(104.0, 117.0, 124.0), std=(1.0,) * 3, scale=255.0, colours="bgr")
    found, _ = caffe(Picture(pixels, "x"))
    expected = pixels[..., ::-1].astype("float32") - np.array([104.0, 117.0, 124.0], "float32")
    assert np.allclose(found.movedim(0, -1).numpy(), expected, atol=1e-4)
    assert np.array_equal(caffe.to_display(found), pixels)
