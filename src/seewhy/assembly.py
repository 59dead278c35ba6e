"""From maps to explanations: each gets what a reader must know with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from seewhy.diagnosis import Circumstances, diagnose
from seewhy.explanation import Explanation, Prediction
from seewhy.inputs import Sample
from seewhy.making import Asked, MadeMaps, cost_alone, make_maps
from seewhy.models import LoadedModel
from seewhy.plan import Plan
from seewhy.reading import View, reduce_colours
from seewhy.recorder import LayerRow, Recordings
from seewhy.targets import (
    DirectionTarget,
    ProbabilityTarget,
    Target,
    are_probabilities,
    class_name,
    probabilities,
    tells_two_apart,
)


def assemble(
    chunk: Sequence[tuple[int, Sample]],
    plan: Plan,
    recordings: Recordings,
    asked: Asked,
    model: LoadedModel,
    view: View | None,
) -> Iterator[tuple[int, list[Explanation]]]:
    """Yield each sample's number and its explanations: methods x layer groups x questions, in this order.

    Args:
        chunk: the samples of the recorded batch and their numbers among all images.
        plan: what was asked for.
        recordings: what the model did.
        asked: which recorded questions belong together.
        model: for names and notes.
        view: how to show the maps; None: as each method's paper has it.
    """
    made = list(make_maps(plan, recordings, asked))
    told = _Told(recordings, model, view)
    for row, (number, sample) in enumerate(chunk):
        yield number, [told.explanation(maps, row, sample) for maps in made]


@dataclass(frozen=True)
class _Answer:
    """What the model says about one sample: scores, probabilities (None where it has no classes), the likeliest classes."""

    scores: torch.Tensor
    chances: torch.Tensor | None
    likeliest: tuple[Prediction, ...]
    finite: bool


class _Told:
    """What is told with every map of one batch."""

    def __init__(self, recordings: Recordings, model: LoadedModel, view: View | None) -> None:
        outputs = recordings.outputs.cpu()
        self._recordings = recordings
        self._model = model
        self._view = view
        self._answers = [_answer(scores, model) for scores in outputs]
        self._notes = _output_notes(outputs)
        self._spent = replace(recordings.cost, seconds=recordings.cost.seconds / len(outputs))
        self._peaks = {key: each.flatten(1).abs().amax(1).tolist() for key, each in recordings.gradients.items()}

    def explanation(self, maps: MadeMaps, row: int, sample: Sample) -> Explanation:
        """Return one sample's map with all that belongs to it."""
        entry, answer = maps.wanted.method, self._answers[row]
        target = self._recordings.questions[maps.question][row]
        parts = maps.values[row].copy()
        raw = parts if maps.reduction is None else reduce_colours(parts, maps.reduction)
        about = None if target.index is None else _prediction(target.index, answer.scores, answer.chances, self._model)
        shown: View = self._view or ("positive" if entry.rectified else "signed")
        how = self._circumstances(maps, row, target, about, shown)
        return Explanation(
            raw=raw,
            colours=None if maps.reduction is None else parts,
            reduction=maps.reduction,
            geometry=sample.geometry,
            image=sample.image,
            name=sample.name,
            target=target.describe(self._model.labels),
            target_index=target.index,
            score=float(self._recordings.scores[maps.question][row]),
            prediction=answer.likeliest,
            about=about,
            method=entry.name,
            options=maps.wanted.options,
            layers=tuple(layer.name for layer in maps.group),
            layouts=tuple(layer.layout for layer in maps.group),
            view=shown,
            scaling=entry.scaling,
            shows=entry.shows,
            smooth=tuple(map(str, maps.wanted.smooth)),
            cost=cost_alone(self._spent, entry) + maps.cost,
            shared=self._spent,
            cut_short=maps.cut_short,
            evidence={name: float(values[row]) for name, values in maps.evidence.items()},
            model=self._model.name,
            diagnosis=diagnose(raw, how),
            notes=(
                *_target_notes(target),
                *sample.notes,
                *_unit_notes(maps, sample),
                *self._notes,
                *_repeated(maps.group, self._recordings),
                *maps.notes,
            ),
        )

    def _circumstances(
        self, maps: MadeMaps, row: int, target: Target, about: Prediction | None, shown: View
    ) -> Circumstances:
        """Return what is known about how a map came to be."""
        entry, given = maps.wanted.method, _was_given(target)
        peaks = [self._peaks[key][row] for layer in maps.group if (key := (maps.question, layer.name)) in self._peaks]
        gap, whole = (maps.evidence.get(name) for name in ("completeness gap", "score difference"))
        is_probability = isinstance(target, ProbabilityTarget)
        return Circumstances(
            method=entry.name,
            rectified=shown == "positive",
            class_blind=not entry.class_specific and given,
            gradient_peak=max(peaks) if peaks and entry.needs.gradients else None,
            outputs_finite=self._answers[row].finite,
            probability=float(self._recordings.scores[maps.question][row]) if is_probability else None,
            chance=about.probability if about is not None and given else None,
            gap=None if gap is None else float(gap[row]),
            whole=None if whole is None else float(whole[row]),
            cut_short=maps.cut_short is not None,
        )


