"""Relevance that tokens take from each other by attention, followed from layer to layer (Chefer et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.recorder import AttentionLayer

Taken = Mapping[int, Tensor]
"""What each token of one kind took from those of every kind `(batch, own, others)`; kinds are told by how many tokens they have.

Of its own kind that is R - I: beside the identity small numbers would lose their digits.
"""


class Relevance:
    """What all tokens took so far."""

    def __init__(self) -> None:
        self._now: dict[int, Taken] = {}
        self._after: dict[AttentionLayer, Taken] = {}

    def follow(
        self, layer: AttentionLayer, saw: AttentionLayer | None, evidence: Float[Tensor, "batch queries keys"]
    ) -> None:
        """Add what one layer's tokens take.

        Args:
            layer: the layer.
            saw: the one that had changed the tokens it looks at before; None: they are as they began.
            evidence: the positive evidence of each query for each key.
        """
        mine, theirs = layer.queries, layer.keys
        own = self._now.get(mine) or _nothing(mine, evidence)
        if mine == theirs:
            found = _from_their_own(evidence, own[mine], own)
        else:
            seen = self._after[saw] if saw in self._after else _nothing(theirs, evidence)
            found = _from_others(evidence, own[mine], seen, theirs)
        both = {kind: own[kind] + found[kind] for kind in own if kind in found}
        self._now[mine] = self._after[layer] = {**own, **found, **both}

    def of(self, own: int, other: int) -> Float[Tensor, "batch own others"]:
        """Return what tokens of one kind took from those of another, and of their own kind what they were."""
        taken = self._now[own]
        if own == other:
            return taken[own] + _identity(taken[own])
        return taken[other] if other in taken else taken[own].new_zeros(len(taken[own]), own, other)


def _nothing(count: int, like: Tensor) -> Taken:
    return {count: like.new_zeros(len(like), count, count)}


def _from_their_own(evidence: Tensor, mine: Tensor, own: Taken) -> Taken:
    """Eq. 6 and 7."""
    return {kind: evidence @ values + (evidence if values is mine else 0) for kind, values in own.items()}


def _from_others(evidence: Tensor, mine: Tensor, seen: Taken, theirs: int) -> Taken:
    """Eq. 10, and eq. 11 for all that those took, whose tokens are looked at."""
    taken = {kind: evidence @ values for kind, values in seen.items() if kind != theirs}
    return {**taken, theirs: _beside_itself(mine).mT @ evidence @ _beside_itself(seen[theirs])}


def _beside_itself(taken: Tensor) -> Tensor:
    """Eq. 8 and 9: what tokens took, as shares that sum to 1, beside what they were; nothing taken stays nothing."""
    return taken / taken.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) + _identity(taken)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], device=like.device)
