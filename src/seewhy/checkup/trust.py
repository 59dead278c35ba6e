"""From how alike maps are to a verdict in words: may a method's map be trusted on this model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seewhy.checkup.outcomes import Name, Outcome, Verdict
from seewhy.measures.agreement import alike
from seewhy.measures.controls import shuffled

SAME = 0.5**0.5
"""The correlation above which more than half of how one map's ranks vary is told by the other: what both share, which knows
nothing of what was changed, then makes more of the map than all else."""

SHUFFLES = 40
"""Shuffled maps from which it is known how alike unrelated maps are."""

USUALLY = 0.95
"""The part of unrelated maps that must be less alike."""

CELLS = 16
"""Cells along an axis at which methods are compared: a map of single pixels is noise beside one of a layer's cells."""


@dataclass(frozen=True)
class Known:
    """What is known of a method's map before it is judged.

    Attributes:
        method: what it is called.
        chance: how alike to it, up to the sign, 95 % of maps are that have its values elsewhere; NaN for a map that is the same
            everywhere.
        is_blind: whether the method does not ask for the class.
    """

    method: str
    chance: float
    is_blind: bool = False

    def outcome(self, check: Name, verdict: Verdict, value: float, told: tuple[str, str], **numbers: Any) -> Outcome:
        """Return a verdict on what must not be alike."""
        return Outcome(check, self.method, verdict, value, SAME, "above", self.chance, *told, numbers)

    def unasked(self, check: Name, why: str) -> Outcome:
        """Return that a check could not be made, and why."""
        return self.outcome(check, "cannot be asked", float("nan"), (why, ""))

    @property
    def unknowable(self) -> str:
        """Why nothing can be told by how alike maps are; empty where it can."""
        if np.isnan(self.chance):
            return "The map is the same everywhere: there is nothing that could change."
        if self.chance >= SAME:
            return (
                f"The map has so little structure that unrelated ones are alike up to {self.chance:.2f}. Name a finer layer "
                "(--layer)."
            )
        return ""


