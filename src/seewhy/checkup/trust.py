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
from seewhy.measured import known_mean
from seewhy.measures.agreement import are_flat, spearman
from seewhy.measures.controls import shuffled

SAME = 0.5**0.5
"""The correlation above which more than half of how one map's ranks vary is told by the other: what both share, which knows
nothing of what was changed, then makes more of the map than all else."""

SHUFFLES = 40
"""Shuffled maps from which it is known how alike unrelated maps are."""

USUALLY = 0.95
"""The part of unrelated maps that must be less alike."""

BLANK = "The maps made again are all the same everywhere: how alike they are to this one tells nothing."

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
        is_control: whether it is known to know nothing of the model, so that agreeing with it says nothing.
    """

    method: str
    chance: float
    is_blind: bool = False
    is_control: bool = False

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


def known_of(
    method: str, values: Float[Tensor, "*space"], seed: int, *, is_blind: bool = False, is_control: bool = False
) -> Known:
    """Return what a map's own shuffles tell of it."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.stack([shuffled(values, generator) for _ in range(SHUFFLES)])
    found = likeness(values.expand_as(others), others)
    chance = float(np.quantile(np.abs(found), USUALLY))  # of a constant map NaN
    return Known(method, chance, is_blind, is_control)


def likeness(one: Float[Tensor, " number *space"], other: Float[Tensor, " number *space"]) -> npt.NDArray[np.float64]:
    """Return how alike each two maps are, -1..1: the correlation of ranks over all places; NaN where either is constant.

    A map that is the same everywhere has no order to be alike or not: most often the copy that it is of lets nothing through.
    """
    rows = (one.flatten(1), other.flatten(1))
    found = spearman(*rows).masked_fill(are_flat(rows[0]) | are_flat(rows[1]), torch.nan)
    return found.double().numpy()


def of_class(
    known: Known, found: npt.NDArray[np.float64], asked: str, others: Sequence[str], *, chosen: bool = False
) -> Outcome:
    """Judge how alike a map is to those of other classes, in the median: one that turned its sign does not hide two that stay.

    Args:
        known: of the map.
        found: `(class,)`; NaN for a map that is the same everywhere.
        asked, others: the classes' names.
        chosen: whether the caller named the others.
    """
    if not np.isfinite(found).any():
        return known.unasked("class", BLANK)
    value = float(np.nanmedian(found))
    numbers = {"each": dict(zip(others, found.tolist(), strict=True))}
    same, differ = (
        [
            f"'{other}'"
            for other, each in zip(others, found, strict=True)
            if np.isfinite(each) and (each > SAME) == is_same
        ]
        for is_same in (True, False)
    )
    if known.is_blind:
        told = (
            f"{known.method} does not ask what speaks for a class: by nature it cannot pass, however its maps differ.",
            f"Read it as what stands out, never as what speaks for '{asked}'.",
        )
        return known.outcome("class", "fails", value, told, **numbers)
    if value <= SAME:
        shared = "no more than unrelated maps" if value <= known.chance else "some places are shared"
        words = (
            f"The map of '{asked}' is another one than that of {', '.join(differ)} ({shared}): it is about the class."
        )
        words += f" It is nearly that of {', '.join(same)}." if same else ""
        return known.outcome("class", "passes", value, (words + _left_out(found), ""), **numbers)
    both = "both" if len(same) == 1 else "all"
    words = f"The map of '{asked}' is nearly that of {', '.join(same)}: "
    words += f"it shows what speaks for {both}, not what sets '{asked}' apart."
    words += " Classes that look alike may rightly share a map." if chosen else ""
    remedy = "Ask what sets two classes apart (target 'A-vs-B'), or take another method or layer."
    return known.outcome("class", "fails", value, (words + _left_out(found), remedy), **numbers)


