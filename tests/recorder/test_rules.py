"""The backward rules for ReLU, against hand-written derivatives, replaced functions and captum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from relu_rules import (
    RULES,
    assert_close_by_size,
    by_hand,
    input_gradient,
    lively,
    noise,
    replaced,
    ruled_gradient,
)
from torch import Tensor, nn

from seewhy.recorder.rules import relu_rule

pytestmark = pytest.mark.usefixtures("one_core")


# Known answers.


@pytest.mark.parametrize("rule", RULES)
def test_the_known_answer_of_one_convolution_and_one_linear_layer(rule: str) -> None:
    image = torch.tensor([[[[1.0, 2, 3], [1, 1, 2], [2, 1, 2]]]])
    model = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[[1.0, 0], [1, 2]]]]))
        model[3].weight.copy_(torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 1]]))
    found = ruled_gradient(rule, model, image)
    assert found[0, 0].tolist() == [[0, 1, 0], [0, 2, 2], [0, 1, 2]]


def test_what_each_rule_lets_through() -> None:
    inputs = torch.tensor([[-1.0, 2, 3, 7, 0, 6]])
    weights = torch.tensor([1.0, -1, 2, 3, 4, 5])

    def model(given: Tensor) -> Tensor:
        return (F.relu6(given) * weights).sum(1, keepdim=True)

    assert input_gradient(model, inputs).tolist() == [[0, -1, 2, 0, 0, 0]]
    assert ruled_gradient("guided", model, inputs).tolist() == [[0, 0, 2, 0, 0, 0]]
    assert ruled_gradient("deconvnet", model, inputs).tolist() == [[1, 0, 2, 3, 4, 5]]


@pytest.mark.parametrize("rule", RULES)
def test_a_sequential_net_differentiated_by_hand(rule: str) -> None:
    """Layer after layer: linear ones by their own derivative, ReLUs by the formula."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU6(), nn.Flatten()),
        *(nn.Linear(8 * 16, 12), nn.Hardtanh(0, 0.5), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)),
    ).double()
    images = 3 * noise(2, 3, 11, 11)
    steps = [images]
    for layer in model:
        steps.append(layer(steps[-1].detach().requires_grad_()).detach())
    gradient = torch.zeros_like(steps[-1])
    gradient[:, 1] = 1
    for layer, inputs in reversed(list(zip(model, steps[:-1], strict=True))):
        if isinstance(layer, nn.ReLU | nn.Hardtanh):
            gradient = by_hand(rule, gradient, inputs, getattr(layer, "max_val", float("inf")))
        else:
            _, gradient = torch.autograd.functional.vjp(layer, inputs, gradient)
    found = ruled_gradient(rule, model, images, target=1)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, input_gradient(model, images, target=1))


# Against captum, which needs modules that are not reused and not in place.

CAPTUM = {"guided": GuidedBackprop, "deconvnet": Deconvolution}


def resnet_for_captum(model: nn.Module) -> nn.Module:
    """A resnet18 of the same weights with a ReLU of its own at every place."""
    copy = torchvision.models.resnet18(weights=None)
    copy.load_state_dict(model.state_dict())
    copy.relu = nn.ReLU()
    for block in copy.modules():
        if type(block).__name__ == "BasicBlock":
            block.relu, block.relu2 = nn.ReLU(), nn.ReLU()
            block.forward = partial(_basic_block, block)
    return copy.eval()


def _basic_block(block: nn.Module, inputs: Tensor) -> Tensor:
    output = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(inputs)))))
    return block.relu2(output + (inputs if block.downsample is None else block.downsample(inputs)))


def small_vgg11(*, inplace: bool) -> nn.Module:
    """The body of vgg11 with a head for small images."""
    torch.manual_seed(0)
    body = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=False)
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 7)).eval()
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = inplace
    return model


@pytest.mark.filterwarnings("ignore:Setting .*hooks on ReLU activations")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_as_captum(rule: str, name: str) -> None:
    images = noise(2, 3, 32, 32, dtype=torch.float32)
    if name == "resnet18":
        model = lively(torchvision.models.resnet18(weights=None))
        adapted = resnet_for_captum(model)
    else:
        model, adapted = small_vgg11(inplace=True), small_vgg11(inplace=False)
    expected = CAPTUM[rule](adapted).attribute(images.clone().requires_grad_(), target=3)
    found = ruled_gradient(rule, model, images, target=3)
    assert_close_by_size(found, expected)
    assert (found - input_gradient(model, images, target=3)).abs().max() > 0.1 * expected.abs().max()


