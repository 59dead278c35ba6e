"""Layer-wise relevance propagation: zennit's values, closed forms, and a model that is given back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import COMPOSITES, EpsilonPlusFlat, LayerMapComposite, layer_map_base
from zennit.core import Composite
from zennit.layer import Sum
from zennit.rules import Epsilon
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

import seewhy
from small_models import SmallNet
from test_promises import assert_same, snapshot

TARGETS = [2, 0, 4]
ZENNITS = (
    "epsilon-plus-flat",
    "epsilon-plus",
    "epsilon-alpha2-beta1-flat",
    "epsilon-alpha2-beta1",
    "excitation-backprop",
)


def filled(model: nn.Module) -> Any:
    """Return the model with seeded parameters and statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def plain(bias: bool = True) -> nn.Sequential:
    return filled(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 5, bias=bias),
        )
    )


class Between(nn.Module):
    """Without biases; sums, means and activations are functions, and the last layer is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 5, bias=False)
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.third = nn.Conv2d(6, 6, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        entered = functional.relu(self.first(images))
        out = self.third(functional.relu(self.second(entered)))
        out += entered
        out = functional.max_pool2d(out.relu_(), 2) * 3
        return self.head((out - entered[..., ::2, ::2] / 2).mean((2, 3)))


class Block(Between):
    """The same sum by a function, or by zennit's module."""

    def __init__(self, add: nn.Module | None = None) -> None:
        super().__init__()
        if add is not None:
            self.add = add
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        entered = self.relus[0](self.first(images))
        out = self.third(self.relus[1](self.second(entered)))
        out = self.add(torch.stack([entered, out], -1)) if hasattr(self, "add") else entered + out
        return self.head(self.pool(self.relus[2](out)).flatten(1))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def by_zennit(model: nn.Module, images: Tensor, composite: Composite) -> np.ndarray:
    """Return the relevance of each image's target, begun at its score."""

    def start(outputs: Tensor) -> Tensor:
        return outputs.detach() * functional.one_hot(torch.tensor(TARGETS[: len(outputs)]), outputs.shape[1])

    with Gradient(model, composite) as attributor:
        return attributor(images.clone().requires_grad_(), start)[1].numpy()


def colours(model: nn.Module, images: Tensor, **options: Any) -> np.ndarray:
    found = seewhy.explain(model, images, TARGETS[: len(images)], "lrp", **options)
    return np.stack([why.colours for why in found])


@pytest.mark.parametrize(("name", "zero_bias"), [*((name, False) for name in ZENNITS), ("epsilon-plus-flat", True)])
def test_values_are_zennits_for_a_batch_of_different_targets(name: str, zero_bias: bool, images: Tensor) -> None:
    model = plain()
    composite = COMPOSITES[name.replace("-", "_")](zero_params=["bias"] if zero_bias else None)
    expected = by_zennit(model, images, composite)
    np.testing.assert_allclose(colours(model, images, composite=name, zero_bias=zero_bias), expected, atol=1e-6)
    assert np.ptp(expected) > 1e-3


