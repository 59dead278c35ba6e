"""Each kind of baseline is what its word says, in the model's units, and does not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision import transforms

from seewhy import ImageError
from seewhy.images import CallablePreprocess, Preprocess, Preprocessing
from seewhy.images.baselines import KINDS, Baselines, named

MEAN, STD = (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)
PLAIN = Preprocess(size=(24, 40), resize=None, fit="squash", mean=MEAN, std=STD)
OPAQUE = CallablePreprocess(
    transforms.Compose([transforms.Resize((24, 40)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def per_channel(values: tuple[float, ...], axes: int = 2) -> Tensor:
    return torch.tensor(values).view(-1, *(1,) * axes)


def normalised(pixel: float | Tensor) -> Tensor:
    return (pixel - per_channel(MEAN)) / per_channel(STD)


@pytest.mark.parametrize("preprocess", [PLAIN, OPAQUE], ids=["fields", "callable"])
@pytest.mark.parametrize(
    ("kind", "pixel"),
    [("black", 0.0), ("WHITE", 1.0), (" Black ", 0.0), (0.5, 0.5), ("0.25", 0.25), (1, 1.0), (0, 0.0)],
)
def test_a_pixel_value_goes_through_the_models_normalisation(
    batch: Tensor, preprocess: Preprocessing, kind: object, pixel: float
) -> None:
    found = Baselines(preprocess)(kind, batch, generator())
    torch.testing.assert_close(found, normalised(pixel).expand_as(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(size=(24, 40), resize=(20, 20), mean=MEAN, std=STD, scale=255.0, fill=7),
        Preprocess(size=(24, 40), resize=(10, 10), mean=MEAN, std=STD, scale=255.0, fit="border", fill=7),
        Preprocess(size=(24, 40), resize=(60, 90), mean=MEAN, std=STD, scale=255.0, fit="letterbox", fill=7),
    ],
    ids=["crop", "border", "letterbox"],
)
def test_borders_and_another_range_do_not_change_the_colour(batch: Tensor, preprocess: Preprocess) -> None:
    found = Baselines(preprocess)("white", batch, generator())
    torch.testing.assert_close(found, normalised(255.0).expand_as(batch))


def test_grey_models_and_inputs_of_one_or_three_axes_have_black_too() -> None:
    grey = Preprocess(size=(9, 9), resize=None, channels=1, mean=(0.5,), std=(0.25,))
    for space in [(11,), (9, 9), (20, 30), (4, 5, 6)]:
        images = torch.randn(2, 1, *space, generator=generator())
        assert torch.equal(Baselines(grey)("black", images, generator()), torch.full_like(images, -2.0))
        assert torch.equal(Baselines(grey)(0.75, images, generator()), torch.full_like(images, 1.0))


def test_mean_is_each_images_own_colour(batch: Tensor) -> None:
    found = Baselines(None)("mean", batch, generator())
    for one, image in zip(found, batch, strict=True):
        for channel, values in zip(one, image, strict=True):
            assert float(channel.std()) < 1e-6
            assert float(channel[0, 0]) == pytest.approx(float(values.double().mean()), abs=1e-6)


def test_blur_is_a_sixteenth_of_the_longer_side(batch: Tensor) -> None:
    found = Baselines(None)("blur", batch, generator())
    expected = gaussian_filter(batch.numpy(), (0, 0, 40 / 16, 40 / 16), mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dataset_is_what_the_normalisation_makes_of_its_own_mean(batch: Tensor) -> None:
    found = Baselines(PLAIN)("dataset", batch, generator())
    assert torch.equal(found, torch.zeros_like(batch))
    torch.testing.assert_close(found, normalised(per_channel(MEAN)).expand_as(batch))


@pytest.mark.parametrize("preprocess", [PLAIN, OPAQUE], ids=["fields", "callable"])
def test_noise_is_seeded_even_and_the_same_for_all_images(batch: Tensor, preprocess: Preprocessing) -> None:
    before = torch.get_rng_state()
    found = Baselines(preprocess)("noise", batch, generator(4))
    pixels = found * per_channel(STD) + per_channel(MEAN)
    expected = torch.rand(batch.shape[1:], generator=generator(4))
    torch.testing.assert_close(pixels, expected.expand_as(batch), atol=1e-5, rtol=1e-5)
    assert torch.equal(Baselines(preprocess)("noise", batch, generator(4)), found)
    assert not torch.equal(Baselines(preprocess)("noise", batch, generator(5)), found)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("preprocess", [PLAIN, OPAQUE], ids=["fields", "callable"])
@pytest.mark.parametrize("form", ["path", "text", "bytes", "pil", "array", "tensor"])
def test_a_picture_is_prepared_as_the_images_are(
    batch: Tensor, tmp_path: Path, preprocess: Preprocessing, form: str
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "empty.png"
    Image.fromarray(pixels).save(path)
    given = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "pil": Image.fromarray(pixels),
        "array": pixels,
        "tensor": torch.from_numpy(pixels),
    }[form]
    found = Baselines(preprocess)(given, batch, generator())
    expected = normalised(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    torch.testing.assert_close(found, expected.expand_as(batch), atol=1e-5, rtol=1e-5)
    assert named(given) == "a picture"


def test_a_float_tensor_is_taken_in_the_models_units(batch: Tensor) -> None:
    of = Baselines(None)
    whole = torch.randn(batch.shape[1:], generator=generator())
    colour = torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1)
    for given in (whole, whole[None], colour, colour.double(), torch.tensor(4.5), whole[:1]):
        inner = given[0] if given.ndim == 4 else given
        assert torch.equal(of(given, batch, generator()), inner.float().expand_as(batch))


@pytest.mark.parametrize("kind", [*KINDS, 0.3, np.float32(0.5), torch.zeros(3, 1, 1)], ids=named)
def test_a_batch_equals_one_by_one_and_nothing_is_shared(batch: Tensor, kind: object) -> None:
    of = Baselines(PLAIN)
    before = batch.clone()
    found = of(kind, batch, generator(1))
    assert (found.shape, found.dtype) == (batch.shape, batch.dtype)
    for index in range(len(batch)):
        alone = of(kind, batch[index : index + 1], generator(1))
        torch.testing.assert_close(alone[0], found[index])
    found += 1  # a caller may write into it
    assert torch.equal(batch, before)
    torch.testing.assert_close(of(kind, batch, generator(1)) + 1, found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [*KINDS, 0.3])
def test_the_images_type_is_kept(batch: Tensor, kind: object, dtype: torch.dtype) -> None:
    images = batch.to(dtype).requires_grad_()
    found = Baselines(PLAIN)(kind, images, generator(1))
    assert found.dtype == dtype
    assert not found.requires_grad
    expected = Baselines(PLAIN)(kind, batch, generator(1))
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.01)


@pytest.mark.parametrize("kind", ["black", "white", "noise", 0.5, "0.5"])
def test_without_preprocessing_pixel_values_are_refused(batch: Tensor, kind: object) -> None:
    with pytest.raises(ImageError, match=rf"baseline {named(kind)} is a pixel value.*'mean', 'blur', 'dataset'"):
        Baselines(None)(kind, batch, generator())


def test_without_preprocessing_a_picture_is_refused(batch: Tensor) -> None:
    with pytest.raises(ImageError, match=r"picture cannot be the baseline.*'mean', 'blur', 'dataset'"):
        Baselines(None)(np.zeros((24, 40, 3), np.uint8), batch, generator())


def centred(image: Image.Image) -> Tensor:
    values = transforms.functional.to_tensor(image)
    return values - values.mean()


def gamma(image: Image.Image) -> Tensor:
    return transforms.functional.to_tensor(image) ** 2.2


@pytest.mark.parametrize("transform", [centred, gamma])
def test_preprocessing_without_a_fixed_black_is_refused(batch: Tensor, transform: object) -> None:
    with pytest.raises(ImageError, match="one scale and one offset a channel"):
        Baselines(CallablePreprocess(transform))("black", batch, generator())


def test_unknown_words_are_answered_with_the_nearest(batch: Tensor) -> None:
    with pytest.raises(ImageError, match=r"baseline='blakc' is not known\. Known: black, white.*Nearest: 'black'"):
        Baselines(PLAIN)("blakc", batch, generator())
    with pytest.raises(ImageError, match=r"no file 'missing\.png'"):
        Baselines(PLAIN)("missing.png", batch, generator())


@pytest.mark.parametrize("kind", [1.5, -0.1, 128, "255", float("nan"), "inf"])
def test_numbers_that_are_no_pixel_value_are_refused(batch: Tensor, kind: object) -> None:
    with pytest.raises(ImageError, match=rf"baseline={kind} is not a pixel value.*255"):
        Baselines(PLAIN)(kind, batch, generator())


def test_what_does_not_fit_the_input_is_named(batch: Tensor) -> None:
    of = Baselines(PLAIN)
    with pytest.raises(ImageError, match=r"\(3, 9, 9\) does not fit the input \(3, 24, 40\).*\(3, 1, 1\)"):
        of(torch.zeros(3, 9, 9), batch, generator())
    with pytest.raises(ImageError, match="does not fit"):
        of(torch.zeros(3, 3, 24, 40), batch, generator())
    with pytest.raises(ImageError, match="NaN"):
        of(torch.full((3, 1, 1), float("nan")), batch, generator())
    with pytest.raises(ImageError, match=r"\(3, 24, 40\), but the images have \(3, 8, 8\)"):
        of(np.zeros((5, 5, 3), np.uint8), torch.zeros(1, 3, 8, 8), generator())
    with pytest.raises(ImageError, match="makes 3 channels, but the input has 5"):
        of("black", torch.zeros(1, 5, 8, 8), generator())


@pytest.mark.parametrize("kind", [True, None, {"black": 1}, ["black"]])
def test_things_of_another_type_are_named(batch: Tensor, kind: object, unchecked: None) -> None:
    with pytest.raises(ImageError, match=rf"A {type(kind).__name__} is not a baseline"):
        Baselines(PLAIN)(kind, batch, generator())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((word, word) for word in KINDS),
        (" Blur", "blur"),
        (0.5, "0.5"),
        ("0.50", "0.5"),
        (1, "1"),
        ("cat.png", "a picture"),
        (torch.zeros(3, 1, 1), "a tensor"),
    ],
)
def test_a_baseline_is_named_in_short_words(kind: object, words: str) -> None:
    assert named(kind) == words
