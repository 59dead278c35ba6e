"""Methods of first components: equal to slow references and to pytorch-grad-cam, high where the target is supported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pytorch_grad_cam as peer
import slow_reference as slow
import torch
import torchvision
from torch import Tensor, nn

import seewhy
import seewhy.maps.components as components
from small_models import SmallNet

Array = np.ndarray
OF_A_COMPONENT = ["eigen-cam", "eigen-grad-cam", "seg-eigen-cam", "kpca-cam"]
EVERY = [*OF_A_COMPONENT, "fem"]


def centred_rows(values: Array) -> Array:
    rows = values.reshape(len(values), -1).T
    return rows - rows.mean(0)


def by_svd(values: Array) -> Array:
    rows = centred_rows(values)
    return (rows @ np.linalg.svd(rows, full_matrices=False)[2][0]).reshape(values.shape[1:])


def by_sigmoid_kernel(values: Array) -> Array:
    rows = centred_rows(values)
    matrix = np.array([[np.tanh(x @ y / len(values) + 1) for y in rows] for x in rows])
    off_mean = np.eye(len(rows)) - 1 / len(rows)
    eigenvalues, eigenvectors = np.linalg.eigh(off_mean @ matrix @ off_mean)
    return (eigenvectors[:, -1] * np.sqrt(eigenvalues[-1])).reshape(values.shape[1:])


def supporting(component: Array, a: Array, g: Array) -> Array:
    agreement = np.corrcoef(component.ravel(), slow.hires_cam(a, g).ravel())[0, 1]
    return component * np.sign(agreement)


def fem(a: Array, g: Array, k: float = 2.0) -> Array:
    result = np.zeros(a.shape[1:])
    for channel in a:
        threshold = channel.mean() + k * channel.std()
        for place in np.ndindex(*channel.shape):
            result[place] += channel.mean() if channel[place] > threshold else 0.0
    return result


REFERENCES: dict[str, Callable[[Array, Array], Array]] = {
    "eigen-cam": lambda a, g: supporting(by_svd(a), a, g),
    "eigen-grad-cam": lambda a, g: supporting(by_svd(a * g), a, g),
    "seg-eigen-cam": lambda a, g: supporting(by_svd(a * np.abs(g)), a, g),
    "kpca-cam": lambda a, g: supporting(by_sigmoid_kernel(a), a, g),
    "fem": fem,
}


def assert_close(found: Array, expected: Array, tolerance: float = 1e-4) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


def correlation(one: Array, other: Array) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.fixture(scope="module", params=["small", "resnet18", "efficientnet_lite0"])
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, str, Tensor]:
    """A model, its layer and an input."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    if request.param == "efficientnet_lite0":
        return seewhy.load("efficientnet_lite0").module.eval(), "bn2", image
    if request.param == "resnet18":
        return torchvision.models.resnet18(weights=None).eval(), "layer4", image[..., :160, :192]
    model = SmallNet()
    nn.init.normal_(model.head.weight)
    return model.eval(), "second", image[..., :24, :40]


@pytest.mark.parametrize("name", EVERY)
def test_equal_to_the_slow_reference(name: str, subject: tuple[nn.Module, str, Tensor]) -> None:
    model, layer, image = subject
    a, g, _ = slow.observe(model, model.get_submodule(layer), image, lambda output: output[3])
    found = seewhy.explain(model, image[0], 3, name, layer).raw
    assert_close(found, REFERENCES[name](a, g))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eigen-cam", peer.EigenCAM),
        ("eigen-grad-cam", peer.EigenGradCAM),
        ("seg-eigen-cam", peer.SegEigenCAM),
        ("kpca-cam", peer.KPCA_CAM),
    ],
)
def test_equal_to_pytorch_grad_cam_but_for_the_sign(
    name: str, kind: type, subject: tuple[nn.Module, str, Tensor]
) -> None:
    model, layer, image = subject
    theirs = raw_of_peer(kind, model, layer, image)
    ours = seewhy.explain(model, image[0], 3, name, layer).raw
    assert_close(ours, theirs * np.sign(correlation(ours, theirs)))