def of_weights(known: Known, found: npt.NDArray[np.float64], parts: Sequence[float]) -> Outcome:
    """Judge how alike a map is to those of models whose last layers were drawn anew.

    With other weights the same places may speak against the class, so a map that only turns its sign has not changed.

    Args:
        known: of the map.
        found: `(draw, part)`.
        parts: of the layers with weights, those that were drawn.
    """
    if not np.isfinite(found).any():
        return known.unasked("weights", BLANK)
    sizes = np.array([known_mean(each) for each in np.abs(found).T])
    value = known_mean(sizes)
    numbers = {"parts": dict(zip((f"{part:.2f}" for part in parts), sizes.tolist(), strict=True))}
    if value <= SAME:
        words = "Without what the model learnt the map is another one: it is about this model." + _left_out(found)
        return known.outcome("weights", "passes", value, (words, ""), **numbers)
    each = ", ".join(f"{_part(part)}: {size:.2f}" for part, size in zip(parts, sizes, strict=True))
    cause = "it hangs less on what the last layers learnt than on the first ones."
    if sizes[-1] > SAME:
        cause = "it is drawn by the picture (its edges, its bright places) or by the model's shape."
    words = f"The map stays ({value:.2f} on average; {each}) though the model forgot what it learnt: {cause}"
    remedy = "Do not read it as what the model learnt; take a method that passes."
    return known.outcome("weights", "fails", value, (words + _left_out(found), remedy), **numbers)


def _part(part: float) -> str:
    """Return which layers were drawn anew, in words."""
    return "all layers drawn anew" if part == 1 else f"the last {part:.0%}"


def of_input(known: Known, found: Mapping[str, npt.NDArray[np.float64]]) -> Outcome:
    """Judge how alike a map is to those of other inputs, up to the sign: places that are named whatever is shown are no finding.

    Args:
        known: of the map.
        found: for each kind of input `(draw,)`; NaN for a map that is the same everywhere.
    """
    means = {kind: known_mean(np.abs(values)) for kind, values in found.items()}
    asked = {kind: mean for kind, mean in means.items() if np.isfinite(mean)}
    if not asked:
        return known.unasked("input", BLANK)
    worst = max(asked, key=lambda kind: asked[kind])
    left_out = _left_out(np.concatenate(list(found.values())))
    if asked[worst] <= SAME:
        words = f"{' and '.join(asked).capitalize()} have other maps: it is about this picture."
        return known.outcome("input", "passes", asked[worst], (words + left_out, ""), **means)
    words = f"Much the same map is drawn of {worst}: it hangs little on what is shown (a liking for the middle or border, say)."
    remedy = "Do not read it as what the model saw here; take another layer or method."
    return known.outcome("input", "fails", asked[worst], (words + left_out, remedy), **means)


def _left_out(found: npt.NDArray[np.float64]) -> str:
    """Return how many maps tell nothing, as one more sentence; empty where all do."""
    blank = int((~np.isfinite(found)).sum())
    return f" {blank} of {found.size} maps made again are the same everywhere and are left out." if blank else ""


def agreement_of(maps: Float[Tensor, " method *space"]) -> npt.NDArray[np.float32]:
    """Return how alike each two maps are, `(method, method)`; NaN where one is the same everywhere."""
    return np.stack([likeness(one.expand_as(maps), maps) for one in maps]).astype(np.float32)


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

    Controls count on neither side: it is no fault to disagree with what knows nothing.

    Args:
        known: of each map, at the grid at which they were compared.
        agreement: `(method, method)`.
    """
    return [
        _agreed(
            one,
            {other.method: float(row[at]) for at, other in enumerate(known) if not (other is one or other.is_control)},
        )
        for one, row in zip(known, agreement, strict=True)
    ]


def _agreed(known: Known, others: Mapping[str, float]) -> Outcome:
    """Judge one method by how alike its map is to each other method's."""
    told = {name: value for name, value in others.items() if np.isfinite(value)}
    if known.is_control:
        why = "It is a control, which knows nothing of the model: whether it agrees with others tells nothing."
        return replace(known.unasked("agreement", why), threshold=known.chance, fails="below")
    if np.isnan(known.chance):
        return replace(known.unasked("agreement", known.unknowable), threshold=float("nan"), fails="below")
    if not told:
        why = "There is no other map to compare with: ask for several methods (controls do not count)."
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
