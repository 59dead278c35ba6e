"""How true a map was found to be, on the model itself, in a word, in numbers and in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats

Word = Literal["supported", "weak", "no better than chance"]

TEST = "test of this map, not of the answer"
"""What stands before a verdict."""

BY_CHANCE = 0.025
"""The chance of a map that knows nothing to do as well: below it a map is better than chance. The upper end of the usual 95 %
interval: at 0.05 every twentieth map of scattered places, which knows nothing, would pass."""

SURELY = 0.02
"""The chance below which it is supported."""

_SPREAD, _WEIGHT = 0.35, 10
"""How far maps that know nothing differ, before any is seen: a standard deviation, and as how many of them this counts. Measured
on models that look at a known mark and on photographs: 0.2 to 0.4, for coarse maps."""

UNSURE = 0.5
"""The probability below which a model is not sure of its answer."""

LOST = 0.1
"""The part of the answer below which next to nothing of it is left."""

_FAR = 4
"""How many times the usual variance the control's is at most, for the usual one to count in full."""

_TOLD = 0.01
"""The least chance that is told as a number."""

_CLOSE = 0.1
"""The chance below which it is told more exactly, since the limits lie there."""

_LEAST = 0.1
"""The least part of the answer that a score is a part of."""

SATURATED = 0.9
"""The part of the answer that is left without half of the input, from which a model is sure of it whatever is hidden."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the model said when the brightest places of a map were hidden, or all others.

    Attributes:
        word: "supported", "weak" or "no better than chance".
        reason: why, in a sentence.
        remedy: what to do next; empty where the map is supported.
        score: how much of the answer hangs on the brightest places, -1..1: 0 as much as on as many others, 1 all of it.
        chance: of a map that knows nothing to do as well, 0..1.
        parts: which parts of the input were kept and hidden, 0..1.
        kept: what the model said of the brightest part alone, one a part.
        hidden: what it said without it.
        control_parts: the parts tried with shuffled maps.
        control_kept, control_hidden: `(shuffle, control part)`, the same for maps whose places were shuffled.
        whole: what the model says of the whole input.
        blank: what it says of nothing of it.
        unit: whether these are probabilities.
        forwards: runs of the model that this took.
    """

    word: Word
    reason: str
    remedy: str
    score: float
    chance: float
    parts: tuple[float, ...]
    kept: tuple[float, ...]
    hidden: tuple[float, ...]
    control_parts: tuple[float, ...]
    control_kept: npt.NDArray[np.float64]
    control_hidden: npt.NDArray[np.float64]
    whole: float
    blank: float
    unit: Literal["probability", "score"]
    forwards: int

    @property
    def verdict(self) -> str:
        """The word, and which there are."""
        return f"{self.word} (of: {', '.join(get_args(Word))})"

    def __str__(self) -> str:
        """Return the verdict, the reason and what to do, as one line."""
        return " ".join(filter(None, (f"{self.verdict}.", self.reason, self.remedy)))


@dataclass(frozen=True)
class Seen:
    """What was seen of one map.

    Attributes as in :class:`Evidence`, and:
        least: the smallest change of a score that counts.
        luck: the chance of a shuffled map to have its highest places where this one has them.
    """

    parts: tuple[float, ...]
    kept: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.float64]
    control_parts: tuple[float, ...]
    control_kept: npt.NDArray[np.float64]
    control_hidden: npt.NDArray[np.float64]
    whole: float
    blank: float
    unit: Literal["probability", "score"]
    forwards: int
    least: float = 0.0
    luck: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the model's answers are numbers."""
        told = (self.kept, self.hidden, self.control_kept, self.control_hidden, self.whole, self.blank)
        return all(bool(np.isfinite(values).all()) for values in told)

    @property
    def scale(self) -> float:
        """What there is to lose: the answer's probability, or how far scores get from that of an empty input."""
        return self.whole if self.unit == "probability" else max(self.reach, self.least)

    @property
    def reach(self) -> float:
        """How far scores get from that of an empty input."""
        others = np.concatenate([self.control_kept.flatten(), self.control_hidden.flatten(), [self.whole]])
        return float(np.abs(others - self.blank).max())

    def at(self, part: float) -> tuple[float, float, float, float]:
        """Return at a control part: what was said of the map's part, kept and hidden, and of others', on average."""
        mine, theirs = self.parts.index(part), self.control_parts.index(part)
        others = (float(self.control_kept[:, theirs].mean()), float(self.control_hidden[:, theirs].mean()))
        return float(self.kept[mine]), float(self.hidden[mine]), *others


