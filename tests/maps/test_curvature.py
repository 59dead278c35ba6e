"""ShapleyCAM, which needs the second derivative, and RefineCAM, the product of several layers."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam as peer
import timm
import torch
from slow_gradients import assert_close, enlarged
from slow_reference import SINGLE_PASS, observe
from slow_reference import grad_cam as slow_grad_cam
from torch import Tensor, nn

import seewhy
from small_models import SmallNet

Array = np.ndarray


class CurvedTail(nn.Module):
    """Two layers and a tail that is not linear: cross terms between cells and channels, in three ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.Tanh())
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)
        with torch.no_grad():
            self.second.weight.mul_(4)
            self.head.weight.mul_(6)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.first(images))
        squashed = features.tanh() * features.mean((2, 3), keepdim=True).sigmoid()
        return self.head(squashed.flatten(2).logsumexp(2))


def tail(model: CurvedTail, layer: str, values: Tensor, target: int, *, probability: bool) -> Tensor:
    """Return the score for a layer's output `(channel, *grid)`."""
    features = model.second(values[None]) if layer == "first" else values[None]
    squashed = features.tanh() * features.mean((2, 3), keepdim=True).sigmoid()
    output = model.head(squashed.flatten(2).logsumexp(2))[0]
    return output.softmax(0)[target] if probability else output[target]


def shapley(model: CurvedTail, layer: str, image: Tensor, target: int, *, probability: bool) -> Array:
    """The whole Hessian, and Cai 2025's weights by it: mean of G - H A / 2."""
    with torch.no_grad():
        a = model.first(image.double()[None])[0]
        a = model.second(a[None])[0] if layer == "second" else a

    def score(flat: Tensor) -> Tensor:
        return tail(model, layer, flat.view_as(a), target, probability=probability)

    hessian = torch.autograd.functional.hessian(score, a.flatten())
    gradient = torch.autograd.functional.jacobian(score, a.flatten())
    assert (hessian @ a.flatten()).abs().max() > 0.05 * gradient.abs().max()  # there is something to see
    weights = (gradient - hessian @ a.flatten() / 2).view(len(a), -1).mean(1)
    return (weights.view(-1, 1, 1) * a).sum(0).numpy()


@pytest.mark.parametrize("probability", [False, True])
@pytest.mark.parametrize("layer", ["first", "second"])
def test_shapley_cam_equals_the_whole_hessian(layer: str, probability: bool, batch: Tensor) -> None:
    model = CurvedTail().double().eval()
    image = batch[0, :, :12, :12]
    target = "probability:2" if probability else 2
    expected = shapley(model, layer, image, 2, probability=probability)
    found = seewhy.explain(model, image, target, "shapley-cam", layer)
    assert_close(found.raw, expected)
    plain = seewhy.explain(model, image, target, "grad-cam", layer).raw
    assert np.abs(plain - expected).max() > 0.01 * np.abs(expected).max()
    assert (found.cost.forwards, found.cost.backwards) == (1, 2)


def test_shapley_cam_of_several_layers_and_questions_in_one_recording(batch: Tensor) -> None:
    model = CurvedTail().double().eval()
    images = batch[:, :, :12, :12]
    maps = seewhy.compare(model, images, ["shapley-cam", "grad-cam"], ["first", "second"], [0, 3])
    for image, each in zip(images, maps, strict=True):
        expected = [
            shapley(model, layer, image, target, probability=False)
            for layer in ("first", "second")
            for target in (0, 3)
        ]
        for why, other in zip(each[:4], expected, strict=True):
            assert_close(why.raw, other)
        for why in each[4:]:
            alone = seewhy.explain(model, image, why.target_index, "grad-cam", why.layers[0])
            assert_close(why.raw, alone.raw)


def test_shapley_cam_is_grad_cam_where_the_tail_is_linear(small_net: SmallNet, batch: Tensor) -> None:
    for target in range(5):
        shapley_cam, plain = seewhy.compare(small_net, batch[0], ["shapley-cam", "grad-cam"], "second", target)
        assert_close(shapley_cam.raw, plain.raw, tolerance=1e-6)


def test_shapley_cam_of_a_frozen_model_and_of_one_by_one(batch: Tensor) -> None:
    model = CurvedTail().double().eval().requires_grad_(requires_grad=False)
    together = seewhy.explain(model, batch, [0, "1-vs-3", "probability:4"], "shapley-cam", "first")
    for image, target, why in zip(batch, [0, "1-vs-3", "probability:4"], together, strict=True):
        assert_close(why.raw, seewhy.explain(model, image, target, "shapley-cam", "first").raw)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.005), (torch.bfloat16, 0.03)])
