"""Smoothing around any method: by hand, one input after the other, and against pytorch-grad-cam where it does the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pytorch_grad_cam as peer
import timm
import torch
from slow_gradients import assert_close, derivative, enlarged, noisy_copies, of_class
from slow_reference import observe
from torch import Tensor, nn

import seewhy
from seewhy.maps.smoothing import Augment, Eigen, Noise, Transform, as_smoothing, both, flip, times
from seewhy.recorder import TorchRecorder
from small_models import SmallNet, make_small_net

Array = np.ndarray
PEERS_CLASS = 7


@pytest.fixture
def model() -> SmallNet:
    return make_small_net(1).double()


def map_of(model: nn.Module, image: Tensor, method: str = "grad-cam", **more: object) -> Array:
    return seewhy.explain(model, image, 3, method, "second", **more).raw


def parts_of(model: SmallNet, image: Tensor, *, weighted: bool = True) -> Array:
    """Return what every channel contributes to Grad-CAM (or to HiResCAM), `(channel, *grid)`, in float64."""
    a, g, _ = observe(model, model.second, image[None].double(), of_class(3))
    return np.stack([a[k] * (g[k].mean() if weighted else g[k]) for k in range(len(a))])


# Transformed inputs.


def by_six_inputs(model: nn.Module, image: Tensor, method: str, **more: object) -> Array:
    found = []
    for factor in (0.9, 1.0, 1.1):
        found.append(map_of(model, image * factor, method, **more))
        found.append(map_of(model, image.flip(-1) * factor, method, **more)[..., ::-1])
    return np.mean(np.array(found, np.float64), 0)


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam", "eigen-cam", "occlusion"])
def test_aug_is_the_mean_over_six_inputs(method: str, model: SmallNet, batch: Tensor) -> None:
    more = {"window": 8} if method == "occlusion" else {}
    for given in ("aug", Augment(), ["aug"], (Augment(),)):
        found = map_of(model, batch[0], method, smooth=given, **more)
        assert_close(found, by_six_inputs(model, batch[0], method, **more))
    assert np.abs(found - map_of(model, batch[0], method, **more)).max() > 1e-3 * np.abs(found).max()


def test_aug_around_colours_puts_every_colour_back(model: SmallNet, batch: Tensor) -> None:
    expected = np.zeros((3, 24, 40))
    for factor in (0.9, 1.0, 1.1):
        expected += derivative(model, batch[0] * factor, of_class(3)) / 6
        expected += derivative(model, batch[0].flip(-1) * factor, of_class(3))[..., ::-1] / 6
    why = seewhy.explain(model, batch[0], 3, "saliency", smooth="aug")
    assert_close(why.colours, expected)
    assert_close(why.raw, np.abs(expected).max(0))


@pytest.mark.parametrize("method", ["grad-cam", "saliency", "fullgrad"])
def test_flip_in_flip_out(method: str, model: SmallNet, batch: Tensor) -> None:
    straight, turned = (
        seewhy.explain(model, image, 3, method, smooth="aug").raw for image in (batch[0], batch[0].flip(-1))
    )
    assert_close(turned[:, ::-1], straight)
    plain, other = (seewhy.explain(model, image, 3, method).raw for image in (batch[0], batch[0].flip(-1)))
    assert np.abs(other[:, ::-1] - plain).max() > 0.01 * np.abs(plain).max()  # which the model alone does not do


def test_aug_is_one_run_of_six_inputs(batch: Tensor) -> None:
    sizes: list[int] = []

    class Counted(SmallNet):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    model = Counted().eval()
    ask = seewhy.Explainer(model)
    ask.layers(batch)
    sizes.clear()
    why = ask(batch[0], 3, "grad-cam", "second", smooth="aug")
    assert sizes == [1, 6]
    assert (why.cost.forwards, why.cost.backwards) == (7, 7)
    sizes.clear()
    ask.compare(batch, ["grad-cam", "layer-cam"], ["first", "second"], [1, 2], smooth="aug")
    assert sizes == [3, 18]  # shared by methods, layers and questions


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_the_size_of_the_chunks_changes_nothing(
    at_once: int, model: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seewhy.explain(model, batch, [0, 3, 4], "grad-cam", "second", smooth="aug,noise")
    monkeypatch.setattr("seewhy.recorder.recordings.first_chunk", lambda image, backward: at_once)
    for one, other in zip(
        whole, seewhy.explain(model, batch, [0, 3, 4], "grad-cam", "second", smooth="aug,noise"), strict=True
    ):
        assert_close(one.raw, other.raw)


class Square(nn.Module):
    """Pixels squared, and one score for each of two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        squares = self.features(images) ** 2
        return torch.stack([squares[..., :5].sum((1, 2, 3)), squares[..., 5:].sum((1, 2, 3))], 1)