def _answer(scores: torch.Tensor, model: LoadedModel) -> _Answer:
    """Return what the model says about one sample from its scores."""
    likely = _chances(scores)
    best = scores.topk(min(5, len(scores))).indices.tolist() if likely is not None else []
    likeliest = tuple(filter(None, (_prediction(index, scores, likely, model) for index in best)))
    return _Answer(scores, likely, likeliest, bool(scores.isfinite().all()))


def _chances(scores: torch.Tensor) -> torch.Tensor | None:
    """Return one sample's probabilities; NaN where one score has none, None when these are not one score a class."""
    if scores.ndim != 1:
        return None
    return probabilities(scores) if len(scores) > 1 else torch.full_like(scores, torch.nan)


def _prediction(
    index: int, scores: torch.Tensor, chances: torch.Tensor | None, model: LoadedModel
) -> Prediction | None:
    if chances is None:
        return None
    is_class = len(scores) > 1 or (model.labels is not None and not tells_two_apart(1, model.labels))
    name = "output" if not is_class else class_name(index, model.labels)
    return Prediction(index, name, float(scores[index]), float(chances[index]))


def _was_given(target: Target) -> bool:
    """Return whether the caller asked for this target, rather than leaving it to the prediction."""
    return not getattr(target, "predicted", False)


def _target_notes(target: Target) -> tuple[str, ...]:
    if _was_given(target):
        return ()
    if isinstance(target, DirectionTarget):
        ways = ("raises", "down") if target.up else ("lowers", "up")
        return (
            f"target: what {ways[0]} the model's one output, as none was given; target='{ways[1]}' is the opposite",
        )
    return ("target: the predicted class, as none was given",)


def _unit_notes(maps: MadeMaps, sample: Sample) -> tuple[str, ...]:
    """Return what a baseline in colours takes for granted where the input is a tensor and nobody told its units."""
    baseline = {**maps.wanted.method.options, **maps.wanted.options}.get("baseline")
    if not (sample.assumed and isinstance(baseline, str | float | int)) or baseline in ("dataset", "mean", "blur"):
        return ()
    told = (
        f"units assumed: the input is a tensor, taken as it is, and baseline='{baseline}' is that of the usual preprocessing of "
        "ImageNet models; give preprocess= with your mean and std, or baseline='dataset' (zeros), 'mean', 'blur' or a tensor"
    )
    return (told,)


def _repeated(group: Sequence[LayerRow], recordings: Recordings) -> tuple[str, ...]:
    """Return which layers ran more than once, since only the last time is shown."""
    several = [(layer.name, recordings.calls.get(layer.name, 1)) for layer in group]
    return tuple(f"layer {name} ran {times} times; the map is of the last" for name, times in several if times > 1)


def _output_notes(outputs: torch.Tensor) -> tuple[str, ...]:
    """Return what the outputs are, where that is not scores."""
    if outputs.ndim == 2 and are_probabilities(outputs):
        return ("the model's outputs are probabilities already: they were not put through softmax again",)
    return ()
