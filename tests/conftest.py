"""What many tests share: small models, a photograph, the built-in model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import seewhy
from small_models import SmallNet, make_small_net


@pytest.fixture
def small_net() -> SmallNet:
    return make_small_net()


@pytest.fixture
def batch() -> Tensor:
    """Three images that are not square."""
    return torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Layers this small are slower on many cores, much slower where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chelsea() -> np.ndarray:
    """A photograph of a cat, 300 x 451."""
    return data.chelsea()


@pytest.fixture(scope="session")
def embedded() -> seewhy.Explainer:
    """The built-in model, real weights."""
    return seewhy.Explainer("efficientnet_lite0")
