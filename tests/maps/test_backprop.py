"""Maps of the input's derivative, against plain autograd in float64, derivatives by hand, and captum where it is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from captum import attr
from slow_gradients import assert_close, derivative, enlarged, noisy_copies, of_class
from slow_reference import grad_cam, observe
from torch import Tensor, nn

import seewhy
from seewhy.maps import find_method
from small_models import SmallNet, make_small_net

REDUCED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saliency": lambda colours: np.abs(colours).max(0),
    "input-x-gradient": lambda colours: colours[0] + colours[1] + colours[2],
    "guided-backprop": lambda colours: np.abs(colours).max(0),
    "deconvnet": lambda colours: np.abs(colours).max(0),
    "guided-grad-cam": lambda colours: colours[0] + colours[1] + colours[2],
    "smoothgrad": lambda colours: np.abs(colours).max(0),
    "smoothgrad-squared": lambda colours: colours[0] + colours[1] + colours[2],
    "vargrad": lambda colours: colours[0] + colours[1] + colours[2],
}
"""How each method's colours become its map."""


def apart_relus(classes: int = 5) -> nn.Sequential:
    """Return a net whose ReLUs are modules of their own and not in place: what captum can hook."""
    torch.manual_seed(2)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, classes)),
    ).eval()


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=7).eval()


@pytest.fixture(params=[make_small_net, apart_relus, small_resnet])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return request.param().double()


# One derivative.


def test_saliency_is_the_largest_absolute_derivative_of_any_colour(model: nn.Module, batch: Tensor) -> None:
    why = seewhy.explain(model, batch[0], 3, "saliency")
    expected = derivative(model, batch[0], of_class(3))
    assert_close(why.colours, expected)
    assert_close(why.raw, np.abs(expected).max(0))


def test_input_x_gradient_multiplies_pixel_by_pixel(model: nn.Module, batch: Tensor) -> None:
    why = seewhy.explain(model, batch[0], 3, "input-x-gradient")
    expected = batch[0].double().numpy() * derivative(model, batch[0], of_class(3))
    assert_close(why.colours, expected)
    assert_close(why.raw, expected.sum(0))


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("saliency", lambda model: attr.Saliency(model).attribute),
        ("input-x-gradient", lambda model: attr.InputXGradient(model).attribute),
    ],
)
def test_equal_to_captum(name: str, peer: Callable, model: nn.Module, batch: Tensor) -> None:
    leaf = batch.double().requires_grad_()
    theirs = peer(model)(leaf, target=[1, 0, 4], **({"abs": False} if name == "saliency" else {}))
    for why, other in zip(seewhy.explain(model, batch, [1, 0, 4], name), theirs.detach().numpy(), strict=True):
        assert_close(why.colours, other)


def test_any_question_is_differentiated_not_only_a_class(small_net: SmallNet, batch: Tensor) -> None:
    model = small_net.double()
    for target, score in [
        ("1-vs-3", lambda output: output[1] - output[3]),
        ("probability:2", lambda output: output.softmax(0)[2]),
        (lambda output: (output**2).sum(), lambda output: (output**2).sum()),
    ]:
        why = seewhy.explain(model, batch[1], target, "saliency")
        assert_close(why.colours, derivative(model, batch[1], score))


@pytest.mark.parametrize("name", sorted(REDUCED))
def test_the_map_is_the_methods_own_reading_of_its_colours(name: str, small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 1, name)
    assert why.colours.shape == (3, 24, 40)
    assert why.reduction == find_method(name).colours
    assert_close(why.raw, REDUCED[name](why.colours.astype(np.float64)))
    assert why.scaling == "percentile"


@pytest.mark.parametrize(
    ("name", "forwards", "backwards"),
    [("saliency", 2, 1), ("guided-grad-cam", 2, 2), ("smoothgrad", 1 + 25, 25), ("vargrad", 1 + 25, 25)],
)
def test_the_cost_is_what_the_table_of_methods_says(
    name: str, forwards: int, backwards: int, small_net: SmallNet, batch: Tensor
) -> None:
    for images in (batch[0], batch):
        found = seewhy.explain(small_net, images, 1, name)
        cost = (found[0] if isinstance(found, list) else found).cost
        assert (cost.forwards, cost.backwards) == (forwards, backwards)


# Other rules for ReLU.


def by_hand(model: nn.Sequential, image: Tensor, target: int, rule: str) -> np.ndarray:
    """Layer after layer: ReLU by the papers' formula, all others by their own derivative."""
    steps = [image.double()[None]]
    for layer in model:
        steps.append(layer(steps[-1]).detach())
    gradient = torch.zeros_like(steps[-1])
    gradient[0, target] = 1
    for layer, given in reversed(list(zip(model, steps[:-1], strict=True))):
        if isinstance(layer, nn.ReLU):
            passes = (given > 0) & (gradient > 0) if rule == "guided-backprop" else gradient > 0
            gradient = gradient * passes
        else:
            leaf = given.clone().requires_grad_()
            gradient = torch.autograd.grad(layer(leaf), leaf, gradient)[0]
    return gradient[0].numpy()


