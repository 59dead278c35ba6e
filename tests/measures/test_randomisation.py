"""Maps of a model that has learnt nothing and of another class; how weights are drawn; the caller's model stays."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import timm
import torch
from tests.measures.trials import Remade, Weighted, tried
from tests.small_models import SmallNet, make_small_net
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import seewhy
from seewhy import remaking
from seewhy.measures.agreement import alike
from seewhy.measures.randomisation import cascading_randomisation, random_logit
from seewhy.untrained import untrained


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def _changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, each in model.state_dict().items() if not torch.equal(each, before[name])}


def _trial(generator: torch.Generator, remade: Remade, maps: Tensor) -> object:
    return tried(Weighted(torch.ones(2, 1, 8, 8)), torch.rand((2, 1, 8, 8), generator=generator), maps, remade=remade)


def test_cascading_is_the_mean_over_parts_of_how_alike_maps_are(generator: torch.Generator) -> None:
    maps, other = (torch.randn((2, 3, 8, 8), generator=generator) for _ in range(2))
    for kind in ("spearman", "pearson", "ssim"):
        remade = Remade(torch.clone, other)
        trial = _trial(generator, remade, maps)
        found = cascading_randomisation(trial, steps=4, similarity=kind)
        torch.testing.assert_close(found, alike(kind, maps, other).abs())
        assert remade.calls == [0.25, 0.5, 0.75, 1.0]
        cascading_randomisation(trial, steps=2, similarity=kind)
        assert len(remade.calls) == 4  # halves are among quarters


def test_a_map_that_does_not_look_at_the_model_stays_the_same(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    found = {row.map: row for row in seewhy.measure(ask, list(batch), ["edges", "saliency"], "cascading-randomisation")}
    assert (found["edges"].values == 1).all()
    assert (found["saliency"].values < 0.9).all()
    classes = {row.map: row for row in seewhy.measure(ask, list(batch), ["fem", "grad-cam"], "random-logit")}
    assert (classes["fem"].values == 1).all()
    assert (classes["grad-cam"].values < 0.9).all()


def test_random_logit_asks_about_another_class_of_each_image(batch: Tensor) -> None:
    ask, targets = seewhy.Explainer(make_small_net()), [3, 1, 3]
    [row] = seewhy.measure(ask, list(batch), "saliency", "random-logit", target=targets, similarity="pearson")
    for number, (image, target) in enumerate(zip(batch, targets, strict=True)):
        own = ask(image, target, "saliency").raw.ravel()
        others = [
            np.corrcoef(own, ask(image, each, "saliency").raw.ravel())[0, 1] for each in range(5) if each != target
        ]
        assert min(abs(abs(each) - row.values[number]) for each in others) < 1e-4


def test_random_logit_of_a_probability_asks_for_another_classs_probability(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    [row] = seewhy.measure(ask, batch[0], "saliency", "random-logit", target="probability:1", similarity="pearson")

    def alike(one: str, other: str) -> float:
        maps = [ask(batch[0], target, "saliency").raw.flatten() for target in (one, other)]
        return abs(np.corrcoef(*maps)[0, 1])

    classes = [each for each in range(make_small_net()(batch[:1]).shape[1]) if each != 1]
    asked = [alike("probability:1", f"probability:{each}") for each in classes]
    logits = [alike("probability:1", str(each)) for each in classes]
    assert min(abs(row.value - each) for each in asked) < 1e-5
    assert min(abs(row.value - each) for each in logits) > 1e-4
    with pytest.raises(seewhy.MetricError, match="in place of one, and 'class 2 vs class 1' is not about one alone"):
        seewhy.measure(ask, batch[0], "saliency", "random-logit", target="2-vs-1")


def test_a_score_that_stands_alone_has_no_other_class(batch: Tensor) -> None:
    single = seewhy.Explainer(SmallNet(classes=1).eval())
    with pytest.raises(seewhy.MetricError, match="not about one class of several"):
        seewhy.measure(single, list(batch), "saliency", "random-logit", target="up")
    with pytest.raises(seewhy.MetricError, match="steps=0 must be at least 1"):
        seewhy.measure(single, list(batch), "saliency", "cascading-randomisation", target="up", steps=0)


def test_the_model_is_left_as_it_was(batch: Tensor) -> None:
    model = make_small_net().train()
    model.head.weight.requires_grad_(requires_grad=False)
    before, state = _parameters(model), torch.get_rng_state()
    seewhy.measure(
        model, list(batch), ["grad-cam"], ["cascading-randomisation", "random-logit", "max-sensitivity"], runs=2
    )
    assert not _changed(before, model)
    assert model.training
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == ["head.weight"]
    assert all(each.grad is None for each in model.parameters())
    assert all(not part._forward_pre_hooks and not part._forward_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


class Reversed(nn.Module):
    """Its layers are registered the other way round than they run; one is in a container, one is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.late = nn.Sequential(nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6))
        self.early = nn.Conv2d(3, 5, 3)
        self.scale = nn.Parameter(torch.linspace(0.9, 1.1, 3))

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.scale.view(1, 3, 1, 1)
        return self.head(self.late(self.early(images).relu()).relu().mean((2, 3)))


