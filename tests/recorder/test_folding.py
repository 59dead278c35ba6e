"""Batch normalisation folded into convolutions: the same function, wherever a model allows it, and only there."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.recorder import engine
from seewhy.recorder.folding import Folded, _Folding, fold
from seewhy.recorder.forward import Forward
from seewhy.recorder.torch_backend import TorchBackend

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def lively(model: nn.Module) -> nn.Module:
    """Give a model in double precision statistics and parameters that are not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            if part.affine:
                part.weight.data.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                part.bias.data.copy_(torch.randn(part.num_features, generator=generator))
    return model.double().eval()


class Net(nn.Module):
    """A convolution, a batch normalisation and a head, which each model here puts together in its own way."""

    def __init__(self, axes: int = 2, **norm: Any) -> None:
        super().__init__()
        self.conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](3, 3, 3, padding=1)
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1](3, **norm)
        self.other = copy.deepcopy(self.norm)
        self.other_conv = copy.deepcopy(self.conv)
        self.head = nn.Linear(3, 4)
        self.odd = False

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(2).mean(2))

    def body(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu_()


class Twice(Net):
    def body(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(self.conv(images)).relu()))


class Leaking(Net):
    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        return self.norm(convolved) + convolved


class LeakingBefore(Net):
    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        return torch.cat([convolved, self.norm(convolved)], 2)


class TwoNorms(Net):
    def body(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)) * self.other(self.conv(images))


class BothOfOne(Net):
    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        return self.norm(convolved) * self.other(convolved)


class SharedNorm(Net):
    def body(self, images: Tensor) -> Tensor:
        return self.norm(self.other_conv(self.norm(self.conv(images))))


class NormAlone(Net):
    def body(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(images)))


class Doubled(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return 2 * tensor


class Unseen(Net):
    """Uses a convolution's output in code that calls none of torch's functions from Python."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.script = torch.jit.trace(Doubled(), torch.ones(1, 3, 4, 4).double())

    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        return self.norm(convolved) + self.script(convolved)


class OffsetUnseen(Unseen):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e6


class OtherAffine(Net):
    """Takes the norm's statistics with parameters that depend on the images."""

    def body(self, images: Tensor) -> Tensor:
        norm, scale = self.norm, images.mean((0, 2, 3)) + 1
        return nn.functional.batch_norm(self.conv(images), norm.running_mean, norm.running_var, scale, norm.bias)


class Autocast(Net):
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images)


class Computed(Net):
    def body(self, images: Tensor) -> Tensor:
        weight = self.conv.weight - self.conv.weight.mean()
        return self.norm(torch.nn.functional.conv2d(images, weight, self.conv.bias, padding=1))


class Turning(Net):
    """Takes another way when it is told to."""

    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        if self.odd:
            return self.other(convolved)
        return self.norm(convolved)


class Looking(Net):
    """Uses the convolution's output after its norm did, when it is told to."""

    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        found = self.norm(convolved).relu_()
        return found + convolved if self.odd else found


class OtherNorm(Net):
    def body(self, images: Tensor) -> Tensor:
        norm, scale = self.norm, self.other.weight if self.odd else self.norm.weight
        return nn.functional.batch_norm(self.conv(images), norm.running_mean, norm.running_var, scale, norm.bias)


class OtherBias(Net):
    def body(self, images: Tensor) -> Tensor:
        bias = self.other_conv.bias * 2 if self.odd else self.conv.bias
        return self.norm(nn.functional.conv2d(images, self.conv.weight, bias, padding=1))


class Raising(Net):
    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        if self.odd and "_seewhy_convolved" in convolved.__dict__:
            raise ValueError("not as it is")
        return self.norm(convolved)


class Stopping(Net):
    def body(self, images: Tensor) -> Tensor:
        convolved = self.conv(images)
        return convolved if self.odd else self.norm(convolved)


def counted(folded: Folded | None) -> int:
    return 0 if folded is None else len(folded.pairs)


@torch.no_grad()
def folded_outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, int]:
    """Return the outputs of a model that was folded, and how many pairs were."""
    folded = fold(model, lambda: model(images[:2]))
    assert folded is not None
    return folded(lambda: model(images)), counted(folded)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("norm", [{}, {"affine": False}, {"eps": 0.3}], ids=str)
def test_a_convolution_and_its_normalisation_are_one(axes: int, norm: dict[str, Any]) -> None:
    model = lively(Net(axes, **norm))
    images = torch.randn(2, 3, *(6,) * axes, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
    found, pairs = folded_outputs(model, images)
    assert pairs == 1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_one_pair_that_runs_twice_is_folded() -> None:
    model = lively(Twice())
    found, pairs = folded_outputs(model, IMAGES)
    assert pairs == 1
    torch.testing.assert_close(found, model(IMAGES).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        Leaking,
        LeakingBefore,
        TwoNorms,
        BothOfOne,
        SharedNorm,
        NormAlone,
        Unseen,
        OffsetUnseen,
        OtherAffine,
        Autocast,
        Computed,
    ],
    ids=lambda make: make.__name__,
)
@torch.no_grad()
def test_what_is_used_in_another_way_is_left_alone(make: Callable[[], nn.Module]) -> None:
    model = lively(make())
    images = IMAGES.float() if make is Autocast else IMAGES
    model = model.float() if make is Autocast else model
    assert counted(fold(model, lambda: model(images[:2]))) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.norm.train(),
        lambda model: model.conv.register_forward_hook(lambda *_: None),
        lambda model: model.norm.register_forward_pre_hook(lambda *_: None),
        lambda model: model.half(),
        lambda model: setattr(model, "norm", nn.GroupNorm(1, 3).double()),
        lambda model: setattr(model, "norm", nn.BatchNorm2d(3, track_running_stats=False).double()),
        lambda model: nn.utils.parametrizations.weight_norm(model.conv),
    ],
    ids=["training", "hook", "hook before", "half", "group norm", "no statistics", "computed weight"],
)
@torch.no_grad()
def test_other_models_are_left_alone(spoil: Callable[[Any], Any]) -> None:
    model = lively(Net())
    model.other = nn.Identity()
    spoil(model)
    images = IMAGES.to(model.head.weight.dtype)
    assert counted(fold(model, lambda: model(images[:2]))) == 0


