"""Every method equals its paper, by an independent slow implementation in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import slow_reference as slow
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.maps.noise import GaussianNoise

SQUARE = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
SMALL = SQUARE[:, :, :128, :128]  # for the two large models: a whole graph in float64 takes long


def tokens_first(values: np.ndarray) -> np.ndarray:
    """Class token off, (196, channel) -> (channel, 14, 14)."""
    return values[1:].T.reshape(-1, 14, 14)


def as_is(values: np.ndarray) -> np.ndarray:
    return values


@pytest.fixture(scope="module", params=["resnet50", "vgg16", "efficientnet_lite0", "vit_tiny"])
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, str, Callable[[np.ndarray], np.ndarray], Tensor]:
    """A model in float64, the layer that is looked at, how to read its output by hand, and an input."""
    torch.manual_seed(0)
    makers = {
        "resnet50": (lambda: torchvision.models.resnet50(weights=None), "layer4", as_is, SMALL),
        "vgg16": (lambda: torchvision.models.vgg16(weights=None), "features.29", as_is, SMALL),
        "efficientnet_lite0": (lambda: seewhy.load("efficientnet_lite0").module, "bn2", as_is, SQUARE),
        "vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224"), "blocks.11.norm1", tokens_first, SQUARE),
    }
    make, layer, read, image = makers[request.param]
    return make().eval().double(), layer, read, image.double()


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Compare relative to the largest value: a map's scale has no meaning of its own."""
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


def test_single_pass_methods_equal_the_papers(subject: tuple) -> None:
    model, layer, read, image = subject
    target = 7
    a, g, _ = slow.observe(model, model.get_submodule(layer), image, lambda output: output[target])
    found = seewhy.compare(model, image[0], methods=list(slow.SINGLE_PASS), layers=[layer], targets=[target])
    for explanation, reference in zip(found, slow.SINGLE_PASS.values(), strict=True):
        assert_close(explanation.raw, reference(read(a), read(g)))


def test_finer_cam_equals_its_paper(subject: tuple) -> None:
    model, layer, read, image = subject
    score = slow.finer_score(7, strength=0.6, references=3)
    a, g, _ = slow.observe(model, model.get_submodule(layer), image, score)
    assert_close(seewhy.explain(model, image[0], 7, "finer-cam", layer).raw, slow.grad_cam(read(a), read(g)))


def test_smooth_grad_cam_plus_plus_equals_its_paper(small_net: nn.Module, batch: Tensor) -> None:
    model = small_net.double()
    image = batch[:1].double()
    noise = GaussianNoise(samples=4, spread=0.5)
    copies = list(noise(image, torch.Generator().manual_seed(11)))
    layer = model.second
    a, _, _ = slow.observe(model, layer, image, lambda output: output[2])
    noisy = [slow.observe(model, layer, each, lambda output: output[2])[1] for each in copies]
    found = seewhy.explain(model, image[0], 2, "smooth-grad-cam++", "second", seed=11, samples=4, spread=0.5)
    assert_close(found.raw, slow.smooth_grad_cam_plus_plus(a, noisy))


def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus(small_net: nn.Module, batch: Tensor) -> None:
    smooth = seewhy.explain(small_net, batch[0], 1, "smooth-grad-cam++", samples=3, spread=0.0)
    assert_close(smooth.raw, seewhy.explain(small_net, batch[0], 1, "grad-cam++").raw)


def test_cam_reads_the_classifiers_weights(small_net: nn.Module, batch: Tensor) -> None:
    a, _, _ = slow.observe(small_net, small_net.second, batch[:1], lambda output: output[0])
    for target in range(5):
        weights = small_net.head.weight[target].detach().double().numpy()
        assert_close(seewhy.explain(small_net, batch[0], target, "cam", "second").raw, slow.cam(a, weights))


@pytest.mark.parametrize(("model", "layer"), [("resnet18", "layer4"), ("efficientnet_lite0", "bn2")])
def test_grad_cam_is_cam_over_the_number_of_cells_on_a_linear_head(model: str, layer: str) -> None:
    loaded = seewhy.load(model, pretrained=model == "efficientnet_lite0")
    found = seewhy.compare(loaded, SQUARE[0], methods=["cam", "grad-cam"], layers=[layer], targets=[281])
    assert found[0].raw.shape == (7, 7)
    assert_close(found[1].raw * 49, found[0].raw)


def test_cam_of_a_contrast_is_the_difference_of_cams(small_net: nn.Module, batch: Tensor) -> None:
    one, other, contrast = (
        seewhy.explain(small_net, batch[0], target, "cam", "second").raw for target in (1, 3, "1-vs-3")
    )
    assert_close(contrast, one - other)


def test_cam_refuses_a_model_without_pooling_and_names_the_way_out() -> None:
    model = torchvision.models.vgg11(weights=None).eval()
    with pytest.raises(seewhy.MethodError, match=r"global average pooling.*grad-cam"):
        seewhy.explain(model, SQUARE[0], 0, "cam")


def test_known_answer_of_grad_cam_weights() -> None:
    """Channels (1 0 2 / 3 5 0 / 1 1 1) and (0 1 0 / 3 1 0 / 1 0 1), weights 1/3 and -2/3."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            pooled = self.features(images).mean((2, 3))
            return torch.stack([pooled[:, 0] * 3 - pooled[:, 1] * 6, pooled[:, 1]], 1)

    image = torch.tensor([[[1.0, 0, 2], [3, 5, 0], [1, 1, 1]], [[0, 1, 0], [3, 1, 0], [1, 0, 1]]])
    raw = seewhy.explain(Fixed(), image, 0, layers="features").raw
    expected = np.array([[1 / 3, 0, 2 / 3], [0, 1, 0], [0, 1 / 3, 0]])
    np.testing.assert_allclose(np.maximum(raw, 0), expected, atol=1e-6)


def test_flipped_image_gives_the_flipped_map() -> None:
    """Reflection-symmetric kernels make the network equivariant, so its maps must be too."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
    with torch.no_grad():
        model[0].weight += model[0].weight.flip(-1).clone()
    image = torch.randn(3, 9, 13, generator=torch.Generator().manual_seed(4))
    for name in slow.SINGLE_PASS:
        straight, flipped = (seewhy.explain(model, each, 1, name, "1").raw for each in (image, image.flip(-1)))
        assert_close(flipped, straight[:, ::-1])


def test_random_control_knows_nothing_of_the_model(small_net: nn.Module, batch: Tensor) -> None:
    other = copy.deepcopy(small_net)
    with torch.no_grad():
        other.head.weight.mul_(-3)
    maps = [seewhy.explain(model, batch[0], method="random").raw for model in (small_net, other)]
    np.testing.assert_array_equal(*maps)
    assert np.ptp(maps[0]) > 0.3
    assert not np.array_equal(maps[0], seewhy.explain(small_net, batch[0], method="random", seed=1).raw)


def test_edges_are_where_the_picture_changes(small_net: nn.Module) -> None:
    image = torch.zeros(3, 16, 24)
    image[:, :, 10:] = 1  # one vertical edge between columns 9 and 10
    raw = seewhy.explain(small_net, image, method="edges").raw
    np.testing.assert_allclose(raw[:, 9:11], 0.5)
    np.testing.assert_allclose(np.delete(raw, [9, 10], axis=1), 0, atol=1e-7)
