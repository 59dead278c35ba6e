"""What many tests share: small models, a photograph, the built-in model."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import timm
import torch
from skimage import data
from torch import Tensor

import seewhy
from small_models import SmallNet, make_small_net, small_model_for


@pytest.fixture
def small_net(request: pytest.FixtureRequest) -> SmallNet:
    """A small network; for a test that is about one method, one that has what this method looks at."""
    about = getattr(request.node, "callspec", None)
    name = about.params.get("name") if about is not None else None
    return small_model_for(name) if name in {entry.name for entry in seewhy.methods()} else make_small_net()


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


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the tests' type checker off: a user has none, and must be answered by seewhy itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def chelsea() -> np.ndarray:
    """A photograph of a cat, 300 x 451."""
    return data.chelsea()


@pytest.fixture(scope="session")
def embedded() -> seewhy.Explainer:
    """The built-in model, real weights."""
    return seewhy.Explainer("efficientnet_lite0")


@pytest.fixture(scope="session")
def transformer() -> seewhy.Explainer:
    """A vision transformer of the usual shape, untrained, whose attention differs from place to place."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=96, depth=3)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(5)
    return seewhy.Explainer(model)
