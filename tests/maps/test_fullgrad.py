"""FullGrad: the paper's map in float64 with loops, and the sum that says whether nothing is missing."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from slow_gradients import assert_close, enlarged
from torch import Tensor, nn

import seewhy
from small_models import SmallNet, make_small_net

Array = np.ndarray


def stretched(contributions: Array) -> Array:
    """The paper's psi before its resizing: absolute values, stretched to 0..1 over the whole layer."""
    absolute = np.abs(contributions)
    return (absolute - absolute.min()) / (absolute.max() - absolute.min())


def by_hand(model: SmallNet, image: Tensor, target: int) -> tuple[Array, float, float]:
    """Return the map, the sum of all contributions and the score of a SmallNet, its layers written out."""
    leaf = image.double()[None].requires_grad_()
    first = model.first(leaf)
    norm = nn.functional.batch_norm(
        first, model.norm.running_mean, model.norm.running_var, model.norm.weight, model.norm.bias, eps=model.norm.eps
    )
    second = model.second[0](norm.relu())
    output = model.head(second.relu().mean((2, 3)))
    score = output[0, target]
    gradients = torch.autograd.grad(score, [leaf, first, norm, second, output])
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    biases = [
        model.first.bias,
        model.norm.bias - model.norm.running_mean * scale,
        model.second[0].bias,
        model.head.bias,
    ]
    layers = [(leaf * gradients[0])[0].detach().numpy()]
    for bias, gradient in zip(biases, gradients[1:], strict=True):
        column = bias.detach().view(-1, *[1] * (gradient.ndim - 2))
        layers.append((column * gradient[0]).numpy())
    found = np.zeros(image.shape[1:])
    for layer in layers:
        if layer.ndim == 3:  # the classifier's own bias has no place
            for channel in stretched(layer):
                found += enlarged(channel, image.shape[1:])
    return found, sum(float(layer.sum()) for layer in layers), float(score.detach())


def test_the_map_equals_the_papers(batch: Tensor) -> None:
    for seed in range(3):
        model = make_small_net(seed).double()
        expected, total, score = by_hand(model, batch[seed], 2)
        assert total == pytest.approx(score, rel=1e-9)  # the paper's theorem
        why = seewhy.explain(model, batch[seed], 2, "fullgrad")
        assert_close(why.raw, expected)
        assert why.reported["score difference"] == pytest.approx(score, rel=1e-5)
        assert abs(why.reported["completeness gap"]) < 1e-5
        assert why.colours is None


