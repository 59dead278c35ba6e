"""Memory that runs out, and inputs with one or three spatial axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from small_models import SmallNet


class Narrow(SmallNet):
    """A model for which more than two images are too many."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(images)


def test_when_memory_runs_out_the_batch_is_halved_and_nothing_is_lost() -> None:
    torch.manual_seed(0)
    model = Narrow().eval()
    images = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    alone = [seewhy.explain(model, image, number % 5).raw for number, image in enumerate(images)]
    model.batches.clear()
    together = seewhy.explain(model, images, [number % 5 for number in range(7)])
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.raw, other, atol=1e-6)
    assert model.batches == [7, 3, 1, 2, 4, 2, 2]


def test_when_memory_runs_out_for_one_image_the_error_says_what_to_do() -> None:
    class Full(SmallNet):
        def forward(self, images: Tensor) -> Tensor:
            if self.training is None:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(images)

    model = Full().eval()
    ask = seewhy.Explainer(model)
    ask.layers(torch.zeros(3, 16, 16))
    model.training = None  # from now on there is no memory
    with pytest.raises(seewhy.RecordingError, match=r"single image of shape \(3, 16, 16\).*fewer or later layers"):
        ask(torch.zeros(3, 16, 16))


def network(axes: int) -> nn.Module:
    """A convolution with weights of one sign that looks at one channel only, pooled, so that its map is known."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[axes]
    model = nn.Sequential(
        conv(2, 2, 3, stride=2, padding=1, bias=False), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = 1.0
        model[4].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    return model


FEW = {"samples": 4, "masks": 400, "steps": 6, "count": 16, "window": 4}
SHAPES = pytest.mark.parametrize("shape", [(64,), (32, 48), (16, 24, 32)])


@SHAPES
@pytest.mark.parametrize(
    "name", [each.name for each in seewhy.methods() if not (each.needs.layer or each.needs.attention)]
)
def test_pixel_methods_on_signals_pictures_and_volumes(name: str, shape: tuple[int, ...]) -> None:
    """One bright cell in an input of any number of axes: the map is of the input's shape, and high there."""
    image = torch.zeros(2, *shape)
    place = tuple(length // 4 for length in shape)
    image[(0, *place)] = 1.0
    entry = seewhy.maps.find_method(name)
    few = {option: value for option, value in FEW.items() if option in entry.options}
    few |= {"baseline": "dataset"} if "baseline" in entry.options else {}
    why = seewhy.explain(network(len(shape)), image, 0, name, **few)
    assert why.raw.shape == why.heatmap.shape == shape
    near = tuple(slice(at - 1, at + 2) for at in place)
    if name not in ("deconvnet", "vargrad"):  # these do not look at the input's values, or at how they differ only
        assert np.abs(why.raw[near]).max() > np.quantile(np.abs(why.raw), 0.9)


@SHAPES
@pytest.mark.parametrize(
    "name", [e.name for e in seewhy.methods() if e.needs.layer and e.name != "random" and not e.colours]
)
def test_signals_pictures_and_volumes_alike(name: str, shape: tuple[int, ...]) -> None:
    """One bright cell in an input of any number of axes: the map's peak lies on it, axes in the input's order."""
    image = torch.zeros(2, *shape)
    place = tuple(length // 4 for length in shape)
    image[(0, *place)] = 1.0
    why = seewhy.explain(
        network(len(shape)), image, 0, name, "1", **({"samples": 2} if name in ("ss-cam", "is-cam") else {})
    )
    assert why.raw.shape == (
        shape if seewhy.maps.find_method(name).together else tuple(length // 2 for length in shape)
    )
    assert why.heatmap.shape == shape
    peak = np.unravel_index(why.heatmap.argmax(), shape)
    assert all(abs(found - true) <= 1 for found, true in zip(peak, place, strict=True))
