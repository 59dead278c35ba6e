"""Attention is seen however it is computed, the model's outputs stay, and what is no graph of tokens is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

import seewhy
from seewhy.recorder.attention import AttentionTap
from seewhy.recorder.tape import Tape

pytestmark = pytest.mark.usefixtures("one_core")

CHAINED = ["attention-rollout", "gradient-rollout", "generic-attention", "transition-attention", "legrad"]
IMAGES = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """Patches, a class token, layers that attend as is said, a linear layer on the class token."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patch = nn.Conv2d(3, 12, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(*(Layer(attend) for _ in range(layers)))
        self.head = nn.Linear(12, 4)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([self.token.expand(len(images), -1, -1), tokens], 1))
        return self.head(tokens[:, 0])


class Layer(nn.Module):
    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.attend = attend
        with torch.no_grad():
            self.qkv.weight.mul_(3)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        return tokens + self.attend(q, k, v).transpose(1, 2).flatten(2)


def products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / 6**0.5


def folded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads in the batch axis and a dropout that does nothing, as older models have it."""
    q, k, v = (each.flatten(0, 1) for each in (q, k, v))
    weights = F.dropout(
        F.softmax(torch.bmm(q, k.transpose(1, 2)) / 6**0.5, dim=-1, dtype=torch.float32), 0.5, training=False
    )
    return torch.bmm(weights.to(v.dtype), v).unflatten(0, (-1, 2))


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "fused": F.scaled_dot_product_attention,
    "fused by name": lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v, dropout_p=0.0),
    "eager": lambda q, k, v: products(q, k).softmax(-1) @ v,
    "module": lambda q, k, v: nn.Softmax(dim=-1)(products(q, k)).matmul(v),
    "einsum": lambda q, k, v: torch.einsum("bhij,bhjd->bhid", products(q, k).softmax(-1), v),
    "einsum of a list": lambda q, k, v: torch.einsum("...jd, ...ij -> ...id", [v, torch.softmax(products(q, k), 3)]),
    "turned": lambda q, k, v: (v.transpose(-2, -1) @ products(q, k).softmax(-1).transpose(-2, -1)).transpose(-2, -1),
    "heads in the batch": folded,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["attention", *CHAINED])
def test_every_way_to_attend_gives_the_same_map_and_score(way: str, name: str) -> None:
    expected = seewhy.explain(Tokens(WAYS["eager"]), IMAGES, 2, name)
    with torch.no_grad():
        scores = Tokens(WAYS[way])(IMAGES)[:, 2]
    for one, other, score in zip(seewhy.explain(Tokens(WAYS[way]), IMAGES, 2, name), expected, scores, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-6)
        assert np.ptp(one.raw) > 1e-3
        assert one.score == pytest.approx(float(score), abs=1e-5)


class Stacked(nn.Module):
    """torch's own encoder, whose fused fast path hides its attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 8, stride=8)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=False)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(images).flatten(2).transpose(1, 2)).mean(1))


def test_torchs_encoder_is_seen_inside_and_its_fast_path_is_left_on() -> None:
    model = Stacked()
    with torch.no_grad():
        tokens = model.encoder.layers[0](model.patch(IMAGES).flatten(2).transpose(1, 2))
        weights = model.encoder.layers[1].self_attn(tokens, tokens, tokens, average_attn_weights=False)[1]
    for why, own in zip(seewhy.explain(model, IMAGES, 0, "attention", head=2), weights, strict=True):
        np.testing.assert_allclose(why.raw.ravel(), own[2].mean(0), atol=1e-6)  # all tokens are read alike
        assert "encoder.layers.1.self_attn" in why.notes[-1]
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(np.ptp(each.raw) > 0 for each in seewhy.compare(model, IMAGES[0], methods=CHAINED))


