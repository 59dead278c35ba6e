"""What vision transformers attend to: weights A of the attention layers, and G = d score / d A; heads h, tokens i and j.

A map has a value a place: the tokens before the places (class, distillation, registers) are left out at the end. It shows the
rows of those tokens that the score reads at the end: the class token's, or the mean of all where the model averages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.registry import method
from seewhy.maps.relevance import Relevance
from seewhy.recorder import Attention, AttentionLayer, Needs, Recording
from seewhy.recorder.chain import listed

Map = Float[Tensor, "batch *grid"]
Heads = Float[Tensor, "batch heads queries keys"]
Fused = Float[Tensor, "batch queries keys"]

_FUSIONS: dict[str, Callable[[Heads], Fused]] = {
    "mean": lambda heads: heads.mean(1),
    "max": lambda heads: heads.amax(1),
    "min": lambda heads: heads.amin(1),
}


@method(
    "attention",
    needs=Needs.ATTENTION,
    class_specific=False,
    signed=False,
    shows="influence",
    source="Vaswani et al. 2017, arXiv:1706.03762; Dosovitskiy et al. 2020, arXiv:2010.11929",
)
def attention(rec: Recording, *, layer: int = -1, head: Any = None) -> Map:
    """Show the attention weights of one layer: where the tokens that the score reads look.

    Formula: mean over h of A_h[i, :], averaged over the tokens i that the score reads.
    Options: layer, its number among the attention layers, from 0, or from -1 backwards; head, a head's number from 0, or None for
        the mean of all.
    Elsewhere: fused attention gives no weights, so peers have it switched off or read the queries and keys of models that they
        know; here they are computed again from queries and keys.
    """
    seen = rec.attention
    layers = seen.usable()
    chosen = layers[_index(layer, len(layers), "layer", seen.model)]
    left_out = len(seen.layers) - len(layers)
    rec.tell(f"attention of {chosen.name or 'the model itself'}, of {len(seen.layers)} attention layers")
    if left_out:
        rec.tell(
            f"{left_out} attention layers look at windows or other tokens than the picture's places and are left out"
        )
    weights = chosen.weights
    heads = weights.mean(1) if head is None else weights[:, _index(head, weights.shape[1], "head", chosen.name)]
    return seen.on_grid((seen.rows(chosen) @ heads)[:, 0])


@method(
    "attention-rollout",
    needs=Needs.ATTENTION,
    class_specific=False,
    signed=False,
    shows="influence",
    source="Abnar & Zuidema 2020, arXiv:2005.00928, eq. 1",
)
def attention_rollout(rec: Recording, *, fusion: str = "mean", discard: float = 0.0, start: int = 0) -> Map:
    """Follow attention through all layers down to the input, half of every token staying what it was.

    Formula: product over layers of (A + I) / 2 with rows that sum to 1, and A the mean of the heads; the rows of the tokens that
        the score reads.
    Options: fusion, how heads become one: "mean", "max" or "min"; discard, the part of each layer's weights, the smallest, that
        is set to 0 first; start, the first layer that counts, from 0.
    Elsewhere: vit-explain never discards the first weight only, and in the first sample of a batch only.
    """
    if fusion not in _FUSIONS:
        raise MethodError(
            f"fusion='{fusion}' is not known.{did_you_mean(fusion, _FUSIONS)} Known: {', '.join(_FUSIONS)}."
        )
    return _rolled_out(rec, start, lambda _, layer: _strongest(_FUSIONS[fusion](layer.weights), discard))


@method(
    "gradient-rollout",
    needs=Needs.ATTENTION_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Gildenblat 2020, github.com/jacobgil/vit-explain; Abnar & Zuidema 2020, arXiv:2005.00928",
)
def gradient_rollout(rec: Recording, *, discard: float = 0.0, start: int = 0) -> Map:
    """Follow attention through all layers, each weight times the score's derivative by it.

    Formula: attention rollout with the positive part of mean over h of A_h * G_h in the place of A.
    Options: discard, the part of each layer's weights, the smallest, that is set to 0 first; start, the first layer that counts,
        from 0.
    """
    return _rolled_out(
        rec, start, lambda seen, layer: _strongest((layer.weights * seen.gradients(layer)).mean(1).relu(), discard)
    )


@method(
    "generic-attention",
    needs=Needs.ATTENTION_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Chefer et al. 2021, arXiv:2103.15679, eq. 5-11",
)
def generic_attention(rec: Recording, *, start: int = 0) -> Map:
    """Add up, layer by layer, what positive attention evidence each token takes from the others (Chefer's relevance).

    Formula: R = I, then R = R + E R for every layer, with E the mean over h of the positive part of A_h * G_h; the rows of the
        tokens that the score reads. Where tokens of one kind s look at those of another t (a decoder's queries at a picture, a
        text and a picture at each other), R_st = R_st + N(R_ss)' E N(R_tt) and R_ss = R_ss + E R_ts, with N(R) = I + the rows of
        R - I made to sum to 1; the rows are those of R_st with t the picture.
    Options: start, the first layer that counts, from 0.
    Elsewhere: the authors' code is written for each model anew (ViT, DETR, LXMERT, VisualBERT); here it is found out which tokens
        look at which.
    """
    seen = _graph(rec)
    links = seen.links()
    unread = [layer for layer, _ in links if layer.gradients is None and seen.chain.links]

    def evidence(layer: AttentionLayer) -> Fused:
        if layer in unread:  # the last of a picture, say, of which only a text is read
            return torch.zeros_like(layer.weights[:, 0])
        return (layer.weights * seen.gradients(layer)).relu().mean(1)

    relevance = Relevance()
    for layer, saw in links[_index(start, len(links), "start", seen.model) :]:
        relevance.follow(layer, saw, evidence(layer))
    picture = seen.chain.count
    if not seen.chain.links:
        return seen.read(relevance.of(picture, picture), evidence)
    if unread:
        rec.tell(f"the score depends on nothing that {len(unread)} of the attention layers give: {listed(unread)}")
    rows = (seen.rows(end) @ relevance.of(end.queries, picture) for end in seen.ends())
    return seen.on_grid(sum(rows, torch.zeros(()))[:, 0])


@method(
    "transition-attention",
    needs=Needs.ATTENTION_GRADIENTS,
    class_specific=True,
    signed=False,
    source='Yuan et al. 2021, "Explaining Information Flow Inside Vision Transformers"',
    passes="1 + 1 and {steps} x (1 + 1)",
)
def transition_attention(rec: Recording, *, steps: int = 20, start: int = 0) -> Map:
    """Let the last layer's attention wander back through all layers as a Markov chain, weighted by integrated gradients (TAM).

    Formula: s = the read rows of the last A, then s = s A + s for every layer before, with A the mean of the heads; times the
        positive part of the last layer's G, averaged over inputs a x with a from 0 to 1, then over the heads, in the same rows.
    Options: steps, the number of inputs from 0 to x; start, the first layer that counts, from 0.
    """
    seen = _graph(rec)
    *before, last = [*_from(seen, start), *seen.readers()]
    rows = seen.rows(last)
    state = rows @ last.weights.mean(1)
    for layer in reversed(before):
        state = state + state @ layer.weights.mean(1)
    total, count = torch.zeros(()), 0
    for part in rec.varied(Scaled(steps)):
        again = part.attention
        found = again.gradients([*again.tokens(), *again.readers()][-1])
        found = found.view(-1, *seen.gradients(last).shape)
        total, count = total + found.sum(0), count + len(found)
    return seen.on_grid((state * (rows @ (total / count).relu().mean(1)))[:, 0])


@method(
    "legrad",
    needs=Needs.ATTENTION_FORMATION,
    class_specific=True,
    signed=False,
    source="Bousselham et al. 2024, arXiv:2404.03214",
    passes="2 + 2",
)
def legrad(rec: Recording, *, start: int = 0) -> Map:
    """Ask at every layer which attention weights would raise the score, if the model ended there with its mean token.

    Formula: mean over layers l, heads h and tokens i of the positive part of d s_l / d A_h[i, :], with s_l the score of the mean
        of the tokens behind layer l, put through all that follows the last layer.
    Options: start, the first layer that counts, from 0.
    Elsewhere: torchcam 0.5.0 gives the same for torchvision's VisionTransformer; for other models it wants to be told how tokens
        become scores. Here the model's own tail is run on them.
    """
    seen = _graph(rec)
    rec.pay(seen.formed)
    layers = _from(seen, start)
    return seen.on_grid(
        sum((seen.formation(layer).relu().mean((1, 2)) for layer in layers), torch.zeros(())) / len(layers)
    )


@dataclass(frozen=True)
class Scaled:
    """The input times factors from 0 to 1.

    Attributes:
        steps: how many, at least 1; a single one is the input itself.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps={self.steps} must be at least 1.")

    def __len__(self) -> int:
        return self.steps

    def __call__(
        self, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "batch channel *space"]]:
        """Yield the scaled inputs in an order drawn at random, so that a budget leaves out any of them alike."""
        for number in torch.randperm(self.steps, generator=generator).tolist():
            yield images * (number / (self.steps - 1) if self.steps > 1 else 1.0)


