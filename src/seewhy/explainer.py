"""From a model, an image and a question to explanations: the rooms put together, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seewhy.comparison import Comparison
from seewhy.diagnosis import Circumstances, diagnose
from seewhy.errors import ImageError, MethodError, ModelError, PartialError, RecordingError, SeewhyError
from seewhy.explanation import Explanation, Prediction, View
from seewhy.fusion import fused
from seewhy.images import Preprocess, as_preprocessing
from seewhy.inputs import Sample, chunks, prepare, spatial_axes, split
from seewhy.maps import Method
from seewhy.models import EMBEDDED, LoadedModel, adopt, as_labels, load
from seewhy.plan import Fuse, Layers, LayoutLike, Plan, Wanted, check_targets, choose_layers, choose_methods
from seewhy.recorder import Cost, LayerRow, LayerTable, Needs, Recordings, TorchRecorder, is_out_of_memory
from seewhy.targets import ProbabilityTarget, Target, TargetLike, are_probabilities, class_name, probabilities

ModelLike = nn.Module | str | LoadedModel


class Explainer:
    """A model, bound once and asked many times.

    Args:
        model: a module, a name (see :func:`seewhy.load`) or a LoadedModel.
        preprocess: picture to input: a Preprocess, a dict of its fields, torchvision transforms, or a callable from a PIL
            image to a tensor. None: what the model says, else the usual one of ImageNet models, which is then told.
        labels: class names in order, a mapping, a file, or "imagenet". None: what the model says.
        device: where to run. None: where the model is.
        batch_size: most images in one run; halved by itself when memory runs out.
        seed: for everything that is drawn at random.
        progress: show a bar. None: for several runs on a terminal.

    Raises:
        ModelError: the model is neither, or cannot be had.
    """

    def __init__(
        self,
        model: ModelLike = EMBEDDED,
        *,
        preprocess: Any = None,
        labels: Any = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        loaded = _loaded(model)
        if preprocess is not None:
            loaded = loaded.with_(preprocess=as_preprocessing(preprocess), notes=())
        if labels is not None:
            loaded = loaded.with_(labels=as_labels(labels))
        if batch_size < 1:
            raise ImageError(f"batch_size={batch_size} must be at least 1.")
        self.model = loaded
        self.batch_size = batch_size
        self.seed = seed
        self.progress = progress
        self._recorder = TorchRecorder(loaded.module, device)
        self._axes = spatial_axes(self._recorder.module)

    def __call__(
        self,
        image: Any,
        target: TargetLike | Sequence[TargetLike] = None,
        method: str = "grad-cam",
        layers: Layers = None,
        *,
        fuse: Fuse = "mean",
        layout: LayoutLike = None,
        view: View | None = None,
        **options: Any,
    ) -> Any:
        """Explain one image or many; see :func:`seewhy.explain`."""
        wanted = choose_methods([method], options)
        targets = (list(target),) if isinstance(target, list | tuple) else (target,)

        def plan(table: LayerTable | None) -> Plan:
            rows = self._rows(layers, table, layout)
            groups = tuple((row,) for row in rows) if fuse == "none" or not rows else (tuple(rows),)
            return Plan(wanted, targets, groups or ((),), fuse)

        items, single = split(image, self._axes)
        results = self._run(items, single, plan, wanted, view)
        unpacked = [each[0] if len(each) == 1 else each for each in results]
        return unpacked[0] if single else unpacked

    def compare(
        self,
        image: Any,
        methods: Sequence[str] | str = ("grad-cam",),
        layers: Layers = None,
        targets: Sequence[TargetLike] | TargetLike = (),
        *,
        layout: LayoutLike = None,
        view: View | None = None,
        **options: Any,
    ) -> Comparison | list[Comparison]:
        """Explain one image, or each of many, in every combination; see :func:`seewhy.compare`."""
        wanted = choose_methods([methods] if isinstance(methods, str) else methods, options)
        asked = check_targets(targets)

        skipped: dict[str, str] = {}

        def plan(table: LayerTable | None) -> Plan:
            rows = self._rows(layers, table, layout)
            return Plan(wanted, asked, tuple((row,) for row in rows) or ((),), skipped=skipped)

        items, single = split(image, self._axes)
        results = [Comparison(each, skipped) for each in self._run(items, single, plan, wanted, view)]
        return results[0] if single else results

    def layers(self, image: Any = None) -> LayerTable:
        """Return the layers that yield a map, for this image or one of the model's usual size."""
        if image is None:
            return self._recorder.table(self._usual_input())
        item = split(image, self._axes)[0][0]
        return self._recorder.table(prepare(item, self.model.preprocess).tensor[None])

    def _usual_input(self) -> torch.Tensor:
        """Return `(1, channel, *space)` of the size that the model is made for: smooth noise, since no image is at hand."""
        preprocess = self.model.preprocess
        if not isinstance(preprocess, Preprocess):
            raise ImageError("The model's input size is not known: its preprocessing is a callable. Give an image.")
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((1, preprocess.channels, *preprocess.size), generator=generator)

    def _rows(self, layers: Layers, table: LayerTable | None, layout: LayoutLike) -> list[LayerRow]:
        return [] if table is None else choose_layers(layers, table, self._recorder.module, layout)

    def _run(
        self, items: Sequence[Any], single: bool, plan: Any, wanted: Sequence[Wanted], view: View | None
    ) -> list[list[Explanation]]:
        """Explain all items; those that fail are told at the end, with the work done for the others."""
        done: list[list[Explanation] | None] = [None] * len(items)
        failures: dict[int, SeewhyError] = {}
        on_input_only = all(each.method.needs == Needs.IMAGES for each in wanted)
        for block in self._blocks(items):
            samples: list[tuple[int, Sample]] = []
            for number in block:
                try:
                    samples.append((number, prepare(items[number], self.model.preprocess)))
                except ImageError as error:
                    failures[number] = error
            for chunk in chunks(samples, self.batch_size):
                try:
                    table = None if on_input_only else self._recorder.table(chunk[0][1].tensor[None])
                    for number, explanations in self._chunk(chunk, plan(table), view):
                        done[number] = explanations
                except RecordingError as error:
                    failures.update({number: error for number, _ in chunk})
        if failures and (single or len(failures) == len(items)):
            raise next(iter(failures.values()))
        if failures:
            raise PartialError(done, dict(sorted(failures.items())))
        return [each for each in done if each is not None]

    def _blocks(self, items: Sequence[Any]) -> Iterator[range]:
        """Yield the items' numbers a batch at a time, with a bar where it is wanted."""
        blocks = [range(at, min(at + self.batch_size, len(items))) for at in range(0, len(items), self.batch_size)]
        shown = self.progress if self.progress is not None else len(blocks) > 1 and sys.stderr.isatty()
        if not shown:
            yield from blocks
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(blocks, description="explaining", console=Console(stderr=True))

    def _chunk(
        self, chunk: Sequence[tuple[int, Sample]], plan: Plan, view: View | None
    ) -> Iterable[tuple[int, list[Explanation]]]:
        """Record one batch and make its maps; when memory runs out, in halves."""
        try:
            recordings, asked = self._record(chunk, plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                raise RecordingError(
                    f"Memory ran out for a single image of shape {tuple(chunk[0][1].tensor.shape)} with "
                    f"{len(plan.rows)} layers: {error}. Choose fewer or later layers, or another device."
                ) from error
            recordings = None
        if recordings is None:
            half = len(chunk) // 2
            return [*self._chunk(chunk[:half], plan, view), *self._chunk(chunk[half:], plan, view)]
        return self._explanations(chunk, plan, recordings, asked, view)

    def _record(self, chunk: Sequence[tuple[int, Sample]], plan: Plan) -> tuple[Recordings, list[tuple[int, ...]]]:
        """Return the recordings, and for each question asked the numbers of: itself, and each method's own of it."""
        asked: list[tuple[int, ...]] = []

        def ask(outputs: torch.Tensor) -> list[Any]:
            numbers: dict[Any, int] = {}
            for versions in plan.questions(outputs, self.model.labels, chunk[0][0]):
                asked.append(tuple(numbers.setdefault(version, len(numbers)) for version in versions))
            return list(numbers)

        images = torch.stack([sample.tensor for _, sample in chunk])
        recordings = self._recorder.record(images, plan.rows, ask, needs=plan.needs, seed=self.seed)
        return recordings, asked

    def _explanations(
        self,
        chunk: Sequence[tuple[int, Sample]],
        plan: Plan,
        recordings: Recordings,
        asked: Sequence[tuple[int, ...]],
        view: View | None,
    ) -> Iterator[tuple[int, list[Explanation]]]:
        """Yield each sample's number and its explanations: methods x layer groups x questions, in this order."""
        batches = [
            (wanted, group, versions[0], versions[index], maps)
            for index, wanted in enumerate(plan.wanted, start=1)
            for group in plan.layers
            for versions in asked
            if (maps := _maps(wanted, group, plan, recordings, versions[index], [v[index] for v in asked])) is not None
        ]
        scores = recordings.outputs
        predictions = [_predicted(row, self.model) for row in scores.cpu()]
        finite = scores.flatten(1).isfinite().all(1).tolist()
        notes = _output_notes(scores)
        cost = recordings.cost
        each_cost = Cost(cost.forwards, cost.backwards, cost.seconds / len(chunk))
        for row, (number, sample) in enumerate(chunk):
            explanations = []
            for wanted, group, question, version, maps in batches:
                target = recordings.questions[question][row]
                raw = maps[row]
                rectified = wanted.method.rectified
                how = Circumstances(
                    method=wanted.method.name,
                    rectified=rectified,
                    class_blind=not wanted.method.class_specific and _was_asked(target),
                    gradient_peak=_gradient_peak(recordings, group, version, row),
                    outputs_finite=finite[row],
                    probability=_probability(target, recordings, question, row),
                )
                explanations.append(
                    Explanation(
                        raw=raw,
                        geometry=sample.geometry,
                        image=sample.image,
                        name=sample.name,
                        target=target.describe(self.model.labels),
                        target_index=target.index,
                        score=float(recordings.scores[question][row]),
                        prediction=predictions[row],
                        method=wanted.method.name,
                        options=wanted.options,
                        layers=tuple(layer.name for layer in group),
                        layouts=tuple(layer.layout for layer in group),
                        view=view or ("positive" if rectified else "signed"),
                        cost=each_cost,
                        model=self.model.name,
                        diagnosis=diagnose(raw, how),
                        notes=(*_target_notes(target), *self._input_notes(sample), *sample.notes, *notes),
                    )
                )
            yield number, explanations

    def _input_notes(self, sample: Sample) -> tuple[str, ...]:
        """Return what was assumed about preparing this sample; a tensor was not prepared at all."""
        return () if sample.name == "tensor" else self.model.notes


def _loaded(model: Any) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, str):
        return load(model)
    if isinstance(model, nn.Module):
        return adopt(model)
    raise ModelError(
        f"A {type(model).__name__} is not a model. Give a torch.nn.Module or a name; `seewhy models` lists names."
    )


