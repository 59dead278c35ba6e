"""What biases contribute: with input times gradient they are the whole score, layer by layer and place by place."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import seewhy
from seewhy.recorder.biases import BiasShare, BiasTap, effective_bias, merged
from small_models import SmallNet


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every bias and statistic a value, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(getattr(part, "running_mean", None), Tensor):
                part.running_mean.uniform_(-0.3, 0.3)
                part.running_var.uniform_(0.5, 1.5)
                if part.weight is not None:
                    part.weight.uniform_(0.5, 1.5)
            if isinstance(getattr(part, "bias", None), Tensor):
                part.bias.uniform_(-0.3, 0.3)
    return model.double().eval()


def heard(model: nn.Module, images: Tensor, target: int = 1) -> tuple[list[list[BiasShare]], Tensor, Tensor]:
    """Return each sample's shares, input times gradient summed, and the scores."""
    tap = BiasTap(images.ndim - 2)
    leaf = images.double().requires_grad_()
    with tap.on(model):
        outputs = []
        for image in leaf.split(1):
            tap.begin()
            outputs.append(model(image))
        scores = torch.cat(outputs)[:, target]
        [gradient] = torch.autograd.grad(scores.sum(), leaf)
    return tap.runs, (leaf * gradient).flatten(1).sum(1).detach(), scores.detach()


def assert_complete(model: nn.Module, images: Tensor, tolerance: float = 1e-6) -> None:
    runs, products, scores = heard(model, images)
    for shares, product, score in zip(runs, products, scores, strict=True):
        total = float(product) + sum(float(share.total) for share in shares)
        assert total == pytest.approx(float(score), abs=tolerance * max(1.0, abs(float(score))))
        assert abs(float(product - score)) > 1e-3  # without the biases it is not


def small(*layers: nn.Module, width: int = 6) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 5)
    )


class Frozen(nn.Module):
    """Batch norm whose numbers are all buffers, as detectors have it; the name is not what makes it one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = torchvision.ops.FrozenBatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


class Residual(nn.Module):
    """A convolution and an in-place ReLU that run twice, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, given: Tensor) -> Tensor:
        inner = self.relu(self.convolution(given))
        inner = inner + given
        return self.relu(self.convolution(inner)) + F.relu(inner)


COMPLETE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: small(nn.ReLU()),
    "in place": lambda: small(nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    "batch norm": lambda: small(nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "batch norm without weights": lambda: small(nn.BatchNorm2d(6, affine=False), nn.ReLU()),
    "frozen batch norm": lambda: small(Frozen(6), nn.ReLU()),
    "instance norm with statistics": lambda: small(nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
    "leaky": lambda: small(nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, groups=6), nn.PReLU()),
    "run twice": lambda: small(Residual()),
    "transposed": lambda: small(nn.ReLU(), nn.ConvTranspose2d(6, 6, 2), nn.ReLU()),
    "weights by a parametrization": lambda: small(nn.ReLU(), weight_norm(nn.Conv2d(6, 6, 3)), nn.ReLU()),
    "relu6": lambda: small(nn.BatchNorm2d(6), nn.Hardtanh(0, 0.3), nn.Conv2d(6, 6, 3), nn.ReLU6(inplace=True)),
    "curves": lambda: small(
        nn.SiLU(), nn.Conv2d(6, 6, 3), nn.GELU(), nn.Hardswish(), nn.Mish(), nn.ELU(), nn.Softplus()
    ),
    "squashed": lambda: small(nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 6, 1), nn.Hardsigmoid()),
}


@pytest.mark.parametrize("name", sorted(COMPLETE))
def test_input_and_biases_carry_the_whole_score(name: str, batch: Tensor) -> None:
    assert_complete(lively(COMPLETE[name]()), 3 * batch)


def linear_channels_last() -> nn.Module:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 6, 3, stride=2)
            self.mix = nn.Sequential(nn.Linear(6, 4), nn.GELU())
            self.head = nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.mix(self.body(images).permute(0, 2, 3, 1)).mean((1, 2)))

    return Last()


def test_linear_layers_and_their_activations_have_their_channels_last(batch: Tensor) -> None:
    model = lively(linear_channels_last())
    assert_complete(model, batch)
    [shares, *_], _, _ = heard(model, batch)
    found = {share.name: share for share in shares}
    given = model.mix[0](model.body(batch[:1].double()).permute(0, 2, 3, 1)).detach().requires_grad_()
    output = F.gelu(given)
    [slope] = torch.autograd.grad(output.sum(), given)
    weights = model.head.weight[1].detach() / (11 * 19)  # the derivative by each cell of the mean
    by_hand = {
        "mix.1": (output - slope * given).detach() * weights,
        "mix.0": model.mix[0].bias.detach() * slope * weights,
    }
    for name, products in by_hand.items():
        share = found[name]
        assert share.channels == 4
        torch.testing.assert_close(share.values, products.abs().sum(-1).float(), rtol=1e-5, atol=1e-9)
        assert float(share.low) == pytest.approx(float(products.abs().min()), abs=1e-8)
        assert float(share.high) == pytest.approx(float(products.abs().max()), rel=1e-5)
        assert float(share.total) == pytest.approx(float(products.sum()), rel=1e-4)
    assert found["head"].values is None  # one vector a sample has no places
    assert found["body"].values.shape == (1, 11, 19)


