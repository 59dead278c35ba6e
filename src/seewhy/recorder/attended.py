"""What was seen of a model's attention, as methods read it: weights, derivatives, and which of it is one graph of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.recorder.chain import INSTEAD, Chain, listed, named, none_seen
from seewhy.recorder.cost import Cost
from seewhy.recorder.layout import Layout

Heads = Float[Tensor, "batch heads queries keys"]


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One run of one attention layer.

    Attributes:
        name: the module.
        shape: of the weights as the model has them.
        known: `(batch, heads, queries, keys)`; None where the model's own are not those of whole samples.
        gradients: the score's derivative by the weights.
        formation: the same of the score that the mean of the layer's own tokens alone would have.
    """

    name: str
    shape: tuple[int, ...]
    known: Heads | None
    gradients: Heads | None = None
    formation: Heads | None = None

    @property
    def weights(self) -> Heads:
        """The weights `(batch, heads, queries, keys)`.

        Raises:
            MethodError: the model's own are not those of whole samples.
        """
        if self.known is None:
            raise MethodError(f"The weights of {self} are not those of whole samples. {INSTEAD}")
        return self.known

    @property
    def queries(self) -> int:
        """How many tokens look."""
        return self.shape[-2]

    @property
    def keys(self) -> int:
        """How many tokens are looked at."""
        return self.shape[-1]

    def __str__(self) -> str:
        """Return, say, "blocks.3.attn (1 x 3 x 197 x 197)"."""
        return named(self.name, self.shape)


