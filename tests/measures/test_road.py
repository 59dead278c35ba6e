"""ROAD: a slow implementation, one run at a time; pytorch-grad-cam's; its noise; what a map that is right or wrong gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road as peer
from tests.measures.trials import Weighted, tried
from tests.small_models import SmallNet
from torch import Tensor, nn

from seewhy.errors import MetricError
from seewhy.measures import find_metric
from seewhy.measures.road import Imputed, road, road_lerf, road_morf

SHAPE = (20, 15)  # of 300 places any tenth is whole, so that peers' percentiles cut at the same place


pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the peer gives tensors to NumPy


class Softmax:
    """The peer's targets are given one output."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[self.index]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet().eval()


@pytest.mark.parametrize("number", [1, 3])
def test_it_equals_pytorch_grad_cam(model: nn.Module, number: int, generator: torch.Generator) -> None:
    images = 3 * torch.randn((2, 3, *SHAPE), generator=generator)
    maps = torch.rand((2, number, *SHAPE), generator=generator)
    # The peer's noise cannot be given; ours is left out, and so is that of the copies of its imputer.
    trial = tried(model, images, maps, index=2)
    ours = road(trial, percentiles=(20, 40, 60, 80), noise=0.0)
    usual = peer.NoisyLinearImputer.__init__.__defaults__
    peer.NoisyLinearImputer.__init__.__defaults__ = (0, usual[1])
    try:
        for column in range(number):
            given = (images, maps[:, column].numpy(), [Softmax(2)] * 2, model)
            found = peer.ROADCombined([20, 40, 60, 80])(*given)
            np.testing.assert_allclose(ours[:, column].numpy(), found, atol=2e-6)
            most = peer.ROADMostRelevantFirst(80)(*given)
            least = peer.ROADLeastRelevantFirst(20)(*given)
            whole = trial.whole()
            np.testing.assert_allclose(
                (road_morf(trial, percentiles=20, noise=0.0)[:, column] - whole).numpy(), most, atol=5e-6
            )
            np.testing.assert_allclose(
                (road_lerf(trial, percentiles=80, noise=0.0)[:, column] - whole).numpy(), least, atol=5e-6
            )
    finally:
        peer.NoisyLinearImputer.__init__.__defaults__ = usual


def test_it_equals_a_slow_implementation_with_its_noise(model: nn.Module, generator: torch.Generator) -> None:
    images = torch.randn((2, 3, *SHAPE), generator=generator)
    maps = torch.randn((2, 2, *SHAPE), generator=generator)
    trial = tried(model, images, maps)
    found = road(trial, percentiles=(10, 50), noise=0.3)
    fill = peer.NoisyLinearImputer(noise=0)
    for row, column in np.ndindex(2, 2):
        noise = 0.3 * torch.randn(images.shape[1:], generator=trial.generator(row))
        order = sorted(range(300), key=lambda place: -float(maps[row, column].flatten()[place]))
        total = 0.0
        for count in (30, 150):
            for sign, gone in ((-1, order[:count]), (1, order[300 - count :])):
                kept = torch.ones(300)
                kept[gone] = 0
                edited = fill(images[row], kept.view(SHAPE)) + noise * (1 - kept.view(SHAPE))
                with torch.no_grad():
                    total += sign * float(model(edited[None]).softmax(1)[0, 0])
        assert float(found[row, column]) == pytest.approx(total / 4, abs=5e-6)


def test_all_maps_have_the_same_noise_and_only_where_something_was_removed(generator: torch.Generator) -> None:
    images = torch.randn((1, 1, 8, 8), generator=generator)
    maps = torch.randn((1, 2, 8, 8), generator=generator)
    trial = tried(Weighted(torch.ones(2, 1, 8, 8)), images, maps)

    def made(noise: float) -> Tensor:
        variants = Imputed((0.25, 0.5), highest=True, noise=noise)(trial.sample(0))
        return variants.make(range(variants.count))

    noise = (made(1.0) - made(0.0))[:, 0]
    ranks = trial.ranks[0].repeat_interleave(2, 0)
    removed = ranks < torch.tensor([16, 32, 16, 32])[:, None, None]
    assert ((noise != 0) == removed).all()
    both = removed[1] & removed[3]
    torch.testing.assert_close(noise[1][both], noise[3][both])
    assert torch.equal(made(1.0), made(1.0))
    part = Imputed((0.25, 0.5), highest=True, noise=1.0)(trial.sample(0)).make(range(1, 3))
    torch.testing.assert_close(part, made(1.0)[1:3], atol=1e-5, rtol=0)  # whatever chunks they come in


def test_a_map_and_its_negative_get_opposite_values(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = torch.randn((1, 3, *SHAPE), generator=generator), torch.randn((1, 1, *SHAPE), generator=generator)
    values = road(tried(model, images, torch.cat([maps, -maps], 1)))[0]
    assert float(values[0]) == pytest.approx(-float(values[1]), abs=1e-6)
    assert abs(float(values[0])) > 1e-4


def test_who_removes_what_the_score_is_made_of_wins(generator: torch.Generator) -> None:
    weights = torch.zeros(2, 1, 10, 10)
    weights[0, :, 3:7, 3:7] = 1.0
    images = torch.rand((1, 1, 10, 10), generator=generator)
    images[:, :, 3:7, 3:7] += 4  # a bright square, which can be told from nothing around it
    maps = torch.cat([weights[:1], torch.rand((1, 20, 10, 10), generator=generator)], 1)
    values = road(tried(Weighted(weights), images, maps, logits=True), noise=0.0)[0]
    assert (values[0] > values[1:]).all()


def test_its_parts_share_their_runs(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = torch.randn((1, 3, *SHAPE), generator=generator), torch.randn((1, 3, *SHAPE), generator=generator)
    trial = tried(model, images, maps)
    values = road(trial)
    assert trial.runs == 2 * 4 * 3
    torch.testing.assert_close((road_lerf(trial) - road_morf(trial)) / 2, values)
    assert trial.runs == 2 * 4 * 3


@pytest.mark.parametrize("name", ["road", "road-morf", "road-lerf", "morf", "lerf"])
@pytest.mark.parametrize("percentiles", [(), (0, 50), (100,), 120])
def test_percentiles_are_between_nothing_and_all(name: str, percentiles: object, model: nn.Module) -> None:
    trial = tried(model, torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(MetricError, match="must be numbers between 0 and 100"):
        find_metric(name).function(trial, percentiles=percentiles)


def test_noise_is_not_negative(model: nn.Module) -> None:
    with pytest.raises(MetricError, match="noise=-1"):
        road(tried(model, torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)), noise=-1.0)
