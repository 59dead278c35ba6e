"""From a model, an image and maps of it to numbers: how true the maps are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.explainer import Explainer, Recorded
from seewhy.images.baselines import named
from seewhy.measured import About, Measured, Measurements, known_mean, paired_means
from seewhy.measures import Metric, Trial, Wants, find_metric
from seewhy.measures.agreement import are_flat
from seewhy.measures.controls import centre_map, random_maps
from seewhy.measures.drawing import drawn_for
from seewhy.measures.statistics import interval
from seewhy.presented import Presented, present
from seewhy.remaking import Remaking
from seewhy.targets import is_likelihood, mask_of

RANDOM = 3
"""Random maps that each map is compared with: their mean is the control."""

FILLS = ("blur", "mean")
"""What stands for "nothing there" unless it is said: the picture blurred, and its mean colour."""

USUAL = ("insertion", "deletion")
"""The metrics of a call that names none."""


def measure(
    model: Any,
    image: Any,
    maps: Any,
    metrics: Sequence[str] | str | None = None,
    *,
    target: Any = None,
    truth: Any = None,
    layers: Any = None,
    fill: Any = FILLS,
    wrt: Any = None,
    controls: bool = True,
    how: Mapping[str, Any] | None = None,
    **options: Any,
) -> Measurements:
    """Measure how true maps are, on the model itself, beside maps that know nothing.

    Args:
        model: an :class:`seewhy.Explainer`, or what one takes.
        image: one image, or a list of inputs of one size; see :func:`seewhy.explain`.
        maps: what is measured: names of methods ("grad-cam", or several); or for one image an Explanation, several of those,
            or `{name: array}`; for several images a list with one of these for each. An array covers the picture, where it has
            the picture's shape, else the model's input, from edge to edge; high means "supports the target".
        metrics: names of :func:`seewhy.metrics`; None: insertion and deletion.
        target: what the maps explain; see :func:`seewhy.explain`. None: the class that Explanations are about, else the predicted
            one.
        truth: where the thing is, for metrics of localisation: a mask of the picture's shape (an array or a file), a box (left,
            top, right, bottom) in its pixels, or a list of boxes; for several images a list with one of these for each.
        layers: of methods given by name.
        fill: what removed places are filled with: one of the baselines' kinds, or several, whose mean is then the value.
        wrt: which of several inputs is explained; see :func:`seewhy.explain`.
        controls: whether maps that know nothing are measured beside: three random ones and a blob in the middle, which cost as
            much as four maps more. Without them it is not known what a value is worth.
        how: further arguments for methods given by name, such as `{"smooth": "aug"}`.
        options: the metrics' own, such as `steps=10`, given to those that have them.

    Returns:
        Rows (metric x map) with value, controls, and over several images an interval; prints as a table.

    Raises:
        MetricError: unknown metric or option, maps that do not fit, several questions ("top:3"), no `truth` for a metric that
            needs it, or no probability for one that is about nothing else.
        SeewhyError: as :func:`seewhy.explain`.
    """
    ask = model if isinstance(model, Explainer) else Explainer(model)
    wanted = chosen_metrics([metrics] if isinstance(metrics, str) else USUAL if metrics is None else metrics, options)
    given = present(ask, image, maps, target, layers, {**(how or {}), **({} if wrt is None else {"wrt": wrt})})
    recorded, single = ask.recorded(image, given.target, wrt=wrt)
    _check_question(recorded, given.target)
    bench = _Bench(ask, recorded, given, None if truth is None else [truth] if single else truth, controls=controls)
    bench.check([metric for metric, _ in wanted])
    fills = list(fill) if isinstance(fill, list | tuple) else [fill]
    rows = [row for metric, own in wanted for row in bench.rows(metric, own, fills)]
    return Measurements(rows, bench.about, given.skipped)


def chosen_metrics(names: Sequence[str], options: Mapping[str, Any]) -> list[tuple[Metric, dict[str, Any]]]:
    """Return the metrics, each with those of the options that it has.

    Raises:
        MetricError: unknown metric, or an option that none of them has.
    """
    found = [find_metric(name) for name in names]
    if not found:
        raise MetricError("No metric was given. seewhy.metrics() lists them.")
    for name, value in options.items():
        if not any(name in entry.options for entry in found):
            found[0].check_options({name: value})
    return [(entry, {name: value for name, value in options.items() if name in entry.options}) for entry in found]


def _check_question(recorded: Recorded, target: Any) -> None:
    """Refuse several questions: the maps of each would be judged by what the first asks.

    Raises:
        MetricError: there are several.
    """
    questions = recorded.recordings.questions
    if len(questions) > 1:
        raise MetricError(
            f"target={target!r} asks {len(questions)} questions; measure each alone: target= a class's name or index, or one box."
        )


class _Bench:
    """What is measured, ready for every metric: with controls beside it, where they are wanted, for those that judge any map."""

    def __init__(
        self, ask: Explainer, recorded: Recorded, given: Presented, truth: Sequence[Any] | None, *, controls: bool
    ) -> None:
        recordings = recorded.recordings
        samples, space = recorded.samples, tuple(recordings.images.shape[2:])
        question = recordings.questions[0]
        maps = given.on_inputs([sample.geometry for sample in samples])
        given.check_pictures(samples)
        seed = recordings.conditions.seed
        others = torch.stack(
            [
                torch.cat([random_maps(RANDOM, space, drawn_for(sample.tensor, seed)), centre_map(space)[None]])
                for sample in samples
            ]
        )
        where = None if truth is None else _truths(truth, recorded)
        remade = Remaking(ask, given, recordings, question, has_other_inputs=samples[0].call is not None)

        def trial(judged: Tensor, totals: Tensor) -> Trial:
            more = {"totals": totals, "truth": where, "remade": remade}
            return Trial.of(recordings, question, recorded.chances, judged, **more)

        self._names = given.names
        self._flat = are_flat(maps.flatten(2))
        self._origins = given.origins or (None,) * len(given.names)
        self._given = trial(maps, given.totals)
        self._beside = trial(torch.cat([maps, others], 1), torch.cat([given.totals, others.flatten(2).sum(2)], 1))
        self._has_controls = controls
        self.about = tuple(
            About(target.describe(ask.model.labels), target.index, float(likely(output)))
            for target, likely, output in zip(question, self._given.likely, recordings.outputs, strict=True)
        )
        self._unlikely = next(
            (
                target.describe(ask.model.labels)
                for target, output in zip(self._given.likely, recordings.outputs, strict=True)
                if not is_likelihood(target, output, recorded.chances)
            ),
            None,
        )

    def check(self, metrics: Sequence[Metric]) -> None:
        """Refuse metrics that mean nothing here.

        Raises:
            MetricError: one is about a probability, and the target has none.
        """
        for metric in metrics:
            if Wants.PROBABILITY in metric.wants and self._unlikely is not None:
                raise MetricError(
                    f"{metric.name} is about a probability, and the target, '{self._unlikely}', has none here: it is a score. "
                    "Choose a metric that works on scores, such as insertion, aopc or confidence-change, or ask about a "
                    "probability where the model has one: target='probability:NAME'."
                )

    def rows(self, metric: Metric, options: Mapping[str, Any], fills: Sequence[Any]) -> list[Measured]:
        """Return one metric's rows, one a map."""
        alone = not self._has_controls or Wants.REMADE in metric.wants  # a control cannot be made again
        trial = self._given if alone else self._beside
        kinds = [options["fill"]] if "fill" in options else fills
        each = [{**options, "fill": kind} for kind in kinds] if metric.is_filled else [dict(options)]
        found, curves = self._judged(metric, trial, each)
        number = len(self._names)
        none = np.full((*found.shape[:2], 1), np.nan)
        random = none if alone else found[:, :, number:-1].mean(2, keepdims=True)
        centre = none if alone else found[:, :, -1:]
        labels = [named(own["fill"]) for own in each] if metric.is_filled else []
        return [
            Measured(
                metric=metric.name,
                map=name,
                better=metric.better,
                values=found[:, :, index].mean(0),
                random=random.mean((0, 2)),
                centre=centre.mean((0, 2)),
                interval=interval(found[:, :, index].mean(0), seed=trial.seed),
                fills=dict(zip(labels, _pairs(found[:, :, index], random[:, :, 0]), strict=True)) if labels else {},
                curves={} if curves is None else _curves(curves, index, number),
                origin=self._origins[index],
                flat=bool(self._flat[:, index].any()),
            )
            for index, name in enumerate(self._names)
        ]

    @staticmethod
    def _judged(
        metric: Metric, trial: Trial, each: Sequence[Mapping[str, Any]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Return the values `(fill, image, map)`, and the curves `(image, map, point)`, where these are areas under some."""
        found, curves = [], []
        for own in each:
            found.append(metric.function(trial, **own).double().cpu().numpy())
            if (curve := trial.told()) is not None:
                curves.append(curve.double().cpu().numpy())
        return np.stack(found), np.mean(curves, 0) if curves else None


def _curves(
    found: npt.NDArray[np.float64], index: int, number: int
) -> dict[Literal["map", "random", "centre"], npt.NDArray[np.float64]]:
    """Return one map's curves `(image, point)`, and those of the controls, which follow the `number` maps where there are any."""
    own = found[:, index]
    if found.shape[1] == number:
        return {"map": own}
    return {"map": own, "random": found[:, number:-1].mean(1), "centre": found[:, -1]}


def _pairs(values: npt.NDArray[np.float64], random: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return for each fill the mean over the images `(fill, image)`, and that of the random maps."""
    return [
        paired_means(own, other) if np.isfinite(other).any() else (known_mean(own), float("nan"))
        for own, other in zip(values, random, strict=True)
    ]


def _truths(given: Sequence[Any], recorded: Recorded) -> Tensor:
    """Return where the thing is on each input: `(batch, *space)` bool.

    Raises:
        MetricError: another number of truths than images.
        TargetError: one of them is no mask or box.
    """
    if len(given) != len(recorded.samples):
        raise MetricError(
            f"{len(given)} truths were given for {len(recorded.samples)} images. Give exactly one for each image."
        )
    found = []
    for each, sample in zip(given, recorded.samples, strict=True):
        shape, space = sample.geometry.original_shape, tuple(sample.tensor.shape[1:])
        several = isinstance(each, list) and len(each) > 0 and isinstance(each[0], list | tuple)
        mask = np.logical_or.reduce([mask_of(one, shape) for one in (each if several else [each])])
        found.append(torch.from_numpy(_most_covered(sample.geometry.to_grid(mask, space))))
    return torch.stack(found)


def _most_covered(parts: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which places a thing covers by half or more; of one smaller than that, those of which it covers most."""
    peak = parts.max()
    return np.asarray((parts >= min(0.5, peak - _ROUNDING)) & (parts > _ROUNDING))


_ROUNDING = 1e-6
"""By how much shares of places that are covered alike may differ, and what beside the thing may seem to be covered."""
