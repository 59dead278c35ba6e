"""Parity with pytorch-grad-cam 1.5.7 and torchcam 0.5.0, where they do what their papers say; where not, the test says so.

Both peers clip at zero, subtract the minimum and divide by the maximum before anything can be compared; so is ours here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import pytorch_grad_cam as peer
import timm
import torch
import torchvision
from slow_reference import finer_score
from torch import Tensor, nn
from torchcam import methods as torchcam

import seewhy
from seewhy.images import Axis

TARGET = 11
Subject = tuple[nn.Module, str, Tensor]


def make(name: str) -> Subject:
    """Return a model, its layer and an input; the two large ones get a smaller picture, to be quick."""
    torch.manual_seed(0)
    side = 128 if name in ("resnet50", "vgg16") else 224
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(5))
    if name == "efficientnet_lite0":
        return seewhy.load(name).module.eval(), "bn2", image
    if name == "vit_tiny":
        return timm.create_model("vit_tiny_patch16_224").eval(), "blocks.11.norm1", image
    model = getattr(torchvision.models, name)(weights=None).eval()
    return model, {"resnet50": "layer4", "vgg16": "features.29"}[name], image


@pytest.fixture(scope="module", params=["resnet50", "vgg16", "efficientnet_lite0", "vit_tiny"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return make(request.param)


@pytest.fixture(scope="module", params=["resnet50", "vgg16", "efficientnet_lite0"])
def convolutional(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield make(request.param)


def unit(values: np.ndarray) -> np.ndarray:
    """Scale as the peers do."""
    clipped = np.maximum(np.asarray(values, np.float64), 0)
    lifted = clipped - clipped.min()
    return lifted / lifted.max()


def shown(raw: np.ndarray, image: Tensor) -> np.ndarray:
    """Scale, resize to the input linearly and scale again, as pytorch-grad-cam does before it returns."""
    side = image.shape[-1]
    rows, columns = (Axis(side, side).weights(cells).astype(np.float64) for cells in raw.shape)
    return unit(rows @ unit(raw) @ columns.T)


def tokens_to_grid(tensor: Tensor) -> Tensor:
    return tensor[:, 1:].transpose(1, 2).reshape(len(tensor), -1, 14, 14) if tensor.ndim == 3 else tensor


def by_grad_cam(kind: type, model: nn.Module, layer: str, image: Tensor, target: object) -> np.ndarray:
    with kind(model, [model.get_submodule(layer)], reshape_transform=tokens_to_grid) as cam:
        return cam(input_tensor=image.clone(), targets=[target])[0]


def scaled_score(output: Tensor) -> Tensor:
    """The class's score times 10,000: large enough for what a peer adds to its divisors not to matter."""
    return output[TARGET] * 1e4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("grad-cam", peer.GradCAM),
        ("hires-cam", peer.HiResCAM),
        ("grad-cam-elementwise", peer.GradCAMElementWise),
        ("layer-cam", peer.LayerCAM),
        # These two add 1e-6 and 1e-7 to their divisors, which is not in the papers and outweighs small gradients.
        ("grad-cam++", peer.GradCAMPlusPlus),
        ("xgrad-cam", peer.XGradCAM),
    ],
)
def test_equal_to_pytorch_grad_cam(subject: Subject, name: str, kind: type) -> None:
    model, layer, image = subject
    if name == "grad-cam++" and "norm1" in layer:
        pytest.skip("after a layer norm sum(A) has either sign, alpha has poles, and their epsilon moves them")
    ours = seewhy.explain(model, image[0], scaled_score, name, layer).raw
    np.testing.assert_allclose(shown(ours, image), by_grad_cam(kind, model, layer, image, scaled_score), atol=1e-4)


def test_grad_cam_plus_plus_of_pytorch_grad_cam_is_moved_by_its_epsilon() -> None:
    """With a plain score its gradients squared are below the 1e-6 it adds; the paper has no such term."""
    model, layer, image = make("efficientnet_lite0")
    theirs = by_grad_cam(peer.GradCAMPlusPlus, model, layer, image, lambda output: output[TARGET] * 1e-2)
    ours = seewhy.explain(model, image[0], lambda output: output[TARGET] * 1e-2, "grad-cam++", layer).raw
    assert np.abs(shown(ours, image) - theirs).max() > 1e-3


def test_finer_cam_is_grad_cam_of_its_contrast(subject: Subject) -> None:
    """The peer's own FinerCAM weights the other classes by softmax and differentiates the weights; the paper does not."""
    model, layer, image = subject
    theirs = by_grad_cam(peer.GradCAM, model, layer, image, finer_score(TARGET, strength=0.6, references=3))
    ours = seewhy.explain(model, image[0], TARGET, "finer-cam", layer).raw
    np.testing.assert_allclose(shown(ours, image), theirs, atol=1e-4)


def by_torchcam(kind: type, model: nn.Module, layer: str, image: Tensor, **options: object) -> np.ndarray:
    with kind(model, layer, **options) as extractor:
        scores = model(image.clone())
        return extractor(TARGET, scores)[0][0].detach().numpy()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("grad-cam", torchcam.GradCAM),
        ("xgrad-cam", torchcam.XGradCAM),
        ("layer-cam", torchcam.LayerCAM),
        ("finer-cam", torchcam.FinerCAM),
    ],
)
def test_equal_to_torchcam(convolutional: Subject, name: str, kind: type) -> None:
    model, layer, image = convolutional
    ours = seewhy.explain(model, image[0], TARGET, name, layer).raw
    np.testing.assert_allclose(unit(ours), by_torchcam(kind, model, layer, image), atol=1e-4)


def test_cam_equals_torchcam() -> None:
    model, layer, image = make("efficientnet_lite0")
    theirs = by_torchcam(torchcam.CAM, model, layer, image, fc_layer="classifier")
    np.testing.assert_allclose(unit(seewhy.explain(model, image[0], TARGET, "cam", layer).raw), theirs, atol=1e-4)


def test_grad_cam_plus_plus_of_torchcam_leaves_its_division_out() -> None:
    """Its weights are sum(g^2 relu(g)): `alpha[idx][mask].div_()` divides a copy. Ours follow the paper."""
    model, layer, image = make("efficientnet_lite0")
    theirs = by_torchcam(torchcam.GradCAMpp, model, layer, image)
    recorded: dict[str, Tensor] = {}

    @seewhy.method("undivided", needs=seewhy.Needs.GRADIENTS, class_specific=True, signed=True, source="torchcam 0.5.0")
    def undivided(rec: seewhy.Recording) -> Tensor:
        """What the peer computes."""
        g = rec.gradients
        return torch.einsum("bchw,bc->bhw", rec.activations, (g**2 * g.relu()).sum((2, 3)))

    try:
        recorded["undivided"] = seewhy.explain(model, image[0], TARGET, "undivided", layer).raw
    finally:
        from seewhy.maps import registry

        registry._ENTRIES.pop("undivided")
    ours = seewhy.explain(model, image[0], TARGET, "grad-cam++", layer).raw
    np.testing.assert_allclose(unit(recorded["undivided"]), theirs, atol=1e-3)
    assert np.abs(unit(ours) - theirs).max() > 1e-2
