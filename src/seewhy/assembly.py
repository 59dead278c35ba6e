"""From maps to explanations: each gets what a reader must know with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from seewhy.diagnosis import Circumstances, diagnose
from seewhy.errors import RecordingError
from seewhy.explanation import Explanation, Prediction
from seewhy.images import Geometry
from seewhy.inputs import Sample
from seewhy.making import Asked, MadeMaps, cost_alone, make_maps
from seewhy.maps import Method
from seewhy.models import LoadedModel
from seewhy.plan import Plan
from seewhy.reading import View, reduce_colours
from seewhy.recorder import LayerRow, Recordings, is_out_of_memory
from seewhy.targets import (
    Chances,
    ContrastTarget,
    Cover,
    Detection,
    DetectionTarget,
    DirectionTarget,
    Kind,
    Noted,
    Outlined,
    PlacesTarget,
    ProbabilityTarget,
    SimilarityTarget,
    Target,
    class_name,
    detections,
    tells_two_apart,
)
from seewhy.verifying import Verify, too_dear, verified


def assemble(
    chunk: Sequence[tuple[int, Sample]],
    plan: Plan,
    recordings: Recordings,
    asked: Asked,
    model: LoadedModel,
    chances: Chances,
    view: View | None,
    verify: Verify = False,
) -> Iterator[tuple[int, list[Explanation]]]:
    """Yield each sample's number and its explanations: methods x layer groups x questions, in this order.

    Args:
        chunk: the samples of the recorded batch and their numbers among all images.
        plan: what was asked for.
        recordings: what the model did.
        asked: which recorded questions belong together.
        model: for names and notes.
        chances: how its scores become probabilities.
        view: how to show the maps; None: as each method's paper has it.
        verify: whether each is put to the test; "cheap": where that is quick.
    """
    made = _made(plan, recordings, asked)
    told = _Told(recordings, model, chances, view, [sample.geometry for _, sample in chunk], plan.notes)
    each = [[told.explanation(maps, row, sample) for maps in made] for row, (_, sample) in enumerate(chunk)]
    if verify == "cheap" and (note := too_dear(recordings, len(made), len(chunk))):
        each = _noted(each, note)
    elif verify:
        each = _verified(each, chunk, made, recordings, chances, asked_for=verify is True)
    yield from zip((number for number, _ in chunk), each, strict=True)


def _verified(
    each: list[list[Explanation]],
    chunk: Sequence[tuple[int, Sample]],
    made: Sequence[MadeMaps],
    recordings: Recordings,
    chances: Chances,
    *,
    asked_for: bool,
) -> list[list[Explanation]]:
    """Return the explanations with their evidence; where the model fails on the way, as they are, with a word."""
    questions = [recordings.questions[maps.question] for maps in made]
    try:
        return list(
            verified(
                [(sample, own) for (_, sample), own in zip(chunk, each, strict=True)], questions, recordings, chances
            )
        )
    except (RecordingError, RuntimeError, MemoryError) as error:
        if not isinstance(error, RecordingError) and not is_out_of_memory(error):
            raise
        if asked_for and isinstance(error, RecordingError) and recordings.conditions.broken is not None:
            recordings.conditions.broken.append(error)
        return _noted(each, f"could not be put to the test on the model: {error}")


def _noted(each: list[list[Explanation]], note: str) -> list[list[Explanation]]:
    return [[replace(one, notes=(*one.notes, note)) for one in own] for own in each]


def _made(plan: Plan, recordings: Recordings, asked: Asked) -> list[MadeMaps]:
    """Return all maps; where the model fails on the way, those made until then."""
    made: list[MadeMaps] = []
    try:
        for maps in make_maps(plan, recordings, asked):
            made.append(maps)  # noqa: PERF402 - one by one: those before an error are kept
    except RecordingError as error:
        if not made or recordings.conditions.broken is None:
            raise
        recordings.conditions.broken.append(error)
    return made


@dataclass(frozen=True)
class _Answer:
    """What the model says about one sample: each class (None where it has none), the likeliest, whether all is finite."""

    about: Callable[[int], Prediction | None]
    likeliest: tuple[Prediction, ...]
    finite: bool


class _Told:
    """What is told with every map of one batch."""

    def __init__(
        self,
        recordings: Recordings,
        model: LoadedModel,
        chances: Chances,
        view: View | None,
        geometries: Sequence[Geometry],
        notes: tuple[str, ...] = (),
    ) -> None:
        outputs = recordings.outputs.cpu()
        self._recordings = recordings
        self._outputs = outputs
        self._model = model
        self._view = view
        self._answers = [
            _places_answer(Cover(scores, model.labels, geometry, chances))
            if recordings.kind == "places"
            else _answer(scores, model, recordings.kind, chances)
            for scores, geometry in zip(outputs, geometries, strict=True)
        ]
        self._detected: list[tuple[Detection, ...]] = [
            detections(scores, geometry, model.labels) if recordings.kind == "boxes" else ()
            for scores, geometry in zip(outputs, geometries, strict=True)
        ]
        self._notes = (*notes, *_output_notes(chances, outputs.shape[1]))
        self._spent = replace(recordings.cost, seconds=recordings.cost.seconds / len(outputs))
        self._peaks = {key: each.flatten(1).abs().amax(1).tolist() for key, each in recordings.gradients.items()}

    def explanation(self, maps: MadeMaps, row: int, sample: Sample) -> Explanation:
        """Return one sample's map with all that belongs to it."""
        entry, answer = maps.wanted.method, self._answers[row]
        target = self._recordings.questions[maps.question][row]
        # Of an output that is compared with a vector no part is a class, also where its shape looks like it.
        likeliest = () if isinstance(target, SimilarityTarget) else answer.likeliest
        found = self._detected[row]
        parts = maps.values[row].copy()
        raw = parts if maps.reduction is None else reduce_colours(parts, maps.reduction)
        about = self._about(row, target)
        shown: View = self._view or ("positive" if entry.rectified else "signed")
        how = self._circumstances(maps, row, target, about, shown)
        return Explanation(
            raw=raw,
            colours=None if maps.reduction is None else parts,
            reduction=maps.reduction,
            geometry=self._geometry(maps, sample),
            image=sample.image,
            input=sample.values,
            name=sample.name,
            asked=target,
            target=target.describe(self._model.labels),
            target_index=target.index,
            score=float(self._recordings.scores[maps.question][row]),
            prediction=tuple(map(_as_prediction, found[:5])) or likeliest,
            about=about,
            detections=found,
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
            among=maps.among,
            reported={name: float(values[row]) for name, values in maps.reported.items()},
            outline=target.outline(sample.geometry) if isinstance(target, Outlined) else None,
            model=self._model.name,
            diagnosis=diagnose(raw, how),
            notes=(
                *_target_notes(target, entry),
                *self._model.remarks,
                *sample.notes,
                *_unit_notes(maps, sample),
                *self._notes,
                *_repeated(maps.group, self._recordings),
                *_about_places(maps, self._recordings.kind),
                *_joint(maps.group),
                *maps.notes[row],
            ),
        )

    def _about(self, row: int, target: Target) -> Prediction | None:
        """Return what the model says of the class that is asked about."""
        if target.index is None:
            return None
        if isinstance(target, DetectionTarget):
            chance = float(replace(target, about="class")(self._outputs[row]))
            return Prediction(target.index, class_name(target.index, self._model.labels), chance, chance)
        return self._answers[row].about(target.index)

    def _geometry(self, maps: MadeMaps, sample: Sample) -> Geometry:
        """Return where what a map covers lies in the original: a layer may have seen more than the input, scaled and padded."""
        inside = self._recordings.inside
        if inside is None or not maps.group or maps.reduction is not None:
            return sample.geometry
        scaled = sample.geometry.resized(inside.scaled)
        return scaled if inside.scaled == inside.whole else scaled.cropped((0, 0), inside.whole)

    def _circumstances(
        self, maps: MadeMaps, row: int, target: Target, about: Prediction | None, shown: View
    ) -> Circumstances:
        """Return what is known about how a map came to be."""
        entry, given = maps.wanted.method, _was_given(target)
        peaks = [self._peaks[key][row] for layer in maps.group if (key := (maps.question, layer.name)) in self._peaks]
        gap, whole = (maps.reported.get(name) for name in ("completeness gap", "score difference"))
        is_probability = isinstance(target, ProbabilityTarget)
        return Circumstances(
            method=entry.name,
            rectified=shown == "positive",
            class_blind=not entry.class_specific and given,
            gradient_peak=max(peaks) if peaks and entry.needs.gradients else None,
            outputs_finite=self._answers[row].finite,
            probability=float(self._recordings.scores[maps.question][row]) if is_probability else None,
            chance=about.probability if about is not None and given and _is_likelihood(about, target) else None,
            absent=isinstance(target, PlacesTarget) and target.absent,
            gap=None if gap is None else float(gap[row]),
            whole=None if whole is None else float(whole[row]),
            cut_short=maps.cut_short is not None,
        )