@dataclass(frozen=True)
class Aspects:
    """What is known of a map beside what was seen, for the reason.

    Attributes:
        class_blind: the method does not depend on the target.
        flat: the map is the same everywhere.
        edge: the part of the brightest places that lies on the border of the input; NaN where that says nothing.
        method: its name.
        rival: the target that sets the class apart from the next; empty where there is none, or that was asked.
        can_auto: whether the method "auto" can be tried, and was not.
        thing: what the input is called.
        among: of how many maps it was chosen by parts of the input.
    """

    class_blind: bool
    flat: bool
    edge: float
    method: str
    rival: str = ""
    can_auto: bool = True
    thing: str = "picture"
    among: int = 1


def judged(seen: Seen, aspects: Aspects) -> Evidence:
    """Return what was seen, with a word.

    What hangs on a map is the mean, over the control parts, of what the model says of the part alone minus what it says without
    it. Maps of which the places were shuffled tell how that varies by chance; since they are few, their spread is drawn towards
    the usual one (a scaled inverse chi-squared prior), and Student's t with the sum of both degrees of freedom gives the chance.
    It is never below that of having the same places highest by luck, which of a map of few places is large; and of a map that was
    chosen of several by parts of the input, the best of as many shuffled ones has so many chances (Bonferroni).
    """
    scale = max(seen.scale, 1e-12)
    places = [seen.parts.index(part) for part in seen.control_parts]
    own = float((seen.kept[places] - seen.hidden[places]).mean()) / scale
    others = (seen.control_kept - seen.control_hidden).mean(1) / scale
    number = len(others)
    seen_variance, freedom = float(others.var(ddof=1)), number - 1
    # The further this model is from the usual, the less that says of it.
    weight = _WEIGHT * min(1.0, _FAR * _SPREAD**2 / max(seen_variance, 1e-12))
    variance = (weight * _SPREAD**2 + freedom * seen_variance) / (weight + freedom)
    distance = (own - others.mean()) / np.sqrt(variance * (1 + 1 / number))
    chance = min(1.0, aspects.among * max(float(stats.t.sf(distance, weight + freedom)), seen.luck))
    score = float(np.clip((own - others.mean()) / max(1 - others.mean(), _LEAST), -1, 1))
    word: Word = "no better than chance"
    if chance < BY_CHANCE and not aspects.flat:
        word = "supported" if chance < SURELY else "weak"
    reason, remedy = _why(word, chance, seen, aspects)
    return Evidence(
        word=word,
        reason=reason,
        remedy=remedy,
        score=score,
        chance=chance,
        parts=seen.parts,
        kept=tuple(seen.kept.tolist()),
        hidden=tuple(seen.hidden.tolist()),
        control_parts=seen.control_parts,
        control_kept=seen.control_kept,
        control_hidden=seen.control_hidden,
        whole=seen.whole,
        blank=seen.blank,
        unit=seen.unit,
        forwards=seen.forwards,
    )


def _why(word: Word, chance: float, seen: Seen, aspects: Aspects) -> tuple[str, str]:
    """Return the reason and what to do next."""
    part = seen.control_parts[-1]
    number = _number(seen.unit)
    kept, hidden, others_kept, others_hidden = map(number, seen.at(part))
    others = "a shuffled map does" if aspects.among == 1 else f"the best of {aspects.among} shuffled maps does"
    said = (
        f"{seen.unit.capitalize()} {number(seen.whole)} with the whole {aspects.thing}. With the {part:.0%} of it blurred where "
        f"the map is highest: {hidden} (as much blurred elsewhere: {others_hidden}). With only that part sharp: {kept} (as much "
        f"sharp elsewhere: {others_kept}). Chance that {others} as well: {_share(chance)} (supported: under "
        f"{SURELY:.0%}).{_cause(word, seen, aspects)}"
    )
    return said, "" if word == "supported" else _remedy(word, seen, aspects)


