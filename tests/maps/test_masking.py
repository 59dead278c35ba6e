"""Score-CAM and its relatives: their papers by loops, the peers, and what is run only once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from torch import Tensor, nn
from torchcam import methods as torchcam

import seewhy
from seewhy.maps.held import Held
from seewhy.maps.masking import ChannelMasks
from seewhy.recorder import Recording, TorchRecorder
from seewhy.targets import ClassTarget
from small_models import SmallNet

Array = np.ndarray


class Residual(nn.Module):
    """A stem and one residual block, as in a ResNet; the block's channels from `alive` on are zero everywhere."""

    def __init__(self, stride: int, channels: int = 12, alive: int = 9, axes: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.stem = nn.Sequential(conv(3, channels, 3, stride, 1), nn.ReLU(inplace=True))
        self.inner = nn.Sequential(
            conv(channels, channels, 3, 1, 1), nn.ReLU(inplace=True), conv(channels, channels, 3, 1, 1)
        )
        self.block = nn.ReLU(inplace=True)
        self.head = nn.Linear(channels, 5)
        with torch.no_grad():
            self.inner[2].bias[alive:] -= 1000
            self.head.weight *= 20

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.head(self.block(self.inner(stem) + stem).flatten(2).mean(2))


def residual(stride: int = 3, **more: int) -> Residual:
    torch.manual_seed(0)
    return Residual(stride, **more).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 15, 21, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def strong_net(small_net: SmallNet) -> SmallNet:
    """Scores far enough apart for the softmax over channels to differ from a plain mean."""
    with torch.no_grad():
        small_net.head.weight *= 10
    return small_net


@contextmanager
def counting(model: nn.Module) -> Iterator[list[int]]:
    """List how many samples go into each run of the model."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        handle.remove()


def enlarged(values: Array, space: Sequence[int]) -> Array:
    """Interpolate linearly between the cells' centres, one axis after the other; beyond the outermost ones stay as they are."""
    for axis, length in enumerate(space):
        cells = values.shape[axis]
        slices = []
        for pixel in range(length):
            place = min(max((pixel + 0.5) * cells / length - 0.5, 0.0), cells - 1.0)
            low = int(place)
            high = min(low + 1, cells - 1)
            slices.append(values.take(low, axis) * (1 - (place - low)) + values.take(high, axis) * (place - low))
        values = np.stack(slices, axis)
    return values


Vary = Callable[[int, Array], list[Array]]


def score_cam(
    model: nn.Module,
    layer: str,
    image: Tensor,
    target: int,
    *,
    vary: Vary = lambda _, mask: [mask],
    nothing: Tensor | float = 0.0,
    strongest: int | None = None,
) -> Array:
    """Wang 2019, eq. 4-6, with `vary` for the variants of a mask (SS-CAM, eq. 3; IS-CAM, eq. 5).

    Args:
        model: any.
        layer: its name.
        image: `(channel, *space)`.
        target: the class.
        vary: from a channel and its mask to variants of it, over which the score is averaged.
        nothing: what is seen where a mask is 0.
        strongest: only so many channels have a weight.
    """
    model, image = copy.deepcopy(model).double(), image.double()
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output[0].clone()))
    with torch.no_grad():
        model(image[None])
        handle.remove()
        a = seen[0].numpy()
        scores = {}
        for k in sorted(range(len(a)), key=lambda k: -float((a[k] ** 2).sum()))[:strongest]:
            mask = enlarged(a[k], image.shape[1:])
            width = mask.max() - mask.min()
            masks = vary(k, (mask - mask.min()) / width) if width > 0 else [np.zeros_like(mask)]
            inputs = [nothing + torch.from_numpy(each) * (image - nothing) for each in masks]
            scores[k] = sum(float(model(each[None])[0, target]) for each in inputs) / len(inputs)
    total = sum(np.exp(each - max(scores.values())) for each in scores.values())
    return sum(np.exp(scores[k] - max(scores.values())) / total * a[k] for k in scores)


def assert_close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert np.ptp(expected) > 0