def _answer(scores: torch.Tensor, model: LoadedModel, kind: Kind, chances: Chances) -> _Answer:
    """Return what the model says about one sample from its scores."""
    likely = _probabilities(scores, kind, chances)
    best = scores.topk(min(5, len(scores))).indices.tolist() if likely is not None else []
    likeliest = tuple(filter(None, (_prediction(index, scores, likely, model) for index in best)))
    return _Answer(lambda index: _prediction(index, scores, likely, model), likeliest, bool(scores.isfinite().all()))


def _places_answer(cover: Cover) -> _Answer:
    """Return what the model says about one sample, place by place: how much of the picture each class covers."""

    def about(index: int) -> Prediction:
        return Prediction(index, cover.name(index), cover.mean(index), float(cover.shares[index]), "area")

    covering = [index for index in cover.ranked[:5] if cover.shares[index] > 0]
    return _Answer(about, tuple(map(about, covering)), bool(cover.output.isfinite().all()))


def _probabilities(scores: torch.Tensor, kind: Kind, chances: Chances) -> torch.Tensor | None:
    """Return one sample's probabilities; NaN where one score has none, None when these are not one score a class."""
    if kind != "classes":
        return None
    return chances(scores) if chances.independent or len(scores) > 1 else torch.full_like(scores, torch.nan)


