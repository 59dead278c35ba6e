"""What is wrong with a map, and the next thing to try. No map is blank without a word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SATURATED = 0.999
"""Probability from which its own gradient is next to nothing."""


UNLIKELY = 0.01
"""Probability below which a class that was asked for is not what the model sees."""


MOSTLY = 0.9
"""The part of a map's absolute values, negative, from which what is shown of it is told to be little."""


INCOMPLETE = 0.1
"""The part of a score difference from which a gap is told."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: a stable word for programs: "non-finite", "zero-gradient", "flat", "all-negative", "mostly-negative",
            "one-cell", "saturated", "unlikely", "absent", "incomplete", "class-blind".
        message: what was found.
        remedy: what to try next.
    """

    code: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """Return both as one line."""
        return f"{self.message} {self.remedy}"


@dataclass(frozen=True)
class Circumstances:
    """What is known about how a map came to be.

    Attributes:
        method: its name.
        rectified: only its positive part is shown.
        class_blind: the method does not depend on the target, though one was asked for.
        gradient_peak: largest absolute gradient, None where none was needed.
        outputs_finite: whether the model's output held only finite numbers.
        probability: the target's probability when that was the question, else None.
        chance: the probability of a class that was asked for, None when it was left to the model or is not known.
        absent: whether a class was asked for that a model which answers place by place predicts nowhere.
        cut_short: whether a budget ended the work early.
        gap: how far the map's sum is from what it should add up to, `whole`; None where a map need not add up.
    """

    method: str
    rectified: bool
    class_blind: bool
    gradient_peak: float | None
    outputs_finite: bool
    probability: float | None
    chance: float | None = None
    gap: float | None = None
    whole: float | None = None
    cut_short: bool = False
    absent: bool = False


def diagnose(raw: npt.NDArray[np.float32], how: Circumstances) -> tuple[Finding, ...]:
    """Return what is wrong with a raw map, the gravest first; nothing when all is well."""
    if not how.outputs_finite:
        return (
            Finding(
                "non-finite", "The model's output holds NaN or infinity.", "Check its weights and the input's range."
            ),
        )
    if not np.isfinite(raw).all():
        return (
            Finding(
                "non-finite", "The map holds NaN or infinity.", "Run the model in float32; check this layer's weights."
            ),
        )
    return (*_about_the_map(raw, how), *_about_the_question(how))


def _about_the_map(raw: npt.NDArray[np.float32], how: Circumstances) -> list[Finding]:
    """Return what is wrong with the map's values: at most one thing."""
    if how.gradient_peak == 0:
        return [_zero_gradient(how.probability)]
    if raw.size == 1:
        return [Finding("one-cell", "The layer has one cell; it cannot show a place.", "Choose an earlier layer.")]
    if float(np.ptp(raw)) <= 1e-6 * float(np.abs(raw).max()):
        remedy = "Give a larger budget." if how.cut_short else "Choose another layer or method."
        return [Finding("flat", f"The map is the same everywhere ({raw.flat[0]:.3g}).", remedy)]
    if how.rectified and raw.max() <= 0:
        return [
            Finding(
                "all-negative",
                "No place speaks for this target at this layer; all values are negative, so nothing is bright.",
                "Look at the signed map (view='signed', --signed), ask a contrast ('A-vs-B'), or choose another layer.",
            )
        ]
    against = -float(np.minimum(raw, 0).sum(dtype=np.float64)) / float(np.abs(raw).sum(dtype=np.float64))
    if how.rectified and against > MOSTLY:
        return [
            Finding(
                "mostly-negative",
                f"Of all evidence at this layer {against:.0%} speaks against this target: the little that speaks for it is shown "
                "at full brightness, and the rest is not seen.",
                "Look at the signed map (view='signed', --signed), or ask a contrast ('A-vs-B').",
            )
        ]
    return []


def _about_the_question(how: Circumstances) -> list[Finding]:
    """Return what is wrong with what was asked, or with how far the map answers it."""
    found = []
    if how.probability is not None and how.probability > SATURATED and how.gradient_peak != 0:
        found.append(
            Finding(
                "saturated",
                f"The probability is {how.probability:.5f}: its gradient is nearly nothing and the map may be noise.",
                "Ask for the class itself (its score) instead of its probability.",
            )
        )
    if how.chance is not None and how.chance < UNLIKELY and not how.class_blind:
        found.append(
            Finding(
                "unlikely",
                f"The model gives this class {how.chance:.2%}: what little speaks for it is shown at full brightness.",
                "Compare with the map of the model's own answer, or ask for one class rather than another ('A-vs-B').",
            )
        )
    if how.absent and not how.class_blind:
        found.append(
            Finding(
                "absent",
                "The model predicts this class nowhere: its mean over the whole picture is explained, and what little speaks for "
                "it is shown at full brightness.",
                "Ask about a class that it predicts, or about a place: 'pixel:Y,X:NAME', a region.",
            )
        )
    if how.gap is not None and how.whole is not None and abs(how.gap) > INCOMPLETE * abs(how.whole):
        found.append(
            Finding(
                "incomplete",
                f"The map's parts add up to {how.whole + how.gap:.3g}, and they should to {how.whole:.3g}: it is a rough one.",
                "Take more steps or samples where the method has them, or a larger budget.",
            )
        )
    if how.class_blind:
        found.append(
            Finding(
                "class-blind",
                f"{how.method} does not depend on the target, or hardly: every class gets this map or nearly this.",
                "Use a method marked class = yes in `seewhy methods` to ask about a class.",
            )
        )
    return found


def _zero_gradient(probability: float | None) -> Finding:
    if probability is not None and probability > SATURATED:
        return Finding(
            "zero-gradient",
            f"The probability is {probability:.5f}: saturated, so its gradient is exactly zero.",
            "Ask for the class itself (its score) instead of its probability.",
        )
    return Finding(
        "zero-gradient",
        "The gradient is zero at every place of this layer: the score does not depend on it.",
        "Choose another layer (in transformers one before the last attention). If every layer is so, the classifier's "
        "weights are zero: the model is untrained.",
    )
