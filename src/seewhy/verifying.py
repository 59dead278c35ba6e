"""Maps are put to the test on the model that they are about, and get a word for how true they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seewhy.evidence import Aspects, Evidence, Seen, edge_share, judged
from seewhy.explanation import Explanation
from seewhy.inputs import Sample
from seewhy.maps import find_method
from seewhy.maps.held import Held
from seewhy.measures import Trial
from seewhy.measures.controls import shuffled, tile_count
from seewhy.measures.cut import Cut
from seewhy.measures.placing import on_input
from seewhy.recorder import Budget, Recordings
from seewhy.targets import Chances, ClassTarget, ContrastTarget, LogOddsTarget, ProbabilityTarget, Question, class_name

PARTS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Which parts of the input, the brightest first, are kept and hidden."""

CONTROL_PARTS = (0.05, 0.3)
"""Those that shuffled maps are tried with, too."""

SHUFFLES = 6
"""Shuffled maps for each map."""

FILL = Held("blur")

ODDS = 1.0
"""The least difference of two classes' scores, which are logarithms of odds, that counts: where no part of the input changes them
by that much, nothing of it decides between the two."""

AUTO = "auto"
"""The method that a remedy names."""

FORWARDS = 2 * len(PARTS) + 2 * SHUFFLES * len(CONTROL_PARTS) + 1
"""Runs of the model a map: the parts, kept and hidden, the same of shuffled maps, and nothing at all."""

Verify = bool | Literal["cheap"]
"""Whether maps are put to the test: always, never, or where it is cheap."""

CHEAP = 20.0
"""Seconds an image up to which it is."""

FEW = 4
"""Maps of an image up to which it is."""


def too_dear(recordings: Recordings, maps: int, samples: int) -> str:
    """Return why maps are not put to the test unasked, in words for a note; empty where it is cheap.

    Args:
        recordings: of the batch.
        maps: how many there are of an image.
        samples: images in the batch.
    """
    cost = recordings.cost
    seconds = maps * FORWARDS * cost.seconds / samples / (1 + 2 * (cost.backwards > 0))
    asked = "verify=True (--verify) does it"
    if maps > FEW:
        return f"not put to the test on the model: {maps} maps of an image are more than {FEW}; {asked}"
    if seconds > CHEAP:
        return f"not put to the test on the model, which would take about {seconds:.0f} s an image; {asked}"
    if recordings.conditions.budget != Budget():
        return f"not put to the test on the model, since a budget was given; {asked}"
    return ""


def verified(
    made: Sequence[tuple[Sample, Sequence[Explanation]]],
    questions: Sequence[Question],
    recordings: Recordings,
    chances: Chances,
) -> Iterator[list[Explanation]]:
    """Yield each sample's explanations with their evidence.

    Args:
        made: the samples of one recorded batch, each with its explanations.
        questions: what each explanation is about, for all samples.
        recordings: what the model did.
        chances: how its scores become probabilities.
    """
    found: dict[tuple[int, int], Evidence] = {}
    for question in dict.fromkeys(questions):
        numbers = [number for number, other in enumerate(questions) if other == question]
        grids = [each for each in numbers if made[0][1][each].raw.size > 1]
        if grids:
            found.update(_evidence(made, grids, question, recordings, chances))
    for row, (_, each) in enumerate(made):
        yield [_with(one, found.get((row, number))) for number, one in enumerate(each)]


def _with(explanation: Explanation, evidence: Evidence | None) -> Explanation:
    """Return an explanation with its evidence; a word about none, where the map has places."""
    if evidence is None and explanation.raw.size > 1:
        note = "could not be put to the test on the model: its answers to parts of the picture are no numbers"
        return replace(explanation, notes=(*explanation.notes, note))
    return replace(explanation, evidence=evidence)