def _maps(
    wanted: Wanted,
    group: Sequence[LayerRow],
    plan: Plan,
    recordings: Recordings,
    question: int,
    together: Sequence[int],
) -> npt.NDArray[np.float32] | None:
    """Return the raw maps `(batch, *grid)` of one method and question, those of several layers fused.

    None when an optional method cannot work on this model; the plan then says so.
    """
    own, _ = wanted.method.split_options(wanted.options)
    try:
        _check_head(wanted.method, group, recordings, question)
        with torch.no_grad():
            found = [
                wanted.method.function(recordings.at(layer, question, tuple(together)), **own).float().cpu().numpy()
                for layer in ([row.name for row in group] or [""])
            ]
    except MethodError as error:
        if not wanted.optional:
            raise
        plan.skipped[wanted.method.name] = str(error)
        return None
    return fused(found, plan.fuse) if len(found) > 1 else found[0]


def _check_head(entry: Method, group: Sequence[LayerRow], recordings: Recordings, question: int) -> None:
    """Raise MethodError if the method reads the classifier's weights and these layers do not lead straight into it."""
    for layer in group if Needs.HEAD in entry.needs else ():
        if not recordings.has_head(layer.name, question):
            raise MethodError(
                f"{entry.name} needs a model whose output is one linear layer on the spatial mean of layer '{layer.name}' "
                "(global average pooling), and here it is not. Use grad-cam: it equals cam where cam exists."
            )