def test_a_layer_is_stretched_from_its_smallest_contribution_not_from_zero(batch: Tensor) -> None:
    torch.manual_seed(1)
    convolution, last = nn.Conv2d(3, 4, 1).double(), nn.Linear(4, 2).double()
    model = nn.Sequential(convolution, nn.LeakyReLU(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    leaf = (batch[:1].double().abs() + 1).requires_grad_()
    inner = convolution(leaf)
    score = last(nn.functional.leaky_relu(inner, 0.5).mean((2, 3)))[0, 1]
    by_image, by_inner = torch.autograd.grad(score, [leaf, inner])
    layers = [leaf * by_image, convolution.bias.view(-1, 1, 1) * by_inner]
    layers = [each[0].detach().numpy() for each in layers]
    assert all(np.abs(layer).min() > 0.01 * np.abs(layer).max() for layer in layers)
    expected = sum(stretched(layer).sum(0) for layer in layers)
    assert_close(seewhy.explain(model, leaf[0].detach().float(), 1, "fullgrad").raw, expected)


def test_pytorch_grad_cam_stretches_channel_by_channel(batch: Tensor) -> None:
    """With one channel a layer that is the same; with more, weak channels count there as much as strong ones."""

    def theirs(model: nn.Module, image: Tensor) -> Array:
        with peer.FullGrad(model, []) as cam:
            return cam(input_tensor=image.clone(), targets=[lambda output: output[0] * 100])[0]

    def ours(model: nn.Module, image: Tensor) -> Array:
        raw = seewhy.explain(model, image[0], lambda output: output[0] * 100, "fullgrad").raw
        return (raw - raw.min()) / np.ptp(raw)

    for channels in (1, 4):
        torch.manual_seed(3)
        model = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ).eval()
        with torch.no_grad():
            model[0].weight.abs_()
            model[3].weight.abs_()
            model[1].running_mean.uniform_(-0.5, -0.1)
        image = batch[:1, :1, :, :24].repeat(1, channels, 1, 1) * torch.arange(1, channels + 1).view(1, -1, 1, 1)
        difference = np.abs(ours(model, image) - theirs(model, image)).max()
        assert difference < 1e-4 if channels == 1 else difference > 0.01


def test_complete_on_the_built_in_model(embedded: seewhy.Explainer, chelsea: np.ndarray) -> None:
    """Batch norm everywhere, and ReLU6, which adds what the paper calls an implicit bias where it is full."""
    for why in embedded.compare(chelsea, "fullgrad", targets=[281, 904]):
        assert why.reported["score difference"] == pytest.approx(why.score, rel=1e-5)
        assert abs(why.reported["completeness gap"]) < 1e-4 * max(1, abs(why.score))
        assert why.raw.min() >= 0


class Gated(SmallNet):
    """Weighs its channels, as squeeze-and-excitation does: a product, which no sum of biases makes up for."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.relu(self.norm(self.first(images))))
        return self.head((features * features.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3)))


def test_what_is_missing_is_told(batch: Tensor) -> None:
    model = Gated().eval()
    model.load_state_dict(make_small_net().state_dict())
    why = seewhy.explain(model.double(), batch[0], 2, "fullgrad")
    assert abs(why.reported["completeness gap"]) > 0.01
    assert np.isfinite(why.raw).all()


def test_a_batch_equals_one_by_one_with_a_question_each(batch: Tensor) -> None:
    model = make_small_net().double()
    together = seewhy.explain(model, batch, [2, "0-vs-1", 4], "fullgrad")
    for image, target, found in zip(batch, [2, "0-vs-1", 4], together, strict=True):
        alone = seewhy.explain(model, image, target, "fullgrad")
        assert_close(found.raw, alone.raw)
        assert found.reported == pytest.approx(alone.reported, abs=1e-6)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.999), (torch.bfloat16, 0.98)])
def test_half_precision_keeps_what_would_vanish(dtype: torch.dtype, least: float, batch: Tensor) -> None:
    model = make_small_net()
    faint = lambda output: output[1] * 3e-6  # noqa: E731
    expected = seewhy.explain(model, batch[0], faint, "fullgrad").raw
    found = seewhy.explain(model.to(dtype), batch[0], faint, "fullgrad").raw
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > least
    assert found.mean() == pytest.approx(expected.mean(), rel=0.05)  # no layer is missing


class Overwrites(SmallNet):
    def forward(self, images: Tensor) -> Tensor:
        squashed = self.second(self.relu(self.norm(self.first(images)))).exp()
        return self.head(squashed.log_().mean((2, 3)))


def test_a_model_that_overwrites_what_its_derivative_needs(batch: Tensor) -> None:
    model, plain = Overwrites().eval(), make_small_net()
    model.load_state_dict(plain.state_dict())
    expected = seewhy.explain(plain.double(), batch[0], 2, "fullgrad")
    found = seewhy.explain(model.double(), batch[0], 2, "fullgrad")
    assert_close(found.raw, expected.raw)
    assert abs(found.reported["completeness gap"]) < 1e-5


def test_two_questions_at_once_are_two_maps(small_net: SmallNet, batch: Tensor) -> None:
    one, other = seewhy.compare(small_net, batch[0], ["fullgrad"], targets=[0, 3])
    assert_close(one.raw, seewhy.explain(small_net, batch[0], 0, "fullgrad").raw)
    assert_close(other.raw, seewhy.explain(small_net, batch[0], 3, "fullgrad").raw)
    assert np.abs(one.raw - other.raw).max() > 0.1