def test_second_derivatives_in_half_precision_do_not_vanish(
    dtype: torch.dtype, tolerance: float, batch: Tensor
) -> None:
    model = CurvedTail().eval()
    faint = lambda output: output[1] * 1e-5  # noqa: E731
    expected, plain = seewhy.compare(model, batch[0], ["shapley-cam", "grad-cam"], "second", [faint])
    assert np.abs(expected.raw - plain.raw).max() > 2 * tolerance * np.abs(expected.raw).max()
    found = seewhy.explain(model.to(dtype), batch[0], faint, "shapley-cam", "second")
    assert_close(found.raw, expected.raw, tolerance)


class OverwritesTail(CurvedTail):
    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.first(images))
        squashed = features.tanh().mul_(features.mean((2, 3), keepdim=True).sigmoid())
        return self.head(squashed.flatten(2).logsumexp(2))


def test_shapley_cam_where_the_model_overwrites_what_derivatives_need(batch: Tensor) -> None:
    expected = seewhy.explain(CurvedTail().eval(), batch[0], 1, "shapley-cam", "second").raw
    assert_close(seewhy.explain(OverwritesTail().eval(), batch[0], 1, "shapley-cam", "second").raw, expected)


# pytorch-grad-cam.


def unit(values: Array) -> Array:
    lifted = np.maximum(np.asarray(values, np.float64), 0)
    lifted = lifted - lifted.min()
    return lifted / lifted.max()


def by_peer(kind: type, model: nn.Module, layers: list[nn.Module], image: Tensor, score: object) -> Array:
    with kind(model, layers) as cam:
        return cam(input_tensor=image.clone(), targets=[score])[0]


def test_shapley_cam_equals_pytorch_grad_cams(batch: Tensor) -> None:
    model, image = CurvedTail().eval(), batch[:1]
    score = lambda output: output.softmax(0)[1] * 1e9  # noqa: E731 - it adds 1e-7 to the divisor
    for layer in ("first", "second"):
        raw = seewhy.explain(model, image[0], score, "shapley-cam", layer).raw
        theirs = by_peer(peer.ShapleyCAM, model, [model.get_submodule(layer)], image, score)
        np.testing.assert_allclose(unit(enlarged(unit(raw), (24, 40))), theirs, atol=1e-4)


