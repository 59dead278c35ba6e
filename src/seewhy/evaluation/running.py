"""From a folder of pictures to standings: one picture at a time, so that what is done is never lost."""

from __future__ import annotations

import copy
import inspect
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.datasets import Entry, counted, entries, open_truth
from seewhy.errors import ImageError, MetricError, SeewhyError, TargetError
from seewhy.evaluation.asked import Asking, Matches, class_of
from seewhy.evaluation.finished import Finished, finished
from seewhy.evaluation.ledger import Ledger
from seewhy.evaluation.settings import settings_of
from seewhy.evaluation.standings import Evaluation
from seewhy.explainer import Explainer
from seewhy.images.baselines import named
from seewhy.maps.smoothing import as_smoothing
from seewhy.measures import Metric, Wants
from seewhy.measures import metrics as all_metrics
from seewhy.measuring import FILLS, USUAL, chosen_metrics, measure
from seewhy.plan import choose_methods
from seewhy.progress import Bar
from seewhy.recorder import Budget

METHODS = ("grad-cam", "hires-cam", "layer-cam", "eigen-cam")
"""Of a call that names none: the class activation maps that most models allow."""


@dataclass(frozen=True)
class Later:
    """A model that is loaded once all that can be known without it has been checked.

    Attributes:
        make: loads it.
    """

    make: Callable[[], Explainer]


class Stopped(KeyboardInterrupt):
    """The user ended an evaluation.

    Attributes:
        kept: pictures that are finished.
        of: pictures that were asked for.
    """

    def __init__(self, kept: int, of: int) -> None:
        super().__init__()
        self.kept = kept
        self.of = of


