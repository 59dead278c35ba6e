"""The backward rules for ReLU on real models: what they leave behind, and what they say."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from relu_rules import (
    RULES,
    assert_close_by_size,
    input_gradient,
    lively,
    noise,
    replaced,
    ruled_gradient,
    tallied,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seewhy.errors import MethodError
from seewhy.recorder.rules import note, refusal, relu_rule
from small_models import make_small_net

pytestmark = pytest.mark.usefixtures("one_core")


# Real models.

MODELS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(weights=None, width_mult=0.35),
    "densenet, checkpointed": lambda: torchvision.models.DenseNet(8, (2, 2, 2), 16, memory_efficient=True),
    "googlenet": lambda: torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False),
    "efficientnet-lite": lambda: timm.create_model("tf_efficientnet_lite0"),
    "regnet": lambda: timm.create_model("regnetx_002"),
    "repvgg": lambda: timm.create_model("repvgg_a0"),
}


@pytest.mark.parametrize("name", MODELS)
def test_real_models_are_as_with_replaced_functions(name: str) -> None:
    torch.manual_seed(0)
    model = lively(MODELS[name]())
    images = noise(1, 3, 48, 48, dtype=torch.float32)
    plain = input_gradient(model, images, target=3)
    for rule in RULES:
        found = ruled_gradient(rule, model, images, target=3)
        with replaced(rule):
            expected = input_gradient(model, images, target=3)
        assert_close_by_size(found, expected)
        assert (found - plain).abs().max() > 0.1 * expected.abs().max()
    assert torch.equal(input_gradient(model, images, target=3), plain)


def test_checkpoints_work_although_they_run_again_without_the_rule() -> None:
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU6(), nn.Linear(6, 3)).double()
    images = noise(4, 6)
    for rule in RULES:
        found = ruled_gradient(rule, lambda given: checkpoint(part, given, use_reentrant=False), images)
        torch.testing.assert_close(found, ruled_gradient(rule, part, images))


def test_compiled_models_run_eagerly() -> None:
    model = make_small_net()
    compiled = torch.compile(model, backend="eager")
    images = noise(1, 3, 24, 40, dtype=torch.float32)
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(ruled_gradient("guided", compiled, images), ruled_gradient("guided", model, images))


# What it leaves behind.


def test_the_model_is_untouched_and_the_plain_gradient_returns() -> None:
    model = make_small_net()
    images = noise(2, 3, 24, 40, dtype=torch.float32)
    plain = input_gradient(model, images)
    parts = dict(model.named_modules())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    guided = ruled_gradient("guided", model, images)
    assert dict(model.named_modules()) == parts
    for part in parts.values():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not part._backward_hooks
        assert not part._backward_pre_hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(input_gradient(model, images), plain)
    assert not torch.allclose(guided, plain)


def test_the_rule_ends_with_an_exception() -> None:
    model = make_small_net()
    images = noise(1, 3, 24, 40, dtype=torch.float32)
    plain = input_gradient(model, images)
    with pytest.raises(ZeroDivisionError), relu_rule("guided"):
        model(images)
        raise ZeroDivisionError
    assert torch.equal(input_gradient(model, images), plain)


def test_the_rule_belongs_to_the_graph() -> None:
    """Inside or outside the context, once or twice: the graph made under the rule follows it."""
    model = make_small_net()
    images = noise(1, 3, 24, 40, dtype=torch.float32).requires_grad_()
    with relu_rule("guided") as tally:
        output = model(images)[0, 0]
        inside = torch.autograd.grad(output, images, retain_graph=True)[0]
    outside = [torch.autograd.grad(output, images, retain_graph=True)[0] for _ in range(2)]
    assert tally.relus == 2  # the backward's own functions are not counted
    assert torch.equal(inside, outside[0])
    assert torch.equal(inside, outside[1])
    plain = model(images)[0, 0]
    with relu_rule("guided"):
        found = torch.autograd.grad(plain, images)[0]
    assert torch.equal(found, input_gradient(model, images.detach()))


def test_parts_without_a_graph() -> None:
    inputs = torch.tensor([[-1.0, 2]], requires_grad=True)
    with relu_rule("guided") as tally:
        middle = inputs * 3
        with torch.no_grad():
            middle.relu_()  # hidden from the graph: the node before it must not get the rule
            assert not F.relu(inputs).requires_grad
        frozen = F.relu(torch.tensor([-1.0, 2]))
        output = -(middle + frozen).sum()
    assert torch.autograd.grad(output, inputs)[0].tolist() == [[-3, -3]]
    assert (tally.relus, tally.ruled) == (3, 0)


def test_two_threads_at_once_get_what_each_gets_alone() -> None:
    model = make_small_net()
    images = noise(1, 3, 24, 40, dtype=torch.float32)
    wanted = {
        "plain": input_gradient(model, images),
        **{rule: ruled_gradient(rule, model, images) for rule in RULES},
    }
    start = threading.Barrier(3)
    right: dict[str, list[bool]] = {name: [] for name in wanted}

    def work(name: str) -> None:
        for _ in range(15):
            start.wait(30)
            found = input_gradient(model, images) if name == "plain" else ruled_gradient(name, model, images)
            right[name].append(torch.equal(found, wanted[name]))

    threads = [threading.Thread(target=work, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == {name: [True] * 15 for name in wanted}


def test_a_thread_started_under_a_rule_does_not_have_it() -> None:
    model = make_small_net()
    images = noise(1, 3, 24, 40, dtype=torch.float32)
    found: list[Tensor] = []
    with relu_rule("guided") as tally:
        thread = threading.Thread(target=lambda: found.append(input_gradient(model, images)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], input_gradient(model, images))
    assert tally.relus == 0


# What it says.


def test_models_with_relu_alone_need_no_words() -> None:
    tally = tallied(make_small_net(), noise(1, 3, 24, 40, dtype=torch.float32))
    assert (tally.relus, dict(tally.others), dict(tally.gates)) == (2, {}, {})
    assert refusal(tally, "SmallNet") is None
    assert note(tally) is None


def test_models_without_relu_are_refused_with_what_they_have() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 3), nn.SiLU(), nn.Linear(3, 3), nn.GELU())
    tally = tallied(model, torch.zeros(1, 3))
    assert refusal(tally, "a-vit") == (
        "Guided backpropagation is defined for ReLU only, and a-vit has none: its activation functions are "
        "gelu (2 calls), silu (1 call). "
        "Use 'integrated-gradients' or 'smoothgrad', which work with any activation function."
    )
    assert note(tally) is None
    with relu_rule("deconvnet") as nothing:
        pass
    assert "no activation function was seen" in str(refusal(nothing, "linear"))
    assert str(refusal(nothing, "linear")).startswith("The deconvolutional network is defined for ReLU only")


@pytest.mark.parametrize(
    ("name", "module"),
    {
        "celu": nn.CELU(),
        "elu": nn.ELU(inplace=True),
        "gelu": nn.GELU("tanh"),
        "glu": nn.GLU(),
        "hardswish": nn.Hardswish(inplace=True),
        "hardshrink": nn.Hardshrink(),
        "leaky_relu": nn.LeakyReLU(inplace=True),
        "log_sigmoid": nn.LogSigmoid(),
        "mish": nn.Mish(),
        "prelu": nn.PReLU(),
        "rrelu": nn.RReLU(inplace=True).eval(),
        "selu": nn.SELU(),
        "silu": nn.SiLU(inplace=True),
        "softplus": nn.Softplus(),
        "softshrink": nn.Softshrink(),
        "softsign": nn.Softsign(),
        "tanh": nn.Tanh(),
        "tanhshrink": nn.Tanhshrink(),
        "threshold": nn.Threshold(0.1, 20),
    }.items(),
)
def test_other_activations_are_met_once_by_their_names(name: str, module: nn.Module) -> None:
    tally = tallied(module, torch.ones(1, 4))
    assert dict(tally.others) == {name: 1}
    assert refusal(tally, "model") is not None


def test_gates_are_told_and_not_refused() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Hardswish())
    tally = tallied(model, torch.zeros(1, 3))
    assert refusal(tally, "mixed") is None
    assert note(tally) == (
        "Guided backpropagation changed relu (1 call); hardswish (1 call) and the gates sigmoid (1 call), "
        "hardsigmoid (1 call) kept their own derivative."
    )
    gated = tallied(nn.Sequential(nn.ReLU(), nn.Sigmoid()), torch.zeros(1, 3))
    assert (
        note(gated)
        == "Guided backpropagation changed relu (1 call); the gates sigmoid (1 call) kept their own derivative."
    )


def test_a_transformer_has_gelu_even_where_a_fused_path_exists() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="relu", batch_first=True).eval()
    assert tallied(layer, torch.randn(1, 4, 8)).relus == 1
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    tally = tallied(vit, torch.randn(1, 3, 32, 32))
    assert "gelu (2 calls)" in str(refusal(tally, "vit_tiny"))


def test_an_unknown_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(MethodError, match=r"'guidd'.*Nearest: 'guided'"), relu_rule("guidd"):
        pass