# Every form.


def in_place(function: Callable[..., Tensor], *args: object, **kwargs: object) -> Callable[[Tensor], Tensor]:
    """Call it as a statement: what it returns is not used."""

    def run(given: Tensor) -> Tensor:
        function(given, *args, **kwargs)
        return given

    return run


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "nn.ReLU in place, ignored": in_place(nn.ReLU(inplace=True)),
    "nn.Threshold": nn.Threshold(0, 0),
    "F.relu": F.relu,
    "F.relu by name": lambda given: F.relu(input=given, inplace=True),
    "F.relu in place": lambda given: F.relu(given, inplace=True),
    "F.relu in place, ignored": in_place(F.relu, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": in_place(torch.relu_),
    "Tensor.relu": lambda given: given.relu(),
    "Tensor.relu_": in_place(Tensor.relu_),
    "torch.clamp": lambda given: torch.clamp(given, min=0),
    "torch.clamp_": in_place(torch.clamp_, 0),
    "torch.clip": lambda given: torch.clip(given, 0.0, None),
    "Tensor.clamp": lambda given: given.clamp(min=0.0),
    "Tensor.clamp_": in_place(Tensor.clamp_, min=0),
    "torch.clamp_min": lambda given: torch.clamp_min(given, 0),
    "Tensor.clamp_min_": in_place(Tensor.clamp_min_, 0),
    "F.threshold": lambda given: F.threshold(given, 0, 0),
    "F.threshold_": in_place(F.threshold, 0, 0, inplace=True),
    "torch.ops.aten.relu": torch.ops.aten.relu.default,
}
SIX_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": in_place(nn.ReLU6(inplace=True)),
    "nn.Hardtanh": nn.Hardtanh(0, 6),
    "F.relu6": F.relu6,
    "F.relu6 in place": in_place(F.relu6, inplace=True),
    "F.hardtanh": lambda given: F.hardtanh(given, 0, 6),
    "F.hardtanh_": in_place(F.hardtanh_, min_val=0, max_val=6),
    "torch.clamp": lambda given: torch.clamp(given, 0, 6),
    "Tensor.clamp_": in_place(Tensor.clamp_, min=0, max=6),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("forms", "top"), [(FORMS, float("inf")), (SIX_FORMS, 6.0)], ids=["relu", "relu6"])
def test_every_form_is_a_relu(rule: str, forms: dict[str, Callable[[Tensor], Tensor]], top: float) -> None:
    """Between multiplications, whose derivatives need what the in-place forms must not have overwritten."""
    inputs, weights = 5 * noise(4, 60), noise(4, 60, seed=1)
    inputs[0, :5] = torch.tensor([0.0, 6, -0.0, 7, 1])
    expected = by_hand(rule, weights, 2 * inputs, top) * 2
    for name, form in forms.items():
        given = inputs.clone().requires_grad_()
        before = given * 2
        with relu_rule(rule) as tally:
            output = form(before)
        found = torch.autograd.grad((output * weights).sum(), given)[0]
        assert torch.equal(output, form(2 * inputs)), name
        assert torch.equal(found, expected), name
        assert (tally.relus, tally.ruled, bool(tally.others)) == (1, 1, False), name


