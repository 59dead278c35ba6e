"""AttnLRP equals its paper's equations worked out by hand, keeps what they keep, and is the same however a model is written."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slow_relevance
import torch
from test_attention import SUBJECTS, assert_close, timm_vit
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite, layer_map_base
from zennit.rules import Gamma
from zennit.types import Linear

import seewhy
from seewhy.recorder import Propagation
from small_models import make_small_net
from test_promises import assert_same, snapshot

pytestmark = pytest.mark.usefixtures("one_core")

# The written-out head is one linear layer: no norm in between, and with gamma no mean either.
CASES = [
    (name, gamma)
    for name in SUBJECTS
    for gamma in ((0.0,) if "hf registers" in name else (0.0, 0.25))
    if name != "timm mean"
]


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(model: nn.Module, *, biases: bool = False) -> nn.Module:
    """Give all parameters values that matter, in float64; biases are 0 unless wanted."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = float(name.endswith("weight") and parameter.ndim == 1)
            parameter.copy_(around + 0.3 * torch.randn(parameter.shape, generator=generator))
            if name.endswith("bias") and not biases:
                parameter.zero_()
    return model.double().eval()


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_equals_the_papers_equations(name: str, gamma: float) -> None:
    model, written = SUBJECTS[name]()
    reference = written(model)
    size = reference.patch[0].shape[-1]
    image = noise(3, reference.grid[0] * size, reference.grid[1] * size)
    why = seewhy.explain(model.double(), image, 3, "attn-lrp", gamma=gamma)
    expected, lost = slow_relevance.attn_lrp(reference, image, 3, gamma)
    assert_close(why.colours, expected, 1e-6)
    assert_close(why.raw, expected.sum(0), 1e-6)
    # What does not reach the input stayed with biases, or with softmax, whose rule loses some.
    assert why.raw.sum() + lost.total() == pytest.approx(why.score, rel=1e-5)
    assert why.reported["relevance kept on the way"] == pytest.approx(lost.total(), rel=1e-4)
    assert abs(lost["softmax"]) > 1e-3 * abs(why.score)


class Conserving(nn.Module):
    """Without biases and softmax: patches, attention whose weights are the products themselves, a gated layer, a head."""

    def __init__(self, act: nn.Module, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.norms = nn.ModuleList(norm() for _ in range(3))
        self.qkv = nn.Linear(8, 24, bias=False)
        self.up, self.gate, self.down = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.act = act
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).mT
        q, k, v = self.qkv(self.norms[0](tokens)).chunk(3, -1)
        tokens = tokens + q @ k.mT @ v
        inner = self.norms[1](tokens)
        tokens = tokens + self.down(self.act(self.gate(inner)) * self.up(inner))
        return self.head(self.norms[2](tokens).amax(1))


class OwnNorm(nn.Module):
    """A norm whose statistics are its module's own code."""

    def forward(self, tokens: Tensor) -> Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


class OwnRms(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * torch.rsqrt(tokens.pow(2).mean(-1, keepdim=True) + 1e-5)


class Lengths(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return functional.normalize(tokens, dim=-1)


class ByGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8, affine=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens.mT).mT


ACTS = [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Tanh(), nn.ReLU6(), nn.ELU(), nn.LeakyReLU(), nn.Mish()]
NORMS = [lambda: nn.LayerNorm(8, bias=False), lambda: nn.RMSNorm(8), ByGroups, OwnNorm, OwnRms, Lengths]


@pytest.mark.parametrize("gamma", [0.0, 0.25, 10.0])
@pytest.mark.parametrize(
    ("act", "norm"),
    [*((act, NORMS[0]) for act in ACTS), *((ACTS[1], norm) for norm in NORMS[1:])],
    ids=[*(type(act).__name__ for act in ACTS), "rms", "groups", "own norm", "own rms", "lengths"],
)
def test_relevance_adds_up_to_the_score_without_biases(
    act: nn.Module, norm: Callable[[], nn.Module], gamma: float
) -> None:
    why = seewhy.explain(filled(Conserving(act, norm)), noise(3, 12, 16), 1, "attn-lrp", gamma=gamma)
    assert why.raw.sum() == pytest.approx(why.score, rel=1e-5)
    assert np.abs(why.raw).max() > 1e-3 * abs(why.score)


def test_also_a_similarity_adds_up() -> None:
    model, images = filled(Conserving(nn.GELU(), NORMS[0])), noise(2, 3, 12, 16)
    why = seewhy.explain(model, images[0], seewhy.similar_to(images[1]), "attn-lrp")
    assert why.raw.sum() == pytest.approx(why.score, rel=1e-5)


def relu_net(*, bias: bool) -> nn.Module:
    layers = [
        nn.Conv2d(3, 6, 3, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, bias=bias),
        nn.ReLU(inplace=True),
    ]
    return filled(nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5, bias=bias)), biases=bias)


