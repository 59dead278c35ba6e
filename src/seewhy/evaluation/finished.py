"""What is known of one picture when its maps are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from seewhy.datasets import Entry
from seewhy.measured import Measurements
from seewhy.recorder import Cost

CONTROLS: tuple[Literal["random", "centre"], ...] = ("random", "centre")
"""Maps that know nothing: the mean of some random ones, and a blob in the middle."""

BETWEEN = " + "
"""What stands between the names of layers that one map is of."""

_DIGITS = 6  # of a curve's points: it is only drawn


@dataclass(frozen=True)
class Judged:
    """One map of one picture.

    Attributes:
        method, layer: how it was made; of a control its name, and no layer.
        control: whether it is one that knows nothing.
        cost: what it took; the recording that the maps share is counted in each.
        values: by metric; NaN where it has none.
        curves: by metric, at evenly spaced parts from 0 to 1, where the value is the area under one.
    """

    method: str
    layer: str
    control: bool
    cost: Cost
    values: Mapping[str, float]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """One picture.

    Attributes:
        picture: its name.
        digest: changes when the picture, its label or its truth does.
        label: what it is said to show, where that is said.
        target: the question in words, `index` the class, `probability` what the model gives it.
        maps: of all methods and layers, and the controls.
        skipped: methods that the model does not allow, and why.
        has_truth: whether it was told where the thing is; None: for no picture.
    """

    picture: str
    digest: str
    label: str | None
    target: str
    index: int | None
    probability: float
    maps: tuple[Judged, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    has_truth: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it in plain types; numbers that JSON has not become null."""
        content = asdict(self)
        content["probability"] = _or_null(self.probability)
        for judged in content["maps"]:
            judged["values"] = {name: _or_null(value) for name, value in judged["values"].items()}
            judged["curves"] = {name: [_or_null(point) for point in curve] for name, curve in judged["curves"].items()}
        return content

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Finished:
        """Return what :meth:`as_json` made.

        Raises:
            KeyError, TypeError, AttributeError: it is something else.
        """
        maps = tuple(
            Judged(
                method=_a(str, each["method"]),
                layer=_a(str, each["layer"]),
                control=_a(bool, each["control"]),
                cost=Cost(**{name: _a(int | float, value) for name, value in each["cost"].items()}),
                values={name: _or_nan(value) for name, value in each["values"].items()},
                curves={name: tuple(map(_or_nan, _a(list, curve))) for name, curve in each["curves"].items()},
            )
            for each in _a(list, content["maps"])
        )
        return cls(
            picture=_a(str, content["picture"]),
            digest=_a(str, content["digest"]),
            label=_a(str | None, content["label"]),
            target=_a(str, content["target"]),
            index=_a(int | None, content["index"]),
            probability=_or_nan(content["probability"]),
            maps=maps,
            skipped={name: _a(str, why) for name, why in content["skipped"].items()},
            has_truth=_a(bool | None, content["has_truth"]),
        )


def finished(entry: Entry, digest: str, measured: Measurements, *, has_truth: bool | None) -> Finished:
    """Return what metrics said of one picture's maps."""
    [about] = measured.about
    maps = [*_maps(measured), *_controls(measured)]
    return Finished(
        entry.name,
        digest,
        entry.label,
        about.target,
        about.index,
        about.probability,
        tuple(maps),
        measured.skipped,
        has_truth,
    )


def _maps(measured: Measurements) -> list[Judged]:
    found = []
    for name in dict.fromkeys(row.map for row in measured):
        rows = [row for row in measured if row.map == name]
        origin = rows[0].origin
        values = {row.metric: row.value for row in rows}
        curves = {row.metric: _points(row.curves["map"][0]) for row in rows if row.curves}
        layer = "" if origin is None else BETWEEN.join(origin.layers)
        cost = Cost() if origin is None else origin.costs[0]
        found.append(Judged(name if origin is None else origin.method, layer, False, cost, values, curves))  # noqa: FBT003
    return found


def _controls(measured: Measurements) -> list[Judged]:
    """Return the controls, by the metrics that judge any map."""
    rows = {row.metric: row for row in reversed(measured.rows)}
    found = []
    for name in CONTROLS:
        values = {metric: float(getattr(row, name)[0]) for metric, row in rows.items()}
        known = {metric: values[metric] for metric in dict.fromkeys(row.metric for row in measured)}
        known = {metric: value for metric, value in known.items() if not math.isnan(value)}
        curves = {metric: _points(rows[metric].curves[name][0]) for metric in known if name in rows[metric].curves}
        found.append(Judged(name, "", True, Cost(), known, curves))  # noqa: FBT003
    return found


def _points(curve: Any) -> tuple[float, ...]:
    return tuple(round(float(point), _DIGITS) for point in curve)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(_a(int | float, value))


def _a(kind: Any, value: Any) -> Any:
    """Return a value that a file should have of some type.

    Raises:
        TypeError: it is of another.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{str(value)[:80]!r} is no {getattr(kind, '__name__', kind)}")
    return value
