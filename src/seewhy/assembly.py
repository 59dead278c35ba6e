"""From recordings to explanations: the maps are made, and each gets what a reader must know with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seewhy.diagnosis import Circumstances, diagnose
from seewhy.errors import MethodError, SeewhyError
from seewhy.explanation import Explanation, Prediction
from seewhy.fusion import fused
from seewhy.inputs import Sample
from seewhy.maps import Method
from seewhy.maps.smoothing import smoothed
from seewhy.models import LoadedModel
from seewhy.plan import Plan, Wanted
from seewhy.reading import Reduction, View, reduce_colours
from seewhy.recorder import Cost, LayerRow, Needs, Recording, Recordings, is_out_of_memory
from seewhy.targets import ProbabilityTarget, Target, are_probabilities, class_name, probabilities

Asked = Sequence[tuple[int | None, ...]]
"""For each question asked, the numbers of its recorded versions: itself, then as each method of the plan changes it."""


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
    batches = list(_all_maps(plan, recordings, asked))
    outputs = recordings.outputs.cpu()
    chances = [_chances(scores) for scores in outputs]
    finite = outputs.reshape(len(outputs), -1).isfinite().all(1).tolist()
    output_notes = _output_notes(outputs)
    spent = replace(recordings.cost, seconds=recordings.cost.seconds / len(chunk))
    peaks = {key: gradient.flatten(1).abs().amax(1).tolist() for key, gradient in recordings.gradients.items()}
    for row, (number, sample) in enumerate(chunk):
        explanations = []
        scores, likely = outputs[row], chances[row]
        best = scores.topk(min(5, len(scores))).indices.tolist() if likely is not None else []
        prediction = tuple(filter(None, (_prediction(index, scores, likely, model) for index in best)))
        for batch in batches:
            wanted, group, question = batch.wanted, batch.group, batch.question
            target = recordings.questions[question][row]
            score = float(recordings.scores[question][row])
            shown: View = view or ("positive" if wanted.method.rectified else "signed")
            parts = batch.values[row].copy()
            raw = parts if batch.reduction is None else reduce_colours(parts, batch.reduction)
            found = [peaks[question, layer.name][row] for layer in group if (question, layer.name) in peaks]
            about = None if target.index is None else _prediction(target.index, scores, likely, model)
            how = Circumstances(
                method=wanted.method.name,
                rectified=shown == "positive",
                class_blind=not wanted.method.class_specific and _was_given(target),
                gradient_peak=max(found) if found and wanted.method.needs.gradients else None,
                outputs_finite=finite[row],
                probability=score if isinstance(target, ProbabilityTarget) else None,
                chance=about.probability if about is not None and _was_given(target) else None,
            )
            explanations.append(
                Explanation(
                    raw=raw,
                    colours=None if batch.reduction is None else parts,
                    reduction=batch.reduction,
                    geometry=sample.geometry,
                    image=sample.image,
                    name=sample.name,
                    target=target.describe(model.labels),
                    target_index=target.index,
                    score=score,
                    prediction=prediction,
                    about=about,
                    method=wanted.method.name,
                    options=wanted.options,
                    layers=tuple(layer.name for layer in group),
                    layouts=tuple(layer.layout for layer in group),
                    view=shown,
                    scaling=wanted.method.scaling,
                    cost=_alone(spent, wanted.method) + batch.cost,
                    evidence={name: float(values[row]) for name, values in batch.evidence.items()},
                    model=model.name,
                    diagnosis=diagnose(raw, how),
                    notes=(
                        *_target_notes(target),
                        *sample.notes,
                        *output_notes,
                        *_repeated(group, recordings),
                        *batch.notes,
                    ),
                )
            )
        yield number, explanations


@dataclass(frozen=True, eq=False)
class _Batch:
    """One method's maps of a whole batch, for one question and one group of layers.

    Attributes:
        wanted: the method.
        group: the layers.
        question: its number.
        values: `(batch, *grid)`, or `(batch, colour, *grid)`.
        reduction: how colours become one map; None where there are none.
        cost: what the method spent on one image, beyond the recording.
        evidence: `(batch,)` each.
        notes: what must be said of all of them.
    """

    wanted: Wanted
    group: Sequence[LayerRow]
    question: int
    values: npt.NDArray[np.float32]
    reduction: Reduction | None
    cost: Cost
    evidence: Mapping[str, torch.Tensor]
    notes: tuple[str, ...]


def _all_maps(plan: Plan, recordings: Recordings, asked: Asked) -> Iterator[_Batch]:
    """Yield each method's maps for each of its layer groups and questions that are possible."""
    for index, wanted in enumerate(plan.wanted, start=1):
        own = [versions[index] for versions in asked]
        questions = tuple(version for version in own if version is not None)
        for group in plan.groups(wanted):
            for question in questions:
                try:
                    yield _batch(wanted, group, plan, recordings, question, questions)
                except MethodError as error:
                    if not wanted.optional:
                        raise
                    plan.skipped[wanted.method.name] = str(error)


