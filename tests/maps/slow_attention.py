"""A vision transformer written out in float64, and attention methods from their papers' equations with loops over it.

Shares nothing with the library, nor with the models' own code: only their parameters are read, under each library's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


@dataclass
class Block:
    """One layer's parameters: `(weight, bias)` each, and what its two branches are multiplied with."""

    norm1: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    scales: tuple[Tensor, Tensor]


@dataclass
class WrittenOut:
    """A vision transformer.

    Attributes:
        patch: the projection of patches.
        prefix: `(prefix, channel)` tokens before the places, with what is added for their position.
        positions: `(places, channel)`.
        blocks: the layers.
        norm: the last normalisation; None: none.
        head: from tokens to scores.
        heads: of attention.
        epsilon: of the normalisations.
        read: the tokens that the score reads.
        grid: rows and columns.
    """

    patch: tuple[Tensor, Tensor]
    prefix: Tensor
    positions: Tensor
    blocks: list[Block]
    norm: tuple[Tensor, Tensor] | None
    head: Callable[[Tensor], Tensor]
    heads: int
    epsilon: float
    read: list[int]
    grid: tuple[int, int]

    def tokens(self, image: Tensor) -> Tensor:
        weight, bias = self.patch
        size = weight.shape[-1]
        found = []
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                patch = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                found.append((weight * patch).sum((1, 2, 3)) + bias)
        return torch.cat([self.prefix, torch.stack(found) + self.positions])

    def block(self, number: int, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the tokens behind a layer, and its weights, a matrix a head."""
        own = self.blocks[number]
        normal = self.normalised(tokens, own.norm1)
        q, k, v = (normal @ weight.T + bias for weight, bias in (own.query, own.key, own.value))
        width, weights, results = q.shape[1] // self.heads, [], []
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            products = q[:, part] @ k[:, part].T / math.sqrt(width)
            exponentials = (products - products.max()).exp()
            own_weights = exponentials / exponentials.sum(1, keepdim=True)
            own_weights = own_weights.detach().requires_grad_() if not own_weights.requires_grad else own_weights
            weights.append(own_weights)
            results.append(own_weights @ v[:, part])
        tokens = tokens + own.scales[0] * (torch.cat(results, 1) @ own.out[0].T + own.out[1])
        inner = self.normalised(tokens, own.norm2) @ own.first[0].T + own.first[1]
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        return tokens + own.scales[1] * (inner @ own.second[0].T + own.second[1]), weights

    def scores(self, tokens: Tensor) -> Tensor:
        """Return the scores for what the last layer gave."""
        return self.head(tokens if self.norm is None else self.normalised(tokens, self.norm))

    def normalised(self, tokens: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        centred = tokens - tokens.mean(1, keepdim=True)
        deviation = ((centred**2).mean(1, keepdim=True) + self.epsilon).sqrt()
        return centred / deviation * by[0] + by[1]

    def run(self, image: Tensor) -> tuple[Tensor, list[list[Tensor]], list[Tensor]]:
        """Return the scores, all weights, and the tokens behind each layer."""
        tokens, weights, between = self.tokens(image), [], []
        for number in range(len(self.blocks)):
            tokens, own = self.block(number, tokens)
            weights.append(own)
            between.append(tokens)
        return self.scores(tokens), weights, between

    def observe(self, image: Tensor, target: int) -> tuple[Array, Array]:
        """Return weights and derivatives `(layer, head, token, token)`."""
        scores, weights, _ = self.run(image)
        flat = [each for own in weights for each in own]
        gradients = torch.autograd.grad(scores[target], flat, retain_graph=True)
        shape = (len(weights), self.heads, *flat[0].shape)
        return tuple(torch.stack(list(each)).detach().numpy().reshape(shape) for each in (flat, gradients))

    def placed(self, values: Array) -> Array:
        return values[len(self.prefix) :].reshape(self.grid)


def attention(model: WrittenOut, image: Tensor, target: int, layer: int = -1, head: int | None = None) -> Array:
    weights, _ = model.observe(image, target)
    heads = weights[layer] if head is None else weights[layer][head : head + 1]
    total = np.zeros(heads.shape[-1])
    for one in heads:
        for row in model.read:
            total += one[row] / len(heads) / len(model.read)
    return model.placed(total)


def rollout(model: WrittenOut, fused: list[Array]) -> Array:
    """Abnar & Zuidema 2020, eq. 1, and the product of all."""
    rolled = np.eye(len(fused[0]))
    for matrix in fused:
        mixed = np.zeros_like(matrix)
        for i in range(len(matrix)):
            row = matrix[i] / 2 + np.eye(len(matrix))[i] / 2
            mixed[i] = row / sum(row)
        rolled = mixed @ rolled
    return model.placed(sum(rolled[row] for row in model.read) / len(model.read))


def attention_rollout(
    model: WrittenOut, image: Tensor, target: int, fusion: str = "mean", discard: float = 0.0, start: int = 0
) -> Array:
    weights, _ = model.observe(image, target)
    fused = []
    for layer in weights[start:]:
        one = {"mean": np.mean, "max": np.max, "min": np.min}[fusion](layer, 0)
        smallest = sorted(range(one.size), key=lambda place, one=one: one.flat[place])[: int(one.size * discard)]
        for place in smallest:
            one.flat[place] = 0
        fused.append(one)
    return rollout(model, fused)


def gradient_rollout(model: WrittenOut, image: Tensor, target: int) -> Array:
    weights, gradients = model.observe(image, target)
    fused = []
    for a, g in zip(weights, gradients, strict=True):
        mean = sum(a[h] * g[h] for h in range(len(a))) / len(a)
        fused.append(np.maximum(mean, 0))
    return rollout(model, fused)


def generic_attention(model: WrittenOut, image: Tensor, target: int) -> Array:
    """Chefer 2021, eq. 5-6, for self-attention only."""
    weights, gradients = model.observe(image, target)
    relevance = np.eye(weights.shape[-1])
    for a, g in zip(weights, gradients, strict=True):
        evidence = sum(np.maximum(a[h] * g[h], 0) for h in range(len(a))) / len(a)
        relevance = relevance + evidence @ relevance
    return model.placed(sum(relevance[row] for row in model.read) / len(model.read))


def transition_attention(model: WrittenOut, image: Tensor, target: int, steps: int = 20) -> Array:
    """Yuan 2021: the state wanders from the last layer to the first, then is weighted by integrated gradients."""
    weights, _ = model.observe(image, target)
    heads = len(weights[0])
    state = sum(weights[-1][h][row] for h in range(heads) for row in model.read) / heads / len(model.read)
    for layer in weights[-2::-1]:
        state = state @ (sum(layer) / heads) + state
    integrated = np.zeros_like(weights[-1])
    for number in range(steps):
        integrated += model.observe(image * (number / (steps - 1)), target)[1][-1] / steps
    positive = np.maximum(integrated, 0)
    rows = sum(positive[h][row] for h in range(heads) for row in model.read) / heads / len(model.read)
    return model.placed(state * rows)


def legrad(model: WrittenOut, image: Tensor, target: int) -> Array:
    """Bousselham 2024: each layer's own score, by its own weights."""
    _, weights, between = model.run(image)
    total = np.zeros(len(between[0]))
    for own, tokens in zip(weights, between, strict=True):
        mean = tokens.mean(0)
        score = model.scores(torch.stack([mean] * len(tokens)))[target]
        gradients = torch.autograd.grad(score, own, retain_graph=True)
        for gradient in gradients:
            for row in gradient.numpy():
                total += np.maximum(row, 0) / len(own) / len(tokens) / len(weights)
    return model.placed(total)


def _pair(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _thirds(weight: Tensor, bias: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(weight.chunk(3), bias.chunk(3), strict=True))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in model.state_dict().items()}


def of_timm(model: nn.Module) -> WrittenOut:
    state = _state(model)
    width, averages = state["pos_embed"].shape[-1], "cls_token" not in state
    special = [state[name][0] for name in ("cls_token", "reg_token") if name in state]
    prefix = torch.cat(special) if special else torch.zeros(0, width, dtype=torch.float64)
    positions = state["pos_embed"][0]
    blocks = []
    for number in range(len(model.blocks)):
        at = f"blocks.{number}"
        ones = torch.ones(width, dtype=torch.float64)
        blocks.append(
            Block(
                _pair(state, f"{at}.norm1"),
                *_thirds(*_pair(state, f"{at}.attn.qkv")),
                _pair(state, f"{at}.attn.proj"),
                _pair(state, f"{at}.norm2"),
                _pair(state, f"{at}.mlp.fc1"),
                _pair(state, f"{at}.mlp.fc2"),
                (state.get(f"{at}.ls1.gamma", ones), state.get(f"{at}.ls2.gamma", ones)),
            )
        )
    grid = tuple(model.patch_embed.grid_size)
    written: WrittenOut

    def head(tokens: Tensor) -> Tensor:
        weight, bias = _pair(state, "head")
        pooled = written.normalised(tokens.mean(0, keepdim=True), _pair(state, "fc_norm"))[0] if averages else tokens[0]
        return weight @ pooled + bias

    written = WrittenOut(
        _pair(state, "patch_embed.proj"),
        prefix + positions[: len(prefix)],
        positions[len(prefix) :],
        blocks,
        None if averages else _pair(state, "norm"),
        head,
        model.blocks[0].attn.num_heads,
        1e-6,
        list(range(len(positions))) if averages else [0],
        grid,
    )
    return written


def of_torchvision(model: nn.Module) -> WrittenOut:
    state = _state(model)
    blocks = []
    for number in range(len(model.encoder.layers)):
        at = f"encoder.layers.encoder_layer_{number}"
        mha = f"{at}.self_attention"
        width = state["class_token"].shape[-1]
        ones = torch.ones(width, dtype=torch.float64)
        blocks.append(
            Block(
                _pair(state, f"{at}.ln_1"),
                *_thirds(state[f"{mha}.in_proj_weight"], state[f"{mha}.in_proj_bias"]),
                _pair(state, f"{mha}.out_proj"),
                _pair(state, f"{at}.ln_2"),
                _pair(state, f"{at}.mlp.0"),
                _pair(state, f"{at}.mlp.3"),
                (ones, ones),
            )
        )
    positions = state["encoder.pos_embedding"][0]
    side = model.image_size // model.patch_size
    weight, bias = _pair(state, "heads.head")
    return WrittenOut(
        _pair(state, "conv_proj"),
        state["class_token"][0] + positions[:1],
        positions[1:],
        blocks,
        _pair(state, "encoder.ln"),
        lambda tokens: weight @ tokens[0] + bias,
        model.encoder.layers[0].num_heads,
        1e-6,
        [0],
        (side, side),
    )


def of_hugging_face(model: nn.Module, grid: tuple[int, int]) -> WrittenOut:
    """ViT, or DINOv2 with registers, which are added behind the positions, and whose head takes the mean place, too."""
    state = _state(model)
    registers = "dinov2_with_registers.embeddings.register_tokens" in state
    root = "dinov2_with_registers" if registers else "vit"
    layers = f"{root}.encoder.layer" if registers else f"{root}.layers"
    norms = ("norm1", "norm2") if registers else ("layernorm_before", "layernorm_after")
    embeddings = f"{root}.embeddings"
    positions = state[f"{embeddings}.position_embeddings"][0]
    ones = torch.ones(positions.shape[-1], dtype=torch.float64)
    blocks = []
    for number in range(model.config.num_hidden_layers):
        at = f"{layers}.{number}"
        blocks.append(
            Block(
                _pair(state, f"{at}.{norms[0]}"),
                *(_pair(state, f"{at}.attention.{name}_proj") for name in "qkvo"),
                _pair(state, f"{at}.{norms[1]}"),
                _pair(state, f"{at}.mlp.fc1"),
                _pair(state, f"{at}.mlp.fc2"),
                (
                    state.get(f"{at}.layer_scale1.lambda1", ones),
                    state.get(f"{at}.layer_scale2.lambda1", ones),
                ),
            )
        )
    prefix = state[f"{embeddings}.cls_token"][0] + positions[:1]
    if registers:
        prefix = torch.cat([prefix, state[f"{embeddings}.register_tokens"][0]])
    weight, bias = _pair(state, "classifier")
    places = list(range(len(prefix), len(prefix) + grid[0] * grid[1]))

    def head(tokens: Tensor) -> Tensor:
        read = torch.cat([tokens[0], tokens[places].mean(0)]) if registers else tokens[0]
        return weight @ read + bias

    return WrittenOut(
        _pair(state, f"{embeddings}.patch_embeddings.projection"),
        prefix,
        positions[1:],
        blocks,
        _pair(state, f"{root}.layernorm"),
        head,
        model.config.num_attention_heads,
        model.config.layer_norm_eps,
        [0, *places] if registers else [0],
        grid,
    )
