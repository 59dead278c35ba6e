"""XRAI: its greedy choice against a slow one and PAIR's saliency 0.2.1, its sum, and a model whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from saliency import core as peer
from skimage.transform import resize
from slow_gradients import assert_close
from torch import Tensor, nn

import seewhy
from seewhy.images.regions import multiscale_segments
from seewhy.maps import xrai
from seewhy.maps.xrai import by_gain, ranked
from small_models import SmallNet

Array = np.ndarray
assert xrai  # importing it is what registers the method


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing here is large: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cat(chelsea: np.ndarray) -> Tensor:
    """The cat at 224 x 224 as a normalised input."""
    return torch.from_numpy(resize(chelsea, (224, 224))).permute(2, 0, 1).float() * 4 - 2


class Squares(nn.Module):
    """One score: a weighted sum of the squares of the input's values, of which a mean over any even nodes is exact."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        coarse = torch.randn(1, shape[0], 7, 7, generator=generator)
        weights = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")[0]
        self.weights = nn.Parameter(weights.double())

    def forward(self, images: Tensor) -> Tensor:
        return (self.weights * images**2).flatten(1).sum(1, keepdim=True)


# The greedy choice.


def chosen_slowly(values: Array, segments: list[Array], fewest: int) -> Array:
    """The paper's algorithm 1, pixel by pixel; fewer new pixels than `fewest` end a segment's chances."""
    pixels = list(np.ndindex(values.shape))
    left = [{pixel for pixel in pixels if mask[pixel]} for mask in segments]
    free, found = set(pixels), np.zeros(values.shape)
    while left := [each for each in left if len(each) >= fewest]:
        best = max(left, key=lambda each: sum(values[pixel] for pixel in each) / len(each))
        for pixel in best:
            found[pixel] = sum(values[other] for other in best) / len(best)
        free -= best
        left = [each - best for each in left]
    for pixel in free:
        found[pixel] = sum(values[other] for other in free) / len(free)
    return found


