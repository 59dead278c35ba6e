"""The table of an evaluation: each map's mean, how sure it is, its rank, and what it cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seewhy.evaluation.finished import BETWEEN, Finished, Judged
from seewhy.evaluation.ranks import LEAST, Floats, Side, beaten, ranks
from seewhy.evaluation.settings import Settings
from seewhy.explanation import layer_words
from seewhy.measures import find_metric
from seewhy.measures.statistics import interval
from seewhy.table import Table

Map = tuple[str, str, bool]
"""A method, a layer, and whether it is a control."""

RANDOM: Map = ("random", "", True)


@dataclass(frozen=True)
class Standing:
    """One metric of one method at one layer, over all pictures.

    Attributes:
        metric: its name; `better` whether "higher" or "lower" values are.
        method, layer: how the maps were made; of a control its name.
        control: whether it is one that knows nothing.
        mean: over the pictures that have a value; `interval` where it lies with 95 %, by bootstrap, None for fewer than 6.
        pictures: how many have a value.
        rank: the first and the last that it may have; the same only where it is told apart from all others.
        of: how many are ranked.
        against_random: whether it is "better" or "worse" than random maps, or "not told apart" from them; "too few": on fewer
            pictures than are ever told apart; None: there are no random maps to compare with, or it is these.
        forwards, backwards, replays, seconds: what a map took, the mean over the pictures; the recording that several maps share
            is counted in each.
    """

    metric: str
    better: str
    method: str
    layer: str
    control: bool
    mean: float
    interval: tuple[float, float] | None
    pictures: int
    rank: tuple[int, int]
    of: int
    against_random: Side | None
    forwards: float
    backwards: float
    replays: float
    seconds: float

    @property
    def name(self) -> str:
        """The method and the layer, or the control."""
        if self.control:
            return f"control: {self.method}"
        several = "" if self.layer == self.layer_words else self.layer_words
        return f"{self.method} ({several})" if several else " ".join(filter(None, (self.method, self.layer)))

    @property
    def layer_words(self) -> str:
        """The layer; of a method of many at once their number."""
        return layer_words(self.layer.split(BETWEEN))

    @property
    def rank_words(self) -> str:
        """The rank, such as "2" or "1-3"."""
        first, last = self.rank
        return str(first) if first == last else f"{first}-{last}"

    @property
    def interval_words(self) -> str:
        """The interval, empty where there is none."""
        return "" if self.interval is None else f"{self.interval[0]:.3f} to {self.interval[1]:.3f}"

    @property
    def against_words(self) -> str:
        """How it stands to random maps; empty for these themselves, "-" where there are none."""
        return "" if (self.method, self.layer, self.control) == RANDOM else self.against_random or "-"

    @property
    def cost_words(self) -> tuple[str, str]:
        """Runs of the model and seconds that a map took; empty for a control."""
        if self.control:
            return "", ""
        return f"{self.forwards + self.backwards + self.replays:.4g}", f"{self.seconds:.2f}"


class Evaluation(Table[Standing]):
    """All standings, by metric and rank; prints as a table.

    Attributes:
        results: what is known of each picture.
        skipped: pictures that failed, and why.
        left_out: methods that the model does not allow, and why.
        settings: what the results depend on.
        resumed: how many pictures had been finished by an earlier call.
        notes: what must be said of what was gone on with.
        valueless: metrics that have no value for any map of any picture.
        files: what was written last.
    """

    def __init__(
        self,
        results: Sequence[Finished],
        settings: Settings,
        skipped: Mapping[str, str] | None = None,
        resumed: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        self.results = tuple(results)
        self.settings = dict(settings)
        self.skipped = dict(skipped or {})
        self.resumed = resumed
        self.notes = tuple(notes)
        self.files: tuple[Path, ...] = ()
        self.left_out = {name: why for each in self.results for name, why in each.skipped.items()}
        metrics = list(dict.fromkeys(name for each in self.results for judged in each.maps for name in judged.values))
        seed = int(settings.get("seed", 0))
        super().__init__([row for metric in metrics for row in _standings(self.results, metric, seed)])
        self.valueless = tuple(metric for metric in metrics if metric not in self.metrics)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' names."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def of(self, metric: str) -> tuple[Standing, ...]:
        """Return one metric's rows, by rank, and of the same first rank by the mean."""
        name = find_metric(metric).name
        return tuple(row for row in self.rows if row.metric == name)

    def best(self, metric: str) -> tuple[Standing, ...]:
        """Return those that may be the best by a metric: no other is told to be better, and they are not told apart.

        There are none where each is worse than another, on other pictures: as A than C, B than A, and C than B.
        """
        return tuple(row for row in self.of(metric) if row.rank[0] == 1)

    def curves(self, metric: str) -> dict[Map, npt.NDArray[np.float64]]:
        """Return the mean curve `(point,)` of each map, at evenly spaced parts from 0 to 1, where the metric is an area."""
        found: dict[Map, list[tuple[float, ...]]] = {}
        for each in self.results:
            for judged in each.maps:
                if metric in judged.curves and np.isfinite(judged.curves[metric]).all():
                    found.setdefault(_map_of(judged), []).append(judged.curves[metric])
        return {key: np.mean(np.array(each), 0) for key, each in found.items()}

    @property
    def with_truth(self) -> int | None:
        """How many pictures were told where the thing is; None where no truth was given."""
        told = [each.has_truth for each in self.results if each.has_truth is not None]
        return sum(told) if told else None

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write results.csv, summary.csv, bars.png, curves.png and report.html, and return their paths.

        With pyarrow results.parquet is written, too.

        Raises:
            RenderError: the folder cannot be written to.
        """
        from seewhy.evaluation.saving import save

        self.files = tuple(save(self, Path(folder)))
        return list(self.files)

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        head = ("metric", "better", "rank", "map", "mean", "95 %", "pictures", "than random", "runs", "seconds")
        return head, [_line(row) for row in self.rows]


def _line(row: Standing) -> tuple[str, ...]:
    return (
        row.metric,
        row.better,
        row.rank_words,
        row.name,
        f"{row.mean:.3f}",
        row.interval_words,
        str(row.pictures),
        row.against_words,
        *row.cost_words,
    )


def _standings(results: Sequence[Finished], metric: str, seed: int) -> list[Standing]:
    """Return one metric's rows, by rank, and of the same first rank by the mean.

    Ranks are of the same pictures, and means of those that a map has a value for: where they disagree, ranks are right.
    """
    better = find_metric(metric).better
    judged: dict[Map, dict[int, Judged]] = {}
    for number, each in enumerate(results):
        for one in each.maps:
            if np.isfinite(one.values.get(metric, np.nan)):
                judged.setdefault(_map_of(one), {})[number] = one
    maps = list(judged)
    values = np.full((len(results), len(maps)), np.nan)
    for column, key in enumerate(maps):
        for number, one in judged[key].items():
            values[number, column] = one.values[metric]
    wins = beaten(values, higher=better == "higher", seed=seed)
    control = maps.index(RANDOM) if RANDOM in maps else None
    rows = []
    for column, (key, rank) in enumerate(zip(maps, ranks(wins), strict=True)):
        own = values[:, column]
        costs = [one.cost for one in judged[key].values()]
        rows.append(
            Standing(
                metric,
                better,
                *key,
                mean=float(np.nanmean(own)),
                interval=interval(own, seed=seed),
                pictures=len(costs),
                rank=rank,
                of=len(maps),
                against_random=None if control in (None, column) else _side(values, wins, column, control),
                forwards=float(np.mean([cost.forwards for cost in costs])),
                backwards=float(np.mean([cost.backwards for cost in costs])),
                replays=float(np.mean([cost.replays for cost in costs])),
                seconds=float(np.mean([cost.seconds for cost in costs])),
            )
        )
    return sorted(rows, key=lambda row: (row.rank[0], -row.mean if better == "higher" else row.mean))


def _side(values: Floats, wins: npt.NDArray[np.bool_], one: int, other: int) -> Side:
    """Return how a map stands to another."""
    if np.isfinite(values[:, [one, other]]).all(1).sum() < LEAST:
        return "too few"
    return "better" if wins[one, other] else "worse" if wins[other, one] else "not told apart"


def _map_of(judged: Judged) -> Map:
    return judged.method, judged.layer, judged.control