@pytest.mark.parametrize("target", range(5))
def test_score_cam_is_its_paper(target: int, strong_net: SmallNet, batch: Tensor) -> None:
    for layer in ("first", "second"):
        found = seewhy.explain(strong_net, batch[0], target, "score-cam", layer).raw
        assert_close(found, score_cam(strong_net, layer, batch[0], target))


@pytest.mark.parametrize("axes", [1, 3])
def test_score_cam_of_signals_and_volumes_is_its_paper(axes: int) -> None:
    image = torch.randn(3, *(30, 9, 12)[:axes], generator=torch.Generator().manual_seed(5))
    model = residual(axes=axes)
    found = seewhy.explain(model, image, 1, "score-cam", "block").raw
    assert_close(found, score_cam(model, "block", image, 1))


@pytest.mark.parametrize(("name", "pixel"), [("black", 0.0), (0.5, 0.5)])
def test_what_is_seen_where_a_mask_is_0(name: object, pixel: float, strong_net: SmallNet, batch: Tensor) -> None:
    mean, std = (torch.tensor(values).view(3, 1, 1).double() for values in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    found = seewhy.explain(
        strong_net,
        batch[0],
        2,
        "score-cam",
        "second",
        baseline=name,
        preprocess={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)},
    )
    assert_close(found.raw, score_cam(strong_net, "second", batch[0], 2, nothing=(pixel - mean) / std))
    assert np.abs(found.raw - score_cam(strong_net, "second", batch[0], 2)).max() > 1e-3


def unit(values: Array) -> Array:
    """Scale as the peers do."""
    positive = np.maximum(values, 0)
    return (positive - positive.min()) / (positive.max() - positive.min())


def by_grad_cam(model: nn.Module, layer: str, image: Tensor, target: int) -> Array:
    with pytorch_grad_cam.ScoreCAM(model, [model.get_submodule(layer)]) as cam:
        return cam(input_tensor=image[None].clone(), targets=[lambda output: output[target]])[0]


def by_torchcam(kind: type, model: nn.Module, layer: str, image: Tensor, target: int) -> Array:
    with kind(model, layer, input_shape=tuple(image.shape)) as extractor:
        scores = model(image[None].clone())
        return extractor(target, scores)[0][0].detach().numpy()


@pytest.mark.parametrize("target", [0, 3])
def test_score_cam_is_that_of_both_peers_where_nothing_is_resized(target: int, images: Tensor) -> None:
    model = residual(stride=1)
    ours = unit(seewhy.explain(model, images[0], target, "score-cam", "block").raw)
    assert np.ptp(ours) == 1
    np.testing.assert_allclose(ours, by_grad_cam(model, "block", images[0], target), atol=1e-4)
    np.testing.assert_allclose(ours, by_torchcam(torchcam.ScoreCAM, model, "block", images[0], target), atol=1e-4)


@pytest.mark.parametrize("make", ["small_net", "residual"])
def test_score_cam_is_that_of_torchcam_where_pixels_meet_the_cells_centres(
    make: str, strong_net: SmallNet, images: Tensor
) -> None:
    """It stretches to 0..1 before it resizes, not after (eq. 5): the same where each cell has a pixel at its centre."""
    model, layer, image = residual(), "block", images[0]
    if make == "small_net":
        model, layer = strong_net, "second"
        model.first.stride, model.second[0].stride = (1, 1), (3, 3)
    ours = unit(seewhy.explain(model, image, 1, "score-cam", layer).raw)
    assert ours.shape == (5, 7)
    np.testing.assert_allclose(ours, by_torchcam(torchcam.ScoreCAM, model, layer, image, 1), atol=1e-4)


def test_score_cam_of_pytorch_grad_cam_resizes_from_corner_to_corner(strong_net: SmallNet, batch: Tensor) -> None:
    """`UpsamplingBilinear2d` puts the outermost cells' centres on the picture's edges; the map itself it resizes otherwise."""
    raw = seewhy.explain(strong_net, batch[0], 1, "score-cam", "second").raw
    theirs = by_grad_cam(strong_net, "second", batch[0], 1)
    large = enlarged(unit(raw), batch.shape[2:])
    assert np.abs(unit(large) - theirs).max() > 1e-3
    between_centres = lambda size: nn.Upsample(size=size, mode="bilinear", align_corners=False)  # noqa: E731
    with mock.patch("torch.nn.UpsamplingBilinear2d", between_centres):
        theirs = by_grad_cam(strong_net, "second", batch[0], 1)
    np.testing.assert_allclose(unit(large), theirs, atol=1e-4)