def seen_by_hooks(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the weights of a timm model that computes them one by one, as its dropout behind the softmax is given them."""
    weights: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, inputs, _output: weights.append(inputs[0][0].detach()))
        for name, module in model.named_modules()
        if name.endswith("attn_drop")
    ]
    with torch.no_grad():
        model(image[None])
    for handle in handles:
        handle.remove()
    return weights


def timm_model(name: str, *, fused: bool, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **more).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model


PICTURE = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(4))
SIGLIP = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize("fused", [True, False])
def test_a_position_bias_is_part_of_the_weights(fused: bool) -> None:
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    last = seen_by_hooks(timm_model("beit_base_patch16_224", fused=False, **small), PICTURE)[-1]
    model = timm_model("beit_base_patch16_224", fused=fused, **small)
    found = seewhy.explain(model, PICTURE, 1, "attention").raw
    rows = last.mean(0)[1:] if model.global_pool == "avg" else last.mean(0)[:1]
    np.testing.assert_allclose(found.ravel(), rows.mean(0)[1:], atol=1e-6)


def pooling(model: nn.Module, image: Tensor) -> Tensor:
    """Return the weights `(heads, 1, tokens)` by which one query reads the tokens at the end."""
    own, given = model.attn_pool, []
    handle = own.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    with torch.no_grad():
        model(image[None])
        handle.remove()
        query = own.q(own.latent[0]).unflatten(-1, (own.num_heads, -1))
        key = own.kv(given[0][0])[:, : query.shape[1] * query.shape[2]].unflatten(-1, (own.num_heads, -1))
        return (torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5).softmax(-1)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_that_pools_is_where_the_rollout_ends(fused: bool) -> None:
    model = timm_model("vit_base_patch16_siglip_224", fused=fused, **SIGLIP)
    layers = seen_by_hooks(timm_model("vit_base_patch16_siglip_224", fused=False, **SIGLIP), PICTURE)
    pool = pooling(model, PICTURE)
    rolled = torch.eye(16)
    for layer in layers:
        rolled = (layer.mean(0) + torch.eye(16)) / 2 @ rolled
    expected = pool.mean(0)[0] @ rolled
    np.testing.assert_allclose(seewhy.explain(model, PICTURE, 1, "attention-rollout").raw.ravel(), expected, atol=1e-6)
    np.testing.assert_allclose(seewhy.explain(model, PICTURE, 1, "attention").raw.ravel(), pool.mean(0)[0], atol=1e-6)
    assert all(np.ptp(each.raw) > 0 for each in seewhy.compare(model, PICTURE, methods=CHAINED, steps=2))


def test_distillation_tokens_that_the_score_reads_count_as_the_class_token_does() -> None:
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = timm_model("deit_tiny_distilled_patch16_224", fused=False, **small)
    last = seen_by_hooks(model, PICTURE)[-1].mean(0)
    found = seewhy.explain(model, PICTURE, 1, "attention").raw
    np.testing.assert_allclose(found.ravel(), last[:2, 2:].mean(0), atol=1e-6)


SWIN = {"img_size": 64, "patch_size": 4, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}


@pytest.mark.parametrize("name", CHAINED)
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: timm_model("swin_tiny_patch4_window7_224", fused=True, **SWIN), "are those of windows, of channels"),
        (
            lambda: timm_model("pvt_v2_b0", fused=True, depths=(1, 1, 1, 1)),
            "not one graph of tokens.*do not look from 4 tokens at the same 4 tokens",
        ),
        (lambda: timm_model("cait_xxs24_224", fused=True, img_size=64, depth=2), r"not one graph.*1 x 4 x 1 x 17"),
        (lambda: timm_model("xcit_nano_12_p16_224", fused=True, depth=2), "of channels"),
        (lambda: timm_model("resnet18", fused=True), "runs no attention that can be seen"),
    ],
    ids=["windows", "reduced", "class attention", "channels", "none"],
)
def test_what_is_no_graph_of_tokens_is_refused_with_the_way_out(name: str, model: Callable, why: str) -> None:
    image = torch.nn.functional.interpolate(PICTURE[None], (64, 64))[0]
    with pytest.raises(seewhy.MethodError, match=f"{why}.*grad-cam"):
        seewhy.explain(model(), image, 1, name)


def test_layers_that_fit_are_shown_where_others_do_not() -> None:
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = timm_model("xcit_nano_12_p16_224", fused=False, depth=2)
    why = seewhy.explain(model, image, 1, "attention")
    assert why.raw.shape == (4, 4)
    assert "2 attention layers look at windows or other tokens" in why.notes[-1]
    with pytest.raises(seewhy.MethodError, match=r"layer=7: Xcit has 2 to choose from: 0 to 1, or -1 to -2"):
        seewhy.explain(model, image, 1, "attention", layer=7)


def test_heads_that_are_mixed_behind_the_softmax_are_no_shares() -> None:
    mix = torch.tensor([[1.0, 0.7], [-0.4, 1.0]])
    model = Tokens(lambda q, k, v: torch.einsum("gh,bhij->bgij", mix, products(q, k).softmax(-1)) @ v)
    with pytest.raises(seewhy.MethodError, match="not shares that add up to 1"):
        seewhy.explain(model, IMAGES[0], 1, "attention-rollout")
    q, k, _ = model.blocks[1].qkv(model.blocks[0](first_tokens(model))).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
    used = torch.einsum("gh,bhij->bgij", mix, products(q, k).softmax(-1))
    found = seewhy.explain(model, IMAGES[0], 1, "attention", head=1).raw
    np.testing.assert_allclose(found.ravel(), used[0, 1, 0, 1:].detach(), atol=1e-6)


def first_tokens(model: Tokens) -> Tensor:
    places = model.patch(IMAGES[:1]).flatten(2).transpose(1, 2)
    return torch.cat([model.token, places], 1)


def test_two_attentions_side_by_side_are_no_two_layers() -> None:
    model = Tokens(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v) - 0.3 * F.scaled_dot_product_attention(k, q, v)
    )
    with pytest.raises(seewhy.MethodError, match="side by side"):
        seewhy.explain(model, IMAGES[0], 1, "generic-attention")


class WithText(Tokens):
    """Has a tower of its own for 60 words."""

    def __init__(self) -> None:
        super().__init__(F.scaled_dot_product_attention)
        self.words = Tokens(F.scaled_dot_product_attention).blocks
        self.text = nn.Parameter(torch.randn(1, 60, 12))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.words(self.text).mean()


def test_a_tower_beside_the_picture_does_not_count() -> None:
    model = WithText()
    alone = Tokens(F.scaled_dot_product_attention)
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(3))
    found, expected = (seewhy.explain(each, image, 1, "attention-rollout") for each in (model, alone))
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)
    [told] = set(found.notes) - set(expected.notes)
    assert told.startswith("2 of 4 attention layers run beside the picture's tokens")
    assert told.endswith("left out: words.0 (1 x 2 x 60 x 60); words.1 (1 x 2 x 60 x 60)")


class Windows(nn.Module):
    """Four windows of 4 x 4 tokens each look at themselves; then 4 x 4 larger tokens look at each other."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = weights
        self.patch, self.merge = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 2, 2)
        self.local, self.whole = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.patch(images)
        windows = maps.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 8)
        windows = windows + self.local(windows, windows, windows, need_weights=self.weights)[0]
        maps = windows.view(-1, 2, 2, 4, 4, 8).permute(0, 5, 1, 3, 2, 4).reshape(maps.shape)
        tokens = self.norm(self.merge(maps).flatten(2).mT)
        tokens = tokens + self.whole(tokens, tokens, tokens, need_weights=self.weights)[0]
        return self.head(self.norm(tokens).mean(1))


