"""Guided and blur integrated gradients: closed forms, PAIR's saliency 0.2.1, and the sums that they must have."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from saliency import core as peer
from scipy import ndimage
from slow_gradients import assert_close, derivative, of_class
from torch import Tensor, nn

import seewhy
from seewhy.maps import adaptive
from seewhy.maps.adaptive import Guide
from small_models import SmallNet

Array = np.ndarray
ZEROS = torch.zeros(3, 24, 40)
TILTED = torch.linspace(-1, 1, 40).expand(3, 24, 40).contiguous()
assert adaptive  # importing it is what registers the methods


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing here is large: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linear(nn.Module):
    """Scores `(batch, 2)` that are linear in the input, which has 1 to 3 spatial axes."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(shape) - 2]  # tells how many axes the input has
        self.axes = kind(shape[0], shape[0], 1, bias=False).double()
        nn.init.dirac_(self.axes.weight)
        self.weights = nn.Parameter(torch.randn(2, *shape, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.axes(images).flatten(1) @ self.weights.flatten(1).T

    def slope(self, target: int) -> Array:
        return self.weights[target].detach().numpy()


@pytest.fixture
def linear() -> Linear:
    return Linear(3, 24, 40)


@pytest.fixture
def curved() -> nn.Module:
    """A smooth net, so that an integral's error is its own."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Softplus()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)),
    ).double()


def scored(model: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(copy.deepcopy(model).double().eval()(image.double()[None])[0, target])


def blurred(image: Tensor, sigma: float) -> Tensor:
    """As scipy has it, axis by axis, 0 outside."""
    widths = [0.0, *[sigma] * (image.ndim - 1)]
    return torch.from_numpy(ndimage.gaussian_filter(image.double().numpy(), widths, mode="constant"))


# PAIR's own.


def answering(model: nn.Module, target: int) -> Callable[..., dict[str, Array]]:
    """Return what the peer calls: from images with channels last to the score's derivatives by them."""
    like = next(model.parameters())

    def call(images: Array, call_model_args: object = None, expected_keys: object = None) -> dict[str, Array]:
        leaf = (
            torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1))).float().to(like.dtype).requires_grad_()
        )
        [found] = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
        return {peer.INPUT_OUTPUT_GRADIENTS: np.moveaxis(found.numpy(), 1, -1)}

    return call


def by_peer(mask: Any, model: nn.Module, image: Tensor, target: int, **options: Any) -> Array:
    last = np.moveaxis(image.double().numpy(), 0, -1)
    options = {k: np.moveaxis(v.double().numpy(), 0, -1) if isinstance(v, Tensor) else v for k, v in options.items()}
    return np.moveaxis(mask.GetMask(last, answering(model, target), **options), -1, 0)


@pytest.fixture
def old_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's guided gradients name an argument of numpy.quantile as it was called before NumPy 2.4."""
    quantile = np.quantile
    monkeypatch.setattr(np, "quantile", lambda values, q, interpolation: quantile(values, q, method=interpolation))


GUIDES = [(10, 0.25, 0.02), (10, 0.25, 0.3), (7, 0.1, 1.0), (16, 0.6, 0.05), (3, 1.0, 0.5)]


