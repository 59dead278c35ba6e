"""Which attention layers of a model are one graph of tokens, so that they can be followed through each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from seewhy.recorder.attention import AttentionCall
from seewhy.recorder.layout import Layout
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import split_call

INSTEAD = "Use 'grad-cam', 'layer-cam' or 'occlusion', which need no attention."


@dataclass(frozen=True)
class Link:
    """An attention layer among tokens of several kinds. Layers are told by their places among all that ran.

    Attributes:
        place: the layer.
        saw: the last layer that had changed the tokens it looks at, as far as they come from attention.
    """

    place: int
    saw: int | None = None


@dataclass(frozen=True)
class Chain:
    """The layers that together are one graph of tokens, told by their places among all that ran.

    Attributes:
        count: how many tokens the picture has.
        layers: where the picture's tokens look at each other and at no others: every layer's at all those of the layer before.
        pool: the layer by which few queries read the last tokens, where there is one.
        links: where tokens of other kinds (a decoder's queries, a text's) and the picture's look at each other, all layers
            between them, in order.
        ends: those whose tokens no other layer reads, but perhaps the score; of a pool or of links.
        beside: layers that run beside the picture's tokens, as those of a text do.
        refusal: why there is nothing in `layers`; empty where there is.
    """

    count: int = 0
    layers: tuple[int, ...] = ()
    pool: int | None = None
    links: tuple[Link, ...] = ()
    ends: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class _Seen:
    """One attention layer, before it is known what it belongs to.

    Attributes:
        beside: whether it runs where no layer yields a map.
    """

    place: int
    call: AttentionCall
    queries: int
    keys: int
    beside: bool

    def __str__(self) -> str:
        return named(self.call.name, self.call.weights.shape)

    @property
    def whole(self) -> bool:
        """Whether its weights are those of whole samples."""
        return self.call.heads is not None

    @property
    def within(self) -> bool:
        """Whether tokens look at those of their own kind."""
        return self.queries == self.keys

    @property
    def shares(self) -> bool:
        """Whether the weights of a query add up to 1, as they do not where heads were mixed behind the softmax."""
        sums = self.call.weights.detach().float().sum(-1)
        return bool(((sums - 1).abs() < 0.02).logical_or(sums == 0).all())


def depends(later: AttentionCall, earlier: AttentionCall) -> bool:
    """Return whether a layer's weights come from another's; where there is no graph to tell, they are taken to."""
    if not (later.weights.requires_grad and earlier.weights.requires_grad):
        return True
    [gradient] = torch.autograd.grad(
        later.weights,
        earlier.weights,
        grad_outputs=torch.ones_like(later.weights),
        retain_graph=True,
        allow_unused=True,
    )
    return gradient is not None


def out_of_order(model: str, calls: Sequence[AttentionCall]) -> Chain | None:
    """Return why layers on which a score depends are no chain: one does not see what the one before gave; None where they are."""
    apart = next(((before, each) for before, each in pairwise(calls) if not depends(each, before)), None)
    if apart is None:
        return None
    before, each = (named(call.name, call.weights.shape) for call in apart)
    count = calls[0].weights.shape[-1]
    return Chain(
        refusal=f"The attention layers of {model} do not follow each other: {each} sees nothing that {before} gave. They run "
        f"side by side, or tokens of two kinds are {count} each, which cannot be told apart: give a picture of another size. "
        "'attention' shows one layer, 'grad-cam' needs none."
    )


def layouts_of(rows: Sequence[LayerRow], last: LayerRow | None) -> dict[int, Layout]:
    """Return by number of tokens how they lie in the picture; of several, as the last layer has it."""
    ordered = [*rows, *([last] if last is not None else [])]
    found = {row.layout.prefix + math.prod(row.layout.grid): row.layout for row in ordered if max(row.layout.grid) > 1}
    return {count: layout for count, layout in found.items() if math.prod(layout.grid) > 1}


def named(name: str, shape: Iterable[int]) -> str:
    """Return a layer in words, say, "blocks.3.attn (1 x 3 x 197 x 197)"."""
    return f"{name or 'the model itself'} ({' x '.join(map(str, shape))})"


def chain_of(
    model: str, calls: Sequence[AttentionCall], layouts: Mapping[int, Layout], rows: Sequence[LayerRow]
) -> Chain:
    """Return which attention layers are one graph of tokens, or why none is.

    Args:
        model: the model's class.
        calls: all that ran, in order.
        layouts: see :func:`layouts_of`.
        rows: the layers that yield a map; an attention among none of them runs beside the picture.
    """
    layers = [_seen(place, call, rows) for place, call in enumerate(calls)]
    count = _count(layers, layouts)
    if not count:
        return Chain(refusal=none_seen(model, layers))
    pool = _pool(layers, count)
    if pool is None and (linked := _linked(layers, count, layouts)):
        return _of_several_kinds(model, layers, linked, count)
    return _of_one_kind(model, layers, pool, count)


def none_seen(model: str, layers: Sequence[Any]) -> str:
    """Return the message that no attention of a model can be used."""
    if not layers:
        return (
            f"{model} runs no attention that can be seen: none by torch's scaled_dot_product_attention, by "
            f"nn.MultiheadAttention, or by a softmax whose result is multiplied with values. {INSTEAD}"
        )
    return (
        f"{model} has no attention whose tokens are all of the picture's places; its weights are those of windows, of channels, "
        f"or of tokens of which it is not known where they lie: {listed(layers)}. {INSTEAD}"
    )


def listed(layers: Sequence[Any]) -> str:
    """Return the first layers in words, and how many more there are."""
    few = "; ".join(map(str, layers[:3]))
    return few + (f"; and {len(layers) - 3} more" if len(layers) > 3 else "")


def _seen(place: int, call: AttentionCall, rows: Sequence[LayerRow]) -> _Seen:
    queries, keys = call.weights.shape[-2:]
    return _Seen(place, call, queries, keys, bool(call.block) and not any(_inside(call, row) for row in rows))


def _inside(call: AttentionCall, row: LayerRow) -> bool:
    """Return whether a layer that yields a map lies in the block of an attention, and does not read its tokens as channels."""
    channels = row.layout.channels if row.layout.order == "tokens-last" else 0
    within = f"{split_call(row.name)[0]}.".startswith(f"{call.block}.")
    return within and channels != call.weights.shape[-1]


def _count(layers: Sequence[_Seen], layouts: Mapping[int, Layout]) -> int:
    """Return how many tokens the picture has: of those that look at each other, or else at which others look; 0: none do."""
    candidates = [each for each in layers if each.whole and not each.beside and each.keys in layouts]
    found = [each.keys for each in candidates if each.within] or [
        each.keys for each in candidates if each.queries not in layouts
    ]
    return Counter(found).most_common(1)[0][0] if found else 0


def _pool(layers: Sequence[_Seen], count: int) -> _Seen | None:
    """Return the single layer behind all others by which queries that do not look at each other read the picture's tokens."""
    own = [each for each in layers if not each.beside and each.within and each.keys == count]
    rest = [each for each in layers if not each.beside and each not in own]
    if len(rest) != 1 or not own:
        return None
    [pool] = rest
    alone = not any(each.within and each.keys == pool.queries for each in layers)
    return pool if alone and pool.whole and pool.keys == count and pool.place > own[-1].place else None


