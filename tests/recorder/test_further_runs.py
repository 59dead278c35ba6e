"""Further runs of real models (scores, replays, derivatives): in any surroundings, and the model given back."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder import Conditions, Derived, Recording, TorchRecorder, Variants
from seewhy.targets import CallableTarget, ContrastTarget
from small_models import SmallNet, make_small_net


class Brightened:
    """Variants of the input for which a method asks: each brighter than the one before."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, sample: Recording) -> Variants:
        def make(numbers: range) -> Tensor:
            factors = torch.arange(numbers.start + 1, numbers.stop + 1).to(sample.images) / self.count
            return sample.images * factors.view(-1, 1, 1, 1)

        return Variants(self.count, make)


def recorded(model: nn.Module, images: Tensor, **conditions: Any) -> Recording:
    recorder = TorchRecorder(model)
    row = recorder.table(images).default
    asked = tuple(ContrastTarget(number % 5, 4) for number in range(len(images)))
    recordings = recorder.record(
        images, [row], lambda *_: [asked], needs=seewhy.Needs.GRADIENTS, conditions=Conditions(**conditions)
    )
    return recordings.at(row.name, 0)


class Halved(Brightened):
    """The same of a layer's activations."""

    def __call__(self, sample: Recording) -> Variants:
        activations = sample.activations

        def make(numbers: range) -> Tensor:
            factors = torch.arange(numbers.start, numbers.stop).to(activations) + 1
            return activations / factors.view(-1, 1, 1, 1)

        return Variants(self.count, make)


WAYS = ["score", "replay", "derive"]


def use(rec: Recording, way: str, count: int = 300) -> Tensor:
    """Run many variants; return `(batch, count)` scores, or derivatives' means."""
    if way != "derive":
        return rec.score(Brightened(count)).values if way == "score" else rec.replay(Halved(count)).values
    found = torch.zeros(len(rec.images), count)

    def take(part: Derived) -> None:
        found[part.row, part.numbers] = part.gradients.flatten(1).mean(1)

    rec.derive(Brightened(count), take)
    return found


def state(model: nn.Module) -> list[object]:
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]
    wanted = [(each.requires_grad, each.grad is None, each._version) for each in model.parameters()]
    modes = [part.training for part in model.modules()]
    return [hooks, wanted, modes, torch.get_rng_state().tolist(), torch.is_grad_enabled()]


@pytest.mark.parametrize("way", WAYS)
def test_the_model_and_the_random_state_are_given_back(way: str, batch: Tensor) -> None:
    model = make_small_net().train()
    model.norm.eval()
    model.first.weight.requires_grad_(requires_grad=False)
    rec = recorded(model, batch)
    before = state(model)
    use(rec, way)
    assert state(model) == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [ValueError("the model broke"), KeyboardInterrupt()])
def test_also_after_an_error_in_the_middle_of_a_long_run(way: str, error: BaseException, batch: Tensor) -> None:
    class FailsLate(SmallNet):
        left = 10**9

        def forward(self, images: Tensor) -> Tensor:
            torch.rand(3)
            self.left -= 1
            features = self.second(self.relu(self.norm(self.first(images))))
            if self.left < 0:
                raise error
            return self.head(self.dropout(features.mean((2, 3))))

    model, watch = FailsLate().train(), []
    rec = recorded(model, batch, watch=lambda done, _: watch.append(done))
    model.left = 4
    before = state(model)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else seewhy.RecordingError):
        use(rec, way, 1000)
    assert state(model) == before
    assert max(watch) > 0  # it was in the middle
    model.left = 10**9
    torch.testing.assert_close(use(rec, way, 20), use(recorded(model, batch), way, 20))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad, nullcontext])
def test_under_the_callers_gradient_mode(way: str, around: type, batch: Tensor) -> None:
    model, other = make_small_net(), make_small_net()
    expected = use(recorded(other, batch), way, 20)
    assert float(expected.std()) > 0
    with around():
        rec = recorded(model, batch * 1.0)
        with torch.inference_mode(mode=False):  # as every method is called
            found = use(rec, way, 20)
    assert torch.equal(found, expected)
    assert not found.requires_grad


@pytest.mark.parametrize("way", WAYS)
def test_in_half_precision(way: str, batch: Tensor) -> None:
    expected = use(recorded(make_small_net(), batch), way, 20)
    found = use(recorded(make_small_net().bfloat16(), batch), way, 20)
    assert found.dtype == torch.float32
    assert float(torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1]) > 0.99


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile, lambda model: nn.Sequential(torch.compile(model))])
def test_on_wrapped_and_compiled_models(way: str, wrapper: Any, batch: Tensor) -> None:
    expected = use(recorded(make_small_net(), batch), way, 20)
    torch.testing.assert_close(use(recorded(wrapper(make_small_net()), batch), way, 20), expected)


@pytest.mark.parametrize("way", ["score", "replay"])
def test_what_is_asked_twice_is_run_once(way: str, small_net: SmallNet, batch: Tensor) -> None:
    rec, asked, runs = recorded(small_net, batch), {"score": Brightened(5), "replay": Halved(5)}[way], []
    small_net.register_forward_pre_hook(lambda *_: runs.append(1))
    first = getattr(rec, way)(asked)
    made = len(runs)
    assert torch.equal(getattr(rec, way)(asked).values, first.values)
    assert len(runs) == made > 0


def test_a_target_that_fails_is_told_and_the_model_given_back(small_net: SmallNet, batch: Tensor) -> None:
    rec = recorded(small_net, batch)
    rec._of.questions = ((CallableTarget(lambda output: output[99]),) * 3,)
    before = state(small_net)
    with pytest.raises(seewhy.TargetError, match="raised IndexError"):
        use(rec, "score")
    assert state(small_net) == before