RULES = [("guided-backprop", attr.GuidedBackprop), ("deconvnet", attr.Deconvolution)]


@pytest.mark.parametrize(("name", "kind"), RULES)
def test_rules_for_relu_equal_the_papers_and_captum(name: str, kind: type, batch: Tensor) -> None:
    model = apart_relus().double()
    why = seewhy.explain(model, batch[2], 4, name)
    expected = by_hand(model, batch[2], 4, name)
    assert_close(why.colours, expected)
    plain = derivative(model, batch[2], of_class(4))
    assert np.abs(expected - plain).max() > 0.1 * np.abs(plain).max()  # the rule did something
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = kind(model).attribute(batch[2:].double().requires_grad_(), target=4)
    assert_close(why.colours, theirs[0].detach().numpy())


class Reused(nn.Module):
    """One ReLU for all places, in place and as a function: captum refuses or mistakes it."""

    def __init__(self, twin: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer for layer in twin if not isinstance(layer, nn.ReLU))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        first, pool, second, average, flat, third, last = self.layers
        features = torch.relu(second(pool(self.relu(first(images)))))
        return last(self.relu(third(flat(average(features)))))


@pytest.mark.parametrize("name", ["guided-backprop", "deconvnet", "guided-grad-cam"])
def test_rules_for_relu_do_not_care_how_relu_is_written(name: str, batch: Tensor) -> None:
    twin = apart_relus().double()
    layers = {"layers": "3"} if name == "guided-grad-cam" else {}
    expected = seewhy.explain(twin, batch[0], 2, name, **layers)
    found = seewhy.explain(Reused(twin), batch[0], 2, name, **({"layers": "layers.2"} if layers else {}))
    assert_close(found.colours, expected.colours)


@pytest.mark.parametrize("name", ["guided-backprop", "deconvnet", "guided-grad-cam"])
def test_rules_for_relu_are_refused_where_there_is_none(name: str, batch: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(seewhy.MethodError, match=r"ReLU only, and Sequential has none.*tanh.*smoothgrad"):
        seewhy.explain(model, batch[0], 0, name)


def test_guided_grad_cam_is_guided_backpropagation_times_the_enlarged_positive_map(batch: Tensor) -> None:
    model = apart_relus().double()
    a, g, _ = observe(model, model[4], batch[:1].double(), of_class(2))
    coarse = np.maximum(grad_cam(a, g), 0)
    why = seewhy.explain(model, batch[0], 2, "guided-grad-cam", "4")
    assert_close(why.colours, by_hand(model, batch[0], 2, "guided-backprop") * enlarged(coarse, (24, 40)))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_guided_grad_cam_equals_captums_where_it_interpolates(mode: str, batch: Tensor) -> None:
    """Captum's default repeats the nearest cell, so that the map shows the coarse grid's borders."""
    model = apart_relus().double()
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = attr.GuidedGradCam(model, model[4]).attribute(
            batch[:1].double().requires_grad_(), target=2, interpolate_mode=mode
        )
    found = seewhy.explain(model, batch[0], 2, "guided-grad-cam", "4").colours
    other = theirs[0].detach().numpy()
    if mode == "bilinear":
        assert_close(found, other)
    else:
        assert np.abs(found - other).max() > 0.05 * np.abs(other).max()


# Noisy copies.

STATISTICS: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    "smoothgrad": lambda each: np.mean(each, 0),
    "smoothgrad-squared": lambda each: np.mean([one**2 for one in each], 0),
    "vargrad": lambda each: np.var(each, 0),
}