def test_without_biases_and_gamma_a_relu_net_has_input_times_gradient() -> None:
    model, image = relu_net(bias=False), noise(3, 14, 18)
    expected = seewhy.explain(model, image, 2, "input-x-gradient")
    found = seewhy.explain(model, image, 2, "attn-lrp", gamma=0.0)
    assert_close(found.colours, expected.colours, 1e-6)
    assert found.raw.sum() == pytest.approx(found.score, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.25, 3.0])
def test_the_gamma_rule_is_zennits(gamma: float) -> None:
    model, image = relu_net(bias=True), noise(3, 14, 18)
    composite = LayerMapComposite([*layer_map_base(), (Linear, Gamma(gamma, stabilizer=1e-12))])
    with Gradient(model, composite) as attributor:
        _, expected = attributor(
            image[None].clone().requires_grad_(), lambda outputs: outputs.detach() * torch.eye(5)[[2]]
        )
    assert_close(seewhy.explain(model, image, 2, "attn-lrp", gamma=gamma).colours, expected[0].numpy(), 1e-6)


def propagated(run: Callable[[Tensor], Tensor], values: Tensor, gamma: float = 0.25) -> tuple[Tensor, Tensor]:
    """Return what a function gives and its relevance, which begins at the results."""
    leaf = values.clone().requires_grad_()
    with Propagation(gamma).on():
        found = run(leaf * 1)
        [gradient] = torch.autograd.grad(found.sum(), leaf)
    return found.detach(), gradient * values


def in_place(values: Tensor) -> Tensor:
    values *= torch.sigmoid(values)
    return values


