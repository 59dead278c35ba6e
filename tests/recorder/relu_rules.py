"""What the tests of the backward rules for ReLU share: the rules by hand, and gradients under a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from seewhy.recorder.rules import Tally, relu_rule

RULES = ["guided", "deconvnet"]


def by_hand(rule: str, incoming: Tensor, inputs: Tensor, top: float = float("inf")) -> Tensor:
    """The papers' rules, in one line each."""
    if rule == "plain":
        return incoming * (inputs > 0) * (inputs < top)
    if rule == "guided":
        return incoming * (incoming > 0) * (inputs > 0) * (inputs < top)
    return incoming * (incoming > 0)


class Replacement(torch.autograd.Function):
    """A ReLU with the rule written into its backward, always out of place."""

    @staticmethod
    def forward(ctx, inputs, rule, top):
        ctx.save_for_backward(inputs)
        ctx.rule, ctx.top = rule, top
        return inputs.clamp(0, top)

    @staticmethod
    def backward(ctx, incoming):
        return by_hand(ctx.rule, incoming, ctx.saved_tensors[0], ctx.top), None, None


@contextmanager
def replaced(rule: str) -> Iterator[None]:
    """Torch's own functional ReLUs exchanged, for models that use what they return."""

    def relu(inputs: Tensor, inplace: bool = False) -> Tensor:
        return Replacement.apply(inputs, rule, float("inf"))

    def hardtanh(inputs: Tensor, min_val: float = 0, max_val: float = 6, inplace: bool = False) -> Tensor:
        assert min_val == 0
        return Replacement.apply(inputs, rule, max_val)

    with mock.patch.multiple(F, relu=relu, relu6=hardtanh, hardtanh=hardtanh):
        yield


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def input_gradient(model: Callable[[Tensor], Tensor], images: Tensor, target: int = 0) -> Tensor:
    """The gradient of one output by the input, as the contexts around make it."""
    images = images.clone().requires_grad_()
    output = model(images)
    output = getattr(output, "logits", output)
    return torch.autograd.grad(output[:, target].sum(), images)[0]


def ruled_gradient(rule: str, model: Callable[[Tensor], Tensor], images: Tensor, target: int = 0) -> Tensor:
    """The graph is made under the rule; the gradient is taken afterwards."""
    images = images.clone().requires_grad_()
    with relu_rule(rule) as tally:
        output = model(images)
    assert tally.relus == tally.ruled > 0
    output = getattr(output, "logits", output)
    return torch.autograd.grad(output[:, target].sum(), images)[0]


def tallied(model: nn.Module, images: Tensor) -> Tally:
    with relu_rule("guided") as tally, torch.no_grad():
        model(images)
    return tally


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics as after training, so that signs differ from channel to channel."""
    torch.manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    return model.eval()


def assert_close_by_size(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