@pytest.mark.usefixtures("old_numpy")
@pytest.mark.parametrize(("steps", "fraction", "max_dist"), GUIDES)
@pytest.mark.parametrize("net", ["curved", "small_net"])
def test_guided_equals_the_authors_own(
    net: str, steps: int, fraction: float, max_dist: float, batch: Tensor, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(net).double()
    theirs = by_peer(
        peer.GuidedIG(), model, batch[0], 2, x_baseline=TILTED, x_steps=steps, fraction=fraction, max_dist=max_dist
    )
    options = {"baseline": TILTED, "steps": steps, "fraction": fraction, "max_dist": max_dist}
    assert_close(seewhy.explain(model, batch[0], 2, "guided-ig", **options).colours, theirs, tolerance=1e-4)


@pytest.mark.parametrize(("steps", "max_sigma", "grad_step"), [(20, 8.0, 0.01), (9, 15.0, 0.5)])
@pytest.mark.parametrize("square_root", [False, True])
@pytest.mark.parametrize("net", ["curved", "small_net"])
def test_blur_equals_the_authors_own(
    net: str,
    square_root: bool,
    steps: int,
    max_sigma: float,
    grad_step: float,
    batch: Tensor,
    request: pytest.FixtureRequest,
) -> None:
    """With square roots theirs ends at the root of what was asked; ours ends at what was asked."""
    model = request.getfixturevalue(net).double()
    asked = max_sigma**2 if square_root else max_sigma
    theirs = by_peer(
        peer.BlurIG(), model, batch[0], 2, max_sigma=asked, steps=steps, grad_step=grad_step, sqrt=square_root
    )
    options = {"max_sigma": max_sigma, "steps": steps, "grad_step": grad_step, "square_root": square_root}
    assert_close(seewhy.explain(model, batch[0], 2, "blur-ig", **options).colours, theirs, tolerance=1e-4)


@pytest.mark.usefixtures("old_numpy")
def test_the_built_in_model_equals_the_authors_own(embedded: seewhy.Explainer) -> None:
    """In float64: which value is moved first hangs on rounding, and the whole path hangs on that."""
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(5))
    module = copy.deepcopy(embedded.model.module).double().eval()
    guided = seewhy.explain(module, image, 11, "guided-ig", baseline="dataset", steps=8, max_dist=0.1)
    assert_close(guided.colours, by_peer(peer.GuidedIG(), module, image, 11, x_steps=8, max_dist=0.1), tolerance=1e-4)
    blur = seewhy.explain(module, image, 11, "blur-ig", steps=8)
    theirs = by_peer(peer.BlurIG(), module, image, 11, max_sigma=50 * 64 / 224, steps=8)
    assert_close(blur.colours, theirs, tolerance=1e-4)


# Known answers.

SHAPES = [(2, 30), (3, 24, 40), (1, 8, 9, 10)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("steps", "fraction", "max_dist"), [*GUIDES, (1, 0.01, 0.0)])
def test_guided_is_exact_on_a_linear_model_by_any_path(
    shape: tuple[int, ...], steps: int, fraction: float, max_dist: float
) -> None:
    model, image = Linear(*shape), torch.randn(shape, generator=torch.Generator().manual_seed(3))
    start = torch.linspace(-1, 1, shape[-1]).expand(shape).contiguous()
    options = {"baseline": start, "steps": steps, "fraction": fraction, "max_dist": max_dist}
    why = seewhy.explain(model, image, 1, "guided-ig", **options)
    assert_close(why.colours, (image - start).double().numpy() * model.slope(1))
    assert abs(why.reported["completeness gap"]) < 1e-4
    difference = scored(model, image, 1) - scored(model, start, 1)
    assert why.reported["score difference"] == pytest.approx(difference, rel=1e-5)


def test_guided_without_freedom_goes_straight(curved: nn.Module, batch: Tensor) -> None:
    guided = seewhy.explain(curved, batch[0], 1, "guided-ig", baseline=TILTED, steps=12, max_dist=0.0)
    options = {"baseline": TILTED, "steps": 12, "rule": "left"}
    assert_close(guided.colours, seewhy.explain(curved, batch[0], 1, "integrated-gradients", **options).colours)


def test_guided_takes_what_matters_little_first() -> None:
    """Of 3 a + b (1 + a) a row, b is flatter at 0: it goes first and gets 1, and a then gets 4; straight on, b gets 1.5."""

    class Product(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first, second = images[:, 0, :, 0], images[:, 0, :, 1]
            return (3 * first + second * (1 + first)).sum(1, keepdim=True)

    image, start = torch.ones(1, 4, 2), torch.zeros(1, 4, 2)
    given = {"baseline": start, "max_dist": 1.0, "fraction": 0.5, "steps": 4, "layers": None}
    given.pop("layers")
    why = seewhy.explain(
        Product(), image.expand(1, 4, 2), 0, "guided-ig", **{**given, "baseline": start.expand(1, 4, 2)}
    )
    np.testing.assert_allclose(why.colours[0], np.tile([4.0, 1.0], (4, 1)), atol=1e-6)
    straight = seewhy.explain(
        Product(), image.expand(1, 4, 2), 0, "integrated-gradients", baseline=start.expand(1, 4, 2)
    )
    np.testing.assert_allclose(straight.colours[0], np.tile([3.5, 1.5], (4, 1)), atol=1e-6)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 1.0])