def random_segments(shape: tuple[int, ...], count: int, seed: int) -> tuple[Array, list[Array]]:
    """Return attributions, and boxes that overlap and may leave pixels out."""
    generator = np.random.default_rng(seed)
    segments = []
    for _ in range(count):
        mask = np.zeros(shape, bool)
        starts = [generator.integers(0, side) for side in shape]
        mask[
            tuple(slice(at, at + generator.integers(1, 1 + side // 2)) for at, side in zip(starts, shape, strict=True))
        ] = 1
        segments.append(mask)
    return generator.normal(size=shape), segments


@pytest.mark.parametrize("shape", [(7, 9), (30,), (4, 5, 6)])
@pytest.mark.parametrize("fewest", [1, 3, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_greedy_choice_equals_a_slow_one(shape: tuple[int, ...], fewest: int, seed: int) -> None:
    values, segments = random_segments(shape, 25, seed)
    order, gains = ranked(values, segments, fewest)
    np.testing.assert_allclose(gains[order], chosen_slowly(values, segments, fewest), atol=1e-12)
    assert gains[order].sum() == pytest.approx(values.sum())
    assert sorted(set(order.ravel().tolist())) == list(range(len(gains)))


@pytest.mark.parametrize("seed", [3, 4])
def test_the_greedy_choice_and_its_ranks_equal_the_authors_own(seed: int) -> None:
    values, segments = random_segments((24, 40), 60, seed)
    theirs, ranks = peer.XRAI._xrai(values, segments, min_pixel_diff=5)
    order, gains = ranked(values, segments, 5)
    np.testing.assert_allclose(gains[order], theirs, atol=1e-12)
    rest = order == len(gains) - 1  # what none covered, which they rank last, whatever its gain is
    assert (rest >= ~np.any(segments, axis=0)).all()
    np.testing.assert_array_equal(by_gain(gains[:-1])[order[~rest]], len(gains) - ranks[~rest])


def test_attributions_that_are_not_finite_end_all_the_same() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        values, segments = random_segments((7, 9), 25, 0)
        values[3, 4] = bad
        with np.errstate(invalid="ignore"):
            order, gains = ranked(values, segments, 1)
        assert not np.isfinite(gains[order][3, 4])


# PAIR's whole.


def answering(model: nn.Module, target: int) -> Callable[..., dict[str, Array]]:
    """Return what the peer calls: from images with channels last to the score's derivatives by them."""

    def call(images: Array, call_model_args: object = None, expected_keys: object = None) -> dict[str, Array]:
        leaf = torch.from_numpy(np.moveaxis(images, -1, 1)).requires_grad_()
        [found] = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
        return {peer.INPUT_OUTPUT_GRADIENTS: np.moveaxis(found.numpy(), 1, -1)}

    return call


def test_a_photograph_equals_the_authors_own_from_input_to_map(cat: Tensor) -> None:
    """Their own segments too. Their mean over points of the line is exact for squares only; hence this model."""
    model = Squares(3, 224, 224)
    least, most = (torch.full((3, 1, 1), float(end)) for end in (cat.min(), cat.max()))
    last = cat.permute(1, 2, 0).double().numpy()
    fewer = peer.XRAIParameters(steps=2, return_xrai_segments=True)
    theirs = peer.XRAI().GetMaskWithDetails(last, answering(model, 0), batch_size=2, extra_parameters=fewer)
    given = {"baseline": [least, most], "steps": 2, "colours": "max"}
    why = seewhy.explain(model, cat, 0, "xrai", **given)
    assert_close(why.raw, theirs.attribution_mask, tolerance=1e-4)
    ranks = seewhy.explain(model, cat, 0, "xrai", **given, shown="rank").raw
    assert (ranks == ranks.max() + 1 - theirs.segments).mean() > 0.999


def test_the_built_in_model_equals_the_authors_own(embedded: seewhy.Explainer) -> None:
    """On ours of segments and attributions, whose quadrature and frame around small pictures are others."""
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(5))
    base = embedded(image, 11, "integrated-gradients", steps=4, baseline="black,white")
    parameters = peer.XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = round(50 * 64**2 / 224**2)
    theirs = peer.XRAI().GetMask(
        image.permute(1, 2, 0).numpy(),
        None,
        segments=[mask.numpy() for mask in multiscale_segments(image)],
        base_attribution=np.moveaxis(base.colours.astype(np.float64), 0, -1),
        extra_parameters=parameters,
    )
    why = embedded(image, 11, "xrai", steps=4, colours="max")
    assert_close(why.raw, theirs, tolerance=1e-4)
    assert why.reported == pytest.approx(base.reported, abs=1e-4)


# What is known without them.


class Planted(nn.Module):
    """The score is the mean of one square of the input, and nothing else."""

    def forward(self, images: Tensor) -> Tensor:
        return images[..., 8:24, 36:52].mean((1, 2, 3))[:, None]


def test_a_planted_square_is_ranked_first() -> None:
    image = torch.full((3, 64, 80), -1.0) + 0.05 * torch.randn(3, 64, 80, generator=torch.Generator().manual_seed(0))
    image[:, 8:24, 36:52] += 2.0  # what the score is made of
    image[:, 40:56, 8:24] += 2.0  # what it is not
    why = seewhy.explain(Planted(), image, 0, "xrai", baseline="dataset", steps=2)
    rank = seewhy.explain(Planted(), image, 0, "xrai", baseline="dataset", steps=2, shown="rank").raw
    inside = np.zeros((64, 80), bool)
    inside[8:24, 36:52] = True
    around = np.zeros_like(inside)
    around[5:27, 33:55] = True  # segments are widened
    assert rank[inside].min() > rank[~around].max()
    assert np.median(why.raw[inside]) > 0.9 * why.raw.max()  # at its edge pieces mix with what is around
    assert np.abs(why.raw[~around]).max() < 0.01 * why.raw.max()
    assert np.abs(why.raw[40:56, 8:24]).max() == 0
    assert why.raw.sum() == pytest.approx(float(image[:, 8:24, 36:52].mean()), rel=1e-5)


def test_the_map_is_level_on_regions_and_sums_to_the_attributions(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 2, "xrai", steps=8)
    base = seewhy.explain(small_net, batch[0], 2, "integrated-gradients", steps=8, baseline="black,white")
    assert why.colours is None
    assert why.raw.shape == (24, 40)
    assert why.raw.sum() == pytest.approx(base.raw.sum(), abs=1e-4)
    for name in ("score difference", "completeness gap"):
        assert why.reported[name] == pytest.approx(base.reported[name], abs=1e-6)
    levels = np.unique(why.raw)
    assert 1 < len(levels) < 200
    for level in levels:
        where = why.raw == level
        assert base.raw[where].mean() == pytest.approx(level, abs=1e-5)
    rank = seewhy.explain(small_net, batch[0], 2, "xrai", steps=8, shown="rank").raw
    assert rank.min() == 1
    assert (np.argsort(rank.ravel(), kind="stable") == np.argsort(why.raw.ravel(), kind="stable")).all()
    assert (why.cost.forwards, why.cost.backwards) == (1 + 16 + 2, 16)


def test_small_segments_are_dropped_in_proportion_to_the_input(cat: Tensor) -> None:
    model = Squares(3, 224, 224)
    given = {"baseline": "dataset", "steps": 1}
    none = seewhy.explain(model, cat, 0, "xrai", **given, min_pixel_diff=224 * 224 + 1).raw
    assert len(np.unique(none)) == 1
    small = cat[:, :112, :112].contiguous()
    seen = seewhy.explain(Squares(3, 112, 112), small, 0, "xrai", **given, min_pixel_diff=4000).raw
    sizes = sorted(np.unique(seen, return_counts=True)[1].tolist())
    assert sizes[1] >= 1000  # the one before is what no segment covered
    assert sizes[1] < 4000


@pytest.mark.parametrize("space", [(60,), (6, 7, 8)])
def test_lines_and_volumes(space: tuple[int, ...]) -> None:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[len(space)]
    torch.manual_seed(0)
    model = nn.Sequential(conv(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).eval()
    image = torch.randn(2, *space, generator=torch.Generator().manual_seed(1))
    model(image[None])
    why = seewhy.explain(model, image, 1, "xrai", steps=6, baseline="dataset")
    assert why.raw.shape == space
    assert 1 < len(np.unique(why.raw)) <= why.raw.size
    whole = why.reported["score difference"] + why.reported["completeness gap"]
    assert why.raw.sum() == pytest.approx(whole, abs=1e-4)


def test_a_batch_equals_one_by_one_with_a_question_each(small_net: SmallNet, batch: Tensor) -> None:
    targets = [2, "0-vs-1", 4]
    together = seewhy.explain(small_net, batch, targets, "xrai", steps=6)
    for image, target, found in zip(batch, targets, together, strict=True):
        assert_close(found.raw, seewhy.explain(small_net, image, target, "xrai", steps=6).raw)


def test_a_budget_gives_a_map_and_says_so(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 2, "xrai", budget=20)
    assert "the budget ended the work after 20 of 100 runs" in why.notes
    assert np.isfinite(why.raw).all()
    whole = seewhy.explain(small_net, batch[0], 2, "xrai")
    assert np.corrcoef(whole.raw.ravel(), why.raw.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"colours": "summ"}, "colours='summ' is not known. Nearest: 'sum'"),
        ({"shown": "ranks"}, "shown='ranks' is not known. Nearest: 'rank'"),
        ({"min_pixel_diff": 0}, "min_pixel_diff=0 must be at least 1"),
        ({"steps": 0}, "steps=0 must be at least 1"),
    ],
)
def test_refusals(options: dict[str, Any], told: str, small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, batch[0], 1, "xrai", **options)