@dataclass(eq=False)
class Attended:
    """All attention of one run.

    Attributes:
        model: the model's class.
        layers: what ran, in order.
        layouts: number of tokens -> how they lie in the picture.
        chain: which of the layers are one graph of tokens.
        gradients: (question number, layer's place) -> derivative by the weights.
        formations: the same of the layers' own scores.
        reading: (question number, number of tokens) -> `(batch, tokens)`, the part of each token in what the score reads of the
            last tokens of which there are so many.
        formed: what the layers' own scores of one question took, of one image.
    """

    model: str
    layers: tuple[AttentionLayer, ...]
    layouts: Mapping[int, Layout]
    chain: Chain
    gradients: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    formations: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    reading: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    formed: Cost = field(default_factory=Cost)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is held."""
        weights = [layer.known for layer in self.layers if layer.known is not None]
        return [*weights, *self.gradients.values(), *self.formations.values()]

    def at(self, question: int, mine: Callable[[Tensor], Tensor]) -> Attention:
        """Return what one question's recording sees of it.

        Args:
            question: its number.
            mine: takes the recording's samples out of a batch.
        """

        def part(values: Tensor | None) -> Tensor | None:
            return None if values is None else mine(values)

        layers = tuple(
            AttentionLayer(
                layer.name,
                layer.shape,
                part(layer.known),
                part(self.gradients.get((question, place))),
                part(self.formations.get((question, place))),
            )
            for place, layer in enumerate(self.layers)
        )
        reading = {count: mine(parts) for (number, count), parts in self.reading.items() if number == question}
        return Attention(self.model, layers, self.layouts, self.chain, reading, self.formed)


@dataclass(frozen=True, eq=False)
class Attention:
    """A model's attention, and what one question's score reads of it.

    Attributes:
        model: the model's class.
        layers: all that ran, in order.
        layouts: number of tokens -> how they lie in the picture.
        chain: which of the layers are one graph of tokens.
        reading: number of tokens -> `(batch, tokens)`, where it is known.
        formed: what the layers' own scores took, of one image.
    """

    model: str
    layers: tuple[AttentionLayer, ...]
    layouts: Mapping[int, Layout]
    chain: Chain
    reading: Mapping[int, Float[Tensor, "batch tokens"]]
    formed: Cost

    def usable(self) -> list[AttentionLayer]:
        """Return the layers of whose keys it is known where in the picture they lie.

        Raises:
            MethodError: there is none.
        """
        found = [layer for layer in self.layers if layer.known is not None and layer.keys in self.layouts]
        if not found:
            raise MethodError(none_seen(self.model, self.layers))
        return found

    def tokens(self) -> list[AttentionLayer]:
        """Return the layers that are one graph of tokens, the first layer first.

        Raises:
            MethodError: the model's attention is not such a graph.
        """
        if self.chain.refusal:
            raise MethodError(self.chain.refusal)
        return [self.layers[place] for place in self.chain.layers]

    def links(self) -> list[tuple[AttentionLayer, AttentionLayer | None]]:
        """Return each layer of the graph, also of tokens of several kinds, and the last that had changed what it looks at.

        Raises:
            MethodError: the model's attention is no such graph.
        """
        if not self.chain.links:
            own = self.tokens()
            return list(zip(own, [None, *own], strict=False))
        found = [(link.place, link.saw) for link in self.chain.links]
        return [(self.layers[place], None if saw is None else self.layers[saw]) for place, saw in found]

    @property
    def left_out(self) -> str:
        """Which layers are no part of the graph of tokens, in words; empty where all are."""
        beside = [self.layers[place] for place in self.chain.beside]
        return (
            f"{len(beside)} of {len(self.layers)} attention layers run beside the picture's tokens (of a text, or in windows "
            f"without a map) and are left out: {listed(beside)}"
            if beside
            else ""
        )

    def rows(self, layer: AttentionLayer) -> Float[Tensor, "batch one queries"]:
        """Return the part of each of a layer's queries in what the score reads.

        Those tokens that the score reads at the end, alike; where that is not known, the first token if there are tokens before
        the places, else all.
        """
        batch, queries = len(layer.weights), layer.queries
        if queries in self.reading:
            return self.reading[queries][:, None]
        parts = layer.weights.new_full((batch, 1, queries), 1 / queries)
        layout = self.layouts.get(queries)
        if layout is not None and layout.prefix and queries == layer.keys:
            parts = torch.zeros_like(parts)
            parts[:, :, 0] = 1
        return parts

    def ends(self) -> list[AttentionLayer]:
        """Return the layers whose tokens no other layer reads, but the score does.

        Raises:
            MethodError: the score reads none of them.
        """
        last = [self.layers[place] for place in self.chain.ends]
        read = [layer for layer in last if layer.gradients is not None]
        if last and not read:
            raise MethodError(_detached(last[0]))
        return read

    def readers(self) -> list[AttentionLayer]:
        """Return the layer by which few queries read the last tokens, where there is one."""
        return [] if self.chain.pool is None else [self.layers[self.chain.pool]]

    def read(
        self, through: Float[Tensor, "batch tokens tokens"], fused: Callable[[AttentionLayer], Tensor]
    ) -> Float[Tensor, " batch *grid"]:
        """Return the rows of what all layers together look at that the score reads, laid out as in the picture.

        Args:
            through: how much each last token takes from each first one.
            fused: from a layer to its heads put together `(batch, queries, keys)`, for the one that pools, where there is one.
        """
        rows = self.rows(self.tokens()[-1])
        for pool in self.readers():
            rows = self.rows(pool) @ fused(pool)
        return self.on_grid((rows @ through)[:, 0])

    def on_grid(self, values: Float[Tensor, "batch tokens"]) -> Float[Tensor, " batch *grid"]:
        """Return one value a token as `(batch, *grid)`; tokens that are not places are left out."""
        layout = self.layouts[values.shape[1]]
        return values[:, layout.prefix :].reshape(len(values), *layout.grid)

    def gradients(self, layer: AttentionLayer) -> Heads:
        """Return the score's derivative by a layer's weights.

        Raises:
            MethodError: the score does not depend on them.
        """
        if layer.gradients is None:
            raise MethodError(_detached(layer))
        return layer.gradients

    def formation(self, layer: AttentionLayer) -> Heads:
        """Return the derivative by a layer's weights of the score of the mean of the layer's own tokens.

        Raises:
            MethodError: there is none.
        """
        if layer.formation is None:
            raise MethodError(
                f"{self.model} has no module around {layer} alone that gives tokens (batch, tokens, channel), by which the score "
                "could be asked for behind this layer. Use 'generic-attention', which asks at the model's end only."
            )
        return layer.formation


def _detached(layer: AttentionLayer) -> str:
    return (
        f"The score cannot be differentiated by the attention weights of {layer}: the model detaches behind them "
        "(`.detach()`, `.data`, rounding, numpy). Use 'attention-rollout', which needs no derivatives."
    )