def _linked(layers: Sequence[_Seen], count: int, layouts: Mapping[int, Layout]) -> list[_Seen]:
    """Return the layers among the picture's tokens and those of other kinds that one side looks at; none without any.

    Tokens of another number that are places, too, are the picture at another scale, and no other kind.
    """
    kinds, before = {count}, set[int]()
    while kinds != before:
        before = set(kinds)
        for each in layers:
            if each.whole and (each.queries in kinds) != (each.keys in kinds):
                kinds |= {kind for kind in (each.queries, each.keys) if kind not in layouts}
    linked = [each for each in layers if each.whole and each.queries in kinds and each.keys in kinds]
    left = [each for each in layers if each not in linked and not each.beside]
    sound = len(kinds) > 1 and not left and _own_runs(linked) and all(each.shares for each in linked)
    return linked if sound else []


def _of_several_kinds(model: str, layers: Sequence[_Seen], linked: Sequence[_Seen], count: int) -> Chain:
    links = []
    for number, each in enumerate(linked):
        changes = (other for other in reversed(linked[:number]) if other.queries == each.keys)
        saw = next((other for other in changes if depends(each.call, other.call)), None)
        links.append(Link(each.place, None if saw is None else saw.place))
    last = {each.queries: each.place for each in linked}
    read = {link.saw for link in links}
    beside = tuple(each.place for each in layers if each not in linked)
    ends = tuple(sorted(place for place in last.values() if place not in read))
    return Chain(
        count, links=tuple(links), ends=ends, beside=beside, refusal=_several_kinds(model, count, linked, len(layers))
    )


