"""The blur is scipy's, at any width, on any number of axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from seewhy import ImageError
from seewhy.images.blur import gaussian_blur

MODES = {"zero": "constant", "repeat": "nearest"}


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("edges", MODES)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 5.3, 50.0])
@pytest.mark.parametrize("space", [(37,), (1,), (23, 40), (9, 12, 7)])
def test_it_is_scipys(space: tuple[int, ...], sigma: float, edges: str) -> None:
    images = random_images(2, 3, *space)
    expected = gaussian_filter(
        images.double().numpy(), (0, 0, *(sigma,) * len(space)), mode=MODES[edges], cval=0.0, truncate=4.0
    )
    found = gaussian_blur(images, sigma, edges=edges)
    assert found.dtype == torch.float32
    assert found.shape == images.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("edges", MODES)
def test_each_axis_may_have_its_own_width(edges: str) -> None:
    images = random_images(1, 2, 20, 31)
    expected = gaussian_filter(images.numpy(), (0, 0, 0, 3.5), mode=MODES[edges])
    np.testing.assert_allclose(gaussian_blur(images, (0, 3.5), edges=edges), expected, atol=1e-5)


def test_a_width_of_zero_returns_the_images() -> None:
    images = random_images(2, 1, 8, 9)
    assert gaussian_blur(images, 0, edges="zero") is images
    assert gaussian_blur(images, [0.0, 0], edges="repeat") is images


def test_a_constant_stays_where_edges_repeat_and_fades_where_outside_is_zero() -> None:
    images = torch.full((1, 1, 30, 30), 2.5)
    torch.testing.assert_close(gaussian_blur(images, 6.0, edges="repeat"), images)
    faded = gaussian_blur(images, 6.0, edges="zero")
    assert float(faded[0, 0, 0, 0]) < 0.4 * 2.5
    assert float(faded[0, 0, 15, 15]) > 0.95 * 2.5


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_every_float_type_keeps_its_type(dtype: torch.dtype, atol: float) -> None:
    images = random_images(2, 3, 16, 11).to(dtype)
    found = gaussian_blur(images, 1.5, edges="repeat")
    assert found.dtype == dtype
    expected = gaussian_filter(images.double().numpy(), (0, 0, 1.5, 1.5), mode="nearest")
    np.testing.assert_allclose(found.double().numpy(), expected, atol=atol)


def test_the_input_is_left_alone_and_gradients_pass() -> None:
    images = random_images(1, 3, 12, 12).requires_grad_()
    before = images.detach().clone()
    blurred = gaussian_blur(images, 2.0, edges="repeat")
    assert blurred.is_contiguous()
    (gradient,) = torch.autograd.grad(blurred.sum(), images)
    assert float(gradient.sum()) == pytest.approx(images.numel(), rel=1e-5)  # each output's weights sum to 1
    assert torch.equal(images.detach(), before)


@pytest.mark.parametrize("edges", MODES)
def test_a_kernel_much_wider_than_the_image_is_as_exact_and_as_small(edges: str) -> None:
    images = random_images(1, 1, 224, 120) + 2
    expected = gaussian_filter(images.double().numpy(), (0, 0, 300, 300), mode=MODES[edges])
    np.testing.assert_allclose(gaussian_blur(images, 300.0, edges=edges), expected, atol=1e-5)
    widest = gaussian_blur(images.double(), 1e5, edges=edges)
    assert bool(widest.isfinite().all())
    assert float(widest.std()) < 1e-3  # seen from so far, the image is one colour


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), 1e6, (1.0,), (1.0, 2.0, 3.0), "wide", (1.0, None)])
def test_a_bad_width_is_named(sigma: object, unchecked: None) -> None:
    with pytest.raises(ImageError, match="sigma="):
        gaussian_blur(random_images(1, 1, 5, 5), sigma, edges="zero")


def test_bad_edges_and_images_are_named(unchecked: None) -> None:
    with pytest.raises(ImageError, match=r"edges='reflect' is not known\. Known: zero, repeat"):
        gaussian_blur(random_images(1, 1, 5, 5), 1.0, edges="reflect")
    with pytest.raises(ImageError, match="int64"):
        gaussian_blur(torch.ones(1, 1, 5, 5, dtype=torch.int64), 1.0, edges="zero")
    with pytest.raises(ImageError, match=r"\(5, 5\)"):
        gaussian_blur(torch.ones(5, 5), 1.0, edges="zero")


@pytest.mark.parametrize("edges", MODES)
@pytest.mark.parametrize("sigma", [0.7, 40.0, 2000.0])
def test_a_long_line_is_blurred_as_scipy_does(sigma: float, edges: str) -> None:
    images = random_images(1, 2, 5000)
    expected = gaussian_filter(images.double().numpy(), (0, 0, sigma), mode=MODES[edges], cval=0.0, truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(images, sigma, edges=edges), expected, atol=1e-5)
