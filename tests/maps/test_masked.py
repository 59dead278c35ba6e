"""Evidence under masks: by hand in float64, one masked input after the other, and by what must hold of masks and ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from slow_reference import observe
from torch import Tensor

import seewhy
from seewhy.maps.held import Held
from seewhy.maps.masked import NET, MaskedRound, contributions, masked_evidence, normal_ranks
from seewhy.recorder import Conditions, Recording, TorchRecorder
from seewhy.targets import ProbabilityTarget
from small_models import SmallNet, make_small_net

Array = np.ndarray
AREAS = (0.1, 0.5)
LAYERS = ("first", "second")


def recorded(model: SmallNet, images: Tensor, *, seed: int = 3) -> list[Recording]:
    """Return what two layers did about the probability of class 2; "blur" and "dataset" are zeros."""
    recorder = TorchRecorder(model)
    rows = [row for row in recorder.table(images) if row.name in LAYERS]
    asked = (ProbabilityTarget(2),) * len(images)
    found = recorder.record(
        images, rows, lambda *_: [asked], needs=seewhy.Needs.GRADIENTS, conditions=Conditions(seed=seed)
    )
    return [found.at(name, 0) for name in LAYERS]


def by_hand(model: SmallNet, image: Tensor, layer: str) -> Array:
    """Return what the places of a layer contribute, in loops."""
    a, g, _ = observe(model, getattr(model, layer), image[None], lambda output: output.softmax(0)[2])
    total = np.zeros(a.shape[1:])
    for place in np.ndindex(*total.shape):
        for k in range(len(a)):
            product = a[k][place] * g[k][place]
            total[place] += product if product > 0 else NET * product
    return total


def added(maps: list[Array], space: tuple[int, ...]) -> Array:
    """Return the sum of positive parts, each divided by its peak."""
    total = np.zeros(space)
    for each in maps:
        large = torch.nn.functional.interpolate(torch.tensor(each)[None, None], size=space, mode="bilinear")[
            0, 0
        ].numpy()
        large = np.where(large > 0, large, 0)
        total += large / large.max()
    return total


@pytest.fixture
def model() -> SmallNet:
    return make_small_net(1).double()


def test_no_round_is_the_recording_alone(model: SmallNet, batch: Tensor) -> None:
    found = masked_evidence(recorded(model, batch), rounds=0).numpy()
    for row, image in enumerate(batch.double()):
        slow = added([by_hand(model, image, layer) for layer in LAYERS], (24, 40))
        np.testing.assert_allclose(found[row], slow, atol=1e-5)


def test_a_round_is_the_mean_over_parts_alone_and_inputs_without_them(model: SmallNet, batch: Tensor) -> None:
    found = masked_evidence(recorded(model, batch), rounds=2, areas=AREAS).numpy()
    zero = Held(torch.zeros_like(batch))
    for row, image in enumerate(batch.double()):
        guide = added([by_hand(model, image, layer) for layer in LAYERS], (24, 40))
        sums = [0.0, 0.0]
        for number in range(2):
            around = MaskedRound(Held(torch.tensor(guide)[None].float()), zero, zero, AREAS, 1.0, 3 + number)
            for mask in around.masks():
                part = mask[0].double()
                for masked in (image * part, image * (1 - part)):
                    sums = [total + by_hand(model, masked, layer) for total, layer in zip(sums, LAYERS, strict=True)]
            guide = added(sums, (24, 40))
        np.testing.assert_allclose(found[row], guide, atol=1e-3)
        assert np.abs(guide - added([by_hand(model, image, layer) for layer in LAYERS], (24, 40))).max() > 0.05


def test_a_batch_is_what_each_would_get_alone(batch: Tensor) -> None:
    model = make_small_net(1)
    together = masked_evidence(recorded(model, batch), areas=AREAS)
    alone = torch.cat([masked_evidence(recorded(model, image[None]), areas=AREAS) for image in batch])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_layers_share_the_runs(batch: Tensor) -> None:
    model, runs = make_small_net(1), [0]
    layers = recorded(model, batch)
    handle = model.head.register_forward_hook(
        lambda _module, inputs, _output: runs.__setitem__(0, runs[0] + len(inputs[0]))
    )
    masked_evidence(layers, rounds=3, areas=AREAS)
    handle.remove()
    assert runs[0] == 3 * 2 * len(AREAS) * len(batch)


def test_without_wandering_a_mask_is_the_guides_highest_part() -> None:
    guide = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))
    zero = Held(torch.zeros(2, 3, 24, 40))
    for area, mask in zip(AREAS, MaskedRound(Held(guide), zero, zero, AREAS, 0.0, 0).masks(), strict=True):
        for row in range(2):
            lowest = np.sort(guide[row].numpy().ravel())[::-1][round(area * 24 * 40) - 1]
            # The edge is softened over a quarter of a pixel here, which no pixel's side of one half changes.
            assert ((mask[row, 0] > 0.5) == (guide[row] >= lowest)).all()


def test_a_part_and_the_rest_make_the_whole(batch: Tensor) -> None:
    guide = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    around, under = torch.full_like(batch, 2.0), torch.full_like(batch, 2.0)
    masked = list(MaskedRound(Held(guide), Held(around), Held(under), AREAS, 1.0, 0)(batch, torch.Generator()))
    assert len(masked) == 4
    for alone, without in zip(masked[::2], masked[1::2], strict=True):
        torch.testing.assert_close(alone + without, batch + 2)


def test_other_seeds_draw_other_masks_and_the_same_seed_the_same(batch: Tensor) -> None:
    guide, zero = Held(torch.rand(3, 24, 40)), Held(torch.zeros_like(batch))
    masks = [torch.cat(list(MaskedRound(guide, zero, zero, AREAS, 1.0, seed).masks())) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert (masks[0] - masks[2]).abs().max() > 0.5


def test_ranks_are_normal_quantiles() -> None:
    values = torch.tensor([[[3.0, -1.0], [7.0, 2.0]]])
    slow = norm.ppf([[0.625, 0.125], [0.875, 0.375]])
    np.testing.assert_allclose(normal_ranks(values)[0].numpy(), slow, atol=1e-6)
    tied = torch.tensor([[[0.0, 0.0], [7.0, 0.0]], [[2.0, 2.0], [1.0, 1.0]]])
    low = norm.ppf([0.125, 0.375, 0.625]).mean()
    slow = [
        [[low, low], [norm.ppf(0.875), low]],
        [[norm.ppf([0.625, 0.875]).mean()] * 2, [norm.ppf([0.125, 0.375]).mean()] * 2],
    ]
    np.testing.assert_allclose(normal_ranks(tied).numpy(), slow, atol=1e-6)


def test_where_a_guide_says_nothing_no_place_is_preferred() -> None:
    guide, zero = torch.zeros(1, 40, 40), Held(torch.zeros(1, 3, 40, 40))
    guide[:, 15:25, 15:25] = 1
    shares = torch.stack(
        [next(MaskedRound(Held(guide), zero, zero, (0.2,), 1.0, seed).masks())[0, 0] for seed in range(40)]
    ).mean(0)
    top, bottom, middle = shares[:10].mean(), shares[-10:].mean(), shares[15:25, 15:25].mean()
    assert abs(float(top - bottom)) < 0.06
    assert middle > 3 * max(top, bottom)


def test_contributions_of_one_sign(model: SmallNet, batch: Tensor) -> None:
    rec = recorded(model, batch)[1]
    for row, image in enumerate(batch.double()):
        np.testing.assert_allclose(contributions(rec)[row].numpy(), by_hand(model, image, "second"), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"areas": ()}, {"areas": (0.2, 1.0)}, {"wander": -1.0}, {"wander": math.inf}, {"rounds": -1}]
)
def test_what_makes_no_masks_is_refused(wrong: dict[str, object], batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=r"must be at least one|no negative number"):
        masked_evidence(recorded(make_small_net(1), batch), **wrong)
