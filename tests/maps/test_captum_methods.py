"""Captum's classes through `method="captum:NAME"`: the same values as by hand, and nothing left behind in the model."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn

import seewhy
from seewhy.images.regions import superpixels
from seewhy.maps import find_method
from seewhy.maps.foreign.captum_names import _names
from test_promises import assert_same, snapshot

TARGETS = [2, 0]
THIRDS32 = np.arange(32 * 32).reshape(32, 32) // 400
THIRDS = torch.arange(20).div(7, rounding_mode="floor").expand(16, 20)


class Net(nn.Module):
    """Every activation is a module of its own, in place; each layer is of a type that Captum's LRP knows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(24, 5)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.norm.running_var.fill_(1.7)
            for parameter in self.parameters():
                parameter.normal_(0, 0.4, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.first(images)))
        return self.head(self.pool(self.act(self.second(features))).flatten(1))


class Reused(Net):
    """Runs one activation twice."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(self.second(self.relu(self.first(images))))).flatten(1))


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def regions(image: Tensor, count: int = 32) -> Tensor:
    return superpixels(image[0], count).expand_as(image).contiguous()


def starts(image: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(image), image.mean((2, 3), keepdim=True).expand_as(image)])


def by_hand(kind: str, model: nn.Module, images: Tensor, layer: nn.Module | None = None, **given: Any) -> np.ndarray:
    """Return what a class says of each image, asked without seewhy; functions among the arguments are given the image."""
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False  # else DeepLift fails
    made = getattr(captum.attr, kind)(*([model] if layer is None else [model, layer]))
    if "perturbations_per_eval" in inspect.signature(made.attribute).parameters:
        given["perturbations_per_eval"] = 64  # the same in less time
    found = []
    for image, target in zip(images.split(1), TARGETS, strict=False):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - Captum draws there
        own = {name: value(image) if callable(value) else value for name, value in given.items()}
        own |= {"target": target} if "neuron_selector" not in own and kind != "LayerActivation" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(made.attribute(image.clone().requires_grad_(), **own).detach())
    return torch.cat(found).numpy()


INPUTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Saliency", {}, {}),
    ("InputXGradient", {}, {}),
    ("GuidedBackprop", {}, {}),
    ("Deconvolution", {}, {}),
    ("IntegratedGradients", {"n_steps": 9, "rule": "riemann_middle"}, {"n_steps": 9, "method": "riemann_middle"}),
    ("IntegratedGradients", {"baseline": "mean"}, {"baselines": lambda image: starts(image)[1:]}),
    ("DeepLift", {}, {}),
    ("DeepLift", {"baselines": "mean", "eps": 1e-9}, {"baselines": lambda image: starts(image)[1:]}),
    ("DeepLiftShap", {"baseline": "dataset,mean"}, {"baselines": starts}),
    ("GradientShap", {"baseline": "dataset,mean", "n_samples": 7}, {"baselines": starts, "n_samples": 7}),
    ("LRP", {}, {}),
    ("FeatureAblation", {}, {"feature_mask": regions}),
    ("Lime", {"n_samples": 40}, {"feature_mask": regions, "n_samples": 40}),
    ("KernelShap", {"segments": 9}, {"feature_mask": lambda image: regions(image, 9), "n_samples": 200}),
    ("ShapleyValueSampling", {"n_samples": 3}, {"feature_mask": regions, "n_samples": 3}),
    (
        "ShapleyValues",
        {"segments": THIRDS.numpy()},
        {"feature_mask": lambda image: THIRDS.expand_as(image).contiguous()},
    ),
    ("Occlusion", {"window": 5, "stride": 2}, {"sliding_window_shapes": (3, 5, 5), "strides": (3, 2, 2)}),
    ("Occlusion", {}, {"sliding_window_shapes": (3, 2, 2), "strides": (3, 1, 1)}),
    ("Occlusion", {"sliding_window_shapes": (1, 12, 15)}, {"sliding_window_shapes": (1, 12, 15)}),
]


@pytest.mark.parametrize(("kind", "options", "given"), INPUTS)
def test_maps_of_the_input_are_captums_for_a_batch_of_different_targets(
    kind: str, options: dict[str, Any], given: dict[str, Any], net: Net, images: Tensor
) -> None:
    before = snapshot(net)
    found = seewhy.explain(net, images, TARGETS, f"captum:{kind}", **options)
    assert_same(before, snapshot(net))
    assert net.relu.inplace
    expected = by_hand(kind, net, images, **given)
    for why, one in zip(found, expected, strict=True):
        if why.colours is None:  # hidden in all colours at once
            np.testing.assert_array_equal(one, one[:1].repeat(3, 0))
            np.testing.assert_allclose(why.raw, one[0], atol=1e-6)
        else:
            np.testing.assert_allclose(why.colours, one, atol=1e-6)
            np.testing.assert_allclose(why.raw, one.sum(0), atol=1e-6)
    assert np.ptp(expected) > 1e-4


LAYERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("LayerActivation", {}, {}),
    ("LayerGradientXActivation", {}, {}),
    ("LayerConductance", {"n_steps": 5}, {"n_steps": 5}),
    ("LayerIntegratedGradients", {"n_steps": 5}, {"n_steps": 5}),
    ("InternalInfluence", {"n_steps": 5}, {"n_steps": 5}),
    ("LayerDeepLift", {}, {}),
    ("LayerDeepLiftShap", {"baseline": "dataset,mean"}, {"baselines": starts}),
    ("LayerGradientShap", {"baseline": "dataset,mean", "n_samples": 5}, {"baselines": starts, "n_samples": 5}),
]


@pytest.mark.parametrize(("kind", "options", "given"), [*LAYERS, ("LayerGradCam", {}, {}), ("LayerLRP", {}, {})])
def test_maps_of_a_layer_are_captums(
    kind: str, options: dict[str, Any], given: dict[str, Any], net: Net, images: Tensor
) -> None:
    before = snapshot(net)
    found = seewhy.explain(net, images, TARGETS, f"captum:{kind}", "second", **options)
    assert_same(before, snapshot(net))
    expected = by_hand(kind, net, images, net.second, **given)
    assert [why.layers for why in found] == [("second",)] * 2
    for why, one in zip(found, expected, strict=True):
        assert why.raw.shape == (8, 10)
        np.testing.assert_allclose(why.raw, one.sum(0), atol=1e-6)


@pytest.mark.parametrize(("kind", "options", "given"), LAYERS)
def test_tokens_of_a_transformer_become_a_map(
    kind: str, options: dict[str, Any], given: dict[str, Any], vit: nn.Module
) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    before = snapshot(vit)
    found = seewhy.explain(vit, images, TARGETS, f"captum:{kind}", "blocks.0", **options)
    assert_same(before, snapshot(vit))
    expected = by_hand(kind, vit, images, vit.blocks[0], **given)
    for why, one in zip(found, expected, strict=True):
        assert one.shape == (17, 24)
        np.testing.assert_allclose(why.raw, one[1:].sum(1).reshape(4, 4), atol=1e-6)


def test_a_layer_is_ablated_place_by_place_unless_a_mask_says_otherwise(
    net: Net, vit: nn.Module, images: Tensor
) -> None:
    found = seewhy.explain(net, images[0], 2, "captum:LayerFeatureAblation", "second")
    places = torch.arange(80).view(1, 1, 8, 10).expand(1, 6, 8, 10).contiguous()
    expected = by_hand("LayerFeatureAblation", net, images[:1], net.second, layer_mask=places)
    np.testing.assert_allclose(found.raw, expected[0, 0], atol=1e-6)
    image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = seewhy.explain(vit, image, 2, "captum:LayerFeatureAblation", "blocks.0")
    tokens = torch.tensor([16, *range(16)]).view(1, 17, 1).expand(1, 17, 24).contiguous()
    expected = by_hand("LayerFeatureAblation", vit, image[None], vit.blocks[0], layer_mask=tokens)
    np.testing.assert_allclose(found.raw, expected[0, 1:, 0].reshape(4, 4), atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["NeuronGradient", "NeuronIntegratedGradients", "NeuronDeepLift", "NeuronGuidedBackprop"]
)
def test_maps_of_a_neuron_are_captums_and_a_number_is_a_channel(kind: str, net: Net, images: Tensor) -> None:
    method = f"captum:{kind}"
    assert not find_method(method).class_specific
    one = seewhy.explain(net, images, TARGETS, method, "second", neuron_selector=(3, 4, 5))
    channel = seewhy.explain(net, images[0], 2, method, "second", neuron_selector="3")
    everywhere = (3, slice(None), slice(None))
    np.testing.assert_allclose(
        np.stack([why.colours for why in one]),
        by_hand(kind, net, images, net.second, neuron_selector=(3, 4, 5)),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        channel.colours, by_hand(kind, net, images[:1], net.second, neuron_selector=everywhere)[0], atol=1e-5
    )
    with pytest.raises(seewhy.MethodError, match="needs neuron_selector: a channel's number"):
        seewhy.explain(net, images[0], 2, method, "second")


def test_guided_grad_cam_looks_at_a_layer_and_keeps_colours(net: Net, images: Tensor) -> None:
    found = seewhy.explain(net, images, TARGETS, "captum:guided-grad-cam", "second")
    expected = by_hand("GuidedGradCam", net, images, net.second)
    np.testing.assert_allclose(np.stack([why.colours for why in found]), expected, atol=1e-6)
    assert found[0].layers == ("second",)


@pytest.mark.parametrize("kind", _names(captum.attr))
def test_every_class_either_works_or_says_why_not(kind: str, vit: nn.Module) -> None:
    """A transformer is the hardest: no ReLU, tokens, types that LRP does not know."""
    entry = find_method(f"captum:{kind}")
    small = {"n_steps": 4, "n_samples": 4, "segments": THIRDS32, "window": 16, "neuron_selector": 1}
    options = {name: value for name, value in small.items() if name in entry.options}
    image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    before = snapshot(vit)
    refused = {
        "GuidedBackprop": "has none: its map would be the plain derivative. Use 'guided-backprop'",
        "GuidedGradCam": "has none",
        "Deconvolution": "has none",
        "NeuronGuidedBackprop": "has none",
        "NeuronDeconvolution": "has none",
        "LRP": "Captum raised TypeError: Module of type .* Use 'lrp'",
        "LayerLRP": "Captum raised TypeError",
        "LayerGradCam": "takes the first axis behind the batch for the channels; .* tokens, grid 4x4.* Use 'grad-cam'",
    }
    if kind in refused:
        with pytest.raises(seewhy.MethodError, match=refused[kind]):
            seewhy.explain(vit, image, 1, entry.name, **options)
    else:
        found = seewhy.explain(vit, image, 1, entry.name, **options)
        assert found.raw.shape == ((4, 4) if issubclass(getattr(captum.attr, kind), LayerAttribution) else (32, 32))
        assert np.isfinite(found.raw).all()
        assert found.cost.forwards > 1
    assert_same(before, snapshot(vit))


def test_a_module_that_runs_twice_is_told_and_leaves_nothing_behind(images: Tensor) -> None:
    model = Reused().train()
    contents = {name: set(vars(part)) for name, part in model.named_modules()}
    before = snapshot(model)
    with pytest.raises(seewhy.MethodError, match=r"(?s)captum:DeepLift on Reused: Captum raised.*Use 'lrp'"):
        seewhy.explain(model, images[0], 1, "captum:DeepLift")
    assert_same(before, snapshot(model))
    assert {name: set(vars(part)) for name, part in model.named_modules()} == contents
    assert model.relu.inplace


def test_what_was_spent_and_the_gap_are_told(net: Net, images: Tensor) -> None:
    why = seewhy.explain(net, images, TARGETS, "captum:IntegratedGradients", n_steps=20)[1]
    assert (why.cost.forwards, why.cost.backwards) == (1 + 20 + 2, 20)
    with torch.no_grad():
        difference = float(net(images[1:2])[0, 0] - net(torch.zeros_like(images[:1]))[0, 0])
    assert why.reported["score difference"] == pytest.approx(difference, abs=1e-5)
    assert why.reported["completeness gap"] == pytest.approx(float(why.raw.sum()) - difference, abs=1e-5)
    lrp = seewhy.explain(net, images[0], 2, "captum:LRP")
    assert lrp.raw.sum() - lrp.score == pytest.approx(lrp.reported["completeness gap"], abs=1e-5)
    for option in ({"return_convergence_delta": False}, {"multiply_by_inputs": False}):
        quiet = seewhy.explain(net, images[0], 2, "captum:DeepLift", **option)
        assert not quiet.reported
        assert quiet.cost.forwards == 1 + 2


def test_the_same_seed_gives_the_same_map_and_no_random_state_changes(net: Net, images: Tensor) -> None:
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    maps = [seewhy.explain(net, images[0], 1, "captum:gradient-shap", seed=seed).raw for seed in (4, 4, 5)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_out_in_float32(dtype: torch.dtype, net: Net, images: Tensor) -> None:
    expected = seewhy.explain(net, images[0], 1, "captum:DeepLift").raw
    net.to(dtype)
    before = snapshot(net)
    found = seewhy.explain(net, images[0], 1, "captum:DeepLift").raw
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert_same(before, snapshot(net))
    assert net.first.weight.dtype == dtype


def test_your_own_regions_are_taken(net: Net, images: Tensor) -> None:
    halves = np.zeros((16, 20), int)
    halves[:, 10:] = 7
    found = seewhy.explain(net, images[0], 2, "captum:FeatureAblation", segments=halves)
    mask = torch.from_numpy(halves > 0).long().expand(1, 3, 16, 20).contiguous()
    np.testing.assert_allclose(
        found.raw, by_hand("FeatureAblation", net, images[:1], feature_mask=mask)[0, 0], atol=1e-6
    )
    assert len(np.unique(found.raw)) == 2
    colours = torch.arange(3).view(1, 3, 1, 1).expand(1, 3, 16, 20).contiguous()
    found = seewhy.explain(net, images[0], 2, "captum:FeatureAblation", feature_mask=colours)
    np.testing.assert_allclose(
        found.colours, by_hand("FeatureAblation", net, images[:1], feature_mask=colours)[0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("captum:DeepLift", "captum:DeepLift"),
        ("Captum:deep-lift", "captum:DeepLift"),
        ("captum: kernel_shap", "captum:KernelShap"),
        ("captum:LRP", "captum:LRP"),
        ("captum:layer-grad-cam", "captum:LayerGradCam"),
    ],
)
def test_names_are_found_as_people_spell_them(spelled: str, name: str) -> None:
    assert find_method(spelled).name == name
    assert find_method(spelled) is find_method(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("captum:deplift", "No attribution of Captum is called 'deplift'. Nearest: 'DeepLift'"),
        ("captum:NoiseTunnel", "give that method and smooth='noise'"),
        ("captum:FeaturePermutation", "each image is explained alone: use captum:FeatureAblation"),
        ("captum:LLMAttribution", "it is for language models"),
        ("captum:TCAV", "a concept"),
        ("captum:Attribution", "No attribution of Captum is called 'Attribution'"),
    ],
)
def test_other_names_are_refused_with_what_to_do(name: str, told: str) -> None:
    with pytest.raises(seewhy.MethodError) as caught:
        find_method(name)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("DeepLift", {"epz": 1}, "captum:DeepLift has no option 'epz'. Nearest: 'eps'"),
        ("IntegratedGradients", {"n_steps": "many"}, "n_steps='many' is not a whole number"),
        ("IntegratedGradients", {"baseline": 0, "baselines": 0}, "baseline and baselines are the same option"),
        ("IntegratedGradients", {"rule": "simpson"}, "Captum raised AssertionError"),
        ("DeepLift", {"baseline": "mean,dataset"}, "takes one baseline; 2 were given"),
        ("ShapleyValues", {"segments": 30}, "regions. Give segments= of at most 8"),
        ("KernelShap", {"segments": np.zeros((16, 20), int)}, "there is one region only"),
        ("Occlusion", {"sliding_window_shapes": (3, 400, 400)}, "Captum raised AssertionError"),
    ],
)
def test_options_that_do_not_fit_are_told(
    kind: str, given: dict[str, Any], told: str, net: Net, images: Tensor
) -> None:
    before = snapshot(net)
    with pytest.raises(seewhy.MethodError) as caught:
        seewhy.explain(net, images[0], 1, f"captum:{kind}", **given)
    assert told in str(caught.value)
    assert_same(before, snapshot(net))


def test_text_of_the_command_line_becomes_what_captum_takes() -> None:
    check = find_method("captum:occlusion").check_options
    found = check(
        {"sliding_window_shapes": "(3, 5, 5)", "strides": "2", "baselines": "blur", "perturbations_per_eval": "4"}
    )
    assert found == {"sliding_window_shapes": (3, 5, 5), "strides": 2, "baseline": "blur", "perturbations_per_eval": 4}
    assert find_method("captum:NeuronGradient").check_options({"neuron_selector": "3,1,2"}) == {
        "neuron_selector": (3, 1, 2)
    }
    assert find_method("captum:saliency").check_options({"abs": "false"}) == {"abs": False}
    assert find_method("captum:lime").check_options({"segments": "9"}) == {"segments": 9}
    assert find_method("captum:deeplift").check_options({"baseline": "0.5"}) == {"baseline": "0.5"}


def test_several_layers_and_several_methods_in_one_call(net: Net, images: Tensor) -> None:
    found = seewhy.compare(
        net, images[0], ["captum:LayerActivation", "captum:deep-lift", "grad-cam"], ["first", "second"], [0, 1]
    )
    assert [why.method for why in found].count("captum:LayerActivation") == 4
    assert [why.method for why in found].count("captum:DeepLift") == 2
    fused = seewhy.explain(net, images[0], 1, "captum:LayerActivation", ["relu", "second"])
    assert fused.layers == ("relu", "second")
    noisy = seewhy.explain(net, images[0], 1, "captum:Saliency", smooth="noise")
    assert noisy.colours.shape == (3, 16, 20)