@pytest.mark.parametrize("make", [Turning, Looking, OtherNorm, OtherBias, Raising, Stopping])
@torch.no_grad()
def test_a_model_that_turns_is_run_as_it_is(make: Callable[[], Any]) -> None:
    model = lively(make())
    folded = fold(model, lambda: model(IMAGES[:2]))
    assert counted(folded) == 1
    model.odd = True
    assert folded is not None
    torch.testing.assert_close(folded(lambda: model(IMAGES)), model(IMAGES), rtol=0, atol=0)
    assert counted(folded) == 0


@pytest.mark.parametrize(
    ("make", "pairs"),
    [
        (torchvision.models.resnet18, 20),
        (torchvision.models.densenet121, 59),  # the rest of its 121 stand before convolutions
        (torchvision.models.mobilenet_v3_small, 34),
        (lambda: timm.create_model("tf_efficientnet_lite0"), 49),
        (lambda: timm.create_model("regnetx_002"), 44),
    ],
    ids=["resnet18", "densenet121", "mobilenet_v3_small", "efficientnet_lite0", "regnetx"],
)
def test_real_models_are_folded(make: Callable[[], nn.Module], pairs: int) -> None:
    model = lively(make())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = IMAGES.repeat(1, 1, 2, 2)
    found, count = folded_outputs(model, images)
    with torch.no_grad():
        expected = model(images)
    assert count == pairs
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


OFTEN: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 4},
    "integrated-gradients": {"steps": 30},
    "blur-ig": {"steps": 30},
    "score-cam": {},
}


@pytest.mark.parametrize("method", OFTEN)
@pytest.mark.parametrize("saving", [False, True], ids=["", "checkpointed"])
def test_methods_that_run_often_give_the_same(method: str, saving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(timm.create_model("resnet10t", num_classes=5))
    model.set_grad_checkpointing(saving)
    ask = seewhy.Explainer(model)
    image = IMAGES[0].repeat(1, 2, 2)
    kept = []
    watched = _Folding.__exit__

    def leave(self: _Folding, *error: Any) -> None:
        watched(self, *error)
        kept.append(self.kept)

    monkeypatch.setattr(_Folding, "__exit__", leave)
    found = ask(image, 1, method, **OFTEN[method]).raw
    assert len(kept) > 1
    assert all(kept)
    monkeypatch.setattr(engine, "MANY", 10**9)
    expected = ask(image, 1, method, **OFTEN[method]).raw
    assert float(abs(expected).max()) > 0
    assert float(abs(found - expected).max()) <= 1e-6 * float(abs(expected).max())


def test_a_function_that_compiles_in_the_model_does_not_matter() -> None:
    model = lively(Net())
    plain = seewhy.explain(model, IMAGES[0], 1, "occlusion", window=8, stride=4).raw
    model.body = torch.compile(model.body, backend="eager")
    found = seewhy.explain(model, IMAGES[0], 1, "occlusion", window=8, stride=4).raw
    assert float(abs(found - plain).max()) <= 1e-6 * float(abs(plain).max())


@torch.no_grad()
def test_hooks_of_all_modules_see_what_they_always_see() -> None:
    model = lively(Net())
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert counted(fold(model, lambda: model(IMAGES[:2]))) == 0
    finally:
        handle.remove()
    assert counted(fold(model, lambda: model(IMAGES[:2]))) == 1


def test_what_is_folded_is_forgotten_with_the_model_also_after_an_error() -> None:
    model = lively(Net())
    backend = TorchBackend(Forward(model))
    with pytest.raises(ValueError, match="ours"), backend.holding(0):
        backend.rehearse(IMAGES[:1])
        assert counted(backend._folded) == 1
        raise ValueError("ours")
    assert backend._folded is None


def test_many_runs_of_each_sample_are_rehearsed_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed = []
    monkeypatch.setattr("seewhy.recorder.torch_backend.fold", lambda module, run: rehearsed.append(module))
    model = lively(Net())
    ask = seewhy.Explainer(model)
    ask(IMAGES, 1, "integrated-gradients", steps=23)
    assert not rehearsed
    ask(IMAGES, 1, "integrated-gradients", steps=24)
    assert rehearsed == [model]


def test_replays_are_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed = []
    monkeypatch.setattr("seewhy.recorder.torch_backend.fold", lambda module, run: rehearsed.append(module))
    model = lively(torchvision.models.resnet18(num_classes=5))
    why = seewhy.explain(model, IMAGES[0].repeat(1, 2, 2), 1, "ablation-cam")
    assert why.cost.replays > engine.MANY
    assert not rehearsed