def test_shapley_cam_goes_through_attention() -> None:
    """The fused kernels have no second derivative; the peer does not put a transformer's tokens on a grid for this method."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    assert all(block.attn.fused_attn for block in model.blocks)
    shapley_cam, plain = seewhy.compare(model, image[0], ["shapley-cam", "grad-cam"], "blocks.9.norm1", "probability:1")
    assert all(block.attn.fused_attn for block in model.blocks)
    for block in model.blocks:
        block.attn.fused_attn = False
    kept: list[Tensor] = []
    with model.blocks[9].norm1.register_forward_hook(lambda _module, _inputs, output: kept.append(output)):
        score = model.double()(image.double())[0].softmax(0)[1]
    [g] = torch.autograd.grad(score, kept[0], create_graph=True)
    [curvature] = torch.autograd.grad((g * kept[0].detach()).sum(), kept[0])
    a, g, curvature = (each.detach()[0, 1:].T.reshape(-1, 14, 14).numpy() for each in (kept[0], g, curvature))
    assert_close(plain.raw, slow_grad_cam(a, g), tolerance=1e-4)
    assert_close(shapley_cam.raw, slow_grad_cam(a, g - curvature / 2), tolerance=1e-4)
    assert np.abs(shapley_cam.raw - plain.raw).max() > 0.01 * np.abs(plain.raw).max()


# Several layers.


def product(maps: list[Array], space: tuple[int, ...]) -> Array:
    found = np.ones(space)
    for values in maps:
        positive = np.maximum(values.astype(np.float64), 0)
        found *= enlarged(positive / positive.max(), space)
    return found


def three_stages() -> nn.Module:
    torch.manual_seed(8)
    model = nn.Sequential()
    for name, inner in [("early", 3), ("middle", 5), ("late", 6)]:
        outer = {"early": 5, "middle": 6, "late": 7}[name]
        model.add_module(name, nn.Sequential(nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.ReLU(inplace=True)))
    model.add_module("end", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4)))
    return model.eval()


STAGES = ("early", "middle", "late")


@pytest.mark.parametrize("base", ["grad-cam++", "grad-cam", "layer-cam", "hires-cam"])
def test_refine_cam_is_the_product_of_the_stages_maps(base: str, batch: Tensor) -> None:
    model = three_stages().double()
    maps = []
    for stage in STAGES:
        a, g, _ = observe(model, model.get_submodule(stage), batch[:1].double(), lambda output: output[2])
        maps.append(SINGLE_PASS[base](a, g))
    why = seewhy.explain(model, batch[0], 2, "refine-cam", base=base)
    assert_close(why.raw, product(maps, (12, 20)))
    assert [layer.split(".")[0] for layer in why.layers] == list(STAGES)
    assert why.raw.min() >= 0
    spelt = seewhy.explain(model, batch[0], 2, base, list(STAGES), fuse="product")
    assert_close(spelt.raw, why.raw)
    if base == "grad-cam++":
        assert_close(seewhy.explain(model, batch[0], 2, "refine-cam").raw, why.raw)


def test_any_method_of_layers_can_be_a_product(batch: Tensor) -> None:
    model = three_stages().double()
    for method in ("eigen-cam", "finer-cam", "shapley-cam", "grad-cam"):
        each = seewhy.explain(model, batch[0], 2, method, ["early", "late"], fuse="none")
        why = seewhy.explain(model, batch[0], 2, method, ["early", "late"], fuse="product")
        assert_close(why.raw, product([one.raw for one in each], (12, 20)))


def test_refine_cam_takes_layers_that_are_named_and_a_batch(batch: Tensor) -> None:
    model = three_stages().double()
    together = seewhy.explain(model, batch, [0, 1, 2], "refine-cam", ["early", "late"])
    for image, target, why in zip(batch, [0, 1, 2], together, strict=True):
        each = seewhy.explain(model, image, target, "grad-cam++", ["early", "late"], fuse="none")
        assert_close(why.raw, product([one.raw for one in each], (12, 20)))
        assert why.layers == ("early", "late")


def test_refine_cam_smooths_every_stage_before_the_product(batch: Tensor) -> None:
    model = three_stages().double()
    for smooth in ("eigen", "aug", "aug,eigen"):
        each = seewhy.explain(model, batch[0], 3, "grad-cam++", list(STAGES), fuse="none", smooth=smooth)
        why = seewhy.explain(model, batch[0], 3, "refine-cam", smooth=smooth)
        assert_close(why.raw, product([one.raw for one in each], (12, 20)))


def test_refine_cam_of_pytorch_grad_cam_enlarges_to_the_input_before_the_product(batch: Tensor) -> None:
    """And stretches each map from its smallest value; ours is multiplied on the finest of the grids."""
    model, image = three_stages(), batch[:1]
    score = lambda output: output[2] * 1e4  # noqa: E731
    layers = [model.get_submodule(stage) for stage in STAGES]
    theirs = peer.RefineCAM(model, layers, base_method=peer.HiResCAM)(image.clone(), [score])[0]
    maps = [seewhy.explain(model, image[0], score, "hires-cam", stage).raw for stage in STAGES]
    by_hand = np.prod([unit(enlarged(unit(each), (24, 40))) for each in maps], 0)
    np.testing.assert_allclose(by_hand / by_hand.max(), theirs, atol=1e-4)
    ours = seewhy.explain(model, image[0], score, "refine-cam", base="hires-cam").raw
    assert np.corrcoef(enlarged(ours, (24, 40)).ravel(), theirs.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("base", "told"),
    [
        *(
            (name, "cannot be put around {}.*fuse='product'")
            for name in ("cam", "shapley-cam", "finer-cam", "ablation-cam")
        ),
        *((name, "look at one layer.*{} does not") for name in ("occlusion", "saliency", "Refine-CAM")),
    ],
)
def test_bases_that_need_more_than_gradients_are_refused(
    base: str, told: str, small_net: SmallNet, batch: Tensor
) -> None:
    with pytest.raises(seewhy.MethodError, match=told.format(base.casefold())):
        seewhy.explain(small_net, batch[0], 1, "refine-cam", base=base)


def test_a_base_that_does_not_exist_is_answered_with_the_nearest(small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=r"No method is called 'grid-cam'. Nearest: 'grad-cam'"):
        seewhy.explain(small_net, batch[0], 1, "refine-cam", base="grid-cam")


def test_the_references_agree_with_each_other(batch: Tensor) -> None:
    """Where the Hessian is 0 the slow ShapleyCAM is the slow Grad-CAM."""
    model = three_stages().double()
    a, g, _ = observe(model, model.late, batch[:1].double(), lambda output: output[1])
    values = torch.tensor(a)
    score = lambda flat: model.end(flat.view_as(values)[None])[0, 1]  # noqa: E731
    assert not torch.autograd.functional.hessian(score, values.flatten()).any()
    assert_close(seewhy.explain(model, batch[0], 1, "shapley-cam", "late").raw, slow_grad_cam(a, g))
