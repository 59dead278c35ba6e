"""What metrics said: one row a metric and map, beside maps that know nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from seewhy.recorder import Cost
from seewhy.table import Table


@dataclass(frozen=True)
class Origin:
    """How a map was made.

    Attributes:
        method: the method's name.
        layers: the layers' names.
        costs: what it took, one an image; the seconds of a recording that several maps share are counted in each.
    """

    method: str
    layers: tuple[str, ...]
    costs: tuple[Cost, ...]


@dataclass(frozen=True)
class About:
    """What one image's maps are about.

    Attributes:
        target: the question in words.
        index: the class, where it is about one.
        probability: the target's; its score, where it has none.
    """

    target: str
    index: int | None
    probability: float


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one map, over one or several images.

    Attributes:
        metric: its name.
        map: the map's name.
        better: whether "higher" or "lower" speaks for the map.
        values: `(image,)` float64; NaN where the metric has no value.
        random: the same of random maps, their mean.
        centre: the same of a blob in the middle.
        interval: where the mean over the images lies with 95 %, by bootstrap; None for fewer than 6 images that have a value.
        fills: by each fill, where the metric depends on one, the mean value and that of random maps, over the images where both
            have one; without such gaps `value` is the mean of these.
        curves: `(image, point)` of the map, of "random" and of the "centre", where the value is the area under a curve over 0..1
            with the same points for every image (deletion, insertion); the mean over the fills.
        origin: how the map was made, where that is known.
        flat: whether the map is the same everywhere, on some image: its places then have no order but a drawn one.
    """

    metric: str
    map: str
    better: Literal["higher", "lower"]
    values: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    interval: tuple[float, float] | None = None
    fills: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curves: Mapping[Literal["map", "random", "centre"], npt.NDArray[np.float64]] = field(default_factory=dict)
    origin: Origin | None = None
    flat: bool = False

    @property
    def value(self) -> float:
        """The mean over the images that have a value."""
        return known_mean(self.values)

    @property
    def beats_random(self) -> bool:
        """Whether the mean is better than that of random maps, over the images where both have a value; never of a flat map.

        One image decides nothing: a map that knows nothing is better than the random ones there about every second time. And
        these are smooth: noise as fine as single places, removed first, destroys a picture faster than they do.
        """
        return not self.flat and self._gain(*paired_means(self.values, self.random)) > 0

    @property
    def disagree(self) -> bool:
        """Whether the map beats random maps by one fill and not by another."""
        return len({self._gain(value, random) > 0 for value, random in self.fills.values()}) > 1

    def _gain(self, value: float, random: float) -> float:
        return value - random if self.better == "higher" else random - value


class Measurements(Table[Measured]):
    """All rows; prints as a table.

    Attributes:
        about: what was asked, one an image.
        skipped: methods that this model does not allow, and why.
    """

    def __init__(
        self, rows: Sequence[Measured], about: Sequence[About] = (), skipped: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(rows)
        self.about = tuple(about)
        self.skipped = dict(skipped or {})

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        head: tuple[str, ...] = ("metric", "better", "map", "value", "95 %", "random", "centre", "note")
        return head, [_line(row) for row in self.rows]

    def value(self, metric: str, map: str | None = None) -> float:  # noqa: A002 - as the rows call it
        """Return one value; `map` may be left out where there is one.

        Raises:
            KeyError: there is no such row, or several.
        """
        found = [row.value for row in self.rows if row.metric == metric and map in (None, row.map)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} rows of metric '{metric}' and map {map!r}.")
        return found[0]


def _line(row: Measured) -> tuple[str, ...]:
    between = "" if row.interval is None else f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
    values = (row.value, known_mean(row.random), known_mean(row.centre))
    number, random, centre = (f"{each:.3f}" if np.isfinite(each) else "-" for each in values)
    by_fill = ", ".join(f"{fill} {value:.3f} against {random:.3f}" for fill, (value, random) in row.fills.items())
    notes = ["the map is the same everywhere: its places have no order"] if row.flat else []
    notes += [f"fills disagree: {by_fill}"] if row.disagree else []
    return (row.metric, row.better, row.map, number, between, random, centre, "; ".join(notes))


def paired_means(values: npt.NDArray[np.float64], random: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return both means over the images where both are finite: those of different images say nothing of each other."""
    both = np.isfinite(values) & np.isfinite(random)
    return known_mean(values[both]), known_mean(random[both])


def known_mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of what is finite; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