def raw_of_peer(kind: type, model: nn.Module, layer: str, image: Tensor) -> Array:
    """Return the peer's map before it clips, scales and resizes it."""
    module = model.get_submodule(layer)
    with kind(model, [module]) as cam:
        cam(image.clone(), [lambda output: output[3]])
        a, g = (
            part[0].detach().numpy() if part else None
            for part in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        return cam.get_cam_image(image, module, None, a, g, eigen_smooth=False)[0]


def test_fem_of_pytorch_grad_cam_weights_the_other_way_round(subject: tuple[nn.Module, str, Tensor]) -> None:
    """It sums mean(mask) * activation; the authors' code sums mean(activation) * mask, and so do we."""
    model, layer, image = subject
    a, _, _ = slow.observe(model, model.get_submodule(layer), image, lambda output: output[3])
    mask = a > (a.mean((1, 2)) + 2 * a.std((1, 2)))[:, None, None]
    theirs = raw_of_peer(peer.FEM, model, layer, image)
    assert_close(theirs, (mask.mean((1, 2))[:, None, None] * a).sum(0))
    ours = seewhy.explain(model, image[0], 3, "fem", layer).raw
    assert np.abs(ours / np.abs(ours).max() - theirs / np.abs(theirs).max()).max() > 0.05


@pytest.mark.parametrize("name", OF_A_COMPONENT)
def test_high_supports_the_target(name: str, small_net: SmallNet, batch: Tensor) -> None:
    """Turning the score's weights round turns the map round."""
    before = [seewhy.explain(small_net, image, 1, name, "second").raw for image in batch]
    support = [seewhy.explain(small_net, image, 1, "hires-cam", "second").raw for image in batch]
    with torch.no_grad():
        small_net.head.weight.neg_()
    after = [seewhy.explain(small_net, image, 1, name, "second").raw for image in batch]
    for one, other, reason in zip(before, after, support, strict=True):
        assert correlation(one, reason) > 0
        assert_close(other, -one)


class Patch(nn.Module):
    """Two channels, seen as they are: class 0 is their sum, class 1 its negative."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.features = conv(2, 2, 1, bias=False)
        nn.init.zeros_(self.features.weight)
        for channel in range(2):
            self.features.weight.data[channel, channel] = 1.0

    def forward(self, images: Tensor) -> Tensor:
        total = self.features(images).flatten(2).mean(2).sum(1)
        return torch.stack([total, -total], 1)


@pytest.mark.parametrize("name", OF_A_COMPONENT)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_bright_patch_is_high_for_its_class_and_low_for_the_opposite(name: str, axes: int) -> None:
    image = 0.1 * torch.rand(2, *(6,) * axes, generator=torch.Generator().manual_seed(0))
    inside = (slice(None), *(slice(1, 3),) * axes)
    image[inside] += 1
    for target, sign in ((0, 1), (1, -1)):
        raw = seewhy.explain(Patch(axes), image, target, name, "features").raw
        assert raw.shape == (6,) * axes
        bright = np.zeros(raw.shape, bool)
        bright[inside[1:]] = True
        assert (sign * raw[bright]).min() > (sign * raw[~bright]).max()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_fem_shows_what_stands_out_on_any_number_of_axes(axes: int) -> None:
    image = torch.zeros(2, *(6,) * axes)
    image[(0, *(2,) * axes)] = 3.0
    image[(1, *(4,) * axes)] = -1.0  # below the mean: nothing stands out
    raw = seewhy.explain(Patch(axes), image, 0, "fem", "features").raw
    expected = np.zeros((6,) * axes)
    expected[(2,) * axes] = 3.0 / 6**axes
    np.testing.assert_allclose(raw, expected, atol=1e-7)


@pytest.mark.parametrize("name", ["eigen-cam", "kpca-cam"])
def test_where_nothing_supports_the_target_high_is_where_activations_are_large(name: str) -> None:
    """The score's gradient is zero, and the picture darker than zero where it is strong."""
    image = torch.zeros(2, 6, 6)
    image[:, 2:4, 2:4] = -5 - torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0))
    raw = seewhy.explain(Patch(), image, lambda output: (output * 0).sum(), name, "features").raw
    assert raw[2:4, 2:4].min() > 0
    assert raw[0].max() < 0


