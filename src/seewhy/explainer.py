"""From a model, an image and a question to explanations: the rooms put together, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from seewhy.assembly import assemble
from seewhy.comparison import Comparison
from seewhy.errors import ImageError, MethodError, ModelError, PartialError, RecordingError, SeewhyError
from seewhy.explanation import Explanation
from seewhy.images import Preprocess, as_preprocessing
from seewhy.images.baselines import Baselines
from seewhy.inputs import Sample, chunks, prepare, spatial_axes, split
from seewhy.making import Asked
from seewhy.maps.smoothing import SmoothLike, as_smoothing
from seewhy.models import EMBEDDED, LoadedModel, adopt, as_labels, load
from seewhy.plan import (
    Layers,
    LayoutLike,
    Plan,
    Wanted,
    check_lengths,
    check_targets,
    choose_layers,
    choose_methods,
)
from seewhy.progress import Bar
from seewhy.reading import Fuse, Reduction, View
from seewhy.recorder import (
    Budget,
    Conditions,
    LayerRow,
    LayerTable,
    OutputLike,
    Recordings,
    TorchRecorder,
    is_out_of_memory,
)
from seewhy.targets import Question, TargetLike, tells_two_apart

ALL_FORWARDS = 200
"""Forwards that each map may cost when all methods are compared and no budget is given."""

ModelLike = nn.Module | str | LoadedModel


@dataclass(frozen=True)
class _Job:
    """What is done with every batch: the plan for its layers, the view, the conditions, and whether layers are needed."""

    plan: Callable[[LayerTable | None], Plan]
    view: View | None
    conditions: Conditions
    layered: bool


class Explainer:
    """A model, bound once and asked many times.

    Args:
        model: a module, a name (see :func:`seewhy.load`) or a LoadedModel.
        preprocess: picture to input: a Preprocess, a dict of its fields, torchvision transforms, or a callable from a PIL
            image to a tensor. None: what the model says, else the usual one of ImageNet models, which is then told.
        labels: class names in order, a mapping, a file, or "imagenet". None: what the model says.
        device: where to run; the model is moved there and stays. None: where the model is.
        batch_size: most images in one run; halved by itself when memory runs out. None: 8 on a CPU (more is slower), else 32.
        output: where the scores are in what the model returns: a key, field or position ("aux", 1, "decoder.logits"), or a
            function of it. None: a tensor is taken as it is; in anything else `logits`, `out`, ..., the only 2-D tensor or
            the first.
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
        batch_size: int | None = None,
        output: OutputLike = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        loaded = _loaded(model, device)
        if preprocess is not None:
            loaded = loaded.with_(preprocess=as_preprocessing(preprocess, loaded.preprocess), notes=())
        if labels is not None:
            loaded = loaded.with_(labels=as_labels(labels))
        if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
            raise ImageError(f"batch_size={batch_size!r} must be a whole number, at least 1.")
        if not (isinstance(seed, int) and 0 <= seed < 2**63):
            raise MethodError(f"seed={seed!r} must be a whole number from 0 to 2^63 - 1.")
        self._labels_given = labels is not None
        self.model = loaded
        self.seed = seed
        self.progress = progress
        self._recorder = TorchRecorder(loaded.module, device, output)
        self.batch_size = batch_size or (8 if self._recorder.on_cpu else 32)
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
        smooth: SmoothLike = None,
        reduce: Reduction | None = None,
        budget: Budget | int | str | None = None,
        **options: Any,
    ) -> Any:
        """Explain one image or many; see :func:`seewhy.explain`."""
        wanted = choose_methods([method], options, as_smoothing(smooth))

        def plan(table: LayerTable | None) -> Plan:
            rows = self._rows(layers, table, layout)
            groups = tuple((row,) for row in rows) if fuse == "none" or not rows else (tuple(rows),)
            own = self._own(wanted, layers, table, layout)
            return Plan(wanted, (target,), () if own else groups or ((),), fuse, own, reduce)

        items, single = split(image, self._axes)
        check_lengths([target], len(items))
        results = self._run(items, plan, wanted, view, Budget.of(budget))
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
        smooth: SmoothLike = None,
        reduce: Reduction | None = None,
        budget: Budget | int | str | None = None,
        **options: Any,
    ) -> Comparison | list[Comparison]:
        """Explain one image, or each of many, in every combination; see :func:`seewhy.compare`."""
        names = [methods] if isinstance(methods, str) else methods
        wanted = choose_methods(names, options, as_smoothing(smooth))
        asked = check_targets(targets)
        skipped: dict[str, str] = {}

        def plan(table: LayerTable | None) -> Plan:
            rows = self._rows(layers, table, layout)
            own = self._own(wanted, layers, table, layout)
            return Plan(
                wanted, asked, tuple((row,) for row in rows) or ((),), own=own, reduction=reduce, skipped=skipped
            )

        items, single = split(image, self._axes)
        check_lengths(asked, len(items))
        most = Budget(forwards=ALL_FORWARDS) if budget is None and "all" in names else Budget.of(budget)
        results = [Comparison(each, skipped) for each in self._run(items, plan, wanted, view, most)]
        if not results[0]:
            raise MethodError(" ".join(skipped.values()))
        return results[0] if single else results

    def layers(self, image: Any = None) -> LayerTable:
        """Return the layers that yield a map, for this image or one of the model's usual size."""
        if image is None:
            return self._recorder.table(self._usual_input())
        item = split(image, self._axes)[0][0]
        return self._recorder.table(prepare(item, self.model.preprocess).tensor[None])

    def _usual_input(self) -> torch.Tensor:
        """Return `(1, channel, *space)` of the size that the model is made for: noise, since no image is at hand."""
        preprocess = self.model.preprocess
        if not isinstance(preprocess, Preprocess):
            raise ImageError("The model's input size is not known: its preprocessing is a callable. Give an image.")
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((1, preprocess.channels, *preprocess.size), generator=generator)

    def _rows(self, layers: Layers, table: LayerTable | None, layout: LayoutLike) -> list[LayerRow]:
        return [] if table is None else choose_layers(layers, table, self._recorder.module, layout)

    def _own(
        self, wanted: Sequence[Wanted], layers: Layers, table: LayerTable | None, layout: LayoutLike
    ) -> dict[str, tuple[LayerRow, ...]]:
        """Return the layers of those methods that fuse several by themselves."""
        return {
            each.method.name: tuple(self._rows(each.method.layers if layers is None else layers, table, layout))
            for each in wanted
            if each.method.fuse is not None and table is not None
        }

    def _run(
        self,
        items: Sequence[Any],
        plan: Callable[[LayerTable | None], Plan],
        wanted: Sequence[Wanted],
        view: View | None,
        budget: Budget,
    ) -> list[list[Explanation]]:
        """Explain all items; those that fail are told at the end, with the work done for the others."""
        done: list[list[Explanation] | None] = [None] * len(items)
        failures: dict[int, SeewhyError] = {}
        bar = Bar(self.progress)
        conditions = Conditions(self.seed, budget, Baselines(self.model.preprocess), bar.runs)
        job = _Job(plan, view, conditions, layered=any(each.method.needs.layer for each in wanted))
        for block in bar.blocks(len(items), self.batch_size):
            samples: list[tuple[int, Sample]] = []
            for number in block:
                try:
                    samples.append((number, prepare(items[number], self.model.preprocess, self.model.notes)))
                except ImageError as error:
                    failures[number] = error
            for chunk in chunks(samples, self.batch_size):
                for number, outcome in self._chunk(chunk, job):
                    if isinstance(outcome, SeewhyError):
                        failures[number] = outcome
                    else:
                        done[number] = outcome
            if not any(done) and len(set(map(str, failures.values()))) == 1 and not _about_images(failures):
                break  # the first ones failed alike, and not by what they show: so would the others
        if failures:
            raise _told(done, failures)
        return [each for each in done if each is not None]

    def _chunk(
        self, chunk: Sequence[tuple[int, Sample]], job: _Job
    ) -> list[tuple[int, list[Explanation] | SeewhyError]]:
        """Return each sample's explanations, or its error. A batch that fails, or needs too much memory, is done in halves."""
        try:
            table = self._recorder.table(chunk[0][1].tensor[None]) if job.layered else None
            ready = job.plan(table)
            recordings, asked = self._record(chunk, ready, job.conditions)
            return list(assemble(chunk, ready, recordings, asked, self.model, job.view))
        except SeewhyError as error:
            if len(chunk) == 1:
                return [(chunk[0][0], error)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                return [(chunk[0][0], _too_large(chunk[0][1], error))]
        # Outside the handlers: an error holds the frames, and they the tensors, that must be freed first.
        half = len(chunk) // 2
        parts = (chunk[:half], chunk[half:])
        return [each for part in parts for each in self._chunk(part, job)]

    def _check_labels(self, outputs: torch.Tensor) -> None:
        labels = self.model.labels
        if not self._labels_given or labels is None or outputs.ndim != 2:
            return
        if len(labels) != outputs.shape[1] and not tells_two_apart(outputs.shape[1], labels):
            raise ModelError(
                f"labels= has {len(labels)} names, and the model has {outputs.shape[1]} classes. Give one name a class, in order."
            )

    def _record(
        self, chunk: Sequence[tuple[int, Sample]], plan: Plan, conditions: Conditions
    ) -> tuple[Recordings, Asked]:
        """Return the recordings of one batch, and which of their questions belong together."""
        asked: list[tuple[int | None, ...]] = []

        def ask(outputs: torch.Tensor) -> list[Question]:
            asked.clear()  # the recorder asks again when it has to run again
            self._check_labels(outputs)
            numbers: dict[Question, int] = {}
            for versions in plan.questions(outputs, self.model.labels, [number for number, _ in chunk]):
                asked.append(tuple(v if v is None else numbers.setdefault(v, len(numbers)) for v in versions))
            return list(numbers)

        images = torch.stack([sample.tensor for _, sample in chunk])
        recordings = self._recorder.record(images, plan.rows, ask, needs=plan.needs, conditions=conditions)
        return recordings, asked


def _told(done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> SeewhyError:
    """Return the error to raise: where nothing was done and all failed alike just that, else the work done and all errors."""
    alike = len({str(error) for error in failures.values()}) == 1
    if alike and not any(done):
        return next(iter(failures.values()))
    return PartialError(done, dict(sorted(failures.items())))


def _about_images(failures: dict[int, SeewhyError]) -> bool:
    return any(isinstance(error, ImageError) for error in failures.values())


def _too_large(sample: Sample, error: BaseException) -> RecordingError:
    return RecordingError(
        f"Memory ran out for a single image of shape {tuple(sample.tensor.shape)}: {error}. Choose fewer or later layers, a "
        "smaller image, or another device."
    )


def _loaded(model: Any, device: str | torch.device | None) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, str):
        return _named(model, str(device))
    if isinstance(model, nn.Module):
        return adopt(model)
    raise ModelError(
        f"A {type(model).__name__} is not a model. Give a torch.nn.Module or a name; `seewhy models` lists names."
    )


@lru_cache(maxsize=2)
def _named(name: str, _device: str) -> LoadedModel:
    """Load a model by name; kept, so that asking by name in a loop does not load it each time."""
    return load(name)