@pytest.mark.parametrize(
    "name", ["regnetx_002", "mobilenetv2_050", "densenet121", "resnet10t", "tv:resnet18", "tv:mnasnet0_5"]
)
def test_real_nets_with_activations_inside_their_normalisation(name: str) -> None:
    torch.manual_seed(0)
    library, _, own = name.rpartition(":")
    model = getattr(torchvision.models, own)(weights=None) if library else timm.create_model(own)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert_complete(lively(model), images, tolerance=1e-5)


def small_swin() -> nn.Module:
    """Windows of 4 x 4 cells are folded into the batch axis."""
    return timm.models.swin_transformer.SwinTransformer(
        img_size=64, patch_size=4, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 2), num_classes=9
    )


def small_convnext() -> nn.Module:
    """Layer norms with the channels first, which are layer norms by type, and last."""
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.convnext.ConvNeXt([block(16, 24, 1), block(24, None, 1)], num_classes=9)


@pytest.mark.parametrize("make", [small_swin, small_convnext, lambda: timm.create_model("convnext_atto")])
def test_layer_norms_of_either_order_and_folded_windows_are_read_sample_by_sample(make: Callable) -> None:
    """Not complete, since a layer norm divides by what depends on its input; but every sample gets its own sum."""
    torch.manual_seed(0)
    model = lively(make())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    together = seewhy.explain(model, images, [3, 7], "fullgrad")
    assert together[0].reported != pytest.approx(together[1].reported, abs=1e-3)
    for image, target, why in zip(images, [3, 7], together, strict=True):
        alone = seewhy.explain(model, image, target, "fullgrad")
        assert why.reported == pytest.approx(alone.reported, abs=1e-5)
        np.testing.assert_allclose(why.raw, alone.raw, atol=1e-5 * alone.raw.max())
        assert np.ptp(why.raw) > 0


def test_layer_norms_with_the_channels_first_where_both_axes_are_as_long(batch: Tensor) -> None:
    """Eight channels on eight columns: by its shape alone it could be either."""
    torch.manual_seed(0)
    for norm in (timm.layers.LayerNorm2d(8), torchvision.models.convnext.LayerNorm2d(8)):
        model = lively(nn.Sequential(nn.Conv2d(3, 8, (3, 5), stride=(3, 5)), norm, nn.Flatten(), nn.Linear(512, 5)))
        [shares, *_], _, _ = heard(model, batch)
        [share] = [each for each in shares if each.name == "1"]
        weights = model[3].weight[1].detach().view(1, 8, 8, 8)
        expected = (weights * norm.bias.detach().view(8, 1, 1)).abs().sum(1)
        torch.testing.assert_close(share.values, expected.float(), rtol=1e-5, atol=1e-7)


class StepsFirst(nn.Module):
    """Tokens as (steps, batch, channel), in as many steps as images may be in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 12, stride=12)
        self.mix = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).permute(2, 0, 1)
        return F.relu(self.mix(F.relu(tokens))).mean(0)


def test_samples_are_not_mistaken_for_steps(batch: Tensor) -> None:
    torch.manual_seed(0)
    model = StepsFirst().eval()
    six = torch.cat([batch, 2 * batch])  # 24 x 40 pixels are 2 x 3 patches
    for why in seewhy.explain(model, six, 1, "fullgrad"):
        assert abs(why.reported["completeness gap"]) < 1e-5


def test_only_this_backward_is_heard_and_no_hook_stays(small_net: SmallNet, batch: Tensor) -> None:
    before = copy.deepcopy(small_net.state_dict())
    heard(small_net.double(), batch)
    for part in small_net.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert all(torch.equal(before[name].double(), value) for name, value in small_net.state_dict().items())
    tap = BiasTap(2)
    with tap.on(small_net), torch.no_grad():
        tap.begin()
        small_net(batch.double())
    assert tap.runs == [[]]


def test_a_factor_is_taken_off_again(small_net: SmallNet, batch: Tensor) -> None:
    tap, leaf = BiasTap(2), batch[:1].requires_grad_()
    with tap.on(small_net):
        tap.begin()
        score = small_net(leaf)[0, 1]
        totals = []
        for factor in (1.0, 1024.0):
            tap.expect(factor)
            torch.autograd.grad(score * factor, leaf, retain_graph=True)
            totals.append([float(share.total) for share in tap.runs[0]])
    assert len(totals[0]) == 4
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    assert tap.finite


def test_the_bias_of_batch_norm_is_what_it_gives_for_zero() -> None:
    norm = lively(nn.Sequential(nn.BatchNorm2d(5)))[0]
    zero = norm(torch.zeros(1, 5, 1, 1, dtype=torch.float64)).flatten()
    torch.testing.assert_close(effective_bias(norm).double(), zero.detach(), rtol=1e-5, atol=1e-7)
    assert effective_bias(nn.Conv2d(2, 3, 1, bias=False)) is None
    assert effective_bias(nn.ReLU()) is None


def test_shares_of_several_samples_are_one_batch() -> None:
    def share(value: float, *, placed: bool = True) -> BiasShare:
        one = torch.tensor([value])
        return BiasShare("layer", one.view(1, 1, 1) if placed else None, one, one + 1, 2, one + 2)

    both = merged([[share(1.0), share(5.0, placed=False)], [share(3.0), share(7.0, placed=False)]])
    assert both[0].values.flatten().tolist() == [1, 3]
    assert both[0].high.tolist() == [2, 4]
    assert both[1].values is None
    assert both[1].total.tolist() == [7, 9]
