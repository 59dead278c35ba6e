"""What every registered method promises, generated from the registry: a method that is added is tested here by itself."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.maps import find_method
from seewhy.recorder import Needs
from small_models import FailsLate, SmallNet, WritesIntoItsInput, make_small_net, small_model_for

EVERY = [entry.name for entry in seewhy.methods()]
every_method = pytest.mark.parametrize("name", EVERY)
FEW = {"samples": 3, "masks": 24, "steps": 4, "count": 6, "window": 8}
"""Options that are costly, as little as the promises need."""


def explain(model: object, image: Tensor, target: object = None, name: str = "grad-cam", *rest: object, **more: object):
    """Explain cheaply: costly options take little values unless a test says otherwise."""
    return seewhy.explain(model, image, target, name, *rest, **{**few(name), **more})


def few(name: str) -> dict[str, int]:
    return {option: FEW[option] for option in find_method(name).options if option in FEW}


def steady(name: str, model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """In float64 where a method's path turns at thresholds, so that the last bit of a derivative may lead it elsewhere."""
    return (model.double(), images.double()) if name == "guided-ig" else (model, images)


def snapshot(model: nn.Module) -> dict[str, object]:
    """Return everything of a model that an explanation might change."""
    return {
        "parameters": {name: value.detach().clone() for name, value in model.named_parameters()},
        "buffers": {name: value.detach().clone() for name, value in model.named_buffers()},
        "gradients": {name: value.grad for name, value in model.named_parameters()},
        "wanted": {name: value.requires_grad for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "identities": {name: id(module) for name, module in model.named_modules()},
        "hooks": {
            name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in model.named_modules()
        },
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    for part, values in before.items():
        if isinstance(values, Tensor):
            assert torch.equal(values, after[part]), part
        elif not isinstance(values, dict):
            assert values == after[part], part
        else:
            assert values.keys() == after[part].keys(), part
            for name, value in values.items():
                other = after[part][name]
                same = torch.equal(value, other) if isinstance(value, Tensor) else value is other or value == other
                assert same, (part, name)


@every_method
def test_the_model_and_the_input_are_given_back_as_they_were(name: str, small_net: SmallNet, batch: Tensor) -> None:
    small_net.train()
    small_net.norm.eval()  # a mixture of modes must come back as a mixture
    small_net.first.weight.requires_grad_(requires_grad=False)
    small_net.head.weight.grad = torch.ones_like(small_net.head.weight)
    given, before = batch.clone(), snapshot(small_net)
    explain(small_net, batch, None, name)
    assert_same(before, snapshot(small_net))
    assert torch.equal(batch, given)
    assert not batch.requires_grad


@every_method
def test_also_after_an_exception_inside_the_model(name: str, batch: Tensor) -> None:
    model = small_model_for(name, mixin=FailsLate).train()
    ask = seewhy.Explainer(model)
    ask.layers(batch)
    model.calls_left = 0
    before = snapshot(model)
    with pytest.raises(seewhy.RecordingError, match=r"FailsLate raised ValueError.*\(1, 3, 24, 40\).*the model broke"):
        ask(batch, None, name, **few(name))
    assert_same(before, snapshot(model))


@every_method
def test_backward_is_never_called(
    name: str, small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("backward() was called")

    monkeypatch.setattr(Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    assert len(explain(small_net, batch, None, name)) == 3


@every_method
def test_a_batch_equals_one_by_one(name: str, small_net: SmallNet, batch: Tensor) -> None:
    targets = [2, 0, 4]
    small_net, batch = steady(name, small_net, batch)
    together = explain(small_net, batch, targets, name)
    for image, target, found in zip(batch, targets, together, strict=True):
        alone = explain(small_net, image, target, name)
        np.testing.assert_allclose(found.raw, alone.raw, atol=1e-5 * max(1.0, np.abs(alone.raw).max()))
        assert found.target == alone.target


@every_method
@pytest.mark.parametrize("size", [1, 2])
def test_the_size_of_the_chunks_changes_nothing(name: str, size: int, small_net: SmallNet, batch: Tensor) -> None:
    small_net, batch = steady(name, small_net, batch)
    whole = explain(small_net, batch, [2, 0, 4], name)
    chunked = explain(small_net, batch, [2, 0, 4], name, batch_size=size)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-5 * max(1.0, np.abs(one.raw).max()))


@every_method
def test_the_same_seed_gives_the_same_map(name: str, small_net: SmallNet, batch: Tensor) -> None:
    first = explain(small_net, batch[0], 1, name, seed=5)
    torch.rand(17)  # whatever the caller draws in between
    np.testing.assert_array_equal(first.raw, explain(small_net, batch[0], 1, name, seed=5).raw)


@every_method
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_under_the_callers_gradient_mode(name: str, around: type, small_net: SmallNet, batch: Tensor) -> None:
    expected = explain(small_net, batch[0], 1, name)
    with around():
        image = batch[0] * 1.0  # under inference_mode this is an inference tensor
        found = explain(small_net, image, 1, name)
    np.testing.assert_array_equal(found.raw, expected.raw)


@every_method
def test_works_on_frozen_parameters(name: str, small_net: SmallNet, batch: Tensor) -> None:
    expected = explain(small_net, batch[0], 1, name)
    found = explain(small_net.requires_grad_(requires_grad=False), batch[0], 1, name)
    np.testing.assert_array_equal(found.raw, expected.raw)


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_works_in_half_precision(name: str, dtype: torch.dtype, small_net: SmallNet, batch: Tensor) -> None:
    expected = explain(small_net, batch[0], 1, name, "second").raw
    found = explain(small_net.to(dtype), batch[0], 1, name, "second").raw
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > (
        0.7 if name == "xrai" else 0.98
    )  # regions change places at once


def test_half_precision_keeps_derivatives_that_fp16_would_lose(small_net: SmallNet, batch: Tensor) -> None:
    faint = lambda output: output[1] * 1e-6  # noqa: E731
    expected = seewhy.explain(small_net, batch[0], faint, layers="second").raw
    found = seewhy.explain(small_net.half(), batch[0], faint, layers="second").raw
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


class MutatesItsGraph(SmallNet):
    """Overwrites a tensor that the derivative of an earlier layer needs: fine for inference, an error in training."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.first(images)))
        squashed = self.second(features).sigmoid()
        return self.head(squashed.mul_(3).mean((2, 3)))


def test_works_where_the_model_overwrites_what_its_derivative_needs(batch: Tensor) -> None:
    torch.manual_seed(0)
    model = MutatesItsGraph().eval()
    found = seewhy.explain(model, batch[0], 1, layers="second").raw
    a = model.second(model.relu(model.norm(model.first(batch[:1])))).detach().requires_grad_()
    gradient = torch.autograd.grad(model.head((a.sigmoid() * 3).mean((2, 3)))[0, 1], a)[0]
    np.testing.assert_allclose(found, ((gradient.mean((2, 3), keepdim=True) * a).sum(1)[0]).detach(), atol=1e-5)


class Wrapped(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.model = module

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


@every_method
def test_a_model_that_writes_into_its_input_does_not_write_into_the_callers(name: str, batch: Tensor) -> None:
    model = small_model_for(name, mixin=WritesIntoItsInput)
    given = batch[0].clone()
    needs = find_method(name).needs
    found = [explain(model, given, 1, name, "second").raw for _ in range(2)]
    assert torch.equal(given, batch[0])
    np.testing.assert_array_equal(*found)
    again = needs & (Needs.SCORE | Needs.INPUT_GRADIENTS) or name in (
        "smooth-grad-cam++",
        "transition-attention",
        "auto",
    )
    if (needs.layer or needs.attention) and not again:
        plain = explain(small_model_for(name), (batch[0] - 0.3) * 2, 1, name, "second").raw
        np.testing.assert_allclose(found[0], plain, atol=1e-6)


class Counts(SmallNet):
    """Changes its buffers and keeps a tensor, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.steps += 1
        self.mean = images.mean()
        return super().forward(images)


def test_buffers_that_the_models_own_code_changes_are_put_back(batch: Tensor) -> None:
    model = Counts().eval()
    steps, mean = model.steps, model.mean
    seewhy.explain(model, batch)
    assert model.steps is steps
    assert model.mean is mean
    assert float(steps) == float(mean) == 0


def test_two_models_in_two_threads_leave_the_random_state_alone(batch: Tensor) -> None:
    models, before = [make_small_net(seed) for seed in range(2)], torch.get_rng_state()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: seewhy.explain(models[number % 2], batch[0], method="random"), range(24)))
    assert torch.equal(before, torch.get_rng_state())


def test_two_wrappers_of_one_backbone_in_two_threads(batch: Tensor) -> None:
    backbone = make_small_net().train()
    wrappers = [Wrapped(backbone), Wrapped(backbone)]
    expected = seewhy.explain(wrappers[0], batch[0], 1).raw
    statistics = backbone.norm.running_mean.clone()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda number: seewhy.explain(wrappers[number % 2], batch[0], 1).raw, range(24)))
    for raw in found:
        np.testing.assert_array_equal(raw, expected)
    assert torch.equal(statistics, backbone.norm.running_mean)


