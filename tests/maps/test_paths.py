"""Derivatives along paths: closed forms, slow loops in float64, captum, and the sum that they must have."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from captum import attr
from slow_gradients import assert_close, derivative, of_class
from torch import Tensor, nn

import seewhy
from seewhy.maps.paths import QUADRATURES, spread_order
from small_models import SmallNet

Array = np.ndarray


class Linear(nn.Module):
    """Scores `(batch, 2)` that are linear in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 24 * 40, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class Power(nn.Module):
    """One score: a weighted sum of powers of the input's values."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power
        weights = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        self.weights = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        return (self.weights * images**self.power).flatten(1).sum(1, keepdim=True)


@pytest.fixture
def linear() -> Linear:
    torch.manual_seed(0)
    return Linear().double()


@pytest.fixture
def curved() -> nn.Module:
    """A smooth net, so that a quadrature's error is its own."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Softplus()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)),
    ).double()


ZEROS = torch.zeros(3, 24, 40)
TILTED = torch.linspace(-1, 1, 40).expand(3, 24, 40).contiguous()


def integrated(model: nn.Module, image: Tensor, start: Tensor, target: int, nodes: Array, weights: Array) -> Array:
    """The paper's sum, point by point."""
    total = np.zeros(image.shape)
    for node, weight in zip(nodes, weights, strict=True):
        point = start.double() + node * (image.double() - start.double())
        total += weight * derivative(model, point, of_class(target))
    return (image.double() - start.double()).numpy() * total


