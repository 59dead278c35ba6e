"""From a model, an image and a question to explanations: the rooms put together, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from seewhy.assembly import Asked, assemble
from seewhy.comparison import Comparison
from seewhy.errors import ImageError, ModelError, PartialError, RecordingError, SeewhyError
from seewhy.explanation import Explanation, View
from seewhy.images import Preprocess, as_preprocessing
from seewhy.inputs import Sample, chunks, prepare, spatial_axes, split
from seewhy.models import EMBEDDED, LoadedModel, adopt, as_labels, load
from seewhy.plan import (
    Fuse,
    Layers,
    LayoutLike,
    Plan,
    Wanted,
    check_lengths,
    check_targets,
    choose_layers,
    choose_methods,
)
from seewhy.recorder import LayerRow, LayerTable, Needs, Recordings, TorchRecorder, is_out_of_memory
from seewhy.targets import TargetLike

ModelLike = nn.Module | str | LoadedModel


class Explainer:
    """A model, bound once and asked many times.

    Args:
        model: a module, a name (see :func:`seewhy.load`) or a LoadedModel.
        preprocess: picture to input: a Preprocess, a dict of its fields, torchvision transforms, or a callable from a PIL
            image to a tensor. None: what the model says, else the usual one of ImageNet models, which is then told.
        labels: class names in order, a mapping, a file, or "imagenet". None: what the model says.
        device: where to run. None: where the model is.
        batch_size: most images in one run; halved by itself when memory runs out. None: 8 on a CPU (more is slower), else 32.
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
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        loaded = _loaded(model)
        if preprocess is not None:
            loaded = loaded.with_(preprocess=as_preprocessing(preprocess), notes=())
        if labels is not None:
            loaded = loaded.with_(labels=as_labels(labels))
        if batch_size is not None and batch_size < 1:
            raise ImageError(f"batch_size={batch_size} must be at least 1.")
        self.model = loaded
        self.seed = seed
        self.progress = progress
        self._recorder = TorchRecorder(loaded.module, device)
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
        **options: Any,
    ) -> Any:
        """Explain one image or many; see :func:`seewhy.explain`."""
        wanted = choose_methods([method], options)

        def plan(table: LayerTable | None) -> Plan:
            rows = self._rows(layers, table, layout)
            groups = tuple((row,) for row in rows) if fuse == "none" or not rows else (tuple(rows),)
            return Plan(wanted, (target,), groups or ((),), fuse)

        items, single = split(image, self._axes)
        check_lengths([target], len(items))
        results = self._run(items, plan, wanted, view)
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
        check_lengths(asked, len(items))
        results = [Comparison(each, skipped) for each in self._run(items, plan, wanted, view)]
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

    def _run(
        self,
        items: Sequence[Any],
        plan: Callable[[LayerTable | None], Plan],
        wanted: Sequence[Wanted],
        view: View | None,
    ) -> list[list[Explanation]]:
        """Explain all items; those that fail are told at the end, with the work done for the others."""
        done: list[list[Explanation] | None] = [None] * len(items)
        failures: dict[int, SeewhyError] = {}
        on_input_only = all(each.method.needs == Needs.IMAGES for each in wanted)
        for block in self._blocks(items):
            samples: list[tuple[int, Sample]] = []
            for number in block:
                try:
                    samples.append((number, prepare(items[number], self.model.preprocess, self.model.notes)))
                except ImageError as error:
                    failures[number] = error
            for chunk in chunks(samples, self.batch_size):
                try:
                    table = None if on_input_only else self._recorder.table(chunk[0][1].tensor[None])
                    for number, explanations in self._chunk(chunk, plan(table), view):
                        done[number] = explanations
                except RecordingError as error:
                    failures.update({number: error for number, _ in chunk})
        if failures:
            raise _told(done, failures)
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
    ) -> list[tuple[int, list[Explanation]]]:
        """Record one batch and make its maps; when memory runs out, in halves."""
        try:
            recordings, asked = self._record(chunk, plan)
            return list(assemble(chunk, plan, recordings, asked, self.model, view))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                raise RecordingError(
                    f"Memory ran out for a single image of shape {tuple(chunk[0][1].tensor.shape)} with "
                    f"{len(plan.rows)} layers: {error}. Choose fewer or later layers, or another device."
                ) from error
        # Outside the handler: the error holds the frames, and they the tensors, that must be freed first.
        half = len(chunk) // 2
        return [*self._chunk(chunk[:half], plan, view), *self._chunk(chunk[half:], plan, view)]

    def _record(self, chunk: Sequence[tuple[int, Sample]], plan: Plan) -> tuple[Recordings, Asked]:
        """Return the recordings of one batch, and which of their questions belong together."""
        asked: list[tuple[int, ...]] = []

        def ask(outputs: torch.Tensor) -> list[Any]:
            asked.clear()  # the recorder asks again when it has to run again
            numbers: dict[Any, int] = {}
            for versions in plan.questions(outputs, self.model.labels, [number for number, _ in chunk]):
                asked.append(tuple(numbers.setdefault(version, len(numbers)) for version in versions))
            return list(numbers)

        images = torch.stack([sample.tensor for _, sample in chunk])
        recordings = self._recorder.record(images, plan.rows, ask, needs=plan.needs, seed=self.seed)
        return recordings, asked


def _told(done: list[list[Explanation] | None], failures: dict[int, SeewhyError]) -> SeewhyError:
    """Return the error to raise: where all images failed by one cause just that, else the work done and all errors."""
    causes = list({id(error): error for error in failures.values()}.values())
    if len(failures) == len(done) and len(causes) == 1:
        return causes[0]
    return PartialError(done, dict(sorted(failures.items())))


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
