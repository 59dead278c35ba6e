"""From recordings to explanations: the maps are made, and each gets what a reader must know with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seewhy.diagnosis import Circumstances, diagnose
from seewhy.errors import MethodError, SeewhyError
from seewhy.explanation import Explanation, Prediction, View
from seewhy.fusion import fused
from seewhy.inputs import Sample
from seewhy.maps import Method
from seewhy.models import LoadedModel
from seewhy.plan import Plan, Wanted
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
    batches = _all_maps(plan, recordings, asked)
    outputs = recordings.outputs.cpu()
    chances = [_chances(scores) for scores in outputs]
    finite = outputs.reshape(len(outputs), -1).isfinite().all(1).tolist()
    output_notes = _output_notes(outputs)
    spent = recordings.cost
    cost = Cost(spent.forwards, spent.backwards, spent.seconds / len(chunk))
    peaks = {key: gradient.flatten(1).abs().amax(1).tolist() for key, gradient in recordings.gradients.items()}
    for row, (number, sample) in enumerate(chunk):
        explanations = []
        scores, likely = outputs[row], chances[row]
        best = scores.topk(min(5, len(scores))).indices.tolist() if likely is not None else []
        prediction = tuple(filter(None, (_prediction(index, scores, likely, model) for index in best)))
        for wanted, group, question, maps in batches:
            target = recordings.questions[question][row]
            score = float(recordings.scores[question][row])
            shown: View = view or ("positive" if wanted.method.rectified else "signed")
            found = [peaks[question, layer.name][row] for layer in group if (question, layer.name) in peaks]
            about = None if target.index is None else _prediction(target.index, scores, likely, model)
            how = Circumstances(
                method=wanted.method.name,
                rectified=shown == "positive",
                class_blind=not wanted.method.class_specific and _was_given(target),
                gradient_peak=max(found) if found and Needs.GRADIENTS in wanted.method.needs else None,
                outputs_finite=finite[row],
                probability=score if isinstance(target, ProbabilityTarget) else None,
                chance=about.probability if about is not None and _was_given(target) else None,
            )
            explanations.append(
                Explanation(
                    raw=maps[row].copy(),
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
                    cost=cost,
                    model=model.name,
                    diagnosis=diagnose(maps[row], how),
                    notes=(*_target_notes(target), *sample.notes, *output_notes, *_repeated(group, recordings)),
                )
            )
        yield number, explanations


def _all_maps(
    plan: Plan, recordings: Recordings, asked: Asked
) -> list[tuple[Wanted, Sequence[LayerRow], int, npt.NDArray[np.float32]]]:
    """Return each method's maps `(batch, *grid)` for each of its layer groups and questions that are possible."""
    found: list[tuple[Wanted, Sequence[LayerRow], int, npt.NDArray[np.float32]]] = []
    for index, wanted in enumerate(plan.wanted, start=1):
        own = [versions[index] for versions in asked]
        questions = tuple(version for version in own if version is not None)
        for group in plan.groups(wanted):
            for question in questions:
                maps = _maps(wanted, group, plan, recordings, question, questions)
                if maps is not None:
                    found.append((wanted, group, question, maps))
    return found


def _maps(
    wanted: Wanted,
    group: Sequence[LayerRow],
    plan: Plan,
    recordings: Recordings,
    question: int,
    together: tuple[int, ...],
) -> npt.NDArray[np.float32] | None:
    """Return the raw maps `(batch, *grid)` of one method and question, those of several layers fused.

    None when an optional method cannot work on this model; the plan then says so.
    """
    own, _ = wanted.method.split_options(wanted.options)
    try:
        _check_head(wanted.method, group, recordings, question)
        found = [
            _made(wanted.method, recordings.at(layer, question, together), own)
            for layer in ([row.name for row in group] or [""])
        ]
    except MethodError as error:
        if not wanted.optional:
            raise
        plan.skipped[wanted.method.name] = str(error)
        return None
    return fused(found, plan.fuse) if len(found) > 1 else found[0]


def _made(entry: Method, recording: Recording, options: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Run a method's function, outside autocast and without a graph, and check what it returns."""
    images = recording.images
    try:
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            made = entry.function(recording, **options)
    except SeewhyError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MethodError(f"The method {entry.name} raised {type(error).__name__}: {error}") from error
    if not isinstance(made, torch.Tensor) or made.ndim != images.ndim - 1 or len(made) != len(images):
        found = f"{type(made).__name__} {tuple(getattr(made, 'shape', ()))}"
        raise MethodError(
            f"The method {entry.name} must return a tensor (batch, *grid) with {images.ndim - 2} spatial axes and batch "
            f"{len(images)}; it returned {found}."
        )
    return made.float().cpu().numpy()


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