def test_channels_that_show_nothing_are_scored_together_once(images: Tensor) -> None:
    model = residual()
    ask = seewhy.Explainer(model)
    ask.layers(images)
    with counting(model) as seen:
        why = ask(images[0], 1, "score-cam", "block")
    assert sum(seen) == 1 + 1 + 9  # the recording, "nothing there", the living channels
    assert why.cost.forwards == 11
    assert why.reported == {"channels that show something": 9}
    assert_close(why.raw, score_cam(model, "block", images[0], 1))


def test_where_every_channel_shows_something_nothing_there_is_not_run(images: Tensor) -> None:
    model = residual(alive=12)
    ask = seewhy.Explainer(model)
    ask.layers(images)
    with counting(model) as seen:
        ask(images[0], 1, "score-cam", "block")
    assert sum(seen) == 1 + 12


def test_a_layer_that_is_dead_everywhere_gives_a_flat_map_that_is_told(images: Tensor) -> None:
    why = seewhy.explain(residual(alive=0), images[0], 1, "score-cam", "block")
    assert not why.raw.any()
    assert [finding.code for finding in why.diagnosis] == ["flat"]
    assert why.reported == {"channels that show something": 0}


@pytest.mark.parametrize("name", ["score-cam", "ss-cam", "is-cam"])
def test_a_batch_with_its_own_targets_and_dead_channels_equals_one_by_one(name: str, images: Tensor) -> None:
    model = residual()
    with torch.no_grad():
        model.inner[2].bias[:9] -= 0.7  # dead in some pictures and not in others
    images = images * torch.tensor([1.0, 1.5, 3.0]).view(3, 1, 1, 1)
    targets, options = [4, 0, 2], {} if name == "score-cam" else {"samples": 3}
    together = seewhy.explain(model, images, targets, name, "block", **options)
    assert len({why.reported["channels that show something"] for why in together}) > 1
    for image, target, why in zip(images, targets, together, strict=True):
        alone = seewhy.explain(model, image, target, name, "block", **options)
        assert_close(why.raw, alone.raw)
        assert why.reported == alone.reported


def test_several_targets_share_their_forwards(images: Tensor) -> None:
    model = residual()
    ask = seewhy.Explainer(model)
    ask.layers(images)
    with counting(model) as seen:
        found = ask.compare(images[0], ["score-cam"], "block", [0, 1, "2-vs-3", "top:2"])
    assert len(found) == 5
    assert sum(seen) == 1 + 10
    for why, target in zip(found, [0, 1, "2-vs-3"], strict=False):
        np.testing.assert_array_equal(why.raw, ask(images[0], target, "score-cam", "block").raw)
    assert np.abs(found[0].raw - found[1].raw).max() > 1e-3


def test_a_budget_keeps_the_strongest_channels_and_is_told(images: Tensor) -> None:
    model = residual(channels=24, alive=24)
    ask = seewhy.Explainer(model)
    ask.layers(images)
    with counting(model) as seen:
        why = ask(images[0], 1, "score-cam", "block", budget=10)
    assert sum(seen) == 1 + 10
    assert "the budget ended the work after 10 of 24 runs" in why.notes
    assert_close(why.raw, score_cam(model, "block", images[0], 1, strongest=10))
    assert np.abs(why.raw - ask(images[0], 1, "score-cam", "block").raw).max() > 1e-3


def test_a_budget_leaves_a_channel_the_mean_of_what_was_run_of_it(images: Tensor) -> None:
    """Four variants of each mask: 10 runs are two channels' and half of a third one's."""
    model = residual(alive=12)
    found = seewhy.explain(model, images[0], 1, "is-cam", "block", samples=4, budget=10).raw
    left: list[int] = [4, 4, 2]
    vary = lambda _, mask: [mask * (n + 1) / 4 for n in range(left.pop(0))]  # noqa: E731
    assert_close(found, score_cam(model, "block", images[0], 1, vary=vary, strongest=3))


