"""How a raw map is read: colours made one map, and the scale of the heat map."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from torch import Tensor

import seewhy
from seewhy.errors import RenderError
from seewhy.maps import find_method
from seewhy.reading import Reduction, reduce_colours
from small_models import SmallNet

COLOURED = [entry.name for entry in seewhy.methods() if entry.colours is not None]
FEW = {"samples": 3, "steps": 3, "masks": 8}


def explain(model: SmallNet, image: Tensor, name: str, **more: object) -> seewhy.Explanation:
    few = {option: value for option, value in FEW.items() if option in find_method(name).options}
    return seewhy.explain(model, image, 1, name, **few, **more)


def by_loop(values: np.ndarray, how: str) -> np.ndarray:
    """Place by place, in float64, colours first."""
    found = np.zeros(values.shape[1:])
    for place in np.ndindex(*found.shape):
        colours = [float(values[(channel, *place)]) for channel in range(len(values))]
        found[place] = {
            "sum": sum(colours),
            "mean": sum(colours) / len(colours),
            "max-abs": max(map(abs, colours)),
            "sum-abs": sum(map(abs, colours)),
            "norm": sum(colour * colour for colour in colours) ** 0.5,
        }[how]
    return found


def test_known_answers() -> None:
    colours = np.array([[3.0, 0, -1], [-4, 0, 2], [0, 0, -3]], np.float32)
    expected = {
        "sum": [-1, 0, -2],
        "mean": [-1 / 3, 0, -2 / 3],
        "max-abs": [4, 0, 3],
        "sum-abs": [7, 0, 6],
        "norm": [5, 0, 14**0.5],
    }
    assert set(expected) == set(get_args(Reduction))
    for how, values in expected.items():
        found = reduce_colours(colours, how)
        np.testing.assert_allclose(found, values, rtol=1e-6)
        assert found.dtype == np.float32


@pytest.mark.parametrize("how", get_args(Reduction))
@pytest.mark.parametrize("shape", [(3, 5), (1, 4, 6), (4, 3, 4, 5)])
def test_equal_to_a_loop_on_any_number_of_axes(how: Reduction, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(reduce_colours(values, how), by_loop(values, how), rtol=1e-4, atol=1e-6)
    behind = np.stack([values, 2 * values])
    np.testing.assert_allclose(reduce_colours(behind, how, axis=1)[1], by_loop(2 * values, how), rtol=1e-4, atol=1e-6)


def test_a_norm_neither_overflows_nor_vanishes() -> None:
    for size in (1e30, 1e-30):
        np.testing.assert_allclose(reduce_colours(np.full((4, 1), size, np.float32), "norm"), [2 * size], rtol=1e-6)


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_kept_and_can_be_read_in_every_way(name: str, small_net: SmallNet, batch: Tensor) -> None:
    why = explain(small_net, batch[0], name)
    assert why.colours.shape == (3, 24, 40)
    assert why.colours.dtype == why.raw.dtype == np.float32
    np.testing.assert_array_equal(why.raw, why.reduced(find_method(name).colours).raw)
    for how in get_args(Reduction):
        other = why.reduced(how)
        np.testing.assert_allclose(other.raw, by_loop(why.colours, how), rtol=1e-4, atol=1e-6 * np.abs(why.raw).max())
        assert other.reduction == how
        assert other.colours is why.colours
        assert other.reduced(why.reduction).raw.tolist() == why.raw.tolist()  # nothing is lost on the way
        asked = explain(small_net, batch[0], name, reduce=how)
        np.testing.assert_array_equal(asked.raw, other.raw)
        assert asked.reduction == how


def test_a_batch_has_its_own_colours_each(small_net: SmallNet, batch: Tensor) -> None:
    first, *_ = found = explain(small_net, batch, "saliency", reduce="norm")
    assert not np.shares_memory(found[0].colours, found[1].colours)  # one kept explanation must not hold the batch
    assert first.colours.base is None
    for why, image in zip(found, batch, strict=True):
        np.testing.assert_allclose(why.colours, explain(small_net, image, "saliency").colours, atol=1e-6)


def test_a_map_of_a_layer_has_no_colours(small_net: SmallNet, batch: Tensor) -> None:
    why = explain(small_net, batch[0], "grad-cam")
    assert (why.colours, why.reduction, why.scaling) == (None, None, "per-image")
    with pytest.raises(RenderError, match="A map by grad-cam has no colour channels to reduce"):
        why.reduced("sum")


@pytest.mark.parametrize("name", COLOURED)
def test_maps_of_pixels_are_scaled_by_their_99th_percentile(name: str, small_net: SmallNet, batch: Tensor) -> None:
    """A few pixels far above all others would leave the rest black."""
    why = explain(small_net, batch[0], name)
    assert why.scaling == "percentile"
    shown = np.maximum(why.raw, 0)
    peak = np.percentile(shown, 99)
    np.testing.assert_allclose(why.heatmap, np.minimum(shown / peak, 1), atol=1e-6)
    assert (why.heatmap == 1).mean() >= 0.01
    np.testing.assert_allclose(why.scaled("per-image"), shown / shown.max(), atol=1e-6)
    signed = why.viewed("signed")
    bound = np.percentile(np.abs(why.raw), 99)
    np.testing.assert_allclose(signed.heatmap, np.clip(why.raw / bound, -1, 1), atol=1e-6)


def test_the_scale_goes_with_the_explanation(small_net: SmallNet, batch: Tensor) -> None:
    why = explain(small_net, batch[0], "saliency")
    for other in (why.reduced("norm"), why.viewed("signed"), replace(why, name="x")):
        assert other.scaling == "percentile"
        np.testing.assert_array_equal(other.heatmap, other.scaled("percentile"))
    np.testing.assert_array_equal(replace(why, scaling="per-image").heatmap, why.scaled("per-image"))
