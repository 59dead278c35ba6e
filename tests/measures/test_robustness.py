"""How much maps change nearby: a closed form for linear maps, loops, shared runs, and end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.measures.trials import Remade, Weighted, tried
from tests.small_models import make_small_net
from torch import Tensor

import seewhy
from seewhy.measures.drawing import drawn_for
from seewhy.measures.robustness import avg_sensitivity, local_lipschitz, max_sensitivity


def _trial(images: Tensor, make: Remade) -> object:
    model = Weighted(torch.ones(2, *images.shape[1:]))
    return tried(model, images, make.make(images), remade=make)


def _slowly(images: Tensor, make: object, runs: int, radius: float, trial: object) -> tuple[list[list[float]], ...]:
    """Return for each image the changes of its map and the distances of the inputs, one at a time."""
    changes, distances = [], []
    for row, image in enumerate(images):
        generator = trial.generator(row)
        own, far = [], []
        for _ in range(runs):
            noise = (torch.rand(image.shape, generator=generator) * 2 - 1) * radius
            assert noise.abs().max() <= radius
            before, after = make(image[None]).double(), make((image + noise)[None]).double()
            own.append(float((after - before).norm() / before.norm()))
            far.append(float(noise.double().norm()))
        changes.append(own)
        distances.append(far)
    return changes, distances


def test_they_equal_a_slow_implementation(generator: torch.Generator) -> None:
    images = torch.randn((2, 3, 6, 9), generator=generator)

    def make(given: Tensor) -> Tensor:
        return (given**2).sum(1, keepdim=True).sin()

    trial = _trial(images, Remade(make))
    changes, distances = _slowly(images, make, 5, 0.3, trial)
    found = [each(trial, runs=5, radius=0.3)[:, 0] for each in (max_sensitivity, avg_sensitivity, local_lipschitz)]
    expected = [np.max(changes, 1), np.mean(changes, 1), np.max(np.array(changes) / distances, 1)]
    for value, own in zip(found, expected, strict=True):
        torch.testing.assert_close(value, torch.from_numpy(own).float())
    assert trial.remade.calls == ["images"] * 5  # three metrics, one set of runs


def test_a_map_that_is_the_input_changes_as_the_input_does(generator: torch.Generator) -> None:
    images = torch.randn((2, 1, 8, 8), generator=generator)
    trial = _trial(images, Remade(lambda given: 3 * given))
    torch.testing.assert_close(local_lipschitz(trial)[:, 0], 1 / images.flatten(1).norm(dim=1))
    wider = _trial(images, Remade(lambda given: 3 * given))
    torch.testing.assert_close(max_sensitivity(wider, radius=0.2), 2 * max_sensitivity(trial, radius=0.1))


def test_a_map_that_never_changes_is_as_robust_as_can_be_and_one_of_nothing_has_no_value() -> None:
    images = torch.rand(1, 1, 4, 4)
    assert max_sensitivity(_trial(images, Remade(torch.ones_like))).item() == 0
    assert max_sensitivity(_trial(images, Remade(torch.zeros_like))).isnan().all()


@pytest.mark.parametrize("options", [{"runs": 0}, {"radius": 0.0}])
def test_no_run_and_no_noise_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(seewhy.MetricError, match=r"must be at least 1, and radius=.* more than 0"):
        max_sensitivity(_trial(torch.rand(1, 1, 4, 4), Remade(torch.ones_like)), **options)


def test_maps_of_the_same_images_are_made_again_as_they_were(batch: Tensor) -> None:
    """Next to no noise: what changes then would be the way that maps are made again."""
    ask = seewhy.Explainer(make_small_net())
    for methods in (["grad-cam", "saliency"], ["smoothgrad"], ["finer-cam"]):
        found = seewhy.measure(ask, list(batch), methods, "max-sensitivity", runs=1, radius=1e-7)
        for row in found:
            assert (row.values < 1e-3).all(), row
            assert np.isnan(row.random).all()


def test_the_target_stays_the_one_that_was_asked_about(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    radius, name = 0.5, "max-sensitivity"
    found = seewhy.measure(ask, list(batch), ["saliency"], name, target=[3, 1, 3], runs=1, radius=radius)
    [first] = [row.values for row in found]
    for number, target in enumerate([3, 1, 3]):
        noise = torch.rand(batch.shape[1:], generator=drawn_for(batch[number], 0, "trial")) * 2 * radius - radius
        before, after = (ask(each, target, "saliency").raw for each in (batch[number], batch[number] + noise))
        assert first[number] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-4)
