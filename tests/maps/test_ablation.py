"""Ablation-CAM: its paper by loops, the peer, closed forms, and what it leaves out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.fusion import fused
from seewhy.images import Axis
from small_models import SmallNet

Array = np.ndarray
SQUARE = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(3))


def channels_first(output: Tensor) -> Tensor:
    """One sample's output as `(channel, *grid)`: a view, so that what is written into it is written into the output."""
    return output[0]


def tokens_first(output: Tensor, side: int) -> Tensor:
    """The same of `(1, 1 + places, channel)`: the class token is no place."""
    return output[0, 1:].T.unflatten(1, (side, side))


def channels_last(output: Tensor) -> Tensor:
    return output[0].movedim(-1, 0)


def ablation_cam(
    model: nn.Module,
    layer: str,
    image: Tensor,
    target: int,
    read: Callable[[Tensor], Tensor] = channels_first,
    *,
    top: int | None = None,
    slope: bool = False,
) -> Array:
    """Desai & Ramaswamy 2020, eq. 1 (`slope`) and eq. 3: the whole model is run again for each channel.

    Args:
        model: any.
        layer: its name.
        image: `(channel, *space)`.
        target: the class.
        read: from the layer's output to a view `(channel, *grid)` of it.
        top: only so many of the strongest channels.
        slope: divide by the channel's size instead of the score.
    """
    model, image = copy.deepcopy(model).double(), image.double()[None]
    seen: list[Array] = []

    def run(without: int | None) -> float:
        def take_away(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            edited = output.clone()
            seen.append(read(edited).numpy().copy())
            if without is not None:
                read(edited)[without] = 0
            return edited

        handle = model.get_submodule(layer).register_forward_hook(take_away)
        with torch.no_grad():
            score = float(model(image)[0, target])
        handle.remove()
        return score

    whole = run(None)
    a = seen[0]
    result = np.zeros(a.shape[1:])
    for k in sorted(range(len(a)), key=lambda k: -float((a[k] ** 2).sum()))[:top]:
        size = np.abs(a[k]).sum() if slope else abs(whole)
        result += (whole - run(k)) / (size or 1.0) * a[k]
    return result


def assert_close(found: Array, expected: Array, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert np.ptp(expected) > 0


@pytest.mark.parametrize("target", range(5))
@pytest.mark.parametrize("layer", ["first", "norm", "second"])
def test_ablation_cam_is_its_paper(target: int, layer: str, small_net: SmallNet, batch: Tensor) -> None:
    found = seewhy.explain(small_net, batch[0], target, "ablation-cam", layer).raw
    assert_close(found, ablation_cam(small_net, layer, batch[0], target))


@pytest.mark.parametrize("layer", ["first", "second"])
def test_by_slope_it_is_the_papers_first_form(layer: str, small_net: SmallNet, batch: Tensor) -> None:
    found = seewhy.explain(small_net, batch[0], 1, "ablation-cam", layer, slope=True).raw
    assert_close(found, ablation_cam(small_net, layer, batch[0], 1, slope=True))


@pytest.mark.parametrize("target", range(5))
def test_by_slope_it_is_cam_on_a_linear_head(target: int, small_net: SmallNet, batch: Tensor) -> None:
    found, expected = (
        seewhy.explain(small_net, batch[0], target, name, "second", **options).raw
        for name, options in (("ablation-cam", {"slope": True}), ("cam", {}))
    )
    assert_close(found * found.size, expected)


def test_high_means_support_also_where_the_score_is_negative(small_net: SmallNet, batch: Tensor) -> None:
    """The more of its channels a class loses, the lower its score; the sum of the weights is then 1 minus the bias' part."""
    with torch.no_grad():
        small_net.head.bias.fill_(-50)
        small_net.head.weight.abs_()
    why = seewhy.explain(small_net, batch[0], 2, "ablation-cam", "second")
    assert why.score < 0
    assert why.raw.min() >= 0
    assert why.raw.max() > 0


@pytest.mark.parametrize("top", [1, 3, 100])
def test_only_the_strongest_channels_are_taken_away(top: int, small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 2, "ablation-cam", "second", top=top)
    assert_close(why.raw, ablation_cam(small_net, "second", batch[0], 2, top=top))
    assert why.cost.replays == 1 + min(top, 6)
    assert why.cost.forwards == 1


def test_channels_that_are_zero_are_not_run(small_net: SmallNet, batch: Tensor) -> None:
    with torch.no_grad():
        small_net.second[0].bias[[1, 4]] -= 1000
    why = seewhy.explain(small_net, batch[0], 2, "ablation-cam", "second")
    assert why.cost.replays == 1 + 4
    assert_close(why.raw, ablation_cam(small_net, "second", batch[0], 2))


def test_a_budget_keeps_the_strongest_channels_and_is_told(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 2, "ablation-cam", "second", budget=4)
    assert_close(why.raw, ablation_cam(small_net, "second", batch[0], 2, top=3))  # the fourth is the score itself
    assert "the budget ended the work after 4 of 7 runs" in why.notes


def test_a_batch_with_its_own_targets_and_dead_channels_equals_one_by_one(small_net: SmallNet, batch: Tensor) -> None:
    with torch.no_grad():
        small_net.second[0].bias -= 1.0
    batch = batch * torch.tensor([0.5, 1.0, 3.0]).view(3, 1, 1, 1)
    targets = [4, 0, 2]
    together = seewhy.explain(small_net, batch, targets, "ablation-cam", "second")
    assert len({why.cost.replays for why in together}) == 1  # the most of any
    for image, target, why in zip(batch, targets, together, strict=True):
        assert_close(why.raw, ablation_cam(small_net, "second", image, target))


def test_several_targets_share_their_runs(small_net: SmallNet, batch: Tensor) -> None:
    ask = seewhy.Explainer(small_net)
    ask(batch[0], 0, "ablation-cam", "second")  # finds out what is found out once
    runs: list[int] = []
    handle = small_net.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
    found = ask.compare(batch[0], ["ablation-cam"], "second", [0, 3, "1-vs-2"])
    handle.remove()
    assert runs == [1, 1]  # the recording, and all seven edits of the layer at once
    for why, target in zip(found, [0, 3, "1-vs-2"], strict=True):
        np.testing.assert_array_equal(why.raw, ask(batch[0], target, "ablation-cam", "second").raw)


@pytest.mark.parametrize("how", ["mean", "max", "product"])
def test_several_layers_become_one_map(how: str, small_net: SmallNet, batch: Tensor) -> None:
    layers = ["first", "second"]
    found = seewhy.explain(small_net, batch[0], 3, "ablation-cam", layers, fuse=how)
    each = [ablation_cam(small_net, layer, batch[0], 3).astype(np.float32)[None] for layer in layers]
    assert_close(found.raw, fused(each, how)[0])
    assert found.cost.replays == 5 + 7


def test_in_a_transformer_a_channel_is_taken_from_the_places_only() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48, num_classes=9).eval()
    found = seewhy.explain(model, SQUARE, 5, "ablation-cam", "blocks.1.norm1").raw
    assert_close(found, ablation_cam(model, "blocks.1.norm1", SQUARE, 5, partial(tokens_first, side=4)))
    with_class_token = ablation_cam(model, "blocks.1.norm1", SQUARE, 5, lambda output: output[0].T[..., None])
    assert np.abs(found.ravel() - with_class_token[1:, 0]).max() > 1e-2 * np.abs(found).max()


def test_a_model_that_keeps_its_channels_last() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1), num_heads=(2, 4), embed_dim=16
    ).eval()
    layer = "layers.1.blocks.0"
    found = seewhy.explain(model, SQUARE, 5, "ablation-cam", layer)
    assert found.layouts[0].order == "channels-last"
    assert_close(found.raw, ablation_cam(model, layer, SQUARE, 5, channels_last))