@pytest.mark.parametrize("max_dist", [0.0, 0.05, 1.0])
def test_a_step_goes_as_far_as_the_goal_and_stays_near_the_line(fraction: float, max_dist: float) -> None:
    generator = torch.Generator().manual_seed(2)
    ways = torch.rand(200, generator=generator, dtype=torch.float64)
    ways[::7] = 0.0
    along, guide = torch.zeros_like(ways), Guide(fraction, max_dist)
    for step in range(1, 9):
        slopes = torch.rand(200, generator=generator, dtype=torch.float64).mul(20).floor()  # many are alike
        before, along = along, guide.moved(along, ways, slopes, step / 8)
        assert float((along * ways).sum() / ways.sum()) == pytest.approx(step / 8, rel=1e-12)
        real = along[ways > 0]
        assert bool((along >= before).all())
        assert bool(((real - step / 8).abs() <= max_dist + 1e-12).all())
    np.testing.assert_allclose(real, 1.0, rtol=1e-12)


def test_guided_tells_nothing_of_an_input_that_is_its_baseline(curved: nn.Module) -> None:
    why = seewhy.explain(curved, TILTED, 1, "guided-ig", baseline=TILTED, steps=4)
    assert not why.colours.any()
    assert why.reported["score difference"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 7])
def test_blur_is_exact_on_a_linear_model_where_its_steps_meet(shape: tuple[int, ...], steps: int) -> None:
    model, image = Linear(*shape), torch.randn(shape, generator=torch.Generator().manual_seed(3))
    why = seewhy.explain(model, image, 1, "blur-ig", max_sigma=4.0, steps=steps, grad_step=0.0)
    assert_close(why.colours, (image.double() - blurred(image, 4.0)).numpy() * model.slope(1))
    assert abs(why.reported["completeness gap"]) < 1e-4
    difference = scored(model, image, 1) - scored(model, blurred(image, 4.0), 1)
    assert why.reported["score difference"] == pytest.approx(difference, rel=1e-4)


def test_blur_comes_near_the_closed_form_with_many_steps(linear: Linear, batch: Tensor) -> None:
    """Of a picture of some smoothness: very narrow kernels, cut off at 4 standard deviations, jump."""
    image = blurred(batch[0], 1.0).float()
    closed = (image.double() - blurred(image, 6.0)).numpy() * linear.slope(1)
    runs = [seewhy.explain(linear, image, 1, "blur-ig", max_sigma=6.0, steps=steps) for steps in (6, 24, 96)]
    errors = [np.abs(why.colours - closed).max() / np.abs(closed).max() for why in runs]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05
    for why in runs:
        expected = why.colours.sum() - closed.sum()
        assert why.reported["completeness gap"] == pytest.approx(expected, abs=2e-4)


def test_blur_goes_to_the_same_part_of_any_input(curved: nn.Module, batch: Tensor) -> None:
    usual = seewhy.explain(curved, batch[0], 1, "blur-ig", steps=5)
    given = seewhy.explain(curved, batch[0], 1, "blur-ig", steps=5, max_sigma=50 * 40 / 224)
    assert_close(usual.colours, given.colours)


# What holds for both.