def evaluate(
    model: Any,
    pictures: str | os.PathLike[str],
    methods: Sequence[str] | str | None = None,
    metrics: Sequence[str] | str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | Mapping[str, object] | None = None,
    truth: str | os.PathLike[str] | None = None,
    matches: Matches | None = None,
    layers: Any = None,
    fill: Any = FILLS,
    how: Mapping[str, Any] | None = None,
    limit: int | None = None,
    restart: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Evaluation:
    """Measure methods, at one or several layers, on a folder of pictures; rank them, and keep together what cannot be told apart.

    All maps of a picture are made from one recording, beside maps that know nothing. A picture that fails is left out and told.

    Args:
        model: an :class:`seewhy.Explainer`, or what one takes.
        pictures: the folder.
        methods: names of :func:`seewhy.methods`; "all": every one that the model allows. None: grad-cam, hires-cam,
            layer-cam and eigen-cam.
        metrics: names of :func:`seewhy.metrics`. None: insertion and deletion, and where truth is given those that need nothing
            else.
        out: a folder, where each picture is kept when it is done: a second call with the same settings goes on where the first
            stopped. The tables and figures are written there at the end. None: nothing is written.
        classes: what is asked about: "folders" (a sub-folder's name, or number, is its pictures' class), "predicted" (what the
            model says), a CSV file (file name, label) or a mapping. None: "folders" where every picture lies in a sub-folder,
            else "predicted".
        truth: where things are: a folder with a file of each picture's name, YOLO's .txt (names in classes.txt), Pascal VOC's
            .xml, or masks as :class:`seewhy.Region` takes them; or a .json of COCO.
        matches: which boxes are of what is asked about, from a box's class and the label's name. None: those whose class is
            called as the label, and all that have a number only or nothing.
        layers: as in :func:`seewhy.compare`: several, or "all-stages", are compared.
        fill: as in :func:`seewhy.measure`.
        how: further arguments for the methods, such as `{"smooth": "aug"}`.
        limit: so many pictures, drawn at random by the model's seed; with more later, the first ones are kept.
        restart: whether results of other settings in `out` are overwritten.
        progress: show a bar. None: on a terminal.
        options: the metrics' own.

    Returns:
        Rows (metric x map), by rank, with interval, rank and cost; prints as a table. `.save(folder)` writes it.

    Raises:
        MetricError: no pictures, labels or truth that cannot be read, results of other settings in `out`, or all pictures failed.
        SeewhyError: as :func:`seewhy.measure`, before the first picture is done.
    """
    folder, kept = Path(pictures), None if out is None else Path(out)
    _check_apart(kept, folder)
    names = [methods] if isinstance(methods, str) else [*METHODS] if methods is None else list(methods)
    _check_methods(names, how or {})
    wanted = chosen_metrics(metric_names(metrics, told=truth is not None), options)
    if truth is None and (lost := [entry.name for entry, _ in wanted if Wants.TRUTH in entry.wants]):
        raise MetricError(f"Metrics that compare with where the thing is ({', '.join(lost)}) need truth= (--truth).")
    if limit is not None and limit < 1:
        raise MetricError(f"limit={limit} must be at least 1.")
    apart = [Path(each) for each in (kept, truth) if each is not None and Path(each).resolve() != folder.resolve()]
    there = entries(folder, classes, apart)
    truths = None if truth is None else open_truth(truth, folder, [each.name for each in there])
    ask = copy.copy(_loaded(model))  # after all that can be checked without it: loading takes long
    ask.progress = False  # one bar at a time: this one
    listed = _chosen(there, limit, ask.seed)
    labelled = {each.label: each.where for each in reversed(listed)}
    indices = {
        label: class_of(label, ask.model.labels, where) for label, where in labelled.items() if label is not None
    }
    asking = Asking(ask, truths, matches)
    settings = settings_of(
        ask,
        methods=names,
        metrics=[entry.name for entry, _ in wanted],
        options=options,
        fill=[named(each) for each in (fill if isinstance(fill, list | tuple) else [fill])],
        layers=layers,
        how=dict(how or {}),
        matches=matches,
    )
    work = _Work(asking, indices, names, wanted, {"layers": layers, "fill": fill, "how": how})
    ledger = Ledger(kept, settings, restart=restart)
    skipped, resumed = _go_on(listed, work, ledger, Bar(progress))
    results = [
        ledger.finished[each.name] for each in listed if each.name in ledger.finished and each.name not in skipped
    ]
    if not results:
        name, why = next(iter(skipped.items()))
        raise MetricError(f"Not one of {counted(len(listed))} could be measured; the first is '{name}': {why}")
    found = Evaluation(results, settings, skipped, resumed, ledger.notes)
    if not found.rows:
        raise MetricError(
            f"Not one of the metrics ({', '.join(found.valueless)}) has a value for any map of {counted(len(results))}. Choose "
            "others, or another fill."
        )
    if kept is not None:
        found.save(kept)
    return found


def _loaded(model: Any) -> Explainer:
    if isinstance(model, Later):
        return model.make()
    return model if isinstance(model, Explainer) else Explainer(model)


def _check_methods(names: Sequence[str], how: Mapping[str, Any]) -> None:
    """Refuse methods and options that are not known.

    Raises:
        MethodError: one is not.
    """
    parameters = inspect.signature(Explainer.compare).parameters.values()
    words = {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    own = {name: value for name, value in how.items() if name not in words}
    choose_methods(names, own, as_smoothing(how.get("smooth")))
    Budget.of(how.get("budget"))


def _check_apart(kept: Path | None, folder: Path) -> None:
    if kept is not None and kept.resolve() == folder.resolve():
        raise MetricError(
            f"out='{kept}' (--out) is the folder of the pictures: the next call would take the figures for pictures. Give "
            "another folder; it may lie in this one."
        )


def _go_on(listed: Sequence[Entry], work: _Work, ledger: Ledger, bar: Bar) -> tuple[dict[str, str], int]:
    """Measure what is not finished yet; return what was skipped and why, and how many were finished before.

    Raises:
        SeewhyError: the first picture fails for a reason that is not its own.
        Stopped: the user ends it.
    """
    try:
        return _each(listed, work, ledger, bar)
    except KeyboardInterrupt:
        raise Stopped(sum(each.name in ledger.finished for each in listed), len(listed)) from None


def _each(listed: Sequence[Entry], work: _Work, ledger: Ledger, bar: Bar) -> tuple[dict[str, str], int]:
    skipped: dict[str, str] = {}
    resumed = 0
    for block in bar.blocks(len(listed), 1):
        entry = listed[block.start]
        try:
            digest = work.digest(entry)
            done = None if ledger.has(entry.name, digest) else work.of(entry, digest)
        except SeewhyError as error:
            if not ledger.finished and not isinstance(error, ImageError | TargetError | _PictureError):
                raise  # it is not about this picture: all others would fail alike
            skipped[entry.name] = str(error)
            continue
        if done is None:
            resumed += 1
        else:
            ledger.add(done)  # a full disk is not about this picture either
    return skipped, resumed


class _PictureError(MetricError):
    """What is said of one picture cannot be read, or is nothing."""


class _Work:
    """Measures one picture after the other."""

    def __init__(
        self,
        asking: Asking,
        indices: Mapping[str, int],
        methods: Sequence[str],
        wanted: Sequence[tuple[Metric, dict[str, Any]]],
        how: Mapping[str, Any],
    ) -> None:
        self._asking = asking
        self._indices = indices
        self._methods = methods
        self._wanted = wanted
        self._how = how

    def digest(self, entry: Entry) -> str:
        """Return a text that changes when what is asked about a picture does.

        Raises:
            SeewhyError: the picture, or what is said of it, cannot be read.
        """
        index = None if entry.label is None else self._indices[entry.label]
        try:
            return self._asking.digest(entry, index)
        except MetricError as error:
            raise _PictureError(str(error)) from error

    def of(self, entry: Entry, digest: str) -> Finished:
        """Return one picture's results.

        Raises:
            SeewhyError: it cannot be read or measured.
        """
        index = None if entry.label is None else self._indices[entry.label]
        try:
            truth, use = self._truth_and_metrics(entry, index)
        except MetricError as error:
            raise _PictureError(str(error)) from error
        options = {name: value for _, own in use for name, value in own.items()}
        chosen = [metric.name for metric, _ in use]
        measured = measure(
            self._asking.ask, str(entry.path), self._methods, chosen, target=index, truth=truth, **self._how, **options
        )
        has_truth = None if self._asking.truths is None else truth is not None
        return finished(entry, digest, measured, has_truth=has_truth)

    def _truth_and_metrics(self, entry: Entry, index: int | None) -> tuple[Any, list[tuple[Metric, dict[str, Any]]]]:
        """Return where the thing is, and the metrics that can be asked with that."""
        truth = self._asking.truth(entry, index)
        use = [(metric, own) for metric, own in self._wanted if truth is not None or Wants.TRUTH not in metric.wants]
        if not use:
            raise MetricError("Nothing is marked in it of what is asked about, and no other metric was chosen.")
        return truth, use


def metric_names(given: Sequence[str] | str | None, *, told: bool) -> list[str]:
    """Return the metrics' names: the usual ones, and those of localisation where truth is told."""
    if given is not None:
        return [given] if isinstance(given, str) else list(given)
    return [*USUAL, *(entry.name for entry in all_metrics() if told and entry.wants == Wants.TRUTH)]


def _chosen(listed: list[Entry], limit: int | None, seed: int) -> list[Entry]:
    """Return so many of the pictures, drawn at random: more hold the first ones, too."""
    if limit is None or limit >= len(listed):
        return listed
    drawn = set(random.Random(seed).sample(range(len(listed)), len(listed))[:limit])  # noqa: S311 - no secret
    return [each for number, each in enumerate(listed) if number in drawn]