def test_layers_are_drawn_anew_from_the_one_that_runs_last(batch: Tensor) -> None:
    torch.manual_seed(0)
    model = Reversed().eval()
    before = _parameters(model)
    statistics = {"late.1.running_mean", "late.1.running_var"}
    norm = {"late.1.weight", "late.1.bias"}  # as they begin, all ones and zeros: of no spread
    expected = [
        {"head.weight", "head.bias"},
        {"head.weight", "head.bias", *statistics},
        {"head.weight", "head.bias", "late.0.weight", "late.0.bias", *statistics},
        {"head.weight", "head.bias", "late.0.weight", "late.0.bias", *statistics, "early.weight", "early.bias"},
        set(before) - norm - {"late.1.num_batches_tracked"},
    ]
    parts = (1 / 6, 2 / 6, 3 / 6, 4 / 6, 1.0)
    for part, names in zip(parts, expected, strict=True):
        other = untrained(seewhy.Explainer(model), batch, part, 0)
        assert _changed(before, other.model.module) == names
        assert not _changed(before, model)


def test_weights_keep_their_mean_and_spread_and_follow_the_seed(batch: Tensor) -> None:
    model = make_small_net()
    drawn = [untrained(seewhy.Explainer(model), batch, 1.0, seed).model.module for seed in (0, 0, 1)]
    for name, own in model.named_parameters():
        first, again, other = (each.get_parameter(name) for each in drawn)
        assert torch.equal(first, again)
        if own.numel() > 100:
            assert first.std().item() == pytest.approx(own.std().item(), rel=0.2)
            assert not torch.equal(first, other)
            assert abs(np.corrcoef(first.detach().ravel(), own.detach().ravel())[0, 1]) < 0.3


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_batch_norms_measure_what_drawn_layers_give(norm: type[nn.Module]) -> None:
    """A deep stack: with the statistics that were there, or layers as they begin, the end would be far too wide or nothing."""
    torch.manual_seed(0)
    layers = [part for _ in range(12) for part in (nn.Conv2d(16, 16, 3, padding=1), norm(16), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 16, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        for part in model:
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(9)  # what training may make of them, and statistics that fit
    images = torch.randn(6, 3, 16, 16)
    model = untrained(seewhy.Explainer(model), images, 1.0, 3).model.module.eval()
    widths: list[float] = []
    for part in model:
        if isinstance(part, norm):
            part.register_forward_hook(lambda _part, _given, out: widths.append(float(out.std())))
    with torch.no_grad():
        model(images)
    assert len(widths) == 12
    assert all(0.5 < width < 2 for width in widths)


def test_weights_of_half_precision_and_single_numbers_are_drawn_or_kept(batch: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.tensor(2.0))
            self.body = nn.Conv2d(3, 4, 3).bfloat16()

        def forward(self, images: Tensor) -> Tensor:
            return self.one * self.body(images.bfloat16()).float().mean((2, 3))

    model = Scaled().eval()
    other = untrained(seewhy.Explainer(model), batch, 1.0, 0).model.module
    assert _changed(_parameters(model), other) == {"body.weight", "body.bias"}
    assert other.body.weight.dtype == torch.bfloat16


class Locked(SmallNet):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Weightless(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_models_of_which_no_other_can_be_drawn_are_told(batch: Tensor) -> None:
    with pytest.raises(
        seewhy.MetricError, match=r"copy\.deepcopy cannot make one: 'cannot pickle '_thread\.lock' object'"
    ) as told:
        seewhy.measure(Locked().eval(), list(batch), "saliency", "cascading-randomisation")
    assert isinstance(told.value.__cause__, TypeError)
    with pytest.raises(seewhy.MetricError, match="this model has none"):
        seewhy.measure(Weightless(), list(batch), "saliency", "cascading-randomisation")
    function = seewhy.function(lambda images: images.mean((2, 3)))
    with pytest.raises(seewhy.MetricError, match="possible for torch modules alone"):
        seewhy.measure(function, list(batch[:, :, :24, :24]), "occlusion", "cascading-randomisation")


def test_maps_that_nobody_can_make_again_are_told(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    maps = [{"mine": np.ones((24, 40))} for _ in batch]
    for name in ("cascading-randomisation", "random-logit", "max-sensitivity"):
        with pytest.raises(seewhy.MetricError, match=r"how these were made\. Give maps= names of methods"):
            seewhy.measure(ask, list(batch), maps, name)


def test_wrapped_models_and_transformers_are_drawn_anew(batch: Tensor) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=3).eval()
    for model in (nn.DataParallel(vit), torch.compile(vit, backend="eager")):
        before = _parameters(vit)
        [row] = seewhy.measure(model, list(torch.randn(2, 3, 32, 32)), "grad-cam", "cascading-randomisation", steps=2)
        assert np.isfinite(row.values).all()
        assert not _changed(before, vit)


def test_maps_of_another_layer_are_not_compared(batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which layer is taken depends on where the score has a gradient, which other weights may change."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_small_net()

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images)

    monkeypatch.setattr(remaking, "untrained", lambda *_: seewhy.Explainer(Wrapped()))
    ask = seewhy.Explainer(make_small_net())
    words = r"The maps are of second.*no layer, and those made again of inner.second.*no layer: they cannot be compared"
    with pytest.raises(seewhy.MetricError, match=words):
        seewhy.measure(ask, list(batch), ["grad-cam", "saliency"], "cascading-randomisation")


def test_what_is_drawn_for_an_image_is_the_same_alone_and_in_a_batch(batch: Tensor) -> None:
    """The last image is also the brightest, so that noise as wide as the batch would be another than its own."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 9)).eval()
    ask, images = seewhy.Explainer(model), [batch[0], batch[1], 4 * batch[2] + 1]
    names = [
        "faithfulness-correlation",
        "infidelity",
        "monotonicity-correlation",
        "road",
        "max-sensitivity",
        "random-logit",
        "cascading-randomisation",
    ]
    how = {"metrics": names, "runs": 6, "cells": 4, "fill": "mean", "steps": 2}
    together = seewhy.measure(ask, images, ["grad-cam", "saliency"], target=[0, 4, 7], **how)
    for number, (image, target) in enumerate(zip(images, (0, 4, 7), strict=True)):
        alone = seewhy.measure(ask, image, ["grad-cam", "saliency"], target=target, **how)
        for row, own in zip(together, alone, strict=True):
            assert row.values[number] == pytest.approx(own.value, abs=2e-4, rel=2e-4), (row.metric, row.map, number)
            np.testing.assert_allclose(row.random[number], own.random[0], atol=2e-4, rtol=2e-3)


def test_a_map_with_its_signs_turned_shows_the_same(generator: torch.Generator) -> None:
    maps = torch.randn((2, 3, 8, 8), generator=generator)
    trial = _trial(generator, Remade(torch.clone, -maps), maps)
    for kind in ("spearman", "pearson"):
        torch.testing.assert_close(cascading_randomisation(trial, similarity=kind), torch.ones(2, 3))
        torch.testing.assert_close(random_logit(trial, similarity=kind), torch.ones(2, 3))