@pytest.mark.parametrize("samples", [2, 5])
def test_is_cam_is_its_paper(samples: int, strong_net: SmallNet, batch: Tensor) -> None:
    found = seewhy.explain(strong_net, batch[0], 3, "is-cam", "second", samples=samples).raw
    steps = [(n + 1) / samples for n in range(samples)]
    expected = score_cam(strong_net, "second", batch[0], 3, vary=lambda _, mask: [step * mask for step in steps])
    assert_close(found, expected)


def test_is_cam_of_one_step_and_ss_cam_without_noise_are_score_cam(strong_net: SmallNet, batch: Tensor) -> None:
    expected = seewhy.explain(strong_net, batch[0], 3, "score-cam", "second").raw
    one_step = seewhy.explain(strong_net, batch[0], 3, "is-cam", "second", samples=1).raw
    np.testing.assert_array_equal(one_step, expected)
    assert_close(seewhy.explain(strong_net, batch[0], 3, "ss-cam", "second", samples=4, noise=0.0).raw, expected)


def recorded(model: nn.Module, layer: str, image: Tensor, seed: int = 0) -> Recording:
    recorder = TorchRecorder(model)
    [row] = [row for row in recorder.table(image[None]).rows if row.name == layer]
    ask = lambda *_: [(ClassTarget(3),)]  # noqa: E731
    recordings = recorder.record(
        image[None],
        [row],
        ask,
        needs=seewhy.Needs.ACTIVATIONS,
        conditions=seewhy.recorder.Conditions(seed=seed),
    )
    return recordings.at(layer, 0)


def test_ss_cam_is_its_paper_with_its_own_noise(strong_net: SmallNet, batch: Tensor) -> None:
    samples, noise, image = 3, 0.4, batch[0].abs() + 0.5
    found = seewhy.explain(strong_net, image, 3, "ss-cam", "second", samples=samples, noise=noise, seed=6).raw
    variants = ChannelMasks(Held("dataset"), samples, noise)(recorded(strong_net, "second", image, seed=6))
    inputs = variants.make(range(variants.count))[variants.results].double()
    seen = (inputs / image).view(-1, samples, *image.shape)
    added: list[Array] = []

    def vary(channel: int, mask: Array) -> list[Array]:
        for colour in range(3):  # the noise is the same in all colours
            np.testing.assert_allclose(seen[channel, :, colour], seen[channel, :, 0], atol=1e-5)
        added.extend(np.asarray(each) - mask for each in seen[channel, :, 0])
        return [mask + drawn for drawn in added[-samples:]]

    assert_close(found, score_cam(strong_net, "second", image, 3, vary=vary))
    drawn = np.stack(added)
    assert len(drawn) > 2 * samples
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(noise, rel=0.02)
    assert np.abs(np.corrcoef(drawn.reshape(len(drawn), -1)) - np.eye(len(drawn))).max() < 0.15  # no draw comes twice


def test_the_noise_follows_the_seed_and_not_the_chunks(strong_net: SmallNet, batch: Tensor) -> None:
    perturbation = ChannelMasks(Held("dataset"), 3, 0.4)
    variants = perturbation(recorded(strong_net, "second", batch[0]))
    whole = variants.make(range(variants.count))
    for size in (1, 2, 5):
        pieces = [variants.make(range(at, min(at + size, variants.count))) for at in range(0, variants.count, size)]
        torch.testing.assert_close(torch.cat(pieces), whole)
    other = perturbation(recorded(strong_net, "second", batch[0], seed=1))
    assert float((other.make(range(other.count)) - whole).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("is-cam", {"samples": 0}, r"samples=0 must be at least 1"),
        ("ss-cam", {"samples": -1}, r"samples=-1 must be at least 1"),
        ("ss-cam", {"noise": -0.1}, r"noise=-0.1 not negative"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict, told: str, small_net: SmallNet) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, torch.zeros(3, 16, 16), 0, name, **options)
