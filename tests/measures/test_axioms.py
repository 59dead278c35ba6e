"""Completeness: terms of a linear model, and integrated gradients of a network."""

from __future__ import annotations

import torch
from tests.measures.trials import Weighted, tried
from tests.small_models import make_small_net
from torch import Tensor

import seewhy
from seewhy.measures.axioms import completeness


def test_the_terms_of_a_linear_model_are_complete_and_others_miss_what_they_miss(generator: torch.Generator) -> None:
    biases = torch.tensor([5.0, 0.0])
    model = Weighted(torch.rand((2, 2, 4, 6), generator=generator), biases)
    images = torch.rand((2, 2, 4, 6), generator=generator)
    terms = ((images - 0.25) * model.weights[0]).sum(1).detach()
    rise = terms.flatten(1).sum(1)
    maps = torch.stack([terms, 1.5 * terms, -terms, torch.zeros_like(terms)], 1)
    trial = tried(model, images, maps, logits=True)
    found = completeness(trial, baseline=0.25)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.5, 2.0, 1.0]] * 2), atol=1e-4, rtol=0)
    absolute = completeness(trial, baseline=0.25, relative=False)
    torch.testing.assert_close(absolute, found * rise.abs()[:, None], atol=1e-4, rtol=0)
    given = tried(model, images, maps, logits=True, totals=maps.flatten(2).sum(2) + 1)
    torch.testing.assert_close(
        completeness(given, baseline=0.25, relative=False)[:, 0], torch.ones(2), atol=1e-4, rtol=0
    )


def test_where_the_score_does_not_rise_there_is_no_part_of_it() -> None:
    images = torch.full((1, 1, 2, 2), 0.25)
    trial = tried(Weighted(torch.ones(2, 1, 2, 2)), images, images, logits=True)
    assert completeness(trial, baseline=0.25).isnan().all()


def test_integrated_gradients_are_complete_and_the_gradient_is_not(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    methods = ["integrated-gradients", "saliency"]
    found = seewhy.measure(
        ask, list(batch), methods, "completeness", how={"baseline": "mean", "steps": 400}, baseline="mean"
    )
    by_name = {row.map: row for row in found}
    assert (by_name["integrated-gradients"].values < 0.02).all()
    assert (by_name["saliency"].values > 0.2).all()
    other = seewhy.measure(ask, list(batch), methods[0], "completeness", how={"baseline": "mean"}, baseline="dataset")
    assert (other[0].values > 0.02).all()  # not the baseline that the method began at