def known_of(method: str, values: Float[Tensor, "*space"], seed: int, *, is_blind: bool = False) -> Known:
    """Return what a map's own shuffles tell of it."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.stack([shuffled(values, generator) for _ in range(SHUFFLES)])
    found = likeness(values.expand_as(others), others)
    return Known(method, float(np.quantile(np.abs(found), USUALLY)), is_blind)  # of a constant map NaN


def likeness(one: Float[Tensor, " number *space"], other: Float[Tensor, " number *space"]) -> npt.NDArray[np.float64]:
    """Return how alike each two maps are, -1..1: the correlation of ranks over all places; NaN where `one` is constant."""
    return alike("spearman", one[None], other[None])[0].double().numpy()


def of_class(known: Known, found: npt.NDArray[np.float64], asked: str, others: Sequence[str]) -> Outcome:
    """Judge how alike a map is to those of other classes.

    Args:
        known: of the map.
        found: `(class,)`.
        asked, others: the classes' names.
    """
    value = float(found.mean())
    names = ", ".join(f"'{other}'" for other in others)
    numbers = {"each": dict(zip(others, found.tolist(), strict=True))}
    if known.is_blind:
        told = (
            f"{known.method} does not ask what speaks for a class: by nature it cannot pass, however its maps differ.",
            f"Read it as what stands out, never as what speaks for '{asked}'.",
        )
        return known.outcome("class", "fails", value, told, **numbers)
    if value <= SAME:
        shared = "no more than unrelated maps" if value <= known.chance else "some places are shared"
        told = (f"The map of '{asked}' is another one than that of {names} ({shared}): it is about the class.", "")
        return known.outcome("class", "passes", value, told, **numbers)
    told = (
        f"The map of '{asked}' is nearly that of {names}: it shows where the model sees anything, not why it says '{asked}'.",
        "Ask what sets two classes apart (target 'A-vs-B'), or take another method or layer.",
    )
    return known.outcome("class", "fails", value, told, **numbers)


def of_weights(known: Known, found: npt.NDArray[np.float64], parts: Sequence[float]) -> Outcome:
    """Judge how alike a map is to those of models whose last layers were drawn anew.

    With other weights the same places may speak against the class, so a map that only turns its sign has not changed.

    Args:
        known: of the map.
        found: `(draw, part)`.
        parts: of the layers with weights, those that were drawn.
    """
    sizes = np.abs(found).mean(0)
    value = float(sizes.mean())
    numbers = {"parts": dict(zip((f"{part:.2f}" for part in parts), sizes.tolist(), strict=True))}
    if value <= SAME:
        told = ("Without what the model learnt the map is another one: it is about this model.", "")
        return known.outcome("weights", "passes", value, told, **numbers)
    stays = (
        f"The map stays ({sizes[-1]:.2f} when all layers are drawn anew) though the model forgot what it learnt: it is drawn by "
        "the picture (its edges, its bright places) or by the model's shape."
    )
    told = (stays, "Do not read it as what the model learnt; take a method that passes.")
    return known.outcome("weights", "fails", value, told, **numbers)


def of_input(known: Known, found: Mapping[str, npt.NDArray[np.float64]]) -> Outcome:
    """Judge how alike a map is to those of other inputs.

    Args:
        known: of the map.
        found: for each kind of input `(draw,)`.
    """
    means = {kind: float(values.mean()) for kind, values in found.items()}
    worst = max(means, key=lambda kind: means[kind])
    if means[worst] <= SAME:
        told = (f"{' and '.join(means).capitalize()} have other maps: it is about this picture.", "")
        return known.outcome("input", "passes", means[worst], told, **means)
    told = (
        f"Much the same map is drawn of {worst}: it hangs little on what is shown (a liking for the middle or the border, say).",
        "Do not read it as what the model saw here; take another layer or method.",
    )
    return known.outcome("input", "fails", means[worst], told, **means)


def agreement_of(maps: Float[Tensor, " method *space"]) -> npt.NDArray[np.float32]:
    """Return how alike each two maps are, `(method, method)`; NaN where one is the same everywhere."""
    found = np.stack([likeness(one.expand_as(maps), maps) for one in maps])
    flat = np.isnan(found).all(1)
    found[:, flat] = np.nan
    return found.astype(np.float32)


def coarse(maps: Float[Tensor, " method *space"]) -> Float[Tensor, " method *cells"]:
    """Return maps as means over at most 16 cells along an axis."""
    size = tuple(min(CELLS, length) for length in maps.shape[1:])
    result: Tensor = _POOL[len(size)](maps[:, None].float(), size)[:, 0]
    return result


_POOL: Mapping[int, Any] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


def of_agreement(known: Sequence[Known], agreement: npt.NDArray[np.float32]) -> list[Outcome]:
    """Judge which methods stand alone: whose map is to those of the others, in the median, as an unrelated one.

    Args:
        known: of each map, at the grid at which they were compared.
        agreement: `(method, method)`.
    """
    return [
        _agreed(one, {other.method: float(row[at]) for at, other in enumerate(known) if other is not one})
        for one, row in zip(known, agreement, strict=True)
    ]


def _agreed(known: Known, others: Mapping[str, float]) -> Outcome:
    """Judge one method by how alike its map is to each other method's."""
    told = {name: value for name, value in others.items() if np.isfinite(value)}
    if np.isnan(known.chance):
        return replace(known.unasked("agreement", known.unknowable), threshold=float("nan"), fails="below")
    if not told:
        why = "There is no other map to compare with: ask for several methods."
        return replace(known.unasked("agreement", why), threshold=known.chance, fails="below")
    value = float(np.median(list(told.values())))
    apart = [f"{name} ({each:.2f})" for name, each in told.items() if each <= known.chance]
    passes = value > known.chance
    found = (
        "All others show related places: more alike than by chance."
        if not apart
        else f"It disagrees with {', '.join(apart)}."
    )
    if passes and apart:
        found += " Most others show related places: more alike than by chance."
    remedy = (
        "" if passes else "See which of them pass the other checks, and how true each is (--verify); believe those."
    )
    return Outcome(
        "agreement",
        known.method,
        "passes" if passes else "fails",
        value,
        known.chance,
        "below",
        known.chance,
        found,
        remedy,
        {"each": told},
    )