def scored(model: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(copy.deepcopy(model).double().eval()(image.double()[None])[0, target])


# Known answers.


@pytest.mark.parametrize("rule", sorted(QUADRATURES))
@pytest.mark.parametrize("steps", [2, 5])
def test_exact_on_a_linear_model_by_any_rule(rule: str, steps: int, linear: Linear, batch: Tensor) -> None:
    why = seewhy.explain(linear, batch[0], 1, "integrated-gradients", baseline=TILTED, rule=rule, steps=steps)
    slope = linear.layer.weight[1].detach().view(3, 24, 40).numpy()
    assert_close(why.colours, (batch[0] - TILTED).double().numpy() * slope)
    assert_close(why.raw, why.colours.astype(float).sum(0))
    assert abs(why.reported["completeness gap"]) < 1e-5
    expected = scored(linear, batch[0], 1) - scored(linear, TILTED, 1)
    assert why.reported["score difference"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("power", "steps"), [(2, 1), (4, 2), (8, 4)])
def test_gauss_legendre_is_exact_for_polynomials(power: int, steps: int, batch: Tensor) -> None:
    """With n points up to a derivative of degree 2n - 1; sum of w (x^p - b^p) is the closed form, pixel by pixel."""
    model = Power(power)
    why = seewhy.explain(model, batch[0], 0, "integrated-gradients", baseline=TILTED, steps=steps)
    weights, image = model.weights.detach().numpy(), batch[0].double().numpy()
    assert_close(why.colours, weights * (image**power - TILTED.double().numpy() ** power), tolerance=1e-6)
    size = np.abs(why.colours).sum()
    assert abs(why.reported["completeness gap"]) < 1e-5 * size
    fewer = seewhy.explain(model, batch[0], 0, "integrated-gradients", baseline=TILTED, steps=steps, rule="left")
    assert abs(fewer.reported["completeness gap"]) > 1e-3 * size


# Slow loops and captum.

NODES = {
    "gauss-legendre": lambda n: np.polynomial.legendre.leggauss(n)[0] / 2 + 0.5,
    "left": lambda n: np.arange(n) / n,
    "middle": lambda n: (np.arange(n) + 0.5) / n,
    "right": lambda n: (np.arange(n) + 1) / n,
    "trapezoid": lambda n: np.linspace(0, 1, n),
}
CAPTUM = {name: f"riemann_{name}" for name in NODES} | {"gauss-legendre": "gausslegendre"}


@pytest.mark.parametrize("rule", sorted(NODES))
@pytest.mark.parametrize("steps", [3, 8])
def test_every_quadrature_equals_a_slow_loop(rule: str, steps: int, curved: nn.Module, batch: Tensor) -> None:
    nodes = NODES[rule](steps)
    if rule == "gauss-legendre":
        weights = np.polynomial.legendre.leggauss(steps)[1] / 2
    elif rule == "trapezoid":
        weights = np.array([0.5, *[1.0] * (steps - 2), 0.5]) / (steps - 1)
    else:
        weights = np.full(steps, 1 / steps)
    expected = integrated(curved, batch[1], TILTED, 2, nodes, weights)
    why = seewhy.explain(curved, batch[1], 2, "integrated-gradients", baseline=TILTED, rule=rule, steps=steps)
    assert_close(why.colours, expected)
    gap = expected.sum() - (scored(curved, batch[1], 2) - scored(curved, TILTED, 2))
    assert why.reported["completeness gap"] == pytest.approx(gap, abs=1e-5)


@pytest.mark.parametrize("rule", sorted(NODES))
def test_every_quadrature_equals_captums(rule: str, curved: nn.Module, batch: Tensor) -> None:
    """Its trapezoid's weights sum to (n - 1) / n, so that its map is too small by that; the others agree."""
    steps = 12
    theirs = attr.IntegratedGradients(curved).attribute(
        batch[:1].double(), baselines=0.0, target=4, n_steps=steps, method=CAPTUM[rule]
    )
    why = seewhy.explain(curved, batch[0], 4, "integrated-gradients", baseline="dataset", rule=rule, steps=steps)
    factor = steps / (steps - 1) if rule == "trapezoid" else 1
    assert_close(why.colours, theirs[0].numpy() * factor)


def test_a_real_net_of_relus_and_the_sum_that_it_reports(small_net: SmallNet, batch: Tensor) -> None:
    model = small_net.double()
    why = seewhy.explain(model, batch[0], 3, "integrated-gradients", baseline="dataset")
    theirs = attr.IntegratedGradients(model).attribute(batch[:1].double(), target=3, n_steps=50)
    assert_close(why.colours, theirs[0].numpy())
    difference = scored(model, batch[0], 3) - scored(model, ZEROS, 3)
    assert why.reported["score difference"] == pytest.approx(difference, rel=1e-5)
    assert why.raw.sum() == pytest.approx(difference + why.reported["completeness gap"], abs=1e-5)
    assert abs(why.reported["completeness gap"]) < 0.02 * abs(difference)
    coarse = seewhy.explain(model, batch[0], 3, "integrated-gradients", baseline="dataset", steps=2)
    assert abs(coarse.reported["completeness gap"]) > 3 * abs(why.reported["completeness gap"])


# Baselines.


@pytest.mark.parametrize("given", ["black,blur", ["black", "blur"], ("black ", "blur")])
def test_several_baselines_are_the_mean_of_several_runs(given: object, small_net: SmallNet, batch: Tensor) -> None:
    both = seewhy.explain(small_net, batch[0], 1, "integrated-gradients", baseline=given, steps=9)
    runs = [
        seewhy.explain(small_net, batch[0], 1, "integrated-gradients", baseline=each, steps=9)
        for each in ("black", "blur")
    ]
    assert_close(both.colours, np.mean([each.colours for each in runs], 0))
    for name in ("score difference", "completeness gap"):
        assert both.reported[name] == pytest.approx(np.mean([each.reported[name] for each in runs]), abs=1e-6)
    assert (both.cost.forwards, both.cost.backwards) == (1 + 18 + 2, 18)


def test_words_and_tensors_may_be_mixed(curved: nn.Module, batch: Tensor) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(6)
    means = [integrated(curved, batch[0], b, 0, nodes / 2 + 0.5, weights / 2) for b in (ZEROS, TILTED)]
    why = seewhy.explain(curved, batch[0], 0, "integrated-gradients", baseline=["dataset", TILTED], steps=6)
    assert_close(why.colours, np.mean(means, 0))


def test_a_tensor_of_one_colour_is_a_baseline(curved: nn.Module, batch: Tensor) -> None:
    colour = torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1)
    found = [
        seewhy.explain(curved, batch[0], 1, "integrated-gradients", baseline=each, steps=4).colours
        for each in (colour, colour.expand(3, 24, 40), colour[None])
    ]
    assert_close(found[0], found[1], tolerance=1e-7)
    assert_close(found[2], found[1], tolerance=1e-7)
    dark = seewhy.explain(curved, batch[0], 1, "integrated-gradients", steps=4).colours
    mean, std = (torch.tensor(each) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    black = (-mean / std).view(3, 1, 1)
    given = seewhy.explain(curved, batch[0], 1, "integrated-gradients", baseline=black, steps=4).colours
    assert_close(dark, given)  # without another word of it, the model's input is taken for ImageNet's


def test_a_batch_equals_one_by_one_with_a_question_each(small_net: SmallNet, batch: Tensor) -> None:
    for name, options in [
        ("integrated-gradients", {"steps": 6, "baseline": "blur,noise"}),
        ("gradient-shap", {"samples": 6, "spread": 0.1}),
    ]:
        together = seewhy.explain(small_net, batch, [2, "0-vs-1", 4], name, **options)
        for image, target, found in zip(batch, [2, "0-vs-1", 4], together, strict=True):
            alone = seewhy.explain(small_net, image, target, name, **options)
            assert_close(found.colours, alone.colours)
            assert found.reported == pytest.approx(alone.reported, abs=1e-5)


@pytest.mark.parametrize("name", ["integrated-gradients", "gradient-shap"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_size_of_the_chunks_changes_nothing(
    name: str, size: int, small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seewhy.explain(small_net, batch, 1, name)
    monkeypatch.setattr("seewhy.recorder.engine.first_chunk", lambda image, backward: size)
    for one, other in zip(whole, seewhy.explain(small_net, batch, 1, name), strict=True):
        assert_close(one.colours, other.colours)


# Budgets.


def test_a_budget_takes_points_from_all_along_the_line(linear: Linear, batch: Tensor) -> None:
    why = seewhy.explain(linear, batch[0], 1, "integrated-gradients", baseline=TILTED, budget=7)
    assert why.notes == ("the budget ended the work after 7 of 50 runs",)
    assert (why.cost.forwards, why.cost.backwards) == (1 + 7 + 1, 7)
    slope = linear.layer.weight[1].detach().view(3, 24, 40).numpy()
    assert_close(why.colours, (batch[0] - TILTED).double().numpy() * slope)
    assert abs(why.reported["completeness gap"]) < 1e-5


def test_a_budget_gives_something_close_on_a_net(curved: nn.Module, batch: Tensor) -> None:
    whole, part = (
        seewhy.explain(curved, batch[0], 1, "integrated-gradients", baseline=TILTED, budget=budget)
        for budget in (None, 7)
    )
    assert np.isfinite(part.colours).all()
    assert np.corrcoef(whole.colours.ravel(), part.colours.ravel())[0, 1] > 0.99
    actual = part.colours.sum() - (scored(curved, batch[0], 1) - scored(curved, TILTED, 1))
    assert part.reported["completeness gap"] == pytest.approx(actual, abs=1e-4)


def test_a_budget_that_leaves_out_a_baseline_is_the_map_of_the_others(linear: Linear, batch: Tensor) -> None:
    first, both = (
        seewhy.explain(linear, batch[0], 1, "integrated-gradients", baseline=baseline, budget=1)
        for baseline in (TILTED, [TILTED, "blur"])
    )
    assert_close(both.colours, first.colours, tolerance=1e-6)
    assert both.reported == pytest.approx(first.reported, abs=1e-5)
    three = seewhy.explain(linear, batch[0], 1, "integrated-gradients", baseline=[TILTED, "blur"], budget=3)
    every = seewhy.explain(linear, batch[0], 1, "integrated-gradients", baseline=[TILTED, "blur"])
    assert_close(three.colours, every.colours)  # two points of one line and one of the other: each line counts the same


@pytest.mark.parametrize("count", [1, 2, 7, 50, 64])
def test_any_beginning_of_the_order_is_spread_over_the_line(count: int) -> None:
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    for some in range(1, count + 1):
        edges = [-1, *sorted(order[:some]), count]
        assert np.diff(edges).max() <= 2 * (count // some + 1) + 1


# Gradient SHAP.


def drawn(count: int, samples: int, seed: int) -> tuple[list[int], list[float], list[int]]:
    """Return what the library draws: baselines, places on the lines, seeds of the noise."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(count, (samples,), generator=generator).tolist()
    along = torch.rand(samples, generator=generator).tolist()
    return which, along, torch.randint(2**31, (samples,), generator=generator).tolist()


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_gradient_shap_equals_a_slow_loop(spread: float, curved: nn.Module, batch: Tensor) -> None:
    image, starts = batch[0].double(), [ZEROS.double(), TILTED.double(), 3 * TILTED.double()]
    total = np.zeros((3, 24, 40))
    which, along, seeds = drawn(3, 11, seed=5)
    assert set(which) == {0, 1, 2}
    for start, place, seed in zip((starts[k] for k in which), along, seeds, strict=True):
        noise = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(seed))
        end = image + spread * (image.max() - image.min()) * noise
        total += (end - start).numpy() * derivative(curved, start + place * (end - start), of_class(2)) / 11
    given = ["dataset", TILTED, 3 * TILTED]
    why = seewhy.explain(curved, batch[0], 2, "gradient-shap", baseline=given, samples=11, spread=spread, seed=5)
    assert_close(why.colours, total)
    mean = np.mean([scored(curved, start, 2) for start in starts])
    assert why.reported["score difference"] == pytest.approx(scored(curved, batch[0], 2) - mean, rel=1e-4)
    assert why.reported["completeness gap"] == pytest.approx(total.sum() - why.reported["score difference"], abs=1e-4)


def test_gradient_shap_is_exact_on_a_linear_model_and_equals_captums(linear: Linear, batch: Tensor) -> None:
    why = seewhy.explain(linear, batch[0], 1, "gradient-shap", baseline=TILTED, samples=3)
    slope = linear.layer.weight[1].detach().view(3, 24, 40).numpy()
    assert_close(why.colours, (batch[0] - TILTED).double().numpy() * slope)
    assert abs(why.reported["completeness gap"]) < 1e-5
    theirs = attr.GradientShap(linear).attribute(
        batch[:1].double(), baselines=TILTED[None].double(), target=1, n_samples=3, stdevs=0.0
    )
    assert_close(why.colours, theirs[0].numpy())


def test_gradient_shap_comes_near_integrated_gradients_with_many_samples(curved: nn.Module, batch: Tensor) -> None:
    line = seewhy.explain(curved, batch[0], 2, "integrated-gradients", baseline=TILTED).colours
    few, many = (
        np.abs(
            seewhy.explain(curved, batch[0], 2, "gradient-shap", baseline=TILTED, samples=samples).colours - line
        ).mean()
        for samples in (4, 1024)
    )
    assert many < few / 4  # 16 times less is expected
    assert many < 0.03 * np.abs(line).mean()


# Refusals.


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("integrated-gradients", {"rule": "gaus-legendre"}, r"rule='gaus-legendre' is not known. Nearest: 'gauss-leg"),
        ("integrated-gradients", {"steps": 0}, "steps=0 must be at least 1"),
        ("integrated-gradients", {"rule": "trapezoid", "steps": 1}, "needs at least 2 steps, not 1"),
        ("integrated-gradients", {"steps": "many"}, "steps='many' is not a whole number"),
        ("integrated-gradients", {"baseline": ""}, "baseline= is empty"),
        ("integrated-gradients", {"baselin": "black"}, r"no option 'baselin'. Nearest: 'baseline'"),
        ("gradient-shap", {"baseline": []}, "baseline= is empty"),
        ("gradient-shap", {"samples": 0}, "samples=0 must be at least 1"),
        ("gradient-shap", {"spread": -0.1}, "spread=-0.1 a finite number, not negative"),
    ],
)
def test_what_makes_no_sense_is_refused(
    name: str, options: dict[str, object], told: str, small_net: SmallNet, batch: Tensor
) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, batch[0], 1, name, **options)


def test_a_baseline_that_does_not_exist_is_told_the_known_ones(small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.ImageError, match=r"baseline='blakc' is not known.*black.*Nearest: 'black'"):
        seewhy.explain(small_net, batch[0], 1, "integrated-gradients", baseline="blakc")
