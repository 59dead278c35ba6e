"""From recordings to maps: each method of a plan is called, smoothed and fused as was asked, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seewhy.errors import MethodError, SeewhyError
from seewhy.fusion import fused
from seewhy.images.baselines import PIXEL_KINDS, Baselines
from seewhy.maps import Method
from seewhy.maps.smoothing import smoothed
from seewhy.plan import Plan, Wanted
from seewhy.reading import Reduction
from seewhy.recorder import Cost, LayerRow, Needs, Recording, Recordings, Sharing, is_out_of_memory

Asked = Sequence[tuple[int | None, ...]]
"""For each question asked, the numbers of its recorded versions: itself, then as each method of the plan changes it."""


@dataclass(frozen=True, eq=False)
class MadeMaps:
    """One method's maps of a whole batch, for one question and one group of layers.

    Attributes:
        wanted: the method.
        group: the layers.
        question: its number.
        values: `(batch, *grid)`, or `(batch, colour, *grid)`.
        reduction: how colours become one map; None where there are none.
        cost: what the method spent on one image, beyond the recording.
        reported: numbers about the maps, `(batch,)` each.
        cut_short: (runs made, runs planned) where the budget ended the work early.
        notes: what must be said of each of them.
        among: of how many maps they were chosen.
    """

    wanted: Wanted
    group: Sequence[LayerRow]
    question: int
    values: npt.NDArray[np.float32]
    reduction: Reduction | None
    cost: Cost
    reported: Mapping[str, torch.Tensor]
    cut_short: tuple[int, int] | None
    notes: tuple[tuple[str, ...], ...]
    among: int


def make_maps(plan: Plan, recordings: Recordings, asked: Asked) -> Iterator[MadeMaps]:
    """Yield each method's maps for each of its layer groups and questions that are possible.

    Args:
        plan: what was asked for; what is not possible is noted in its `skipped`.
        recordings: what the model did.
        asked: which recorded questions belong together.

    Raises:
        MethodError: the only method cannot work on this model.
    """
    for index, wanted in enumerate(plan.wanted, start=1):
        own = [versions[index] for versions in asked]
        questions = tuple(version for version in own if version is not None)
        for group in plan.groups(wanted):
            for question in questions:
                try:
                    yield _together(wanted, group, plan, recordings, question, questions)
                except MethodError as error:
                    if not wanted.optional:
                        raise
                    plan.skipped[wanted.method.name] = str(error)


def _together(
    asked: Wanted,
    group: Sequence[LayerRow],
    plan: Plan,
    recordings: Recordings,
    question: int,
    together: tuple[int, ...],
) -> MadeMaps:
    """Return one method's maps for one question; those of several layers are fused.

    Raises:
        MethodError: the method cannot work on this model.
    """
    wanted = _without_pixels(asked, recordings)
    entry = wanted.method
    own, _ = entry.split_options(wanted.options)
    _check_head(entry, group, recordings, question)
    layers = tuple(dict.fromkeys(row.name for rows in plan.groups(wanted) for row in rows))
    sharing = Sharing(
        (question,) if entry.together else together, layers, entry.needs
    )  # its variants hang on the question
    seen = [recordings.at(layer, question, sharing) for layer in ([row.name for row in group] or [""])]
    found = [_made(wanted, seen, own)] if entry.together else [_made(wanted, [each], own) for each in seen]
    seen = seen[:1] if entry.together else seen  # which pays for all
    ended = "the model failed" if recordings.conditions.broken else "the budget ended the work"
    notes = [note for each in seen for note in each.notes]
    notes += [
        f"{ended} after {each.cut_short[0]:,} of {each.cut_short[1]:,} runs"
        for each in seen
        if each.cut_short is not None
    ]
    if wanted is not asked:
        usual, shape = asked.method.options["baseline"], tuple(recordings.images.shape[1:])
        notes.append(
            f"baseline: zeros instead of '{usual}', since what a pixel value is in an input of shape {shape} is not known"
        )
    of_each = [each.notes_of_each for each in seen if each.notes_of_each]
    places = [f" at {row.name}" for row in group] if len(seen) > 1 else [""]
    reported = {
        name + place: values for place, each in zip(places, seen, strict=True) for name, values in each.reported.items()
    }
    coloured = entry.colours if found[0].ndim == recordings.images.ndim else None
    return MadeMaps(
        wanted=wanted,
        group=group,
        question=question,
        values=fused(found, entry.fuse or plan.fuse) if len(found) > 1 or entry.fuse else found[0],
        reduction=(plan.reduction or coloured) if coloured else None,
        cost=sum((each.cost for each in seen), Cost()),
        reported=reported,
        cut_short=next((each.cut_short for each in seen if each.cut_short is not None), None),
        notes=tuple(
            tuple(dict.fromkeys([*notes, *(said[row] for said in of_each)])) for row in range(len(recordings.images))
        ),
        among=max(each.among for each in seen),
    )


def _without_pixels(wanted: Wanted, recordings: Recordings) -> Wanted:
    """Return the method with zeros for its usual baseline, where that speaks of pixels and this input has none."""
    usual = wanted.method.options.get("baseline")
    of_pixels = isinstance(usual, str) and not set(PIXEL_KINDS).isdisjoint(usual.split(","))
    baselines = recordings.conditions.baselines
    if "baseline" in wanted.options or not (of_pixels and isinstance(baselines, Baselines)):
        return wanted
    if baselines.knows_pixels(recordings.images):
        return wanted
    return replace(wanted, options={**wanted.options, "baseline": "dataset"})


def _made(wanted: Wanted, recordings: Sequence[Recording], options: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Run a method's function and what is put around it, outside autocast and without a graph, and check what it returns."""
    entry, [recording, *_] = wanted.method, recordings
    images = recording.images
    if entry.together and wanted.smooth:
        raise MethodError(
            f"smooth= cannot be put around {entry.name}, which varies the input itself and looks at several layers together. "
            "Leave smooth= out."
        )

    def run(rec: Recording) -> torch.Tensor:
        return entry.function(recordings if entry.together else rec, **options)

    try:
        with torch.inference_mode(mode=False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            made = smoothed(run, wanted.smooth)(recording)
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


def cost_alone(spent: Cost, entry: Method) -> Cost:
    """Return what of a shared recording a method would have needed by itself."""
    return replace(spent, backwards=min(spent.backwards, entry.needs.backwards))


def _check_head(entry: Method, group: Sequence[LayerRow], recordings: Recordings, question: int) -> None:
    """Raise MethodError if the method reads the classifier's weights and these layers do not lead straight into it."""
    for layer in group if Needs.HEAD in entry.needs else ():
        if not recordings.has_head(layer.name, question):
            raise MethodError(
                f"{entry.name} needs a model whose output is one linear layer on the spatial mean of layer '{layer.name}' "
                "(global average pooling), and here it is not. Use grad-cam: it equals cam where cam exists."
            )