def _of_one_kind(model: str, layers: Sequence[_Seen], pool: _Seen | None, count: int) -> Chain:
    beside = [each for each in layers if each.beside]
    chain = [each for each in layers if not each.beside and each.whole and each.within and each.keys == count]
    rest = [each for each in layers if each not in chain and each not in beside and each != pool]
    if not chain:
        return Chain(refusal=none_seen(model, layers))
    if rest:
        return Chain(refusal=_not_one_graph(model, count, rest, len(layers)))
    if not _own_runs(chain):
        return Chain(refusal=_side_by_side(chain[0]))
    if not all(each.shares for each in chain):
        return Chain(refusal=_not_shares(chain[0]))
    return Chain(
        count,
        tuple(each.place for each in chain),
        None if pool is None else pool.place,
        ends=() if pool is None else (pool.place,),
        beside=tuple(each.place for each in beside),
    )


def _own_runs(layers: Sequence[_Seen]) -> bool:
    """Return whether no run of a module has two layers between the same kinds of tokens, which would be side by side."""
    runs = [(each.call.places[-1], each.queries, each.keys) for each in layers if each.call.name]
    return len(set(runs)) == len(runs)


def _several_kinds(model: str, count: int, linked: Sequence[_Seen], of: int) -> str:
    others = [each for each in linked if (each.queries, each.keys) != (count, count)]
    return (
        f"The attention of {model} is not one of the picture's {count} tokens alone: {len(others)} of {of} layers are of other "
        f"tokens, or look from one kind at the other: {listed(others)}. Use 'generic-attention', which follows relevance from "
        "one kind of tokens to the other, or 'attention', which shows one layer."
    )


def _not_one_graph(model: str, count: int, others: Sequence[_Seen], of: int) -> str:
    return (
        f"The attention of {model} is not one graph of tokens, so that layers cannot be followed through each other: "
        f"{len(others)} of {of} layers do not look from {count} tokens at the same {count} tokens, but at windows, channels, "
        f"fewer tokens or other ones: {listed(others)}. Use 'attention', which shows one layer that looks at all places, or "
        "'grad-cam' or 'layer-cam', which need no attention."
    )


def _side_by_side(layer: _Seen) -> str:
    return (
        f"{layer.call.name} runs several attentions side by side, which are no layers of one graph of tokens. Use 'attention', "
        "which shows one of them, or 'grad-cam'."
    )


def _not_shares(layer: _Seen) -> str:
    return (
        f"The weights of {layer} are not shares that add up to 1: the model changes them between softmax and values (heads that "
        "are mixed), so they cannot be followed from layer to layer. Use 'attention' or 'grad-cam'."
    )