class Written(nn.Module):
    """One convolution after the other, with another form of ReLU behind each, and one module used again and again."""

    def __init__(self, forms: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList([nn.Conv2d(2, 2, 3, padding=1) for _ in forms])
        self.reused = nn.ReLU(inplace=True)
        self.forms = forms

    def forward(self, images: Tensor) -> Tensor:
        for layer, form in zip(self.layers, self.forms, strict=True):
            images = images + form(layer(images))
            images = self.reused(images)
        return images.mean((2, 3))


@pytest.mark.parametrize("rule", RULES)
def test_a_net_of_all_forms_is_as_its_plain_twin(rule: str) -> None:
    model = Written(list(FORMS.values())).double()
    twin = Written([nn.ReLU() for _ in FORMS]).double()
    images = noise(2, 2, 6, 6)
    found = ruled_gradient(rule, model, images)
    with replaced(rule):
        expected = input_gradient(twin, images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, ruled_gradient(rule, twin, images), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_in_place_on_part_of_a_tensor(rule: str) -> None:
    inputs, weights = noise(2, 6), noise(2, 6, seed=1)

    def in_place_on_a_view(given: Tensor) -> Tensor:
        whole = given * 2
        whole[:, 1:4].relu_()
        F.relu6(whole.view(-1)[:1], inplace=True)
        assert torch.equal(whole[:, 1:4], 2 * given[:, 1:4].clamp(min=0))
        return (whole * weights).sum(1, keepdim=True)

    expected = weights.clone()
    expected[:, 1:4] = by_hand(rule, weights[:, 1:4], inputs[:, 1:4])
    expected[0, 0] = by_hand(rule, weights[0, 0], inputs[0, 0])
    assert torch.equal(ruled_gradient(rule, in_place_on_a_view, inputs), 2 * expected)


@pytest.mark.parametrize("rule", RULES)
def test_what_the_model_may_overwrite_it_still_may(rule: str) -> None:
    """Behind some forms the output can be changed in place, as torch keeps the input: the rule must not forbid it."""
    inputs, weights = noise(2, 6), noise(2, 6, seed=1)
    expected = 3 * by_hand(rule, weights, inputs)
    allowed = []
    for name, form in {**FORMS, **{f"{name} (6)": form for name, form in SIX_FORMS.items()}}.items():

        def model(given: Tensor, form: Callable[[Tensor], Tensor] = form) -> Tensor:
            output = form(given * 1)
            output *= 3
            return (output * weights).sum(1, keepdim=True)

        try:
            input_gradient(model, inputs)
        except RuntimeError:
            continue
        allowed.append(name)
        torch.testing.assert_close(ruled_gradient(rule, model, inputs), expected, msg=name)
    assert {"torch.clamp", "Tensor.clamp_", "F.threshold", "F.relu6 (6)"} <= set(allowed)
    assert "nn.ReLU" not in allowed


def test_in_place_reaches_the_other_holders() -> None:
    whole = torch.tensor([[-1.0, 2]], requires_grad=True) * 1
    held = whole.view(-1)
    with relu_rule("guided"):
        returned = F.relu(whole, inplace=True)
    assert returned is whole
    assert held.tolist() == [0, 2]
    with relu_rule("guided"), pytest.raises(RuntimeError, match="in-place"):
        torch.zeros(2, requires_grad=True).relu_()  # a leaf cannot be changed, with or without a rule


def test_what_is_no_relu_keeps_its_derivative() -> None:
    inputs = torch.tensor([[-1.0, 0.5, 2]])

    def model(given: Tensor) -> Tensor:
        picture = given.clamp(0, 1) + given.clamp(min=-2) + given.clamp(max=1) + F.hardtanh(given)
        return -(picture + F.threshold(given, 0.25, 9) + F.leaky_relu(given)).sum(1, keepdim=True)

    images = inputs.clone().requires_grad_()
    with relu_rule("deconvnet") as tally:
        output = model(images)
    found = torch.autograd.grad(output.sum(), images)[0]
    assert torch.equal(found, input_gradient(model, inputs))
    assert tally.relus == 0
    assert dict(tally.others) == {"hardtanh": 1, "threshold": 1, "leaky_relu": 1}


def test_whole_numbers_and_out_arguments_are_left_alone() -> None:
    with relu_rule("guided") as tally:
        assert torch.tensor([-1, 2]).clamp(min=0).tolist() == [0, 2]
        room = torch.empty(2)
        torch.clamp(torch.tensor([-1.0, 2]), min=0, out=room)
        assert room.tolist() == [0, 2]
    assert tally.relus == 0


def test_subclasses_of_tensor() -> None:
    class Own(Tensor):
        pass

    def model(given: Tensor) -> Tensor:
        first = F.relu(given.as_subclass(Own))
        first = torch.relu_(first - 1)
        assert type(first) is Own
        return (first.as_subclass(Tensor) * torch.tensor([1.0, 1, -1])).sum(1, keepdim=True)

    inputs = torch.tensor([[-1.0, 2, 3]])
    assert ruled_gradient("deconvnet", model, inputs).tolist() == [[1, 1, 0]]
    assert ruled_gradient("guided", model, inputs).tolist() == [[0, 1, 0]]