def _batch(
    wanted: Wanted,
    group: Sequence[LayerRow],
    plan: Plan,
    recordings: Recordings,
    question: int,
    together: tuple[int, ...],
) -> _Batch:
    """Return one method's maps for one question; those of several layers are fused.

    Raises:
        MethodError: the method cannot work on this model.
    """
    own, _ = wanted.method.split_options(wanted.options)
    _check_head(wanted.method, group, recordings, question)
    seen = [recordings.at(layer, question, together) for layer in ([row.name for row in group] or [""])]
    found = [_made(wanted, each, own) for each in seen]
    cut = next((each.cut_short for each in seen if each.cut_short), None)
    places = [f" at {row.name}" for row in group] if len(seen) > 1 else [""]
    evidence = {
        name + place: values for place, each in zip(places, seen, strict=True) for name, values in each.evidence.items()
    }
    coloured = wanted.method.colours if found[0].ndim == recordings.images.ndim else None
    return _Batch(
        wanted=wanted,
        group=group,
        question=question,
        values=fused(found, wanted.method.fuse or plan.fuse) if len(found) > 1 else found[0],
        reduction=(plan.reduction or coloured) if coloured else None,
        cost=sum((each.cost for each in seen), Cost()),
        evidence=evidence,
        notes=() if cut is None else (f"the budget ended the work after {cut[0]:,} of {cut[1]:,} runs",),
    )


def _made(wanted: Wanted, recording: Recording, options: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Run a method's function and what is put around it, outside autocast and without a graph, and check what it returns."""
    entry, images = wanted.method, recording.images
    try:
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            made = smoothed(lambda rec: entry.function(rec, **options), wanted.smooth)(recording)
            if entry.colours is None and isinstance(made, torch.Tensor) and made.ndim == images.ndim:
                made = made.sum(1)
    except SeewhyError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MethodError(f"The method {entry.name} raised {type(error).__name__}: {error}") from error
    axes = images.ndim - 2
    if not isinstance(made, torch.Tensor) or made.ndim not in (axes + 1, axes + 2) or len(made) != len(images):
        found = f"{type(made).__name__} {tuple(getattr(made, 'shape', ()))}"
        raise MethodError(
            f"The method {entry.name} must return a tensor (batch, *grid) with {axes} spatial axes, or (batch, channel, *grid), "
            f"and batch {len(images)}; it returned {found}."
        )
    return made.float().cpu().numpy()


def _alone(spent: Cost, entry: Method) -> Cost:
    """Return what of a shared recording a method would have needed by itself."""
    return replace(spent, backwards=spent.backwards if entry.needs.gradients else 0)


def _check_head(entry: Method, group: Sequence[LayerRow], recordings: Recordings, question: int) -> None:
    """Raise MethodError if the method reads the classifier's weights and these layers do not lead straight into it."""
    for layer in group if Needs.HEAD in entry.needs else ():
        if not recordings.has_head(layer.name, question):
            raise MethodError(
                f"{entry.name} needs a model whose output is one linear layer on the spatial mean of layer '{layer.name}' "
                "(global average pooling), and here it is not. Use grad-cam: it equals cam where cam exists."
            )


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
    return Prediction(index, class_name(index, model.labels), float(scores[index]), float(chances[index]))


def _was_given(target: Target) -> bool:
    """Return whether the caller asked for this target, rather than leaving it to the prediction."""
    return not getattr(target, "predicted", False)


def _target_notes(target: Target) -> tuple[str, ...]:
    return () if _was_given(target) else ("target: the predicted class, as none was given",)


def _repeated(group: Sequence[LayerRow], recordings: Recordings) -> tuple[str, ...]:
    """Return which layers ran more than once, since only the last time is shown."""
    several = [(layer.name, recordings.calls.get(layer.name, 1)) for layer in group]
    return tuple(f"layer {name} ran {times} times; the map is of the last" for name, times in several if times > 1)


def _output_notes(outputs: torch.Tensor) -> tuple[str, ...]:
    """Return what the outputs are, where that is not scores."""
    if outputs.ndim == 2 and are_probabilities(outputs):
        return ("the model's outputs are probabilities already: they were not put through softmax again",)
    return ()