def test_a_model_that_was_changed_after_the_first_call_is_read_anew(small_net: SmallNet, batch: Tensor) -> None:
    seewhy.explain(small_net, batch[0])
    small_net.second = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 6, 3, padding=1))
    assert seewhy.explain(small_net, batch[0], layers="second.0").layouts[0].channels == 16
    assert seewhy.explain(small_net, batch[0]).raw.shape == (12, 20)


def test_the_default_layer_does_not_depend_on_the_first_image(batch: Tensor) -> None:
    first, second = make_small_net(), make_small_net()
    seewhy.explain(first, torch.zeros(3, 24, 40))
    assert seewhy.explain(first, batch[0]).layers == seewhy.explain(second, batch[0]).layers


@every_method
def test_autocast_around_the_call_leaves_the_methods_mathematics_in_float32(name: str, batch: Tensor) -> None:
    """The model itself runs as the caller's autocast has it; so both maps differ by its rounding only."""
    expected = explain(small_model_for(name), batch[0], 1, name, "second").raw
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(small_model_for(name), batch[0], 1, name, "second").raw
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_one_bad_image_in_a_batch_does_not_take_the_others_with_it(batch: Tensor) -> None:
    class Refuses(SmallNet):
        def forward(self, images: Tensor) -> Tensor:
            if images.max() > 50:
                raise ValueError("too bright")
            return super().forward(images)

    model = Refuses().eval()
    images = torch.cat([batch, batch])
    images[4] += 100
    with pytest.raises(seewhy.PartialError, match="1 of 6 images failed; the first is number 4") as caught:
        seewhy.explain(model, images)
    assert [found is None for found in caught.value.done] == [number == 4 for number in range(6)]