def _evidence(
    made: Sequence[tuple[Sample, Sequence[Explanation]]],
    numbers: Sequence[int],
    question: Question,
    recordings: Recordings,
    chances: Chances,
) -> Iterator[tuple[tuple[int, int], Evidence]]:
    """Yield ((sample, explanation), evidence) for the explanations of one question."""
    maps = torch.stack([torch.stack([_placed(each[n], each[n].raw, sample) for n in numbers]) for sample, each in made])
    controls = torch.stack(
        [torch.cat([_shuffles(each[n], sample, recordings) for n in numbers]) for sample, each in made]
    )
    own, other = (Trial.of(recordings, question, chances, each) for each in (maps, controls))
    kept, hidden = (_said(own, PARTS, keeps) for keeps in (True, False))
    control_kept, control_hidden = (_said(other, CONTROL_PARTS, keeps) for keeps in (True, False))
    blank = own.blank(FILL.value).double().numpy()
    for row, (_, each) in enumerate(made):
        whole = float(own.likely[row](recordings.outputs[row]))
        for place, number in enumerate(numbers):
            rows = slice(place * SHUFFLES, (place + 1) * SHUFFLES)
            seen = Seen(
                parts=PARTS,
                kept=kept[row, place],
                hidden=hidden[row, place],
                control_parts=CONTROL_PARTS,
                control_kept=control_kept[row, rows],
                control_hidden=control_hidden[row, rows],
                whole=whole,
                blank=float(blank[row]),
                unit="probability" if isinstance(own.likely[row], ProbabilityTarget) else "score",
                forwards=FORWARDS,
                least=ODDS if isinstance(own.likely[row], ContrastTarget) and not chances.ready else 0.0,
                luck=_luck(each[number].raw.shape),
            )
            if seen.is_known:
                is_differentiable = recordings.engine.differentiable
                yield (row, number), judged(seen, _aspects(each[number], maps[row, place], is_differentiable))


def _said(trial: Trial, parts: tuple[float, ...], keeps: bool) -> np.ndarray:
    found = trial.score(Cut(parts, keeps, FILL)).double().numpy()
    return found.reshape(len(found), -1, len(parts))


def _placed(explanation: Explanation, values: np.ndarray, sample: Sample) -> Tensor:
    return torch.from_numpy(on_input(values, explanation.geometry, sample.geometry))


def _shuffles(explanation: Explanation, sample: Sample, recordings: Recordings) -> Tensor:
    """Return maps with the same values elsewhere: `(shuffle, *space)`."""
    generator = torch.Generator().manual_seed(recordings.conditions.seed)
    raw = torch.from_numpy(explanation.raw)
    each = [shuffled(raw, generator).numpy() for _ in range(SHUFFLES)]
    return torch.stack([_placed(explanation, one, sample) for one in each])


def _luck(shape: tuple[int, ...]) -> float:
    """Return the chance of a shuffled map to have its highest places, those of the smaller control part, where the map has."""
    places = tile_count(shape)
    return 1 / math.comb(places, math.ceil(CONTROL_PARTS[0] * places))


def _aspects(explanation: Explanation, values: Tensor, is_differentiable: bool) -> Aspects:
    flat = any(finding.code in ("flat", "zero-gradient", "non-finite") for finding in explanation.diagnosis)
    return Aspects(
        class_blind=not find_method(explanation.method).class_specific,
        flat=flat,
        edge=edge_share(values.numpy()),
        method=explanation.method,
        rival=_rival(explanation),
        can_auto=is_differentiable and explanation.method != AUTO,
        among=explanation.among,
        thing="input" if explanation.image is None else "picture",
    )


def _rival(explanation: Explanation) -> str:
    """Return the target that sets the class apart from the likeliest other one; empty where it is about no class of several."""
    if not isinstance(explanation.asked, ClassTarget | LogOddsTarget):
        return ""
    index = explanation.asked.index
    other = next((each for each in explanation.prediction if each.index != index), None)
    if other is None or other.means != "probability":
        return ""
    return f"{_named(index, explanation.target)}-vs-{_named(other.index, other.name)}"


def _named(index: int, name: str) -> str:
    """Return how a class is called in a target."""
    return str(index) if name == class_name(index, None) or "vs" in name.casefold().split() else name