def _predicted(scores: torch.Tensor, model: LoadedModel) -> tuple[Prediction, ...]:
    """Return the five likeliest classes of one sample's scores; nothing when they are not one score a class."""
    if scores.ndim != 1:
        return ()
    chances = probabilities(scores) if len(scores) > 1 else torch.full_like(scores, torch.nan)
    best = scores.topk(min(5, len(scores))).indices.tolist()
    return tuple(Prediction(i, class_name(i, model.labels), float(scores[i]), float(chances[i])) for i in best)


def _was_asked(target: Target) -> bool:
    return not getattr(target, "predicted", False)


def _target_notes(target: Target) -> tuple[str, ...]:
    return () if _was_asked(target) else ("target: the predicted class, as none was given",)


def _output_notes(outputs: torch.Tensor) -> tuple[str, ...]:
    """Return what the outputs are, where that is not scores."""
    if outputs.ndim == 2 and are_probabilities(outputs):
        return ("the model's outputs are probabilities already: they were not put through softmax again",)
    return ()


def _gradient_peak(recordings: Recordings, group: Sequence[LayerRow], question: int, row: int) -> float | None:
    """Return the largest absolute gradient at the layers; None where none was recorded."""
    found = [recordings.gradients.get((question, layer.name)) for layer in group]
    peaks = [float(gradient[row].abs().max()) for gradient in found if gradient is not None]
    return max(peaks) if peaks else None


def _probability(target: Target, recordings: Recordings, question: int, row: int) -> float | None:
    return float(recordings.scores[question][row]) if isinstance(target, ProbabilityTarget) else None
