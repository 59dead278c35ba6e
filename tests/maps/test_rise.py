"""RISE: by loops, on a planted answer, and its masks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.maps.held import Held
from seewhy.maps.perturbation import RandomMasks
from small_models import SmallNet

Array = np.ndarray


def scorer(model: nn.Module, target: int):
    """Return a function from one input, float64, to its score."""
    exact = copy.deepcopy(model).double()

    def score(image: Tensor) -> float:
        with torch.no_grad():
            return float(exact(image[None].double())[0, target])

    return score


def assert_close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert np.ptp(expected) > 0


class Planted(nn.Module):
    """The score is the sum of the pixels in one patch, some of them negative."""

    ROWS, COLUMNS = slice(10, 22), slice(26, 38)

    def __init__(self) -> None:
        super().__init__()
        weights = torch.zeros(3, 32, 48)
        weights[:, self.ROWS, self.COLUMNS] = 1.0
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        score = (images * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([score, -score, 0 * score + 5], 1)


@pytest.mark.parametrize(("space", "cells"), [((24, 40), 7), ((32, 32), 4), ((50,), 5), ((9, 12, 10), 3)])
def test_masks_of_rise(space: tuple[int, ...], cells: int) -> None:
    drawn = RandomMasks(600, cells, 0.3, Held("dataset"), seed=4)
    masks = drawn.made(range(600), space, torch.device("cpu"))
    assert masks.shape == (600, 1, *space)
    assert masks.min() == 0
    assert masks.max() == 1
    assert float(masks.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(masks.mean(0).std()) < 0.04  # every place is seen as often
    near = (masks[..., 1:] - masks[..., :-1]).abs().max()
    assert float(near) <= 1 / np.ceil(min(space) / cells) + 1e-5  # from one cell to the next in a straight line
    assert len(masks.flatten(1).unique(dim=0)) > 250  # of 6 cells there are not many more
    torch.testing.assert_close(drawn.made(range(7, 12), space, torch.device("cpu")), masks[7:12])


def rise(model: nn.Module, image: Tensor, target: int, masks: Array, keep: float, *, centred: bool) -> Array:
    """Petsiuk 2018, eq. 6; `centred` takes the mean score off."""
    score, image = scorer(model, target), image.double()
    scores = [score(image * torch.from_numpy(mask)) for mask in masks]
    offset = sum(scores) / len(scores) if centred else 0.0
    return sum((s - offset) * mask for s, mask in zip(scores, masks, strict=True)) / (len(masks) * keep)


def made(count: int, cells: int, keep: float, seed: int = 0) -> Array:
    drawn = RandomMasks(count, cells, keep, Held("dataset"), seed)
    return drawn.made(range(count), (24, 40), torch.device("cpu"))[:, 0].double().numpy()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("count", "cells", "keep"), [(30, 7, 0.5), (17, 3, 0.2)])
def test_rise_is_its_paper(
    count: int, cells: int, keep: float, centred: bool, small_net: SmallNet, batch: Tensor
) -> None:
    options = {"masks": count, "cells": cells, "keep": keep, "centred": centred}
    found = seewhy.explain(small_net, batch[0], 2, "rise", seed=8, **options)
    assert_close(found.raw, rise(small_net, batch[0], 2, made(count, cells, keep, 8), keep, centred=centred))
    assert found.cost.forwards == 1 + count


def test_centring_takes_the_mean_mask_off(small_net: SmallNet, batch: Tensor) -> None:
    centred, plain = (
        seewhy.explain(small_net, batch[0], 2, "rise", masks=64, centred=centred).raw for centred in (True, False)
    )
    masks, score = made(64, 7, 0.5), scorer(small_net, 2)
    mean = sum(score(batch[0].double() * torch.from_numpy(mask)) for mask in masks) / 64
    np.testing.assert_allclose(plain - centred, mean * masks.mean(0) / 0.5, atol=1e-5)
    assert abs(mean) > 1e-2


def test_rise_finds_a_planted_patch_and_is_near_0_elsewhere() -> None:
    model, image = Planted(), torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0)) + 0.5
    why, truth = (
        seewhy.explain(model, image, 0, name, **options)
        for name, options in (("rise", {"masks": 2000, "cells": 8}), ("occlusion", {"window": 4, "stride": 1}))
    )
    inside = np.zeros((32, 48), bool)
    inside[Planted.ROWS, Planted.COLUMNS] = True
    far = np.ones((32, 48), bool)
    far[4:28, 20:44] = False  # more than a cell away
    assert np.corrcoef(why.raw.ravel(), truth.raw.ravel())[0, 1] > 0.95
    assert np.abs(why.raw[far]).max() < 0.25 * why.raw[inside].mean()
    assert abs(why.raw[far].mean()) < 0.03 * why.raw[inside].mean()
    opposite = seewhy.explain(model, image, 1, "rise", masks=200)
    np.testing.assert_allclose(opposite.raw, -seewhy.explain(model, image, 0, "rise", masks=200).raw, atol=1e-4)


def test_a_score_that_does_not_depend_on_the_image_is_0_everywhere_when_centred() -> None:
    why = seewhy.explain(Planted(), torch.ones(3, 32, 48), 2, "rise", masks=50)
    np.testing.assert_allclose(why.raw, 0, atol=1e-6)


def test_all_samples_see_the_same_masks_and_another_seed_makes_others(small_net: SmallNet, batch: Tensor) -> None:
    image = batch.abs() + 0.5
    ask, other = seewhy.Explainer(small_net), seewhy.Explainer(small_net, seed=1)
    seen: list[Tensor] = []
    handle = small_net.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].clone()))

    def masks(explainer: seewhy.Explainer) -> list[Tensor]:
        seen.clear()
        explainer(image, 2, "rise", masks=4)
        of_each = [[each / own for each in seen[3:] if float((each / own).std(0).max()) < 1e-5] for own in image]
        return [torch.stack(own)[:, 0] for own in of_each]

    one, two, three = masks(ask)
    [changed, _, _] = masks(other)
    handle.remove()
    assert one.shape == (4, 24, 40)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(three, one)
    assert float((changed - one).abs().flatten(1).amax(1).min()) > 0.1


def test_the_largest_seed_works_too(small_net: SmallNet, batch: Tensor) -> None:
    found = [seewhy.explain(small_net, batch[0], 2, "rise", masks=8, seed=seed).raw for seed in (2**63 - 1, 2**63 - 2)]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_budget_is_as_if_there_were_fewer_masks(small_net: SmallNet, batch: Tensor) -> None:
    cut = seewhy.explain(small_net, batch[0], 2, "rise", masks=50, budget=20)
    np.testing.assert_allclose(cut.raw, seewhy.explain(small_net, batch[0], 2, "rise", masks=20).raw, atol=1e-6)
    assert "the budget ended the work after 20 of 50 runs" in cut.notes


@pytest.mark.parametrize("options", [{"masks": 0}, {"cells": 0}, {"keep": 0.0}, {"keep": 1.0}, {"keep": -0.5}])
def test_masks_that_show_all_or_nothing_are_refused(options: dict, small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        seewhy.explain(small_net, batch[0], 0, "rise", **options)
