"""Tensors of other libraries as images: the model's input as torch's tensors are, with the same map."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import seewhy
from seewhy.images import as_tensor
from small_models import SmallNet, make_small_net

Array = npt.NDArray[Any]


class ByProtocol:
    """An array of a library that nobody knows: it says no more than how it becomes one of numpy's."""

    def __init__(self, values: Array) -> None:
        self._values = values
        self.shape = values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.array(self._values, dtype)


def _paddle(values: Array, *, learns: bool = False) -> Any:
    paddle = pytest.importorskip("paddle")
    tensor = paddle.to_tensor(values)
    tensor.stop_gradient = not learns
    return tensor


def _jax(values: Array) -> Any:
    return pytest.importorskip("jax.numpy").asarray(values)


MAKERS: dict[str, Callable[[Array], Any]] = {
    "paddle": _paddle,
    "paddle, with a gradient": lambda values: _paddle(values, learns=True),
    "jax": _jax,
    "unknown": ByProtocol,
}


@pytest.fixture
def net() -> SmallNet:
    return make_small_net().eval()


@pytest.mark.filterwarnings("ignore")  # Paddle's own, when it is imported
@pytest.mark.parametrize("maker", MAKERS)
def test_a_float_tensor_is_the_models_input(maker: str, net: SmallNet) -> None:
    values = np.random.default_rng(0).standard_normal((3, 24, 40)).astype(np.float32)
    expected = seewhy.explain(net, torch.from_numpy(values), 1)
    make = MAKERS[maker]
    for given, result in [
        (make(values), lambda e: e),
        (make(values[None]), lambda e: e[0]),
        ([make(values)] * 2, lambda e: e[1]),
    ]:
        found = result(seewhy.explain(net, given, 1))
        np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)
        assert found.score == pytest.approx(expected.score, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("maker", [name for name in MAKERS if "gradient" not in name])
def test_whole_numbers_are_a_picture(maker: str, net: SmallNet) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    how = {"size": (24, 40), "resize": None, "fit": "squash"}
    found = seewhy.explain(net, MAKERS[maker](pixels), 1, preprocess=how)
    np.testing.assert_array_equal(found.image, pixels)
    np.testing.assert_array_equal(found.raw, seewhy.explain(net, pixels, 1, preprocess=how).raw)


@pytest.mark.filterwarnings("ignore")
def test_half_precision_with_a_gradient_keeps_its_numbers() -> None:
    values = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
    given = _paddle(values, learns=True).astype("bfloat16")  # numpy would see the whole numbers of its bits
    found = as_tensor(given)
    assert found is not None
    np.testing.assert_array_equal(found.float().numpy(), values)


def test_what_has_no_numbers_is_told(net: SmallNet, unchecked: None) -> None:
    words = ByProtocol(np.array([["cat", "dog"]]))
    with pytest.raises(seewhy.ImageError, match=r"ByProtocol holds no array of real numbers that can be read"):
        seewhy.explain(net, words)