@pytest.mark.parametrize("at_once", [1, 2, 64])
@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_statistics_over_noisy_copies(
    name: str, at_once: int, small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.recorder.recordings.first_chunk", lambda image, backward: at_once)
    model = small_net.double()
    each = [derivative(model, copy, of_class(2)) for copy in noisy_copies(batch[0], 7, 0.2, seed=9)]
    assert np.ptp(each, 0).max() > 0
    why = seewhy.explain(model, batch[0], 2, name, samples=7, spread=0.2, seed=9)
    assert_close(why.colours, STATISTICS[name](each))


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_statistics_without_noise(name: str, small_net: SmallNet, batch: Tensor) -> None:
    model = small_net.double()
    plain = derivative(model, batch[0], of_class(0))
    why = seewhy.explain(model, batch[0], 0, name, samples=3, spread=0.0)
    if name == "vargrad":
        np.testing.assert_array_equal(why.colours, np.zeros((3, 24, 40)))
        assert [finding.code for finding in why.diagnosis] == ["flat"]
    else:
        assert_close(why.colours, plain if name == "smoothgrad" else plain**2)


def test_a_variance_keeps_its_digits_and_is_never_negative(batch: Tensor) -> None:
    """A slope of a million with a ripple: the variance is a trillionth of the mean square."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(1e6, dtype=torch.float64))

        def forward(self, images: Tensor) -> Tensor:
            return (self.slope * images + (images**2) / 2).flatten(1).sum(1, keepdim=True)

    each = [1e6 + copy.double().numpy() for copy in noisy_copies(batch[0], 5, 0.3, seed=0)]
    why = seewhy.explain(Steep(), batch[0], 0, "vargrad", samples=5, spread=0.3)
    assert_close(why.colours, np.var(each, 0), tolerance=0.2)  # float32 gradients have steps of 1/16 here
    assert why.colours.min() >= 0


# What models may be like.

METHODS = sorted(REDUCED)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_one_by_one_with_a_question_each(name: str, small_net: SmallNet, batch: Tensor) -> None:
    targets = [3, "1-vs-3", 4]
    for image, target, found in zip(batch, targets, seewhy.explain(small_net, batch, targets, name), strict=True):
        assert_close(found.colours, seewhy.explain(small_net, image, target, name).colours)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_what_would_vanish(name: str, dtype: torch.dtype, batch: Tensor) -> None:
    """A score so faint that its derivatives by the input are below the smallest float16, about 6e-8."""
    model, more = make_small_net(), {"spread": 0.05} if name in STATISTICS else {}
    faint = lambda output: output[1] * 3e-6  # noqa: E731
    expected = seewhy.explain(model, batch[0], faint, name, **more)
    found = seewhy.explain(model.to(dtype), batch[0], faint, name, **more)
    assert found.colours.dtype == np.float32
    assert np.corrcoef(found.colours.ravel(), expected.colours.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_give_the_same_map_and_stay_frozen(name: str, small_net: SmallNet, batch: Tensor) -> None:
    expected = seewhy.explain(small_net, batch[0], 1, name)
    small_net.first.requires_grad_(requires_grad=False)
    small_net.head.weight.requires_grad_(requires_grad=False)
    wanted = [parameter.requires_grad for parameter in small_net.parameters()]
    np.testing.assert_array_equal(seewhy.explain(small_net, batch[0], 1, name).colours, expected.colours)
    assert [parameter.requires_grad for parameter in small_net.parameters()] == wanted


class Written(SmallNet):
    """One net, written in several ways: "plainly", so that its graph is "overwritten", "guarded" half of it, or "detached"."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.load_state_dict(make_small_net().state_dict())
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "guarded"):
            features = self.relu(self.norm(self.first(images)))
        squashed = self.second(features.detach() if self.how == "detached" else features).sigmoid()
        return self.head((squashed * 3 if self.how == "plainly" else squashed.mul_(3)).mean((2, 3)))


@pytest.mark.parametrize("how", ["plainly", "overwritten", "guarded"])
@pytest.mark.parametrize("name", METHODS)
def test_the_graph_goes_down_to_the_input_however_the_model_is_written(name: str, how: str, batch: Tensor) -> None:
    why = seewhy.explain(Written(how), batch[0], 1, name)
    if name == "saliency":
        assert_close(why.colours, derivative(Written("plainly"), batch[0], of_class(1)))
    assert_close(why.colours, seewhy.explain(Written("plainly"), batch[0], 1, name).colours)


def test_a_model_that_detaches_on_the_way_is_told_what_to_use(batch: Tensor) -> None:
    with pytest.raises(seewhy.LayerError, match=r"differentiated down to the model's input.*occlusion"):
        seewhy.explain(Written("detached"), batch[0], 1, "saliency")


@pytest.mark.parametrize(
    ("convolution", "pool", "space"),
    [(nn.Conv1d, nn.AdaptiveAvgPool1d, (30,)), (nn.Conv3d, nn.AdaptiveAvgPool3d, (6, 7, 8))],
)
def test_signals_and_volumes_have_colours_too(convolution: type, pool: type, space: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(convolution(2, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 3)).double()
    image = torch.randn(2, *space, generator=torch.Generator().manual_seed(2))
    expected = derivative(model, image, of_class(1))
    assert_close(seewhy.explain(model, image, 1, "saliency").colours, expected)
    copies = [derivative(model, copy, of_class(1)) for copy in noisy_copies(image, 4, 0.15, seed=0)]
    assert_close(seewhy.explain(model, image, 1, "smoothgrad", samples=4).colours, np.mean(copies, 0))
    guided = seewhy.explain(model, image, 1, "guided-backprop").colours
    a, g, _ = observe(model, model[1], image[None].double(), of_class(1))
    found = seewhy.explain(model, image, 1, "guided-grad-cam", "1")
    assert_close(found.colours, guided * enlarged(np.maximum(grad_cam(a, g), 0), space))
    assert_close(found.raw, found.colours.sum(0))
