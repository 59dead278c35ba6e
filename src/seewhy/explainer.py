"""From a model, an image and a question to explanations: the rooms put together, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from seewhy.anchors import Anchors
from seewhy.assembly import assemble
from seewhy.comparison import Comparison
from seewhy.errors import ImageError, MethodError, ModelError, RecordingError, SeewhyError
from seewhy.explanation import Explanation
from seewhy.failures import are_about_images, are_all_alike, told, too_large, with_partial
from seewhy.frameworks import Shell
from seewhy.images import Preprocess, as_preprocessing
from seewhy.images.baselines import Baselines
from seewhy.inputs import Sample, chunks, prepare, split
from seewhy.making import Asked
from seewhy.maps.smoothing import SmoothLike, as_smoothing
from seewhy.models import EMBEDDED, Convolutions, as_labels
from seewhy.models.given import WeightsLike, as_loaded
from seewhy.plan import USUAL, Layers, LayoutLike, Plan, Request, check_lengths, check_targets, choose_methods
from seewhy.progress import Bar
from seewhy.reading import Fuse, Reduction, View
from seewhy.recorder import (
    Budget,
    Conditions,
    LayerTable,
    OutputLike,
    Recordings,
    TorchRecorder,
    Wrt,
    is_out_of_memory,
)
from seewhy.several import check_only_input
from seewhy.targets import Chances, Kind, Predictions, Question, Subject, TargetLike, similar_to, tells_two_apart
from seewhy.verifying import Verify

ALL_FORWARDS = 200
"""Forwards that each map may cost when all methods are compared and no budget is given."""

ModelLike = Any
"""A torch.nn.Module, a model of another framework, a function, a name, or a LoadedModel."""


@dataclass(frozen=True)
class _Job:
    """What is done with every batch: what is asked for, how it is looked at, and under which conditions."""

    request: Request
    view: View | None
    conditions: Conditions
    verify: Verify


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a model answered about some samples.

    Attributes:
        samples: in the batch's order.
        recordings: one question, no layer.
        chances: how scores become probabilities.
    """

    samples: tuple[Sample, ...]
    recordings: Recordings
    chances: Chances