def test_the_box_rule_goes_from_black_to_white(images: Tensor) -> None:
    model, inputs = plain(), (images[0].sigmoid() * 255).byte()
    picture = inputs.permute(1, 2, 0).numpy()
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    preprocess = {"size": (12, 16), "fit": "squash", "mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
    found = seewhy.explain(model, picture, 2, "lrp", composite="epsilon-gamma-box", gamma=0.3, preprocess=preprocess)
    composite = COMPOSITES["epsilon_gamma_box"]((-mean / std)[None], ((1 - mean) / std)[None], gamma=0.3)
    expected = by_zennit(model, (inputs / 255 - mean)[None] / std, composite)
    np.testing.assert_allclose(found.colours, expected[0], atol=1e-5)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_torchvision_resnets_are_as_with_zennits_own_canonizer(block: Any, images: Tensor) -> None:
    wide = 4 * block.expansion
    model = filled(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            block(8, 8 // block.expansion),
            block(8, 4, 2, nn.Sequential(nn.Conv2d(8, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, 5)),
        )
    )
    before = snapshot(model)
    found = colours(model, images)
    assert_same(before, snapshot(model))
    expected = by_zennit(model, images, EpsilonPlusFlat(canonizers=[ResNetCanonizer()]))
    # zennit's merged batch norms keep 1 / sqrt(1 + eps).
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_sum_by_a_function_is_as_by_zennits_module(images: Tensor) -> None:
    by_function, by_module = filled(Block()), filled(Block(Sum()))
    composite = LayerMapComposite([*layer_map_base(), (Linear, Epsilon())])
    expected = by_zennit(by_module, images, composite)
    np.testing.assert_allclose(colours(by_function, images, composite="epsilon"), expected, atol=1e-6)
    alone = by_zennit(by_function, images, composite)  # by itself, zennit hands all of it to both branches
    assert np.abs(alone - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("make", [lambda: plain(bias=False), Between, Block], ids=["modules", "functions", "block"])
def test_the_epsilon_rule_without_biases_is_input_times_gradient(make: Callable[[], nn.Module], images: Tensor) -> None:
    model = filled(make())
    leaf = images.clone().requires_grad_()
    outputs = model(leaf)
    scores = outputs[range(3), TARGETS]
    [gradient] = torch.autograd.grad(scores.sum(), leaf)
    found = colours(model, images, composite="epsilon", epsilon=1e-12)
    np.testing.assert_allclose(found, (gradient * images).numpy(), atol=2e-3 * float(gradient.abs().max()))
    np.testing.assert_allclose(found.sum((1, 2, 3)), scores.detach(), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in ZENNITS if "alpha" not in name])  # those need both signs everywhere
def test_relevance_adds_up_to_the_score_without_biases(name: str, images: Tensor) -> None:
    for why in seewhy.explain(filled(Block()), images.abs(), TARGETS, "lrp", composite=name):
        assert why.raw.sum() == pytest.approx(why.score, rel=1e-3)
        assert why.reported["score difference"] == pytest.approx(why.score, rel=1e-5)
        assert why.reported["relevance kept by biases"] == pytest.approx(why.score - why.raw.sum(), abs=1e-4)


def test_a_contrast_adds_up_too(images: Tensor) -> None:
    model = filled(Block())
    why = seewhy.explain(model, images[0].abs(), "1-vs-3", "lrp")
    with torch.no_grad():
        outputs = model(images[:1].abs())[0]
    assert why.score == pytest.approx(float(outputs[1] - outputs[3]), rel=1e-5)
    assert why.raw.sum() == pytest.approx(why.score, rel=1e-2)


def test_the_first_layer_is_the_one_that_runs_first(images: Tensor) -> None:
    """The flat rule gives every value under a filter the same; `head` is defined before the first layer."""
    found = colours(filled(Block()), images)
    np.testing.assert_allclose(found, found[:, :1].repeat(3, 1), atol=1e-6)
    assert np.ptp(found) > 1e-4


class Gated(nn.Module):
    """A signal times a gate that is computed from it."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = nn.Conv2d(3, 5, 1, bias=False)
        self.gate = nn.Conv2d(3, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        return (self.signal(images) * self.gate(images).sigmoid()).sum((2, 3))


def test_a_gate_gets_no_relevance(images: Tensor) -> None:
    model = filled(Gated())
    with torch.no_grad():
        gates = model.gate(images).sigmoid()
        weights = model.signal.weight[TARGETS, :, 0, 0][:, :, None, None]
        expected = images * weights * gates[range(3), TARGETS][:, None]
    np.testing.assert_allclose(colours(model, images, composite="epsilon"), expected, atol=1e-4)


class Normed(nn.Module):
    """A batch norm that its layer does not stand next to, with a large eps; another that stands behind the layer it feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 3, 1, bias=False)
        self.alone = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(3, 6, 3, bias=False)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(6, eps=0.5)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.first(images))).mean((2, 3)))


class NormedBefore(Normed):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.entry(self.alone(images)).relu())


def test_batch_norms_are_merged_into_the_layer_that_feeds_them(images: Tensor) -> None:
    model = filled(Normed())
    with torch.no_grad():
        model.norm.bias.zero_()
        model.norm.running_mean.zero_()
    leaf = images.clone().requires_grad_()
    [gradient] = torch.autograd.grad(model(leaf)[range(3), TARGETS].sum(), leaf)
    found = colours(model, images, composite="epsilon", epsilon=1e-12)
    np.testing.assert_allclose(found, (gradient * images).numpy(), atol=1e-4)


def test_a_batch_norm_is_not_merged_into_the_layer_that_stands_before_it_but_runs_behind_it(images: Tensor) -> None:
    model = filled(NormedBefore())
    with torch.no_grad():
        scores = model(images)[range(3), TARGETS]
    seen = []
    model.head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    seewhy.explain(model, images[0], TARGETS[0], "lrp")
    for outputs in seen:  # the model stays the same function in every run
        assert float(outputs[0, TARGETS[0]]) == pytest.approx(float(scores[0]), rel=1e-4)
    with EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()]).context(model), torch.no_grad():
        assert (model(images)[range(3), TARGETS] - scores).abs().max() > 1e-2  # as zennit's search by neighbours has it