LAYER = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, dtype=torch.float64).requires_grad_(
    requires_grad=False
)
ATTEND = LAYER.self_attn.eval()
MASK = torch.ones(6, 6, dtype=torch.bool).triu(1)
SAME: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "silu": (
        functional.silu,
        lambda x: x * x.sigmoid(),
        in_place,
        lambda x: functional.silu(x, inplace=True),
        lambda x: x * x.sigmoid().unsqueeze(0).expand(1, *x.shape)[0].view(x.shape),
    ),
    "layer norm": (lambda x: functional.layer_norm(x, (8,)), OwnNorm(), lambda x: torch.layer_norm(x, (8,))),
    "norm of a group": (
        lambda x: functional.group_norm(x, 6),
        functional.instance_norm,
        lambda x: functional.layer_norm(x, (8,)),
    ),
    "length": (
        lambda x: functional.normalize(x, dim=-1) / 3,
        lambda x: functional.rms_norm(x, (8,), eps=1e-24) / 8**0.5 / 3,
        lambda x: x / (3 * x.norm(dim=-1, keepdim=True)),
        lambda x: x * (9 * (x * x).sum(-1, keepdim=True)) ** -0.5,
        lambda x: x.div_(3 * x.norm(dim=-1, keepdim=True)),
        lambda x: x * (1 / (3 * x.norm(dim=-1, keepdim=True))),
    ),
    "square": (torch.square, lambda x: x * x, lambda x: x**2, lambda x: x.mul_(x.clone())),
    "product": (
        lambda x: x @ x.mT,
        lambda x: torch.einsum("btc,bsc->bts", x, x),
        lambda x: torch.bmm(x, x.mT),
        lambda x: torch.baddbmm(torch.zeros(2, 6, 6).double(), x, x.mT),
        lambda x: torch.stack([functional.linear(each, each) for each in x]),
    ),
    "attention": (
        lambda x: functional.scaled_dot_product_attention(x, x.flip(1), x.roll(1, -1)),
        lambda x: (x @ x.flip(1).mT / 8**0.5).softmax(-1) @ x.roll(1, -1),
    ),
    "nn.MultiheadAttention": (
        lambda x: ATTEND(x, x, x, need_weights=False)[0],
        lambda x: ATTEND(x, x, x)[0],
    ),
    "masked": (
        lambda x: ATTEND(x, x, x, need_weights=False, attn_mask=MASK)[0],
        lambda x: ATTEND(x, x, x, attn_mask=MASK)[0],
    ),
    "encoder layer": (
        LAYER.eval(),
        lambda x: checkpoint(LAYER, x, use_reentrant=False),
        lambda x: LAYER.norm2((y := LAYER.norm1(x + ATTEND(x, x, x)[0])) + LAYER._ff_block(y)),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_has_the_same_relevance_however_it_is_written(name: str) -> None:
    values = noise(2, 6, 8)
    (found, expected), *others = (propagated(run, values) for run in SAME[name])
    with torch.no_grad():
        torch.testing.assert_close(found, SAME[name][0](values.clone()))
    for same, relevance in others:
        torch.testing.assert_close(same, found, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(relevance, expected, rtol=1e-9, atol=1e-12)


def test_a_gate_gets_nothing_and_other_factors_equal_parts() -> None:
    weights = noise(3, 8, 8)
    run = lambda x: x @ weights[0] * (x @ weights[1]) * (x @ weights[2]).sigmoid()  # noqa: E731
    values = noise(2, 8)
    first, second, gate = (values @ weight for weight in weights)
    share = first * second * gate.sigmoid() / 2
    expected = values * (share / first @ weights[0].T + share / second @ weights[1].T)
    torch.testing.assert_close(propagated(run, values, 0.0)[1], expected)


def test_values_at_zero_have_the_derivative_there() -> None:
    for run in (functional.gelu, functional.silu, torch.tanh):
        leaf = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        with Propagation().on():
            found = run(leaf)
        plain = run(leaf)
        gradients = [torch.autograd.grad(each.sum(), leaf)[0] for each in (found, plain)]
        torch.testing.assert_close(*gradients)


def test_scores_are_exactly_those_of_the_model_but_for_fused_attention(batch: Tensor) -> None:
    model = make_small_net()
    assert seewhy.explain(model, batch[0], 1, "attn-lrp").score == model(batch[:1])[0, 1].item()


@pytest.mark.parametrize("name", ["timm fused", "torchvision", "hf eager"])
def test_promises_hold_for_transformers_too(name: str) -> None:
    """The matrix over all methods runs this one on a convolutional network."""
    model = SUBJECTS[name]()[0]
    images = noise(3, 3, *((32, 32) if name == "torchvision" else (16, 32))).float()
    before = snapshot(model.train())
    found = seewhy.explain(model, images, [2, 0, 3], "attn-lrp")
    assert_same(before, snapshot(model))
    for image, target, together in zip(images, [2, 0, 3], found, strict=True):
        alone = seewhy.explain(model, image, target, "attn-lrp")
        np.testing.assert_allclose(alone.raw, together.raw, atol=1e-4 * np.abs(alone.raw).max())
    half = seewhy.explain(model.to(torch.bfloat16), images[0], 2, "attn-lrp")
    assert np.corrcoef(half.raw.ravel(), found[0].raw.ravel())[0, 1] > 0.95


def test_tokens_may_be_pooled_by_attention() -> None:
    """Nothing is asked of the tokens: only of the functions."""
    model = timm_vit(class_token=False, global_pool="map").double()
    why = seewhy.explain(model, noise(3, 16, 32), 1, "attn-lrp")
    assert np.isfinite(why.raw).all()
    assert np.ptp(why.raw) > 0


def test_a_negative_gamma_is_refused(batch: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=r"gamma=-0.1 must be at least 0"):
        seewhy.explain(make_small_net(), batch[0], 1, "attn-lrp", gamma=-0.1)


@pytest.mark.slow
def test_points_at_what_a_trained_transformer_looks_for() -> None:
    at = importlib.util.spec_from_file_location("planted", Path(__file__).parents[2] / "examples" / "transformer.py")
    example = importlib.util.module_from_spec(at)
    at.loader.exec_module(example)
    ask = seewhy.Explainer(example.train(), preprocess=example.PREPROCESS, labels=example.NAMES)
    draws = np.random.default_rng(1)
    drawn = [example.draw(draws) for _ in range(60)]
    shares = {}
    for name in ("attn-lrp", "input-x-gradient"):
        found = ask([pixels for pixels, _, _ in drawn], method=name)
        shares[name] = np.mean([example._points_into(why, box) for why, (_, _, box) in zip(found, drawn, strict=True)])
    assert shares["attn-lrp"] > max(0.85, shares["input-x-gradient"] + 0.1)