def _share(chance: float) -> str:
    if chance < _TOLD:
        return f"under {_TOLD:.0%}"
    return f"{chance:.1%}" if chance < _CLOSE else f"{chance:.0%}"


def _cause(word: Word, seen: Seen, aspects: Aspects) -> str:
    """Return why a map could not be shown to be true, where that is known."""
    if word == "supported":
        return ""
    if aspects.flat:
        return " The map is the same everywhere."
    if seen.luck >= SURELY:
        return f" The map has so few places that a shuffled one is as good in {seen.luck:.0%} of cases. Name a finer layer."
    if _is_settled(seen):
        return (
            f" The model says the same of an empty {aspects.thing}, so the test cannot tell what in this one matters."
        )
    if _is_unmoved(seen):
        return f" Whatever is hidden, the score hardly changes: nothing in the {aspects.thing} decides between the two."
    if _is_saturated(seen):
        return f" The model stays sure whatever is hidden: it needs little of the {aspects.thing}, and finds it in many places."
    if _is_fragile(seen):
        return " The answer is lost whatever is hidden, so the test cannot tell which part matters."
    if aspects.class_blind:
        return f" {aspects.method} does not ask what the class needs."
    if aspects.edge > _MOSTLY:
        return f" The brightest places lie on the border of the {aspects.thing}."
    return ""


def _remedy(word: Word, seen: Seen, aspects: Aspects) -> str:
    if aspects.rival and (_is_settled(seen) or _is_saturated(seen)) and not aspects.flat:
        method = ", method 'auto'" if aspects.can_auto else ""
        return f"Ask what sets the class apart from the next: target '{aspects.rival}'{method}."
    if _is_fragile(seen) and seen.whole < UNSURE:
        return f"Do not rely on this map. The model is not sure of its answer: try a clearer {aspects.thing} first."
    begin = "Take it as a hint only." if word == "weak" else "Do not rely on this map."
    return f"{begin} {_other(aspects)}"


def _other(aspects: Aspects) -> str:
    if aspects.can_auto:
        tries = "Try method 'auto'" + (f", also with target '{aspects.rival}'" if aspects.rival else "")
    elif aspects.rival:
        tries = f"Ask what sets the class apart from the next (target '{aspects.rival}'), and try other methods"
    else:
        tries = "Try other methods"
    return f"{tries}; if none is supported, no map tells what matters here."


_MOSTLY = 0.6


def _is_settled(seen: Seen) -> bool:
    return seen.unit == "probability" and seen.blank > SATURATED * seen.whole


def _is_unmoved(seen: Seen) -> bool:
    return seen.unit == "score" and seen.reach < seen.least


def _is_fragile(seen: Seen) -> bool:
    return seen.unit == "probability" and float(seen.control_hidden[:, -1].mean()) < LOST * seen.whole


def _is_saturated(seen: Seen) -> bool:
    everything = np.concatenate([seen.hidden, seen.control_hidden.flatten()])
    return seen.unit == "probability" and bool((everything > SATURATED * seen.whole).mean() > SATURATED)


def _number(unit: str) -> Callable[[float], str]:
    return (lambda value: f"{value:.0%}") if unit == "probability" else (lambda value: f"{value:.3g}")


def edge_share(values: npt.NDArray[np.float32], part: float = 0.1) -> float:
    """Return which part of a map's highest places lies on its border, a sixteenth of each side wide.

    NaN where the border is much of the map, or more than that part is equally high: it then says nothing to lie there.
    """
    inner = np.ones(values.shape, bool)
    for axis, length in enumerate(values.shape):
        border = max(1, round(length / 16))
        places = np.arange(length)
        within = (places >= border) & (places < length - border)
        inner &= within.reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    high = values >= np.quantile(values, 1 - part)
    if (~inner).mean() > _MOSTLY / 2 or high.mean() > 2 * part:
        return float("nan")
    return float((high & ~inner).sum() / max(1, high.sum()))
