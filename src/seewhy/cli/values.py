"""What an option of a metric means as it is written after -o: read as the option's own annotation says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from seewhy.errors import MetricError

if TYPE_CHECKING:
    from seewhy.measures import Metric

_TOLD: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "None"}
_SEVERAL = "several with commas between, such as 20,40"


def metric_options(given: Mapping[str, str], wanted: Sequence[Metric]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options that metrics have, as their values, and those that are left for the methods.

    Raises:
        MetricError: a value is none that the option takes.
    """
    own: dict[str, Any] = {}
    for name, words in given.items():
        having = [metric for metric in wanted if name in metric.options]
        if name == "fill" and having:
            raise MetricError(f"--option fill={words} must be given as --fill {words}, for all metrics.")
        for metric in having:
            own[name] = _value(name, words, _kinds(metric, name))
    return own, {name: words for name, words in given.items() if name not in own}


def _kinds(metric: Metric, name: str) -> tuple[Any, ...]:
    """Return what an option may be: by its annotation, and where that leaves it open, by its default."""
    try:
        kind = get_type_hints(metric.function).get(name, Any)
    except (NameError, TypeError, AttributeError):  # a user's function, whose words cannot be looked up any more
        kind = Any
    if kind is Any:
        default = metric.options[name]
        return (type(default),) if isinstance(default, bool | int | float) else (str,)
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _value(name: str, words: str, kinds: Sequence[Any]) -> Any:
    """Return the first that the words can be.

    Raises:
        MetricError: they can be none.
    """
    for kind in kinds:
        try:
            return _as(kind, words)
        except ValueError:
            continue
    told = [_TOLD[kind] for kind in kinds if kind in _TOLD and not (kind is int and float in kinds)]
    told += [each for kind in kinds if get_origin(kind) is Literal for each in map(str, get_args(kind))]
    told += [_SEVERAL] * any(_is_sequence(kind) for kind in kinds)
    raise MetricError(f"--option {name}={words} must be {' or '.join(told)}.")


def _as(kind: Any, words: str) -> Any:
    """Return words as a kind of value.

    Raises:
        ValueError: they are none.
    """
    if get_origin(kind) is Literal:
        return _one_of({str(each).casefold(): each for each in get_args(kind)}, words)
    if _is_sequence(kind):
        [inner] = get_args(kind)[:1] or (str,)
        kinds = get_args(inner) if get_origin(inner) in (Union, UnionType) else (inner,)
        return tuple(_first(kinds, word.strip()) for word in words.strip("()[] ").rstrip(",").split(","))
    return _SIMPLE.get(kind, str)(words)


def _first(kinds: Sequence[Any], words: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return _as(kind, words)
        except ValueError:
            continue
    return _as(kinds[-1], words)


def _number(words: str) -> float:
    if not math.isfinite(value := float(words)):
        raise ValueError(words)
    return value


def _one_of(known: Mapping[str, Any], words: str) -> Any:
    if words.casefold() not in known:
        raise ValueError(words)
    return known[words.casefold()]


def _is_sequence(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Sequence)


_SIMPLE: dict[Any, Callable[[str], Any]] = {
    bool: lambda words: _one_of({"true": True, "false": False}, words),
    int: int,
    float: _number,
    NoneType: lambda words: _one_of({"none": None}, words),
}