def _rolled_out(rec: Recording, start: int, fused: Callable[[Attention, AttentionLayer], Fused]) -> Map:
    """Return the product of all layers' attention, each mixed half and half with what the token was."""
    seen = _graph(rec)
    steps = (_shares(fused(seen, layer) + _identity(seen)) for layer in _from(seen, start))
    return seen.read(reduce(lambda below, step: step @ below, steps), lambda layer: _shares(fused(seen, layer)))


def _graph(rec: Recording) -> Attention:
    """Return a model's attention, to be followed from layer to layer, and tell which layers are left out."""
    seen = rec.attention
    if seen.left_out:
        rec.tell(seen.left_out)
    return seen


def _shares(weights: Fused) -> Fused:
    """Return the weights with rows that sum to 1; a row of zeros stays."""
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def _strongest(weights: Fused, discard: float) -> Fused:
    """Return each sample's weights with the smallest part of them set to 0."""
    if not 0 <= discard < 1:
        raise MethodError(f"discard={discard} must be at least 0 and less than 1.")
    count = int(weights[0].numel() * discard)
    if count == 0:
        return weights
    flat = weights.flatten(1)
    return flat.scatter(1, flat.argsort(stable=True, dim=1)[:, :count], 0.0).view_as(weights)


def _identity(seen: Attention) -> Fused:
    layer = seen.tokens()[0]
    return torch.eye(layer.keys, device=layer.weights.device).expand(len(layer.weights), -1, -1)


def _from(seen: Attention, start: int) -> list[AttentionLayer]:
    layers = seen.tokens()
    return layers[_index(start, len(layers), "start", seen.model) :]


def _index(given: Any, count: int, what: str, of: str) -> int:
    """Return a number from 0 of one among several, which may be counted from the end.

    Raises:
        MethodError: there are not so many, or it is not a whole number.
    """
    text = str(given).strip()
    if not text.lstrip("-").isdigit() or not -count <= int(text) < count:
        raise MethodError(
            f"{what}={given!r}: {of} has {count} to choose from: 0 to {count - 1}, or -1 to -{count} from the end."
        )
    return int(text) % count