def test_varied_inputs_are_recorded_for_what_the_method_uses_and_nothing_else(
    model: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = []
    record = TorchRecorder.record

    def spied(self: TorchRecorder, images: Tensor, layers: list, *rest: object, needs: seewhy.Needs, **more: object):
        recorded.append(([row.name for row in layers], needs))
        return record(self, images, layers, *rest, needs=needs, **more)

    monkeypatch.setattr(TorchRecorder, "record", spied)
    methods = ["smooth-grad-cam++", "shapley-cam", "refine-cam"]
    seewhy.compare(model, batch[0], methods=methods, targets=3)
    (all_layers, everything), *varied = recorded
    assert len(all_layers) > 1
    assert seewhy.Needs.CURVATURE in everything
    assert varied
    assert varied == [(["second"], seewhy.Needs.GRADIENTS)] * len(varied)


def test_transforms_of_ones_own(batch: Tensor) -> None:
    turn = Transform("a quarter", lambda images: images.rot90(1, (-2, -1)), lambda maps: maps.rot90(-1, (-2, -1)))
    image = batch[0, :, :10, :10]
    found = seewhy.explain(
        Square(), image, 0, "hires-cam", "features", smooth=Augment([turn, flip(-2), times(3.0)])
    ).raw
    values = 2 * image.double().numpy() ** 2  # activation times derivative, of the half that is asked about
    left, upper = np.arange(10) < 5, np.arange(10)[:, None] < 5  # turned by a quarter, the left half was the upper
    assert_close(found, (values * (1.0 * upper + left + 9 * left)).sum(0) / 3)


def test_two_transforms_one_after_the_other_are_undone_in_reverse() -> None:
    shift = Transform("shift", lambda images: images.roll(1, -1), lambda maps: maps.roll(-1, -1))
    chain = both(shift, flip(-1))
    images = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(chain.apply(images), images.roll(1, -1).flip(-1))
    assert torch.equal(chain.undo(chain.apply(images)), images)
    assert chain.name == "shift, flip -1"


CROP = Transform("crop", lambda images: images[..., 1:], lambda maps: maps)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Augment([CROP]), r"'crop' makes \(3, 24, 39\) of an input of shape \(3, 24, 40\); it must keep"),
        (lambda: Augment(()), "at least one"),
        (lambda: "agu", "smooth='agu' is not known. Nearest: 'aug'. Known: aug, eigen, noise"),
        (lambda: Noise(samples=0), "samples=0 must be at least 1"),
        (lambda: Noise(spread=-1.0), "spread=-1.0 a finite number, not negative"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable, told: str, model: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        map_of(model, batch[0], smooth=make())


def test_words_and_objects_mean_the_same_and_the_innermost_comes_first() -> None:
    assert as_smoothing(None) == as_smoothing("") == ()
    assert as_smoothing(" Aug, eigen ") == as_smoothing(["eigen", Augment()]) == (Eigen(), Augment())
    assert as_smoothing(("aug", Noise(3), "eigen")) == (Eigen(), Noise(3), Augment())


# The first principal component of a layer's channels.


def by_svd(parts: Array) -> Array:
    """Centre the cells, take the first right singular vector, project on it; signed like the channels' sum."""
    cells = parts.reshape(len(parts), -1).T
    cells = cells - cells.mean(0)
    _, _, axes = np.linalg.svd(cells, full_matrices=False)
    projected = (cells @ axes[0]).reshape(parts.shape[1:])
    total = parts.sum(0)
    return projected * np.sign(((projected - projected.mean()) * (total - total.mean())).sum())


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
def test_eigen_is_the_first_singular_vector_signed_like_the_sum(method: str, model: SmallNet, batch: Tensor) -> None:
    for image in batch:
        expected = by_svd(parts_of(model, image, weighted=method == "grad-cam"))
        for given in ("eigen", Eigen()):
            found = map_of(model, image, method, smooth=given)
            assert_close(found, expected)
        assert np.corrcoef(found.ravel(), map_of(model, image, method).ravel())[0, 1] > 0


@pytest.mark.parametrize("method", ["occlusion", "rise", "fullgrad", "saliency", "integrated-gradients", "random"])
def test_eigen_is_refused_where_no_layers_channels_are_summed(method: str, model: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=r"smooth='eigen' needs a method whose map is a sum over a layer's"):
        seewhy.explain(model, batch[0], 3, method, smooth="eigen")


def test_aug_around_eigen_is_the_mean_of_six_components(model: SmallNet, batch: Tensor) -> None:
    expected = by_six_inputs(model, batch[0], "grad-cam", smooth="eigen")
    for given in ("aug,eigen", "eigen, aug", [Augment(), "eigen"]):
        assert_close(map_of(model, batch[0], smooth=given), expected)
    slow = np.mean(
        [
            by_svd(parts_of(model, turned * factor))[:, ::step]
            for factor in (0.9, 1.0, 1.1)
            for turned, step in ((batch[0], 1), (batch[0].flip(-1), -1))
        ],
        0,
    )
    assert_close(expected, slow)


# Noisy inputs.


@pytest.mark.parametrize(
    ("statistic", "by_numpy"),
    [
        ("mean", lambda maps: np.mean(maps, 0)),
        ("square", lambda maps: np.mean(np.square(maps), 0)),
        ("variance", lambda maps: np.var(maps, 0)),
    ],
)
@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "grad-cam++"])
def test_noise_is_a_statistic_of_the_copies_maps(
    statistic: str, by_numpy: Callable, method: str, model: SmallNet, batch: Tensor
) -> None:
    """Of the maps, not of the channels' parts: a variance of sums is no sum of variances."""
    maps = [map_of(model, copy, method).astype(np.float64) for copy in noisy_copies(batch[0], 6, 0.1, seed=7)]
    found = map_of(model, batch[0], method, smooth=Noise(6, 0.1, statistic), seed=7)
    assert_close(found, by_numpy(maps), tolerance=1e-4)


