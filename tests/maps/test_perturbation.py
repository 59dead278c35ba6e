"""Occlusion and feature ablation: by loops, against captum, closed forms, and what a budget leaves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, Occlusion
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.images.regions import superpixels
from seewhy.maps.held import Held
from seewhy.maps.perturbation import Windows
from small_models import SmallNet

Array = np.ndarray
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
PREPROCESS = {"size": (24, 40), "resize": None, "fit": "squash", "mean": MEAN, "std": STD}


def scorer(model: nn.Module, target: int):
    """Return a function from one input, float64, to its score."""
    exact = copy.deepcopy(model).double()

    def score(image: Tensor) -> float:
        with torch.no_grad():
            return float(exact(image[None].double())[0, target])

    return score


def windows(space: Sequence[int], side: int, step: int) -> list[tuple[slice, ...]]:
    """Every window from the upper left corner on, until one reaches the opposite edge; row by row."""
    axes = []
    for length in space:
        starts = [0]
        while starts[-1] + side < length:
            starts.append(starts[-1] + step)
        axes.append(starts)
    return [tuple(slice(at, at + side) for at in corner) for corner in product(*axes)]


def occlusion(
    model: nn.Module,
    image: Tensor,
    target: int,
    side: int,
    step: int,
    nothing: Tensor | float = 0.0,
    only: Sequence[int] | None = None,
) -> Array:
    """Zeiler & Fergus 2013, with the mean where windows overlap.

    Args:
        model: any.
        image: `(channel, *space)`.
        target: the class.
        side: the window's.
        step: from one window to the next.
        nothing: what is put there.
        only: the windows that are looked at; None: all.
    """
    score, image = scorer(model, target), image.double()
    nothing = torch.as_tensor(nothing, dtype=torch.float64).expand_as(image)
    places = windows(image.shape[1:], side, step)
    losses: dict[tuple[int, ...], list[float]] = {}
    for number in range(len(places)) if only is None else only:
        where = (slice(None), *places[number])
        hidden = image.clone()
        hidden[where] = nothing[where]
        loss = score(image) - score(hidden)
        for pixel in product(
            *(range(s.start, min(s.stop, n)) for s, n in zip(places[number], image.shape[1:], strict=True))
        ):
            losses.setdefault(pixel, []).append(loss)
    result = np.zeros(image.shape[1:])
    for pixel, found in losses.items():
        result[pixel] = sum(found) / len(found)
    return result


def assert_close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(("window", "stride"), [(6, 3), (5, 5), (7, 2), (1, 1), (30, 9)])
def test_occlusion_is_the_mean_loss_over_windows(window: int, stride: int, small_net: SmallNet, batch: Tensor) -> None:
    image = batch[0, :, :12, :16] if window == 1 else batch[0]
    found = seewhy.explain(small_net, image, 2, "occlusion", window=window, stride=stride)
    assert_close(found.raw, occlusion(small_net, image, 2, window, stride))
    assert found.cost.forwards == 1 + len(windows(image.shape[1:], window, stride))


@pytest.mark.parametrize(("window", "stride", "side", "step"), [(0, 0, 3, 1), (8, 0, 8, 4), (0, 2, 3, 2)])
def test_what_is_not_given_is_a_seventh_of_the_shorter_side_and_half_of_that(
    window: int, stride: int, side: int, step: int, small_net: SmallNet, batch: Tensor
) -> None:
    found = seewhy.explain(small_net, batch[0], 2, "occlusion", window=window, stride=stride).raw
    assert_close(found, occlusion(small_net, batch[0], 2, side, step))


def test_there_are_169_windows_at_224_pixels() -> None:
    assert len(Windows(0, 0, Held("dataset")).places((224, 224))) == 169


@pytest.mark.parametrize(("window", "stride"), [((6, 6), (3, 3)), ((5, 5), (4, 4)), ((7, 7), (7, 7))])
def test_occlusion_is_captums(window: tuple, stride: tuple, small_net: SmallNet, batch: Tensor) -> None:
    expected = Occlusion(small_net).attribute(
        batch[:1].clone(), sliding_window_shapes=(3, *window), strides=(3, *stride), baselines=0, target=1
    )
    found = seewhy.explain(small_net, batch[0], 1, "occlusion", window=window[0], stride=stride[0]).raw
    np.testing.assert_allclose(found, expected[0, 0].detach(), atol=1e-5)
    assert np.ptp(found) > 1e-2


@pytest.mark.parametrize("window", [40, 1000])
def test_a_window_of_the_whole_image_is_the_difference_to_nothing_there(
    window: int, small_net: SmallNet, batch: Tensor
) -> None:
    score = scorer(small_net, 3)
    found = seewhy.explain(small_net, batch[0], 3, "occlusion", window=window)
    np.testing.assert_allclose(found.raw, score(batch[0]) - score(torch.zeros_like(batch[0])), atol=1e-5)
    assert found.raw.shape == (24, 40)
    assert [finding.code for finding in found.diagnosis] == ["flat"]


@pytest.mark.parametrize("space", [(40,), (8, 10, 12)])
def test_signals_and_volumes(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[len(space)]
    model = nn.Sequential(conv(2, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    image = torch.randn(2, *space, generator=torch.Generator().manual_seed(4))
    found = seewhy.explain(model, image, 1, "occlusion", window=4, stride=3).raw
    assert_close(found, occlusion(model, image, 1, 4, 3))


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def in_units(pixels: Tensor | float) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


@pytest.mark.parametrize(
    ("given", "nothing"),
    [
        ("dataset", 0.0),
        ("black", in_units(0.0)),
        ("white", in_units(1.0)),
        (0.25, in_units(0.25)),
        ("0.25", in_units(0.25)),
        (torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1), torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1)),
        (torch.full((3, 24, 40), 0.7), 0.7),
        (PIXELS, in_units(torch.from_numpy(PIXELS).double().movedim(2, 0) / 255)),
        (Image.fromarray(PIXELS), in_units(torch.from_numpy(PIXELS).double().movedim(2, 0) / 255)),
    ],
    ids=["dataset", "black", "white", "number", "text", "colour", "tensor", "array", "picture"],
)
def test_what_is_put_there(given: object, nothing: object, small_net: SmallNet, batch: Tensor) -> None:
    ask = seewhy.Explainer(small_net, preprocess=PREPROCESS)
    found = ask(batch[0], 2, "occlusion", window=8, stride=6, baseline=given).raw
    assert_close(found, occlusion(small_net, batch[0], 2, 8, 6, nothing))


def test_the_images_own_mean_is_its_own_in_a_batch(small_net: SmallNet, batch: Tensor) -> None:
    together = seewhy.explain(
        small_net, batch + torch.arange(3).view(3, 1, 1, 1), 2, "occlusion", window=8, baseline="mean"
    )
    for image, number, why in zip(batch, range(3), together, strict=True):
        shifted = image.double() + number
        assert_close(why.raw, occlusion(small_net, shifted, 2, 8, 4, shifted.mean((1, 2), keepdim=True)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 4, "stride": 5}, r"window=4 and stride=5 .* the stride at most the window \(4\)"),
        ({"stride": 4}, r"the stride at most the window \(3\)"),
        ({"window": -2}, "window=-2"),
        ({"window": 4, "stride": -1}, "stride=-1"),
    ],
)
def test_windows_that_leave_gaps_are_refused(options: dict, told: str, small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, batch[0], 0, "occlusion", **options)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_budget_leaves_what_was_looked_at(seed: int, small_net: SmallNet, batch: Tensor) -> None:
    """Windows come in a random order, so that any beginning is spread; places under none of them are 0."""
    why = seewhy.explain(small_net, batch[0], 2, "occlusion", window=6, stride=3, budget=20, seed=seed)
    order = torch.randperm(len(windows((24, 40), 6, 3)), generator=torch.Generator().manual_seed(seed)).tolist()
    assert_close(why.raw, occlusion(small_net, batch[0], 2, 6, 3, only=order[:20]))
    assert "the budget ended the work after 20 of 91 runs" in why.notes
    assert 0.2 < (why.raw == 0).mean() < 0.6
    quarters = [why.raw[rows, columns] for rows in (slice(12), slice(12, 24)) for columns in (slice(20), slice(20, 40))]
    assert all(quarter.any() for quarter in quarters)


def stripes(height: int = 24, width: int = 40) -> Array:
    """Labels with gaps between their numbers, segments of different size."""
    rows, columns = np.mgrid[:height, :width]
    return (10 * (rows // 9) + 3 * (columns // 14)).astype(np.int64)


def feature_ablation(
    model: nn.Module, image: Tensor, target: int, segments: Array, nothing: Tensor | float = 0.0
) -> Array:
    score, image, result = scorer(model, target), image.double(), np.zeros(segments.shape)
    for label in sorted(set(segments.ravel().tolist())):
        hidden = image.clone()
        for place in zip(*np.nonzero(segments == label), strict=True):
            hidden[(slice(None), *place)] = nothing[(slice(None), *place)] if isinstance(nothing, Tensor) else nothing
        result[segments == label] = score(image) - score(hidden)
    return result


def test_feature_ablation_is_captums(small_net: SmallNet, batch: Tensor) -> None:
    labels = np.unique(stripes(), return_inverse=True)[1].reshape(24, 40)
    expected = FeatureAblation(small_net).attribute(
        batch[:1].clone(), feature_mask=torch.from_numpy(labels)[None, None], baselines=0, target=1
    )
    found = seewhy.explain(small_net, batch[0], 1, "feature-ablation", segments=stripes(), baseline="dataset")
    np.testing.assert_allclose(found.raw, expected[0, 0].detach(), atol=1e-5)
    assert np.ptp(found.raw) > 1e-2
    assert found.cost.forwards == 1 + 9


def test_segments_as_array_tensor_and_file_are_the_same(small_net: SmallNet, batch: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "segments.png"
    Image.fromarray(stripes().astype(np.uint8)).save(path)
    expected = feature_ablation(small_net, batch[0], 2, stripes())
    for given in (stripes(), torch.from_numpy(stripes()), path, str(path)):
        found = seewhy.explain(small_net, batch[0], 2, "feature-ablation", segments=given, baseline="dataset").raw
        assert_close(found, expected)


def test_superpixels_are_each_images_own(small_net: SmallNet, batch: Tensor) -> None:
    together = seewhy.explain(small_net, batch, [2, 0, 4], "feature-ablation", count=12, baseline="dataset")
    for image, target, why in zip(batch, [2, 0, 4], together, strict=True):
        segments = superpixels(image, 12).numpy()
        assert 6 <= segments.max() + 1 <= 24
        assert_close(why.raw, feature_ablation(small_net, image, target, segments))


def test_a_budget_hides_the_largest_segments(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 2, "feature-ablation", segments=stripes(), baseline="dataset", budget=4)
    whole = feature_ablation(small_net, batch[0], 2, stripes())
    largest = np.isin(stripes(), [0, 3, 10, 13])  # 9 x 14; the others are cut by the border
    assert_close(why.raw, np.where(largest, whole, 0))
    assert "the budget ended the work after 4 of 9 runs" in why.notes


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        (stripes(24, 39), r"Segments of shape \(24, 39\) do not fit the model's input, which is \(24, 40\)"),
        (stripes()[None], r"Segments of shape \(1, 24, 40\)"),
        (stripes() + 0.5, "Segments must be whole numbers"),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments: object, told: str, small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.ImageError, match=told):
        seewhy.explain(small_net, batch[0], 0, "feature-ablation", segments=segments)


def test_no_segments_at_all_are_refused(small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match="count=0 must be at least 1"):
        seewhy.explain(small_net, batch[0], 0, "feature-ablation", count=0)
