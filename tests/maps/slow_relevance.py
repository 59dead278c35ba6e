"""AttnLRP from its paper's equations: relevance from layer to layer of a written-out transformer, in float64, with no derivative.

Every rule takes the relevance of what a layer gave and returns that of what it was given. Nothing is shared with the library.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import slow_attention as slow
import torch
from torch import Tensor

Array = np.ndarray


@dataclass
class Relevance:
    """Relevance on its way down a transformer.

    Attributes:
        gamma: of the rule for linear layers.
        lost: what stayed with biases (and positions, and tokens that are no places), and what the rule of softmax loses.
    """

    gamma: float
    lost: Counter[str] = field(default_factory=Counter)

    def linear(self, relevance: Array, given: Array, weight: Array, bias: Array) -> Array:
        """The gamma rule, output by output; with gamma 0 LRP-0. The bias is one more input."""
        handed = np.zeros_like(given)
        for token in range(len(given)):
            for output in range(len(weight)):
                parts = np.append(given[token] * weight[output], bias[output])
                same_sign = np.maximum(parts, 0) if parts.sum() > 0 else np.minimum(parts, 0)
                parts = parts + self.gamma * same_sign
                shares = parts / parts.sum() * relevance[token, output]
                handed[token] += shares[:-1]
                self.lost["bias"] += shares[-1]
        return handed

    def plus(self, relevance: Array, summand: Array, other: Array) -> tuple[Array, Array]:
        """A sum, value by value."""
        return relevance * summand / (summand + other), relevance * other / (summand + other)

    def normalised(self, relevance: Array, given: Array, weight: Array, bias: Array, epsilon: float) -> Array:
        """The affine part like any other, the deviation by the identity rule, the mean like a linear layer."""
        count = given.shape[1]
        handed = np.zeros_like(given)
        for token, values in enumerate(given):
            centred = values - values.mean()
            scaled = centred / math.sqrt((centred**2).mean() + epsilon) * weight
            own, to_bias = self.plus(relevance[token], scaled, bias)
            self.lost["bias"] += to_bias.sum()
            for output in range(count):
                parts = (np.arange(count) == output) * values - values / count
                handed[token] += parts / centred[output] * own[output]
        return handed

    def product(self, relevance: Array, left: Array, right: Array) -> tuple[Array, Array]:
        """The uniform rule of left @ right: half to each factor of each summand."""
        to_left, to_right = np.zeros_like(left), np.zeros_like(right)
        for row in range(len(left)):
            for column in range(right.shape[1]):
                parts = left[row] * right[:, column]
                shares = parts / (2 * parts.sum()) * relevance[row, column]
                to_left[row] += shares
                to_right[:, column] += shares
        return to_left, to_right

    def softmax(self, relevance: Array, given: Array, weights: Array) -> Array:
        """The paper's Taylor decomposition of softmax."""
        handed = np.zeros_like(given)
        for row in range(len(given)):
            handed[row] = given[row] * (relevance[row] - weights[row] * relevance[row].sum())
        self.lost["softmax"] += relevance.sum() - handed.sum()
        return handed


def attn_lrp(model: slow.WrittenOut, image: Tensor, target: int, gamma: float = 0.0) -> tuple[Array, Counter[str]]:
    """Return the relevance `(channel, height, width)` of an image, and what was lost on the way."""
    tokens, between = model.tokens(image), []
    patches = tokens
    for number in range(len(model.blocks)):
        between.append(tokens)
        tokens, _ = model.block(number, tokens)
    weight, bias = _read(model, tokens.shape)
    rule = Relevance(gamma)
    final = model.normalised(tokens, model.norm)
    relevance = np.zeros((1, len(weight)))
    relevance[0, target] = model.head(final)[target].item()
    relevance = rule.linear(relevance, _array(final).reshape(1, -1), weight, bias).reshape(final.shape)
    relevance = rule.normalised(relevance, _array(tokens), *map(_array, model.norm), model.epsilon)
    for number in reversed(range(len(model.blocks))):
        relevance = _through_block(rule, model, number, _array(between[number]), relevance)
    return _through_patches(rule, model, image, _array(patches), relevance), rule.lost