def test_the_word_noise_is_16_copies(model: SmallNet, batch: Tensor) -> None:
    maps = [map_of(model, copy) for copy in noisy_copies(batch[0], 16, 0.15, seed=0)]
    assert_close(map_of(model, batch[0], smooth="noise"), np.mean(np.array(maps, np.float64), 0))


@pytest.mark.parametrize("statistic", ["mean", "square", "variance"])
def test_noise_around_colours_keeps_them(statistic: str, model: SmallNet, batch: Tensor) -> None:
    name = {"mean": "smoothgrad", "square": "smoothgrad-squared", "variance": "vargrad"}[statistic]
    around = seewhy.explain(model, batch, 3, "saliency", smooth=Noise(5, 0.2, statistic))
    itself = seewhy.explain(model, batch, 3, name, samples=5, spread=0.2)
    for one, other in zip(around, itself, strict=True):
        assert_close(one.colours, other.colours)


def test_noise_inside_aug(model: SmallNet, batch: Tensor) -> None:
    expected = by_six_inputs(model, batch[0], "grad-cam", smooth=Noise(4))
    assert_close(map_of(model, batch[0], smooth=["aug", Noise(4)]), expected)


def test_the_seed_decides_and_a_batch_equals_one_by_one(model: SmallNet, batch: Tensor) -> None:
    together = seewhy.explain(model, batch, [0, "3-vs-1", 4], smooth="aug,noise,eigen", layers="second", seed=3)
    for image, target, why in zip(batch, [0, "3-vs-1", 4], together, strict=True):
        alone = seewhy.explain(model, image, target, smooth="aug,noise,eigen", layers="second", seed=3)
        assert_close(why.raw, alone.raw)
    one, same, other = (map_of(model, batch[0], smooth="noise", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


# pytorch-grad-cam.


def unit(values: Array) -> Array:
    """Clip and stretch to 0..1, as the peer does."""
    lifted = np.maximum(np.asarray(values, np.float64), 0)
    lifted = lifted - lifted.min()
    return lifted / lifted.max()


def shown(raw: Array) -> Array:
    """Enlarge as well."""
    return unit(enlarged(unit(raw), (96, 96)))


@pytest.fixture(scope="module")
def deep() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=12).eval()
    return model, torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(6))


def loud(output: Tensor) -> Tensor:
    """A class's score, times what makes the peer's small constants not matter."""
    return output[PEERS_CLASS] * 1e4


def by_peer(model: nn.Module, image: Tensor, **how: bool) -> Array:
    with peer.GradCAM(model, [model.layer4]) as cam:
        return cam(image.clone(), [loud], **how)[0]


def test_eigen_is_pytorch_grad_cams_up_to_the_sign(deep: tuple[nn.Module, Tensor]) -> None:
    """It leaves the sign to the decomposition."""
    model, image = deep
    ours = seewhy.explain(model, image[0], loud, "grad-cam", "layer4", smooth="eigen").raw
    theirs = by_peer(model, image, eigen_smooth=True)
    assert min(np.abs(shown(sign * ours) - theirs).max() for sign in (1, -1)) < 1e-4


def test_aug_of_pytorch_grad_cam_scales_each_map_before_the_mean(deep: tuple[nn.Module, Tensor]) -> None:
    """Each is clipped, enlarged and stretched to 0..1, so that a weak map counts as much as a strong one; ours are not."""
    model, image = deep
    maps = []
    for factor in (0.9, 1.0, 1.1):
        for turned, step in ((image[0], 1), (image[0].flip(-1), -1)):
            one = seewhy.explain(model, turned * factor, loud, "grad-cam", "layer4")
            maps.append(shown(one.raw)[:, ::step])
    theirs = by_peer(model, image, aug_smooth=True)
    np.testing.assert_allclose(np.mean(maps, 0), theirs, atol=1e-4)
    ours = shown(seewhy.explain(model, image[0], loud, "grad-cam", "layer4", smooth="aug").raw)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    assert np.abs(ours - unit(theirs)).max() > 1e-3
