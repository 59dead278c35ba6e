"""Regions taken away, the highest first: closed forms on linear models, and a slow implementation on a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.measures.trials import Weighted, tried
from tests.small_models import SmallNet
from torch import Tensor, nn

from seewhy.errors import MetricError
from seewhy.images.regions import superpixels
from seewhy.measures.regions import aopc, irof, squares


def _without(image: Tensor, regions: Tensor, values: Tensor, fill: float) -> list[Tensor]:
    """The image without its highest 1, 2, ... regions, region by region and place by place."""
    means = [float(values[regions == number].mean()) for number in range(int(regions.max()) + 1)]
    made, edited = [], image.clone()
    for number in sorted(range(len(means)), key=lambda each: -means[each]):
        for place in (regions == number).nonzero().tolist():
            edited[(slice(None), *place)] = fill
        made.append(edited.clone())
    return made


def _asked(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image[None])[0]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet().eval()


@pytest.mark.parametrize("steps", [3, 100])
def test_aopc_equals_a_slow_implementation(model: nn.Module, steps: int, generator: torch.Generator) -> None:
    images = torch.randn((2, 3, 12, 14), generator=generator)
    maps = torch.randn((2, 3, 12, 14), generator=generator)
    found = aopc(tried(model, images, maps, index=1), side=5, steps=steps, fill=0.5)
    for row, column in np.ndindex(2, 3):
        whole = float(_asked(model, images[row])[1])
        made = _without(images[row], squares((12, 14), 5), maps[row, column], 0.5)[:steps]
        falls = [0.0, *(whole - float(_asked(model, each)[1]) for each in made)]
        assert len(falls) == min(steps, 9) + 1
        assert float(found[row, column]) == pytest.approx(sum(falls) / len(falls), abs=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_irof_equals_a_slow_implementation(model: nn.Module, own: bool, generator: torch.Generator) -> None:
    images = torch.randn((2, 3, 16, 16), generator=generator)
    images[1, :, :8] += 3  # another number of superpixels than in the first
    maps = torch.randn((2, 2, 16, 16), generator=generator)
    labels = torch.randint(7, (16, 16), generator=generator) * 3
    found = irof(tried(model, images, maps), segments=labels.numpy() if own else 9, fill=0)
    for row, column in np.ndindex(2, 2):
        regions = labels // 3 if own else superpixels(images[row], 9)
        whole = float(_asked(model, images[row]).softmax(0)[0])
        made = _without(images[row], regions, maps[row, column], 0.0)
        curve = [1.0, *(float(_asked(model, each).softmax(0)[0]) / whole for each in made)]
        expected = 1 - np.trapezoid(curve, dx=1 / len(made))
        assert float(found[row, column]) == pytest.approx(float(expected), abs=1e-5)


def test_the_terms_of_a_linear_model_have_the_highest_aopc(generator: torch.Generator) -> None:
    weights, images = torch.randn((2, 1, 8, 8), generator=generator), torch.rand((1, 1, 8, 8), generator=generator)
    terms = images * weights[:1]
    others = torch.randn((1, 50, 8, 8), generator=generator)
    values = aopc(tried(Weighted(weights), images, torch.cat([terms, others], 1)), side=2, fill=0)[0]
    parts = torch.nn.functional.avg_pool2d(terms, 2).flatten() * 4
    expected = parts.sort(descending=True).values.cumsum(0).sum() / (len(parts) + 1)
    assert float(values[0]) == pytest.approx(float(expected), abs=1e-4)
    assert (values[0] >= values - 1e-5).all()


def test_a_model_that_sees_one_region_alone_gives_irof_its_rank() -> None:
    weights = torch.zeros(2, 1, 4, 4)
    weights[0, 0, 0, 0] = 1.0
    labels = squares((4, 4), 2)
    maps = torch.zeros(1, 4, 4, 4)
    for rank in range(4):  # the region that counts is the first, second, ... to go
        maps[0, rank] = torch.tensor([2.5 - rank, 2.0, 1.0, 0.0])[labels]
    values = irof(tried(Weighted(weights), torch.ones(1, 1, 4, 4), maps, logits=True), segments=labels, fill=0)[0]
    torch.testing.assert_close(values, torch.tensor([3.5, 2.5, 1.5, 0.5]) / 4)


def test_squares_are_whole_but_for_the_last() -> None:
    assert squares((5,), 2).tolist() == [0, 0, 1, 1, 2]
    assert squares((3, 5), 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert len(squares((4, 4, 4), 2).unique()) == 8


def test_a_probability_of_nothing_has_no_irof() -> None:
    values = irof(tried(Weighted(-torch.ones(2, 1, 4, 4)), torch.ones(1, 1, 4, 4), torch.rand(1, 2, 4, 4), logits=True))
    assert values.isnan().all()


@pytest.mark.parametrize("options", [{"side": 0}, {"steps": 0}])
def test_there_is_a_square_and_a_step(model: nn.Module, options: dict[str, int]) -> None:
    with pytest.raises(MetricError, match="must be at least 1"):
        aopc(tried(model, torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)), **options)