def _read(model: slow.WrittenOut, shape: torch.Size) -> tuple[Array, Array]:
    """Return the linear head as a weight of all tokens' values and a bias, found by trying."""
    bias = model.head(torch.zeros(shape, dtype=torch.float64))
    columns = []
    for place in range(shape.numel()):
        one = torch.zeros(shape.numel(), dtype=torch.float64)
        one[place] = 1
        columns.append(_array(model.head(one.view(shape)) - bias))
    return np.stack(columns, 1), _array(bias)


def _through_block(rule: Relevance, model: slow.WrittenOut, number: int, tokens: Array, relevance: Array) -> Array:
    own = model.blocks[number]
    parts = {name: [_array(each) for each in getattr(own, name)] for name in vars(own)}
    normal1 = _array(model.normalised(torch.from_numpy(tokens), own.norm1))
    q, k, v = (normal1 @ parts[name][0].T + parts[name][1] for name in ("query", "key", "value"))
    width = q.shape[1] // model.heads
    heads = [slice(head * width, (head + 1) * width) for head in range(model.heads)]
    products = [q[:, head] @ k[:, head].T / math.sqrt(width) for head in heads]
    weights = [np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in products]
    mixed = np.concatenate([own_weights @ v[:, head] for own_weights, head in zip(weights, heads, strict=True)], 1)
    attended = parts["scales"][0] * (mixed @ parts["out"][0].T + parts["out"][1])
    middle = tokens + attended
    normal2 = _array(model.normalised(torch.from_numpy(middle), own.norm2))
    before = normal2 @ parts["first"][0].T + parts["first"][1]
    after = before * (1 + np.vectorize(math.erf)(before / math.sqrt(2))) / 2
    inner = parts["scales"][1] * (after @ parts["second"][0].T + parts["second"][1])

    relevance, aside = rule.plus(relevance, middle, inner)  # a scale of each channel hands on what it gets
    aside = rule.linear(aside, after, *parts["second"])
    aside = rule.linear(aside, normal2, *parts["first"])  # so does GELU, by the identity rule
    relevance = relevance + rule.normalised(aside, middle, *parts["norm2"], model.epsilon)

    relevance, aside = rule.plus(relevance, tokens, attended)
    aside = rule.linear(aside, mixed, *parts["out"])
    to_q, to_k, to_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for head, scores, own_weights in zip(heads, products, weights, strict=True):
        to_weights, to_v[:, head] = rule.product(aside[:, head], own_weights, v[:, head])
        to_scores = rule.softmax(to_weights, scores, own_weights)
        to_q[:, head], turned = rule.product(to_scores, q[:, head], k[:, head].T)
        to_k[:, head] = turned.T
    aside = rule.linear(to_q, normal1, *parts["query"])
    aside = aside + rule.linear(to_k, normal1, *parts["key"]) + rule.linear(to_v, normal1, *parts["value"])
    return relevance + rule.normalised(aside, tokens, *parts["norm1"], model.epsilon)


def _through_patches(rule: Relevance, model: slow.WrittenOut, image: Tensor, tokens: Array, relevance: Array) -> Array:
    prefix, (weight, bias) = len(model.prefix), map(_array, model.patch)
    rule.lost["bias"] += relevance[:prefix].sum()
    positions = _array(model.positions)
    to_patches, to_positions = rule.plus(relevance[prefix:], tokens[prefix:] - positions, positions)
    rule.lost["bias"] += to_positions.sum()
    size, found = weight.shape[-1], np.zeros(tuple(image.shape))
    for place in range(len(to_patches)):
        row, column = (size * each for each in divmod(place, model.grid[1]))
        at = (slice(None), slice(row, row + size), slice(column, column + size))
        pixels = _array(image)[at].reshape(1, -1)
        handed = rule.linear(to_patches[place : place + 1], pixels, weight.reshape(len(weight), -1), bias)
        found[at] = handed.reshape(weight.shape[1:])
    return found


def _array(values: Tensor) -> Array:
    return values.detach().numpy()