@every_method
def test_works_on_wrapped_models(name: str, small_net: SmallNet, batch: Tensor) -> None:
    expected = explain(small_net, batch[0], 1, name, "second").raw
    for model, layer in (
        (nn.DataParallel(small_net), "second"),
        (nn.DataParallel(small_net), "module.second"),
        (torch.compile(small_net), "second"),
        (Wrapped(small_net), "model.second"),  # as a LightningModule holds its network
        (Wrapped(torch.compile(small_net)), "model._orig_mod.second"),
    ):
        np.testing.assert_array_equal(explain(model, batch[0], 1, name, layer).raw, expected)


@every_method
def test_two_threads_get_what_each_would_get_alone(name: str, batch: Tensor) -> None:
    model = small_model_for(name).train()
    jobs = [(batch[i % 3] + 0.1 * i, i % 5) for i in range(16)]
    alone = [explain(model, image, target, name).raw for image, target in jobs]
    before, start = snapshot(model), threading.Barrier(4)

    def work(part: int) -> list[np.ndarray]:
        start.wait()
        return [explain(model, image, target, name).raw for image, target in jobs[part::4]]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    for part, maps in enumerate(found):
        for one, other in zip(maps, alone[part::4], strict=True):
            np.testing.assert_array_equal(one, other)
    assert_same(before, snapshot(model))


def live_tensors() -> int:
    """Count by type: isinstance() would wake lazy objects that only pretend to have a class."""
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@every_method
def test_500_calls_leave_nothing_behind(name: str, small_net: SmallNet) -> None:
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    ask = seewhy.Explainer(small_net)
    calls = 500 if name == "grad-cam" else 60
    for _ in range(5):
        ask(image, 1, name, **few(name))
    gc.collect()
    before = live_tensors()
    gc.disable()  # nothing may depend on the collector: a cycle would hold activations until it runs
    try:
        for _ in range(calls):
            ask(image, 1, name, **few(name))
        held = live_tensors()
    finally:
        gc.enable()
    assert held <= before + 20


@every_method
def test_maps_are_finite_and_not_flat_on_the_real_model(
    name: str, embedded: seewhy.Explainer, transformer: seewhy.Explainer, chelsea: np.ndarray
) -> None:
    ask = transformer if find_method(name).needs.attention else embedded
    found = ask(chelsea, 281, name, budget=24)
    assert np.isfinite(found.raw).all()
    assert np.ptp(found.raw) > 0
    known = ("class-blind", "incomplete", *(("unlikely",) if ask is transformer else ()))
    assert [finding.code for finding in found.diagnosis if finding.code not in known] == []


@every_method
def test_class_specific_is_what_the_registry_says(
    name: str, embedded: seewhy.Explainer, transformer: seewhy.Explainer, chelsea: np.ndarray
) -> None:
    """Two very different questions about one picture."""
    entry = find_method(name)
    ask = transformer if entry.needs.attention else embedded
    one, other = (ask(chelsea, target, name, budget=24).raw for target in (281, 904))
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert (correlation < 0.99) == entry.class_specific


@every_method
def test_signed_is_what_the_registry_says(name: str) -> None:
    entry = find_method(name)
    lowest = 0.0
    for seed in range(6):
        image = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(seed))
        for target in range(5):
            raw = explain(
                small_model_for(name, seed), image, target, name, "first" if entry.name != "cam" else "second"
            ).raw
            lowest = min(lowest, float(raw.min()))
    assert (lowest < 0) == entry.signed