@pytest.mark.parametrize("name", EVERY)
def test_where_all_cells_are_alike_the_map_is_zero_and_says_so(name: str) -> None:
    found = seewhy.explain(Patch(), torch.full((2, 4, 4), 0.3), 0, name, "features")
    assert found.raw.shape == (4, 4)
    assert not found.raw.any()
    assert "flat" in [each.code for each in found.diagnosis]


@pytest.mark.parametrize("name", EVERY)
def test_of_one_cell_the_map_is_zero_and_says_so(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AvgPool2d(4), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 2))
    found = seewhy.explain(model, torch.rand(2, 4, 4), 0, name, "2")
    assert found.raw.shape == (1, 1)
    assert not found.raw.any()
    assert "one-cell" in [each.code for each in found.diagnosis]


@pytest.mark.parametrize("name", OF_A_COMPONENT)
def test_of_one_channel_the_map_is_the_channel_less_its_mean(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[3].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    image = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = (image[0] - image[0].mean()).numpy()
    options = {"kernel": "linear"} if name == "kpca-cam" else {}
    for target, sign in ((0, 1), (1, -1)):
        raw = seewhy.explain(model, image, target, name, "0", **options).raw
        np.testing.assert_allclose(raw / np.abs(raw).max(), sign * expected / np.abs(expected).max(), atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_equals_one_by_one(name: str, small_net: SmallNet, batch: Tensor) -> None:
    together = seewhy.explain(small_net, batch, [2, 0, 4], name, "first")
    for image, target, found in zip(batch, [2, 0, 4], together, strict=True):
        assert_close(found.raw, seewhy.explain(small_net, image, target, name, "first").raw, 1e-5)


def test_kpca_cam_with_the_linear_kernel_is_eigen_cam(small_net: SmallNet, batch: Tensor) -> None:
    linear = seewhy.explain(small_net, batch[0], 1, "kpca-cam", "second", kernel="linear")
    assert_close(linear.raw, seewhy.explain(small_net, batch[0], 1, "eigen-cam", "second").raw, 1e-5)


def test_options_of_kpca_cam_reach_the_kernel(small_net: SmallNet, batch: Tensor) -> None:
    one, same, other = (
        seewhy.explain(small_net, batch[0], 1, "kpca-cam", "second", kernel="rbf", gamma=gamma).raw
        for gamma in (0.0, 1 / 6, 5.0)
    )
    assert_close(one, same, 1e-6)
    assert correlation(one, other) < 0.999


def test_options_of_fem_reach_the_threshold(small_net: SmallNet, batch: Tensor) -> None:
    a, g, _ = slow.observe(small_net, small_net.second, batch[:1], lambda output: output[0])
    assert_close(seewhy.explain(small_net, batch[0], 0, "fem", "second", k=0.5).raw, fem(a, g, 0.5))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kpca-cam", {"kernel": "sigmod"}, r"no kernel 'sigmod'.*Nearest: 'sigmoid'.*It has: sigmoid, rbf"),
        ("kpca-cam", {"gamma": -1.0}, r"gamma=-1.0 must be a finite number"),
        ("fem", {"k": float("nan")}, r"k=nan must be a finite number"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict, message: str, small_net: SmallNet) -> None:
    with pytest.raises(seewhy.MethodError, match=message):
        seewhy.explain(small_net, torch.randn(3, 24, 40), 0, name, **options)


@pytest.mark.parametrize("name", EVERY)
def test_every_docstring_has_a_summary_and_a_formula(name: str) -> None:
    entry = next(entry for entry in seewhy.methods() if entry.name == name)
    text = entry.function.__doc__ or ""
    assert entry.function.__module__ == components.__name__
    assert entry.summary.endswith(".")
    assert "\n    Formula: " in text
    assert ("\n    Options: " in text) == bool(entry.options)
