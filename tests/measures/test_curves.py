"""Deletion and insertion: closed forms on linear models, a slow implementation on a network, and the peers'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.measures.trials import Weighted, tried
from tests.small_models import SmallNet
from torch import Tensor, nn

from seewhy.maps.held import Held
from seewhy.measures.curves import area, curve, deletion, insertion, lerf, morf, pixel_flipping, steps_of
from seewhy.measures.cut import Cut
from seewhy.measures.registry import MetricFunction

PIXELS = 16


def _linear(generator: torch.Generator) -> tuple[Weighted, Tensor]:
    return Weighted(torch.randn((3, 1, 4, 4), generator=generator)), torch.rand((2, 1, 4, 4), generator=generator)


def test_curves_of_a_linear_model_are_the_partial_sums_of_its_terms(generator: torch.Generator) -> None:
    model, images = _linear(generator)
    terms = (images[:, 0] * model.weights[0, 0]).detach()
    trial = tried(model, images, terms[:, None], logits=True)
    ordered = terms.flatten(1).sort(descending=True).values
    kept = torch.cat([torch.zeros(2, 1), ordered.cumsum(1)], 1)
    parts = steps_of(PIXELS)
    torch.testing.assert_close(curve(trial, parts, keeps=True, fill=0)[:, 0], kept)
    torch.testing.assert_close(curve(trial, parts, keeps=False, fill=0)[:, 0], kept[:, -1:] - kept)
    torch.testing.assert_close(insertion(trial, steps=PIXELS, fill=0)[:, 0], torch.trapezoid(kept, dx=1 / PIXELS))


def test_no_map_has_a_higher_insertion_than_the_terms_of_a_linear_model(generator: torch.Generator) -> None:
    model, images = _linear(generator)
    terms = (images[:, 0] * model.weights[0, 0]).detach()
    others = torch.randn((2, 50, 4, 4), generator=generator)
    trial = tried(model, images, torch.cat([terms[:, None], others], 1), logits=True)
    inserted, deleted = (each(trial, steps=PIXELS, fill=0) for each in (insertion, deletion))
    assert (inserted[:, :1] >= inserted - 1e-5).all()
    assert (deleted[:, :1] <= deleted + 1e-5).all()


def _slowly(model: nn.Module, image: Tensor, values: Tensor, steps: int, *, keeps: bool) -> float:
    """One run at a time, in float64 loops over places: the area under the probability of class 0."""
    places = sorted(range(values.numel()), key=lambda place: -float(values.flatten()[place]))
    found = []
    for step in range(steps + 1):
        chosen = set(places[: round(step / steps * len(places))])
        edited = image.clone().flatten(1)
        for place in range(len(places)):
            if (place in chosen) != keeps:
                edited[:, place] = 0.5
        with torch.no_grad():
            found.append(float(model(edited.view_as(image)[None]).softmax(1)[0, 0]))
    return float(np.trapezoid(found, dx=1 / steps))


@pytest.mark.parametrize("keeps", [True, False])
def test_areas_equal_a_slow_implementation(keeps: bool, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = SmallNet().eval()
    images = torch.randn((2, 3, 12, 12), generator=generator)
    maps = torch.randn((2, 3, 12, 12), generator=generator)
    metric = insertion if keeps else deletion
    found = metric(tried(model, images, maps), steps=6, fill=0.5)
    expected = [
        [_slowly(model, image, own, 6, keeps=keeps) for own in each] for image, each in zip(images, maps, strict=True)
    ]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_normalised_curves_go_from_one_to_nothing(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    images, maps = torch.randn((1, 3, 12, 12), generator=generator), torch.randn((1, 2, 12, 12), generator=generator)
    trial = tried(SmallNet(), images, maps)
    low, high = trial.blank(0.5), trial.whole()
    expected = (insertion(trial, steps=6, fill=0.5) - low) / (high - low)
    torch.testing.assert_close(insertion(trial, steps=6, fill=0.5, normalise=True), expected)


def test_places_of_the_same_value_are_in_a_seeded_order(generator: torch.Generator) -> None:
    images = torch.rand((1, 1, 8, 8), generator=generator)
    model = Weighted(torch.ones(2, 1, 8, 8))
    flat = torch.zeros((1, 1, 8, 8))
    first, again, other = (tried(model, images, flat, seed=seed).ranks for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first.flatten(), torch.arange(64))  # a row after the other would be a map, too


def test_places_of_the_same_value_are_in_another_order_in_each_image_alone_or_in_a_batch(
    generator: torch.Generator,
) -> None:
    images, flat = torch.rand((3, 1, 8, 8), generator=generator), torch.zeros((3, 2, 8, 8))
    model = Weighted(torch.ones(2, 1, 8, 8))
    ranks = tried(model, images, flat).ranks
    assert len({tuple(each.flatten().tolist()) for each in ranks[:, 0]}) == 3
    assert torch.equal(ranks[:, 0], ranks[:, 1])  # maps of one image share it
    for row in range(3):
        assert torch.equal(tried(model, images[row : row + 1], flat[:1]).ranks[0], ranks[row])
        assert ranks[row, 0].flatten().sort().values.tolist() == list(range(64))


def test_what_is_the_same_for_all_maps_is_run_once(generator: torch.Generator) -> None:
    images, maps = torch.rand((1, 1, 4, 4), generator=generator), torch.rand((1, 5, 4, 4), generator=generator)
    trial = tried(Weighted(torch.ones(2, 1, 4, 4)), images, maps)
    insertion(trial, steps=4, fill=0)
    assert trial.runs == 5 * 3 + 2
    insertion(trial, steps=4, fill=0)
    assert trial.runs == 5 * 3 + 2  # the same question is not asked again


@pytest.mark.parametrize("keeps", [True, False])
def test_a_part_is_of_the_highest_places(keeps: bool) -> None:
    images, maps = torch.ones(1, 1, 2, 2), torch.tensor([[[[4.0, 1.0], [2.0, 3.0]]]])
    trial = tried(Weighted(torch.ones(2, 1, 2, 2)), images, maps)

    [made] = Cut((0.5,), keeps, Held(0))(trial.sample(0)).make(range(1))
    assert made[0].tolist() == ([[1, 0], [0, 1]] if keeps else [[0, 1], [1, 0]])


def test_the_area_of_a_straight_line_is_its_middle() -> None:
    assert area(torch.linspace(0, 1, 11)[None, None]).item() == pytest.approx(0.5)


@pytest.mark.parametrize("metric", [morf, lerf, pixel_flipping])
def test_curves_of_percentiles_and_pixels_equal_a_slow_implementation(
    metric: MetricFunction, generator: torch.Generator
) -> None:
    torch.manual_seed(0)
    model = SmallNet().eval()
    image, values = torch.randn((3, 10, 10), generator=generator), torch.randn((10, 10), generator=generator)
    order = values.flatten().argsort(descending=True)
    found = []
    for count in (25, 50, 75, 100) if metric is pixel_flipping else (30, 90):
        edited = image.clone().flatten(1)
        edited[:, order.flip(0)[:count] if metric is lerf else order[:count]] = 0.5
        with torch.no_grad():
            answer = model(edited.view_as(image)[None])[0]
        found.append(float(answer[0] if metric is pixel_flipping else answer.softmax(0)[0]))
    options = {"steps": 4} if metric is pixel_flipping else {"percentiles": (30, 90)}
    value = metric(tried(model, image[None], values[None, None]), fill=0.5, **options)
    assert value.item() == pytest.approx(sum(found) / len(found), abs=1e-6)