def unit(values: Array) -> Array:
    """Scale as the peer does."""
    positive = np.maximum(values, 0)
    return (positive - positive.min()) / (positive.max() - positive.min())


def shown(raw: Array, space: Sequence[int]) -> Array:
    """Scale, resize to the input and scale again, as the peer does before it returns."""
    rows, columns = (Axis(side, side).weights(cells) for side, cells in zip(space, raw.shape, strict=True))
    return unit(rows @ unit(raw) @ columns.T)


def by_peer(model: nn.Module, layer: str, image: Tensor, target: int) -> Array:
    with pytorch_grad_cam.AblationCAM(model, [model.get_submodule(layer)]) as cam:
        return cam(input_tensor=image[None].clone(), targets=[lambda output: output[target]])[0]


def resnet18() -> tuple[nn.Module, str, Tensor]:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval(), "layer2", SQUARE[:, :32, :32]


def small() -> tuple[nn.Module, str, Tensor]:
    torch.manual_seed(0)
    return SmallNet().eval(), "second", torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [resnet18, small])
def test_equal_to_pytorch_grad_cam_where_the_layer_ends_in_a_relu(make: Callable) -> None:
    """It divides by the score itself, as the paper's text does: where that is negative, its map shows what speaks against."""
    model, layer, image = make()
    scores = model(image[None])[0].detach()
    for target, sign in ((int(scores.argmax()), 1), (int(scores.argmin()), -1)):
        assert float(scores[target]) * sign > 0
        ours = seewhy.explain(model, image, target, "ablation-cam", layer).raw
        np.testing.assert_allclose(shown(sign * ours, image.shape[1:]), by_peer(model, layer, image, target), atol=1e-4)


def test_a_number_of_channels_below_0_is_refused(small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=r"top=-1 must be a number of channels, or 0 for all"):
        seewhy.explain(small_net, batch[0], 0, "ablation-cam", top=-1)