def _prediction(index: int, scores: torch.Tensor, likely: torch.Tensor | None, model: LoadedModel) -> Prediction | None:
    if likely is None:
        return None
    is_class = len(scores) > 1 or (model.labels is not None and not tells_two_apart(1, model.labels))
    name = "output" if not is_class else class_name(index, model.labels)
    return Prediction(index, name, float(scores[index]), float(likely[index]))


def _as_prediction(found: Detection) -> Prediction:
    return Prediction(found.index, found.name, found.score, found.score)


def _was_given(target: Target) -> bool:
    """Return whether the caller asked for this target, rather than leaving it to the prediction."""
    return not getattr(target, "predicted", False)


def _is_likelihood(about: Prediction, target: Target) -> bool:
    """Return whether what the model says of the class asked about is how likely it is: it is no opposite, nor one of two."""
    lowered = isinstance(target, DirectionTarget) and not target.up
    opposite = isinstance(target, ProbabilityTarget) and target.side == 0
    return about.means == "probability" and not (lowered or opposite or isinstance(target, ContrastTarget))


def _target_notes(target: Target, entry: Method) -> tuple[str, ...]:
    if isinstance(target, Noted):
        return target.notes
    if _was_given(target):
        return ()
    if not entry.class_specific:
        return (
            f"target: none was given, and {entry.name} does not depend on one, or hardly: it shows no single class",
        )
    if isinstance(target, DetectionTarget):
        return ("target: the most confident box, as none was given",)
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
    several = [(layer.name, recordings.calls.get(layer.name, 1)) for layer in group if layer.call is None]
    return tuple(f"layer {name} ran {times} times; the map is of the last" for name, times in several if times > 1)


def _about_places(maps: MadeMaps, kind: Kind) -> tuple[str, ...]:
    """Return what the usual layer and the usual method do not show of a model that answers place by place."""
    if kind != "places":
        return ()
    layer = [row.name for row in maps.group if row.default and len(maps.group) == 1]
    told = [
        f"layer {name} is the end of the encoder; what skip connections carry past it is seen with layers='all-stages' "
        "(--layer all-stages)"
        for name in layer
    ]
    if maps.wanted.method.name == "grad-cam":
        told.append(
            "grad-cam weights a channel by its mean over the whole picture, so that like features elsewhere are bright, too; "
            "layer-cam and hires-cam keep to what counts for the places asked about"
        )
    return tuple(told)


def _joint(group: Sequence[LayerRow]) -> tuple[str, ...]:
    """Return which layers show what several inputs do together, where only one is asked about."""
    names = [layer.name for layer in group if layer.joint]
    return (
        (f"all inputs together reach {', '.join(names)}: the map is of what they do there together",) if names else ()
    )


def _output_notes(chances: Chances, classes: int) -> tuple[str, ...]:
    """Return what the outputs are, where that is not scores."""
    if not chances.ready:
        return ()
    again = "a sigmoid" if chances.independent or classes == 1 else "softmax"
    return (f"the model's outputs are probabilities already: they were not put through {again} again",)
