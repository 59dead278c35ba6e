"""The single place a metric is named: the command, the tables, the tests and the reports read from here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError, did_you_mean
from seewhy.table import Table

MetricFunction = Callable[..., Float[Tensor, "batch map"]]
Better = Literal["higher", "lower"]

_ENTRIES: dict[str, Metric] = {}


class Wants(Flag):
    """What a metric needs beside the maps."""

    MAPS = 0
    """Nothing else."""
    SCORE = auto()
    """The model's scores for changed inputs."""
    TRUTH = auto()
    """Where the thing asked about is: a mask or boxes."""
    REMADE = auto()
    """The maps that the same methods make of other inputs, questions or weights."""
    PROBABILITY = auto()
    """A probability in 0..1, as its formula means nothing with a score in its place."""


@dataclass(frozen=True)
class Metric:
    """One registered metric.

    Attributes:
        name: the field's name in lower case with hyphens.
        function: from a :class:`Trial` to the values `(batch, map)`; NaN where a map has none. Its keyword arguments are the
            metric's options; one called `fill` is what stands for "nothing there".
        better: whether "higher" or "lower" values speak for a map.
        range: the lowest and the highest value that can come out.
        baseline: what a map that knows nothing gets, in words or a number.
        wants: what it needs.
        source: the paper.
        passes: runs of the model for one map of one image; options' names in braces.
    """

    name: str
    function: MetricFunction
    better: Better
    range: tuple[float, float]
    baseline: str
    wants: Wants
    source: str
    passes: str

    @property
    def summary(self) -> str:
        """The first line of the metric's own docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def sections(self) -> dict[str, str]:
        """The docstring's sections by their names: Formula, Options, Elsewhere."""
        found = re.split(r"^(Formula|Options|Elsewhere):", inspect.getdoc(self.function) or "", flags=re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in zip(found[1::2], found[2::2], strict=True)}

    @property
    def options(self) -> dict[str, Any]:
        """The metric's own options and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def is_filled(self) -> bool:
        """Whether parts of the input are replaced, so that the value depends on what stands for "nothing there"."""
        return "fill" in self.options

    @property
    def cost(self) -> str:
        """The runs of the model with default options."""
        return self.passes.format(**self.options)

    def check_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options.

        Raises:
            MetricError: the metric has no such option.
        """
        for name in given:
            if name not in self.options:
                has = ", ".join(f"{option}={default!r}" for option, default in self.options.items()) or "none"
                raise MetricError(
                    f"{self.name} has no option '{name}'.{did_you_mean(name, self.options)} It has: {has}."
                )
        return dict(given)


class MetricTable(Table[Metric]):
    """All metrics; prints as a table."""

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        head: tuple[str, ...] = (
            "name",
            "what it tells",
            "better",
            "range",
            "a map that knows nothing",
            "runs",
            "source",
        )
        body: list[tuple[str, ...]] = [
            (
                entry.name,
                entry.summary,
                entry.better,
                f"{entry.range[0]:g} to {entry.range[1]:g}",
                entry.baseline,
                entry.cost,
                entry.source,
            )
            for entry in self.rows
        ]
        return head, body


def metric(
    name: str,
    *,
    better: Better,
    range: tuple[float, float],  # noqa: A002 - the field's word
    source: str,
    wants: Wants = Wants.SCORE,
    baseline: str = "measured",
    passes: str = "0",
) -> Callable[[MetricFunction], MetricFunction]:
    """Register a function as a metric; see :class:`Metric` for the arguments.

    Raises:
        MetricError: another function has this name already.
    """

    def register(function: MetricFunction) -> MetricFunction:
        known = _ENTRIES.get(name)
        if known is not None and _identity(known.function) != _identity(function):
            raise MetricError(f"A metric is called '{name}' already. Give yours another name.")
        _ENTRIES[name] = Metric(name, function, better, range, baseline, wants, source, passes)
        return function

    return register


def metrics() -> MetricTable:
    """Return all metrics: entries with `.name`, `.better`, `.options`, `.source`, ...; prints as a table."""
    return MetricTable(tuple(_ENTRIES.values()))


def find_metric(name: str) -> Metric:
    """Return the metric of this name; other spellings ("PointingGame", "pointing_game") are understood.

    Raises:
        MetricError: there is none; the nearest names are told.
    """
    by_key = {_key(entry): found for entry, found in _ENTRIES.items()}
    if not isinstance(name, str) or _key(name) not in by_key:
        raise MetricError(
            f"No metric is called '{name}'.{did_you_mean(str(name), _ENTRIES)} seewhy.metrics() lists them."
        )
    return by_key[_key(name)]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _identity(function: MetricFunction) -> tuple[str, str]:
    return function.__module__, function.__qualname__