class Fails(SmallNet):
    """Raises in the second or third run of an explanation: zennit has changed everything by then."""

    runs = 0
    last = 10**9

    def forward(self, images: Tensor) -> Tensor:
        Fails.runs += 1
        scores = super().forward(images)
        if Fails.runs > Fails.last:
            raise ValueError("the model broke")
        return scores


@pytest.mark.parametrize("after", [1, 2])
def test_the_model_is_given_back_bit_for_bit_also_after_an_exception(
    after: int, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = filled(Fails()).train()
    model.first.weight.requires_grad_(requires_grad=False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    contents = {name: set(vars(part)) for name, part in model.named_modules()}
    before = snapshot(model)
    seewhy.explain(model, batch, TARGETS, "lrp")
    assert_same(before, snapshot(model))
    monkeypatch.setattr(Fails, "runs", 0)
    monkeypatch.setattr(Fails, "last", after)
    with pytest.raises(seewhy.MethodError, match=r"lrp: Fails under zennit raised ValueError: the model broke"):
        seewhy.explain(model, batch[0], 1, "lrp")
    assert_same(before, snapshot(model))
    assert {name: set(vars(part)) for name, part in model.named_modules()} == contents


def test_the_model_is_given_back_when_zennit_fails_half_way_through_its_changes(
    small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr("zennit.core.Hook.register", fail)
    before = snapshot(small_net)
    with pytest.raises(seewhy.MethodError, match="zennit raised RuntimeError: half way Use 'integrated-gradients'"):
        seewhy.explain(small_net, batch[0], 1, "lrp")
    assert_same(before, snapshot(small_net))


def test_half_precision_is_worked_out_in_float32(small_net: SmallNet, batch: Tensor) -> None:
    expected = seewhy.explain(small_net, batch[0], 1, "lrp").raw
    before = snapshot(small_net.half())
    found = seewhy.explain(small_net, batch[0], 1, "lrp").raw
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert_same(before, snapshot(small_net))


class OwnWeights(nn.Module):
    """Standardises its weights before it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3)
        self.second = nn.Conv2d(5, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        weight = self.first.weight - self.first.weight.mean()
        return self.second(functional.conv2d(images, weight)).mean((2, 3))


class Twice(OwnWeights):
    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.second(self.first(images))).mean((2, 3))


class Scaled(OwnWeights):
    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images * 2)).mean((2, 3))


def small_vit() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes).eval()


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (small_vit, {}, r"VisionTransformer: it calls layer_norm \(5 calls\), scaled_dot.* Use 'integrated-gradients'"),
        (OwnWeights, {}, r"conv2d with a weight that is no module's own \(1 calls\)"),
        (Twice, {}, "its layer 'second' runs 2 times in one forward"),
        (Scaled, {"composite": "epsilon-gamma-box"}, "needs a first layer that is given the model's input itself"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), {}, "needs convolutions or linear layers"),
        (
            OwnWeights,
            {"composite": "epsilon-plus-flatt"},
            "composite='epsilon-plus-flatt' is not known. Nearest: 'epsilon-p",
        ),
        (
            OwnWeights,
            {"rule": "epsilon"},
            "lrp has no option 'rule'.* It has: composite='epsilon-plus-flat', epsilon=1e-06",
        ),
    ],
)
def test_what_lrp_has_no_rules_for_is_refused_with_what_was_found(
    make: Callable[[], nn.Module], options: dict[str, Any], told: str
) -> None:
    model = make().eval()
    image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = snapshot(model)
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(model, image, 1, "lrp", **options)
    assert_same(before, snapshot(model))


def test_composites_are_spelled_either_way_and_smoothing_goes_around(small_net: SmallNet, batch: Tensor) -> None:
    one, other = (
        seewhy.explain(small_net, batch[0], 1, "LRP", composite=name).raw for name in ("epsilon-plus", "Epsilon_Plus")
    )
    np.testing.assert_array_equal(one, other)
    assert seewhy.explain(small_net, batch[0], 1, "lrp", smooth=seewhy.Noise(2)).colours.shape == (3, 24, 40)
    assert seewhy.explain(small_net, batch[0], 1, "lrp").cost.forwards == 3
