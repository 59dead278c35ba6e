"""What measures tell beside their numbers: how maps were made, curves, what was asked; controls depend on the image alone."""

from __future__ import annotations

import numpy as np
import torch
from tests.small_models import SmallNet

import seewhy


def _ask() -> seewhy.Explainer:
    torch.manual_seed(0)
    return seewhy.Explainer(SmallNet().eval())


def test_controls_of_a_batch_are_those_of_each_image_alone() -> None:
    ask, images = _ask(), list(torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)))
    together = seewhy.measure(ask, images, "grad-cam", "insertion", steps=3, fill="black")[0]
    alone = [seewhy.measure(ask, image, "grad-cam", "insertion", steps=3, fill="black")[0] for image in images]
    np.testing.assert_allclose(together.random, [row.random[0] for row in alone], atol=1e-6)
    assert abs(together.random[0] - together.random[1]) > 1e-6


def test_a_value_is_the_area_under_its_curve_also_over_several_fills() -> None:
    image = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1))
    found = seewhy.measure(_ask(), image, ["grad-cam", "layer-cam"], steps=4, fill=["black", "white"])
    for row in found:
        assert row.curves["map"].shape == (1, 5)
        for name, value in (("map", row.value), ("random", row.random[0]), ("centre", row.centre[0])):
            np.testing.assert_allclose(np.trapezoid(row.curves[name][0], dx=1 / 4), value, atol=1e-6)


def test_how_maps_were_made_and_what_was_asked_is_told() -> None:
    ask, image = _ask(), torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1))
    found = seewhy.measure(ask, image, ["grad-cam", "saliency"], "deletion", target=3, steps=2)
    [about] = found.about
    with torch.no_grad():
        expected = ask.model.module(image[None]).softmax(1)[0, 3]
    assert (about.index, about.target) == (3, "class 3")
    np.testing.assert_allclose(about.probability, expected, atol=1e-6)
    origins = [row.origin for row in found]
    assert [(each.method, each.costs[0].forwards) for each in origins if each] == [("grad-cam", 1), ("saliency", 2)]
    [by_array] = seewhy.measure(ask, image, {"mine": np.ones((24, 24))}, "deletion", steps=2)
    assert by_array.origin is None
    [given] = seewhy.measure(ask, image, ask(image, method="layer-cam"), "deletion", steps=2)
    assert given.origin is not None
    assert given.origin.method == "layer-cam"