class Explainer:
    """A model, bound once and asked many times.

    Args:
        model: a module, a name (see :func:`seewhy.load`) or a LoadedModel.
        weights: a file to load into a model that is given by its name, as in :func:`seewhy.load`.
        preprocess: picture to input: a Preprocess, a dict of its fields, torchvision transforms, or a callable from a PIL
            image to a tensor. None: what the model says, else the usual one of ImageNet models, which is then told.
        labels: class names in order, a mapping, a file, or "imagenet". None: what the model says.
        device: where to run; the model is moved there and stays. None: where the model is.
        batch_size: most images in one run; halved by itself when memory runs out. None: 8 on a CPU (more is slower), else 32.
        output: where the scores are in what the model returns: a key, field or position ("aux", 1, "decoder.logits"), or a
            function of it. None: a tensor is taken as it is; in anything else `logits`, `out`, ..., the only 2-D tensor or
            the first.
        multi_label: whether several classes may hold at once: probabilities are then each score's own sigmoid instead of a
            softmax over all. None: what the model says, else False.
        seed: for everything that is drawn at random.
        progress: show a bar. None: for several runs on a terminal.

    Raises:
        ModelError: the model is neither, or cannot be had, or has its weights already.
    """

    def __init__(
        self,
        model: ModelLike = EMBEDDED,
        *,
        weights: WeightsLike = None,
        preprocess: Any = None,
        labels: Any = None,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        output: OutputLike = None,
        multi_label: bool | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        loaded = as_loaded(model, weights, device)
        if preprocess is not None:
            loaded = loaded.with_(preprocess=as_preprocessing(preprocess, loaded.preprocess), notes=())
        if labels is not None:
            loaded = loaded.with_(labels=as_labels(labels))
        if multi_label is not None:
            loaded = loaded.with_(multi_label=multi_label)
        if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
            raise ImageError(f"batch_size={batch_size!r} must be a whole number, at least 1.")
        if not (isinstance(seed, int) and 0 <= seed < 2**63):
            raise MethodError(f"seed={seed!r} must be a whole number from 0 to 2^63 - 1.")
        self._labels_given = labels is not None
        self.model = loaded
        self.seed = seed
        self.progress = progress
        self._recorder = TorchRecorder(loaded.module, device, output)
        if loaded.tower is not None and loaded.labels is not None:  # the texts are the classes: asked once, here
            vectors = self._recorder.text_vectors(loaded.labels.lines, seed)
            self.model = loaded = loaded.with_(module=loaded.tower.with_texts(vectors))
            self._recorder = TorchRecorder(loaded.module, device, output)
        self.batch_size = batch_size or self._recorder.batch_size
        self._usual = self._recorder.usual or USUAL
        self._convolutions = Convolutions.of(self._recorder.module)
        self._anchors = Anchors(self._recorder, loaded, self.batch_size, seed)

    def __call__(
        self,
        image: Any,
        target: TargetLike | Sequence[TargetLike] = None,
        method: str | None = None,
        layers: Layers = None,
        *,
        fuse: Fuse = "mean",
        layout: LayoutLike = None,
        view: View | None = None,
        smooth: SmoothLike = None,
        reduce: Reduction | None = None,
        budget: Budget | int | str | None = None,
        wrt: Wrt | Sequence[Wrt] | None = None,
        verify: Verify = False,
        **options: Any,
    ) -> Any:
        """Explain one image or many; see :func:`seewhy.explain`."""
        if isinstance(wrt, Sequence) and not isinstance(wrt, str) and wrt:
            how: Any = {
                "fuse": fuse,
                "layout": layout,
                "view": view,
                "smooth": smooth,
                "reduce": reduce,
                "budget": budget,
                "verify": verify,
            }
            return [self(image, target, method, layers, wrt=each, **how, **options) for each in wrt]
        wanted = choose_methods([method or self._usual], options, as_smoothing(smooth))
        items, single = split(image, self._recorder.module, wrt)
        check_lengths([target], len(items))
        asked = (self._anchors.ready(target, wrt),)
        is_usual = method is None
        request = Request(wanted, asked, layers, layout, fuse == "none", fuse, reduce, is_usual=is_usual)
        results = self._run(items, request, view, Budget.of(budget), verify)
        unpacked = [each[0] if len(each) == 1 else each for each in results]
        return unpacked[0] if single else unpacked

    def compare(
        self,
        image: Any,
        methods: Sequence[str] | str | None = None,
        layers: Layers = None,
        targets: Sequence[TargetLike | Sequence[TargetLike]] | TargetLike = (),
        *,
        layout: LayoutLike = None,
        view: View | None = None,
        smooth: SmoothLike = None,
        reduce: Reduction | None = None,
        budget: Budget | int | str | None = None,
        wrt: Wrt | None = None,
        verify: Verify = False,
        **options: Any,
    ) -> Comparison | list[Comparison]:
        """Explain one image, or each of many, in every combination; see :func:`seewhy.compare`."""
        names = [methods] if isinstance(methods, str) else [self._usual] if methods is None else methods
        wanted = choose_methods(names, options, as_smoothing(smooth))
        asked = check_targets(targets)
        items, single = split(image, self._recorder.module, wrt)
        check_lengths(asked, len(items))
        asked = self._anchors.ready(asked, wrt)
        is_usual = methods is None
        request = Request(wanted, asked, layers, layout, layers is not None, reduction=reduce, is_usual=is_usual)
        most = Budget(forwards=ALL_FORWARDS) if budget is None and "all" in names else Budget.of(budget)
        results = [Comparison(each, request.skipped) for each in self._run(items, request, view, most, verify)]
        if not results[0]:
            raise MethodError(" ".join(request.skipped.values()))
        return results[0] if single else results

    def pair(
        self,
        first: Any,
        second: Any,
        method: str | None = None,
        layers: Layers = None,
        *,
        wrt: Wrt | None = None,
        **how: Any,
    ) -> Comparison:
        """Explain what in each of two images makes it similar to the other; see :func:`seewhy.compare_pair`."""
        each = [split(image, self._recorder.module, wrt)[0] for image in (first, second)]
        if any(len(alone) != 1 for alone in each):
            raise ImageError("A pair is of two images, each given alone; a list or batch was given as one of them.")
        [one], [other] = each
        return Comparison(self([one, other], [similar_to(other), similar_to(one)], method, layers, wrt=wrt, **how))

    def layers(self, image: Any = None, *, wrt: Wrt | None = None) -> LayerTable:
        """Return the layers that yield a map, for this image or one of the model's usual size; see :func:`seewhy.layers`."""
        if image is None:
            check_only_input(wrt, self._recorder.module)
            return self._usual_table()
        item = split(image, self._recorder.module, wrt)[0][0]
        sample = prepare(item, self.model.preprocess, convolutions=self._convolutions)
        return self._recorder.table(sample.tensor[None], sample.call)

    def on_module(self, module: nn.Module) -> Explainer:
        """Return the same for another module that is called and answers alike, such as a copy with other weights."""
        other = copy.copy(self)
        other.model = self.model.with_(module=module)
        other._recorder = TorchRecorder(module, None, self._recorder.output)
        other._anchors = Anchors(other._recorder, other.model, self.batch_size, self.seed)
        return other

    def recorded(
        self, image: Any, target: TargetLike | Sequence[TargetLike] = None, *, wrt: Wrt | None = None
    ) -> tuple[Recorded, bool]:
        """Return what the model answers about inputs of one size, ready for further runs, and whether one was given alone."""
        items, single = split(image, self._recorder.module, wrt)
        check_lengths([target], len(items))
        samples = [
            (number, prepare(item, self.model.preprocess, self.model.notes, self._convolutions))
            for number, item in enumerate(items)
        ]
        if len(shapes := {tuple(sample.tensor.shape) for _, sample in samples}) > 1:
            raise ImageError(
                f"Inputs of {len(shapes)} sizes cannot be measured in one go. Give those of each size alone."
            )
        conditions = Conditions(self.seed, baselines=Baselines(self.model.preprocess))
        plan = Plan((), (self._anchors.ready(target, wrt),), ((),))
        recordings, _, chances = self._record(samples, plan, conditions)
        return Recorded(tuple(sample for _, sample in samples), recordings, chances), single

    def _usual_table(self) -> LayerTable:
        """Return the layers for an image of the size that the model is made for: noise, since none is at hand."""
        preprocess, [axes, *_] = self.model.preprocess, self._convolutions.axes
        if axes != 2:
            what = "signal" if axes == 1 else "volume"
            raise ImageError(f"The model's input size is not known: it takes a {what}. Give one as image= (--image).")
        if not isinstance(preprocess, Preprocess):
            raise ImageError("The model's input size is not known: its preprocessing is a callable. Give an image.")
        # Where the preprocessing is an assumption, the first convolution's channels are the better word, unless it is not the
        # first that runs, so that the model refuses them.
        own = self._convolutions.each[0].channels if self.model.notes else None
        if own not in (None, preprocess.channels):
            with suppress(RecordingError):
                return self._recorder.table(self._noise(own, preprocess.size))
        return self._recorder.table(self._noise(preprocess.channels, preprocess.size))

    def _noise(self, channels: int, size: tuple[int, int]) -> torch.Tensor:
        return torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(self.seed))

    def _run(
        self,
        items: Sequence[Any],
        request: Request,
        view: View | None,
        budget: Budget,
        verify: Verify,
    ) -> list[list[Explanation]]:
        """Explain all items; those that fail are told at the end, with the work done for the others."""
        done: list[list[Explanation] | None] = [None] * len(items)
        failures: dict[int, SeewhyError] = {}
        bar = Bar(self.progress)
        conditions = Conditions(self.seed, budget, Baselines(self.model.preprocess), bar.runs)
        if verify == "cheap" and isinstance(self._recorder.module, Shell) and not self._recorder.module.has_layers:
            verify = False  # whoever calls a function may count its calls, or pay for them
        job = _Job(request, view, conditions, verify)
        for block in bar.blocks(len(items), self.batch_size):
            samples: list[tuple[int, Sample]] = []
            for number in block:
                try:
                    sample = prepare(items[number], self.model.preprocess, self.model.notes, self._convolutions)
                    samples.append((number, sample))
                except ImageError as error:
                    failures[number] = error
            for chunk in chunks(samples, self.batch_size):
                for number, outcome in self._chunk(chunk, job):
                    if isinstance(outcome, SeewhyError):
                        failures[number] = outcome
                    else:
                        done[number] = outcome
            if are_all_alike(done, failures) and not are_about_images(failures):
                break  # the first ones failed alike, and not by what they show: so would the others
        if failures:
            raise told(done, failures)
        return [each for each in done if each is not None]

    def _chunk(
        self, chunk: Sequence[tuple[int, Sample]], job: _Job
    ) -> list[tuple[int, list[Explanation] | SeewhyError]]:
        """Return each sample's explanations, or its error. A batch that fails, or needs too much memory, is done in halves."""
        try:
            first = chunk[0][1]
            request = job.request.on(self._recorder.module)
            table = self._recorder.table(first.tensor[None], first.call) if request.is_layered else None
            ready = request.plan(table, self._recorder.module)
            conditions = replace(job.conditions, broken=[])
            recordings, asked, chances = self._record(chunk, ready, conditions)
            made: list[tuple[int, list[Explanation]]] = list(
                assemble(chunk, ready, recordings, asked, self.model, chances, job.view, job.verify)
            )
            if not conditions.broken:
                return [*made]
            if len(chunk) == 1:
                return [(chunk[0][0], with_partial(conditions.broken[0], made[0][1]))]
        except SeewhyError as error:
            if len(chunk) == 1:
                return [(chunk[0][0], error)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                return [(chunk[0][0], too_large(chunk[0][1], error))]
        # Outside the handlers: an error holds the frames, and they the tensors, that must be freed first.
        half = len(chunk) // 2
        parts = (chunk[:half], chunk[half:])
        return [each for part in parts for each in self._chunk(part, job)]

    def _check_labels(self, outputs: torch.Tensor, kind: Kind) -> None:
        labels = self.model.labels
        if not self._labels_given or labels is None or kind not in ("classes", "places", "boxes"):
            return
        classes = Predictions.of(outputs[0]).classes.shape[1] if kind == "boxes" else outputs.shape[1]
        if len(labels) != classes and not (kind != "boxes" and tells_two_apart(classes, labels)):
            background = " Of torchvision's detectors class 0 may be the background: it has a name, too."
            raise ModelError(
                f"labels= has {len(labels)} names, and the model has {classes} classes. Give one name a class, in order."
                + background * (kind == "boxes" and len(labels) == classes - 1)
            )

    def _record(
        self, chunk: Sequence[tuple[int, Sample]], plan: Plan, conditions: Conditions
    ) -> tuple[Recordings, Asked, Chances]:
        """Return the recordings of one batch, which of their questions belong together, and how scores become probabilities."""
        images, call = torch.stack([sample.tensor for _, sample in chunk]), chunk[0][1].call
        asked: list[tuple[int | None, ...]] = []
        chances = Chances()

        def ask(outputs: torch.Tensor, kind: Kind) -> list[Question]:
            nonlocal chances
            asked.clear()  # the recorder asks again when it has to run again
            self._check_labels(outputs, kind)
            chances = self._recorder.chances(images, outputs, kind, independent=self.model.independent, inputs=call)
            numbers: dict[Question, int] = {}
            subjects = [
                Subject(output, kind, self.model.labels, sample.geometry, chances)
                for output, (_, sample) in zip(outputs, chunk, strict=True)
            ]
            for versions in plan.questions(subjects, [number for number, _ in chunk]):
                asked.append(tuple(v if v is None else numbers.setdefault(v, len(numbers)) for v in versions))
            return list(numbers)

        recordings = self._recorder.record(images, plan.rows, ask, needs=plan.needs, conditions=conditions, inputs=call)
        return recordings, asked, chances