@pytest.mark.parametrize(
    ("name", "options"),
    [("guided-ig", {"baseline": "dataset", "max_dist": 0.2}), ("blur-ig", {}), ("blur-ig", {"grad_step": 0.0})],
)
def test_the_gap_shrinks_with_the_steps(name: str, options: dict[str, Any], curved: nn.Module, batch: Tensor) -> None:
    image = (blurred(batch[0], 1.0) * 3 + TILTED * 2).float()
    runs = [seewhy.explain(curved, image, 2, name, steps=steps, **options) for steps in (4, 16, 64)]
    gaps = [abs(why.reported["completeness gap"]) for why in runs]
    assert gaps[2] < gaps[0] / 4
    assert gaps[2] < gaps[1] / 2
    assert gaps[2] < 0.05 * abs(runs[2].reported["score difference"])
    for why in runs:
        whole = why.reported["score difference"] + why.reported["completeness gap"]
        assert why.colours.sum() == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("guided-ig", {"baseline": "black,blur", "max_dist": 0.1}), ("blur-ig", {"square_root": True})],
)
def test_a_batch_equals_one_by_one_with_a_question_each(
    name: str, options: dict[str, Any], small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_net, targets = small_net.double(), [2, "0-vs-1", 4]  # as above, in float64
    together = seewhy.explain(small_net, batch, targets, name, steps=6, **options)
    monkeypatch.setattr("seewhy.recorder.engine.first_chunk", lambda image, backward: 2)
    again = seewhy.explain(small_net, batch, targets, name, steps=6, **options)
    for image, target, found, other in zip(batch, targets, together, again, strict=True):
        alone = seewhy.explain(small_net, image, target, name, steps=6, **options)
        assert_close(found.colours, alone.colours)
        assert_close(other.colours, alone.colours)
        assert found.reported == pytest.approx(alone.reported, abs=1e-5)


def test_several_baselines_are_the_mean_of_several_walks(small_net: SmallNet, batch: Tensor) -> None:
    both = seewhy.explain(small_net, batch[0], 1, "guided-ig", baseline=["black", TILTED], steps=5)
    runs = [seewhy.explain(small_net, batch[0], 1, "guided-ig", baseline=each, steps=5) for each in ("black", TILTED)]
    assert_close(both.colours, np.mean([each.colours for each in runs], 0))
    assert (both.cost.forwards, both.cost.backwards) == (1 + 10 + 2, 10)


@pytest.mark.parametrize(("name", "options"), [("guided-ig", {"baseline": "blur"}), ("blur-ig", {})])
def test_a_budget_gives_a_whole_map_of_fewer_steps(
    name: str, options: dict[str, Any], curved: nn.Module, batch: Tensor
) -> None:
    whole, part = (seewhy.explain(curved, batch[:2], 1, name, budget=budget, **options) for budget in (None, 20))
    for one, other in zip(whole, part, strict=True):
        assert other.notes == ("the budget ended the work after 20 of 50 runs",)
        assert (other.cost.forwards, other.cost.backwards) == (1 + 20 + 1, 20)
        assert np.isfinite(other.colours).all()
        assert np.corrcoef(one.colours.ravel(), other.colours.ravel())[0, 1] > 0.9
    assert np.isfinite(seewhy.explain(curved, batch[0], 1, name, budget="0.000001s", **options).colours).all()


def test_a_budget_takes_the_weight_of_what_it_leaves_out(linear: Linear, batch: Tensor) -> None:
    """The sum of the steps' weights is kept: with one step's change the same at every point, so is the map."""
    why = seewhy.explain(linear, batch[0], 1, "blur-ig", max_sigma=6.0, steps=12, budget=5)
    order = [0, 8, 4, 2, 10]
    changes = [blurred(batch[0], each / 2) - blurred(batch[0], each / 2 + 0.01) for each in order]
    expected = (torch.stack(changes).sum(0) / 0.01 * 6 / 5).numpy() * linear.slope(1)
    assert_close(why.colours, expected)


def test_the_derivative_is_taken_where_the_path_is(curved: nn.Module, batch: Tensor) -> None:
    """One step: guided at the baseline, blur at the input, both by their whole way."""
    guided = seewhy.explain(curved, batch[0], 2, "guided-ig", baseline=TILTED, steps=1)
    assert_close(guided.colours, (batch[0] - TILTED).numpy() * derivative(curved, TILTED, of_class(2)))
    blur = seewhy.explain(curved, batch[0], 2, "blur-ig", max_sigma=3.0, grad_step=0.0, steps=1)
    way = (batch[0].double() - blurred(batch[0], 3.0)).numpy()
    assert_close(blur.colours, way * derivative(curved, batch[0], of_class(2)))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("guided-ig", {"steps": 0}, "steps=0 must be at least 1"),
        ("guided-ig", {"baseline": ""}, "baseline='' must name one"),
        ("guided-ig", {"fraction": 0.0}, "fraction=0.0 must be over 0"),
        ("guided-ig", {"fraction": 1.5}, "fraction=1.5 must be over 0 and at most 1"),
        ("guided-ig", {"max_dist": -0.1}, "max_dist=-0.1 from 0 to 1"),
        ("guided-ig", {"max_dist": float("nan")}, "max_dist=nan from 0 to 1"),
        ("blur-ig", {"steps": 0}, "steps=0 must be at least 1"),
        ("blur-ig", {"max_sigma": -1.0}, "max_sigma=-1.0"),
        ("blur-ig", {"max_sigma": float("inf")}, "max_sigma=inf"),
        ("blur-ig", {"grad_step": float("nan")}, "grad_step=nan"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], told: str, small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, batch[0], 1, name, **options)
