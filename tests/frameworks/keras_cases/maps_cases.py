"""A Keras model has the maps of the same model in torch."""

from __future__ import annotations

import numpy as np
import pytest
import small_keras
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import SeewhyError
from seewhy.maps import find_method

EVERY = [entry.name for entry in seewhy.methods()]
FEW = {"rounds": 0, "samples": 3, "masks": 24, "steps": 4, "count": 6, "window": 8}
TORCH_ALONE = {"guided-backprop", "deconvnet", "guided-grad-cam", "shapley-cam"}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def cnn() -> tuple[object, nn.Module]:
    model = small_keras.cnn()
    return model, small_keras.TorchCNN(model)


@pytest.fixture(scope="module")
def vit() -> tuple[object, nn.Module]:
    model = small_keras.vit()
    return model, small_keras.TorchViT(model)


def check(models: tuple[object, nn.Module], images: Tensor, name: str, layer: str) -> None:
    few = {option: FEW[option] for option in find_method(name).options if option in FEW}
    ours, theirs = models
    try:
        expected = seewhy.explain(theirs, images, 1, name, layer, **few)
    except SeewhyError:
        return  # of this torch model neither
    try:
        found = seewhy.explain(ours, images, 1, name, layer, **few)
    except SeewhyError as error:
        assert refused(name), str(error)
        return
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert np.abs(one.raw - other.raw).max() <= 1e-4 * np.abs(other.raw).max()


def refused(name: str) -> bool:
    import keras

    needs = str(find_method(name).needs)
    lacking = any(word in needs for word in ("ATTENTION", "BIASES", "MODULE", "PROPAGATION"))
    return lacking or (keras.backend.backend() != "torch" and name in TORCH_ALONE)


@pytest.mark.parametrize("name", EVERY)
def test_every_method_of_a_network_of_convolutions(name: str, cnn: tuple, images: Tensor) -> None:
    check(cnn, images, name, "relu2")


@pytest.mark.parametrize("name", EVERY)
def test_every_method_of_a_transformer(name: str, vit: tuple, images: Tensor) -> None:
    check(vit, images, name, "block0")


def test_several_layers_in_one_run(cnn: tuple, images: Tensor) -> None:
    """Behind the first of them the graph has begun: what the later ones hear are numbers all the same."""
    names = ["norm", "second", "relu2"]
    found, expected = (
        seewhy.compare(model, images[0], ["grad-cam", "layer-cam"], layers=names, targets=2) for model in cnn
    )
    for one, other in zip(found, expected, strict=True):
        assert one.layers == other.layers
        assert np.abs(one.raw - other.raw).max() <= 1e-4 * np.abs(other.raw).max()


def test_two_questions_share_a_run(cnn: tuple, images: Tensor) -> None:
    found, expected = (seewhy.compare(model, images[0], ["hires-cam"], targets=[0, 4]) for model in cnn)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.raw - other.raw).max() <= 1e-4 * np.abs(other.raw).max()


def test_layers_and_layouts_are_those_of_torch(cnn: tuple, images: Tensor) -> None:
    ours, theirs = (seewhy.layers(model, images[0]) for model in cnn)
    assert [row.name for row in ours] == [row.name for row in theirs]
    assert {row.layout.order for row in ours} == {"channels-last"}
    assert [(row.layout.grid, row.layout.channels, row.stage, row.default) for row in ours] == [
        (row.layout.grid, row.layout.channels, row.stage, row.default) for row in theirs
    ]


def test_a_square_map_with_as_many_channels_as_rows_is_read_rightly() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(16, 3, padding="same", name="conv"),
            keras.layers.Activation("tanh", name="tanh"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert {row.layout.order for row in seewhy.layers(model, image)} == {"channels-last"}
