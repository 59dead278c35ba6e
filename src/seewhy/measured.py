"""What metrics said: one row a metric and map, beside maps that know nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from seewhy.table import Table


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
        interval: where the mean over the images lies with 95 %, by bootstrap; None for fewer than 3 images.
        fills: the mean value by each fill, where the metric depends on one; `value` is the mean of these.
    """

    metric: str
    map: str
    better: Literal["higher", "lower"]
    values: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    interval: tuple[float, float] | None = None
    fills: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The mean over the images that have a value."""
        return _mean(self.values)

    @property
    def beats_random(self) -> bool:
        """Whether the mean is better than that of random maps."""
        return self._gain(self.value, _mean(self.random)) > 0

    @property
    def disagree(self) -> bool:
        """Whether the map beats random maps by one fill and not by another."""
        return len({self._gain(value, random) > 0 for value, random in self.fills.values()}) > 1

    def _gain(self, value: float, random: float) -> float:
        return value - random if self.better == "higher" else random - value


class Measurements(Table[Measured]):
    """All rows; prints as a table."""

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
    values = (row.value, _mean(row.random), _mean(row.centre))
    number, random, centre = (f"{each:.3f}" if np.isfinite(each) else "-" for each in values)
    by_fill = ", ".join(f"{fill} {value:.3f} against {random:.3f}" for fill, (value, random) in row.fills.items())
    note = f"fills disagree: {by_fill}" if row.disagree else ""
    return (row.metric, row.better, row.map, number, between, random, centre, note)


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