@pytest.mark.parametrize("weights", [True, False])
def test_windows_of_multihead_attention_are_no_heads_of_the_whole_picture(weights: bool) -> None:
    model, image = Windows(weights).eval(), torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
    why = seewhy.explain(model, image, 1, "attention")
    assert why.notes[-2:] == (
        "attention of whole, of 2 attention layers",
        "1 attention layers look at windows or other tokens than the picture's places and are left out",
    )
    rolled = seewhy.explain(model, image, 1, "attention-rollout")
    assert "1 of 2 attention layers run beside" in rolled.notes[-1]
    assert ("local (8 x 16 x 16)" if weights else "local (4 x 2 x 16 x 16)") in rolled.notes[-1]
    # Half of every token stays what it was, and all are read alike.
    np.testing.assert_allclose(rolled.raw, (why.raw + 1 / 16) / 2, atol=1e-6)


class Frozen(Tokens):
    """Runs its layers without a graph, as a frozen backbone does."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            tokens = self.blocks(
                torch.cat([self.token.expand(len(images), -1, -1), self.patch(images).flatten(2).mT], 1)
            )
        return self.head(tokens[:, 0])


@pytest.mark.parametrize("name", CHAINED)
def test_the_models_own_no_grad_does_not_hide_the_derivatives(name: str) -> None:
    found, expected = (kind(WAYS["fused"]) for kind in (Frozen, Tokens))
    np.testing.assert_allclose(
        seewhy.explain(found, IMAGES[0], 1, name).raw, seewhy.explain(expected, IMAGES[0], 1, name).raw, atol=1e-6
    )


def test_a_model_that_detaches_is_told_so_and_what_needs_no_derivative_works() -> None:
    model = Tokens(lambda q, k, v: (products(q, k).softmax(-1) @ v).detach())
    model.blocks.register_forward_hook(lambda _module, _inputs, output: output.detach())
    with pytest.raises(seewhy.MethodError, match=r"the model detaches behind them.*attention-rollout"):
        seewhy.explain(model, IMAGES[0], 1, "generic-attention")
    assert np.ptp(seewhy.explain(model, IMAGES[0], 1, "attention-rollout").raw) > 0


def test_outputs_of_a_recorded_forward_are_the_models_own() -> None:
    for way in WAYS.values():
        model = Tokens(way)
        with torch.no_grad():
            expected = model(IMAGES)
            for gradients, exact in ((False, True), (True, False)):
                tap = AttentionTap(len(IMAGES), gradients)
                with Tape(gradients=False, attention=tap).on(model, []):
                    found = model(IMAGES)
                torch.testing.assert_close(found, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
                assert [call.name for call in tap.calls] == ["blocks.0", "blocks.1"]
                assert all(tuple(call.heads.shape) == (2, 2, 7, 7) for call in tap.calls)


def test_another_thread_is_not_listened_to() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = Tokens(WAYS["fused"])
    tap = AttentionTap(len(IMAGES), gradients=False)
    with Tape(gradients=False, attention=tap).on(model, []), ThreadPoolExecutor(1) as pool:
        pool.submit(model, IMAGES).result()
    assert tap.calls == []


def test_what_it_costs_is_told_for_each_method_alone() -> None:
    maps = seewhy.compare(
        Tokens(WAYS["fused"]), IMAGES[0], methods=["grad-cam", "attention", "legrad"], layers=["blocks.0"]
    )
    assert [(each.cost.forwards, each.cost.backwards) for each in maps] == [(1, 1), (1, 1), (2, 2)]
