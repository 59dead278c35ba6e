"""The input seen through a map: closed forms, a slow implementation, torchcam's and pytorch-grad-cam's numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics import arcc as peer_arcc
from pytorch_grad_cam.metrics import cam_mult_image as peer
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from tests.measures.trials import Weighted, tried
from tests.small_models import SmallNet
from torch import Tensor, nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

import seewhy
from seewhy.measures import drops
from seewhy.measures.curves import deletion, insertion

SIDES = (20, 15)  # of 300 places any tenth is whole, so that peers cut at the same place
CLASS = 0


class Softmax:
    """The peer's targets are given one output."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[self.index]


class Remade:
    """Makes maps of any input by given functions."""

    weighted_layers = 0

    def __init__(self, makers: list[Callable[[Tensor], Tensor]]) -> None:
        self.makers = makers
        self.calls = 0

    def of_images(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([make(images) for make in self.makers], 1)

    def of_other_class(self, seed: int) -> Tensor:
        raise NotImplementedError

    def of_randomised(self, seed: int, down_to: int) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet().eval()


def _seen(values: Tensor) -> Tensor:
    high = values.clamp(min=0)
    return high / high.max() if high.max() > 0 else high


def _cases(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn((4, 3, *SIDES), generator=generator), torch.randn((4, 3, *SIDES), generator=generator)


@pytest.mark.parametrize("towards", [0.0, 0.5])
def test_they_equal_a_slow_implementation(model: nn.Module, towards: float, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    trial = tried(model, images, maps, index=CLASS)
    signs = set()
    for row, column in np.ndindex(4, 3):
        weights = _seen(maps[row, column])
        with torch.no_grad():
            before = float(model(images[row][None]).softmax(1)[0, CLASS])
            after = float(model((towards + weights * (images[row] - towards))[None]).softmax(1)[0, CLASS])
        signs.add(after > before)
        expected = {
            drops.average_drop: max(0, before - after) / before,
            drops.average_gain: max(0, after - before) / (1 - before),
            drops.increase_in_confidence: float(after > before),
            drops.confidence_change: after - before,
            drops.drop_in_confidence: max(0, before - after),
        }
        for metric, value in expected.items():
            assert float(metric(trial, towards=towards)[row, column]) == pytest.approx(value, abs=2e-6), metric.__name__
    assert signs == {True, False}
    assert trial.runs == 1 + 3  # the whole input, and each map once, whatever is made of it


def test_confidence_change_equals_pytorch_grad_cam(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    trial = tried(model, images, maps, index=2)
    scaled = drops.seen(maps.flatten(2)).view_as(maps)
    pairs = (
        (drops.confidence_change, peer.CamMultImageConfidenceChange()),
        (drops.drop_in_confidence, peer.DropInConfidence()),
        (drops.increase_in_confidence, peer.IncreaseInConfidence()),
    )
    for ours, theirs in pairs:
        for column in range(3):
            found = theirs(images, scaled[:, column].numpy(), [Softmax(2)] * 4, model)
            np.testing.assert_allclose(ours(trial)[:, column].numpy(), found, atol=2e-6)


class Extracted:
    """Maps as torchcam's metrics want them: made by what they take for a method."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model = model
        self.maps = maps

    def __call__(self, *args: Any, **options: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    def _hooks_off(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_drop_and_increase_equal_torchcam(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    scaled = drops.seen(maps.flatten(2)).view_as(maps)
    trial = tried(model, images, maps, index=CLASS)
    for column in range(3):
        metric = ClassificationMetric(Extracted(model, scaled[:, column]), lambda scores: scores.softmax(-1))
        metric.update(images, CLASS)
        told = metric.summary()
        assert drops.average_drop(trial)[:, column].mean().item() == pytest.approx(told["avg_drop"], abs=1e-5)
        found = drops.increase_in_confidence(trial)[:, column].mean().item()
        assert found == pytest.approx(told["conf_increase"])


def test_areas_equal_torchcam(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    trial = tried(model, images, maps, index=CLASS)
    for column in range(3):
        extracted = Extracted(model, maps[:, column])
        metric = DeletionInsertionMetric(extracted, lambda scores: scores.softmax(-1), steps=10, baseline=None)
        metric.update(images, CLASS)
        told = metric.summary()
        assert deletion(trial, steps=10, fill=0)[:, column].mean().item() == pytest.approx(
            told["deletion_auc"], abs=1e-5
        )
        assert insertion(trial, steps=10, fill=0)[:, column].mean().item() == pytest.approx(
            told["insertion_auc"], abs=1e-5
        )


def test_a_linear_model_loses_what_it_does_not_see() -> None:
    weights = torch.zeros(2, 1, 2, 2)
    weights[0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    maps = torch.tensor([[[[2.0, 0.0], [-5.0, 1.0]], [[-1.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    trial = tried(Weighted(weights), torch.ones(1, 1, 2, 2), maps, logits=True)
    assert drops.average_drop(trial)[0].tolist() == pytest.approx([0.7, 1.0, 0.0])
    assert drops.cam_complexity(trial)[0].tolist() == pytest.approx([0.375, 0.0, 1.0])


def test_shares_of_nothing_are_not_known() -> None:
    weights = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    trial = tried(
        Weighted(weights, torch.tensor([0.0, 0.0])), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), logits=True
    )
    assert drops.average_drop(trial).isnan().all()
    sure = tried(
        Weighted(weights, torch.tensor([1.0, 0.0])), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), logits=True
    )
    assert drops.average_gain(sure).isnan().all()


def test_coherency_is_a_correlation_with_the_map_of_the_input_as_seen(generator: torch.Generator) -> None:
    images, maps = torch.rand((2, 1, 6, 6), generator=generator), torch.rand((2, 4, 6, 6), generator=generator)
    kept = [maps[:, column] for column in range(4)]
    makers: list[Callable[[Tensor], Tensor]] = [
        lambda given: kept[0],
        lambda given: 3 - kept[1],
        lambda given: given[:, 0] ** 2,
        lambda given: torch.ones_like(given[:, 0]),
    ]
    trial = tried(Weighted(torch.ones(2, 1, 6, 6)), images, maps, remade=Remade(makers))
    found = drops.coherency(trial)
    torch.testing.assert_close(found[:, 0], torch.ones(2))
    torch.testing.assert_close(found[:, 1], torch.zeros(2), atol=1e-6, rtol=0)
    for row in range(2):
        own = _seen(maps[row, 2])
        again = (images[row, 0] * own) ** 2
        expected = (1 + np.corrcoef(own.flatten().numpy(), again.flatten().numpy())[0, 1]) / 2
        assert float(found[row, 2]) == pytest.approx(expected, abs=1e-5)
    assert found[:, 3].isnan().all()


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_coherency_and_arcc_equal_pytorch_grad_cam(model: nn.Module, generator: torch.Generator) -> None:
    images = 3 * torch.randn((2, 3, *SIDES), generator=generator)
    cam = GradCAM(model, [model.second])
    targets = [Softmax(1)] * 2
    maps = torch.from_numpy(cam(images, targets)) + 1e-3 * torch.rand((2, *SIDES), generator=generator)  # no ties
    scaled = drops.seen(maps.flatten(1)).view_as(maps)
    again = Remade([lambda given: torch.from_numpy(cam(given, targets))])
    trial = tried(model, images, maps[:, None], index=1, remade=again)
    coherent = peer_arcc.Coherency()(images, scaled.numpy(), targets, model, cam)
    np.testing.assert_allclose(drops.coherency(trial)[:, 0].numpy(), coherent, atol=2e-5)
    np.testing.assert_allclose(
        drops.cam_complexity(trial)[:, 0].numpy(), peer_arcc.Complexity()(scaled.numpy()), rtol=1e-5
    )
    usual = NoisyLinearImputer.__init__.__defaults__
    NoisyLinearImputer.__init__.__defaults__ = (0, usual[1])
    try:
        expected = peer_arcc.ARCC(cam)(images, scaled.numpy(), targets, model)
    finally:
        NoisyLinearImputer.__init__.__defaults__ = usual
    found = drops.arcc(trial, noise=0.0)[:, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    cam.activations_and_grads.release()


def test_adcc_is_the_harmonic_mean_of_its_parts(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    trial = tried(model, images, maps, remade=Remade([lambda given: given[:, 0].abs()] * 3))
    parts = [drops.coherency(trial), 1 - drops.cam_complexity(trial), 1 - drops.average_drop(trial)]
    expected = 3 / sum(1 / part.double() for part in parts)
    torch.testing.assert_close(drops.adcc(trial).double(), expected, atol=1e-6, rtol=0)
    whole = tried(model, images, torch.ones_like(maps), remade=Remade([lambda given: given[:, 0].abs()] * 3))
    assert drops.cam_complexity(whole).min() == 1  # it shows all, so it explains nothing


def test_the_map_of_a_method_is_made_again_of_what_it_shows(model: nn.Module, generator: torch.Generator) -> None:
    ask = seewhy.Explainer(model)
    images = torch.randn((2, 3, 32, 32), generator=generator)

    def made(given: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(ask(each, CLASS, "layer-cam").heatmap) for each in given])

    maps = made(images)
    found = drops.coherency(tried(model, images, maps[:, None], remade=Remade([made])))
    for row in range(2):
        again = made((images[row] * _seen(maps[row]))[None])[0]
        expected = (1 + np.corrcoef(maps[row].flatten().numpy(), again.flatten().numpy())[0, 1]) / 2
        assert float(found[row, 0]) == pytest.approx(float(expected), abs=1e-4)


def test_what_the_input_is_seen_through_is_measured_beside_maps_that_know_nothing(
    model: nn.Module, generator: torch.Generator
) -> None:
    image = torch.randn((3, 32, 32), generator=generator)
    maps = {"noise": torch.randn((32, 32), generator=generator).numpy()}
    names = ["average-drop", "average-gain", "road", "aopc", "irof", "pixel-flipping", "morf", "lerf", "cam-complexity"]
    rows = seewhy.measure(model, image, maps, names, target=1, steps=2, segments=5, fill="mean")
    assert [row.metric for row in rows.rows] == names
    assert all(np.isfinite(row.value) and np.isfinite(row.random).all() for row in rows.rows)


def test_coherency_adcc_and_arcc_share_the_maps_made_again(model: nn.Module, generator: torch.Generator) -> None:
    images, maps = _cases(generator)
    remade = Remade([lambda given: given[:, 0].abs()] * 3)
    trial = tried(model, images, maps, remade=remade)
    for metric in (drops.coherency, drops.adcc, drops.arcc):
        metric(trial)
    assert remade.calls == 3  # one a map
    drops.coherency(trial, towards=0.5)
    assert remade.calls == 6
