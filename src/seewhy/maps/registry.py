"""The single place a method is named: the command, the tables, the tests and the benchmark read from here."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.reading import Fuse, Reduction, Scaling, Shows
from seewhy.recorder import Needs
from seewhy.table import Table
from seewhy.targets import Target

MapFunction = Callable[..., Float[Tensor, " batch *grid"]]

CAPTUM = "captum:"
"""What the names of Captum's classes begin with; they are found by :func:`find_method`, not listed one by one."""

CAPTUM_SOURCE = "Kokhlikyan et al. 2020, arXiv:2009.07896"

_ENTRIES: dict[str, Method] = {}
# The keywords of explain(), compare() and Explainer: what an unknown option may have been meant as.
_CALL = (
    "target",
    "targets",
    "method",
    "methods",
    "layers",
    "fuse",
    "layout",
    "view",
    "preprocess",
    "labels",
    "device",
    "batch_size",
    "seed",
    "progress",
    "budget",
    "smooth",
    "reduce",
    "wrt",
    "output",
    "multi_label",
)
_IN_WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Method:
    """One registered method.

    Attributes:
        name: the paper's name in lower case with hyphens.
        function: from a Recording to the raw map `(batch, *grid)`, or to `(batch, part, *grid)`, whose sum over the parts (the
            layer's channels) is the map; its keyword arguments are the method's options.
        needs: what must be recorded for it.
        class_specific: whether the map depends on the target.
        signed: whether the raw map can be negative.
        rectified: whether the heat map shows only its positive part (the paper's final ReLU).
        source: the paper.
        passes: runs of the model, forwards + backwards, for one image, one layer, one target; options' names in braces.
        retarget: from a target and one sample, with what the model answered, to the target that is asked instead, for methods
            whose map is that of another question; raises MethodError for targets that it cannot change.
        colours: how the parts become one map, where they are the input's colour channels, which are kept; None elsewhere.
        scaling: the usual scale of the heat map.
        shows: "evidence" for the target, or "influence" on it in either direction.
        layers: the layers that are looked at when none are named; None: the default layer.
        fuse: how several layers become one map, where the method itself says so.
        otherwise: what is recorded where a model lacks some of the needs, for methods that have another way then: see
            `Recording.has`.
        together: whether the function takes the recordings of all layers, one a layer, and makes one map of them.
    """

    name: str
    function: MapFunction
    needs: Needs
    class_specific: bool
    signed: bool
    rectified: bool
    source: str
    passes: str
    retarget: Callable[..., Target] | None = None
    colours: Reduction | None = None
    scaling: Scaling = "per-image"
    shows: Shows = "evidence"
    layers: str | None = None
    fuse: Fuse | None = None
    otherwise: Needs | None = None
    together: bool = False

    @property
    def summary(self) -> str:
        """The first line of the method's own docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def sections(self) -> dict[str, str]:
        """The docstring's sections by their names: Formula, Options, Elsewhere."""
        found = re.split(r"^(Formula|Options|Elsewhere):", inspect.getdoc(self.function) or "", flags=re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in zip(found[1::2], found[2::2], strict=True)}

    @property
    def cost(self) -> str:
        """The runs of the model with default options, forwards + backwards."""
        return self.passes.format(**self.options)

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options and their defaults."""
        functions = [self.function, *([self.retarget] if self.retarget else [])]
        parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def check_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options, converted to the type of their defaults where they are text.

        Raises:
            MethodError: the method has no such option, or the value does not fit.
        """
        known = self.options
        for name in given:
            if name not in known:
                has = ", ".join(f"{option}={default!r}" for option, default in known.items()) or "none"
                near = meant_as_keyword(name) or did_you_mean(name, known)
                raise MethodError(f"{self.name} has no option '{name}'.{near} It has: {has}.")
        free = self._free
        return {
            name: _as_given(value, known[name]) if name in free else _convert(self.name, name, value, known[name])
            for name, value in given.items()
        }

    @property
    def _free(self) -> set[str]:
        """The options that may be of any kind, since their annotation says so."""
        parameters = inspect.signature(self.function).parameters.values()
        return {each.name for each in parameters if each.annotation in ("Any", Any)}

    def split_options(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options of the map and the options of the question."""
        own = inspect.signature(self.function).parameters
        return {k: v for k, v in options.items() if k in own}, {k: v for k, v in options.items() if k not in own}


class MethodTable(Table[Method]):
    """All methods; prints as a table."""

    def columns(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table's head and its rows as text."""
        head: tuple[str, ...] = ("name", "what it does", "class", "signed", "passes", "options", "source")
        body: list[tuple[str, ...]] = [
            (
                entry.name,
                entry.summary,
                "yes" if entry.class_specific else "no",
                "yes" if entry.signed else "no",
                entry.cost,
                " ".join(f"{name}={default}" for name, default in entry.options.items()),
                entry.source,
            )
            for entry in self.rows
        ]
        about = "Run a class of Captum, such as captum:DeepLift: pip install 'seewhy[captum]'."
        body.append((f"{CAPTUM}NAME", about, "-", "-", "by NAME", "those of its attribute()", CAPTUM_SOURCE))
        return head, body


def method(
    name: str,
    *,
    needs: Needs,
    class_specific: bool,
    signed: bool,
    source: str,
    rectified: bool = True,
    passes: str = "1 + 1",
    retarget: Callable[..., Target] | None = None,
    colours: Reduction | None = None,
    scaling: Scaling = "per-image",
    shows: Shows = "evidence",
    layers: str | None = None,
    fuse: Fuse | None = None,
    otherwise: Needs | None = None,
    together: bool = False,
) -> Callable[[MapFunction], MapFunction]:
    """Register a function as a method; see :class:`Method` for the arguments.

    Raises:
        MethodError: another function has this name already.
    """

    def register(function: MapFunction) -> MapFunction:
        known = next((entry for entry in _ENTRIES.values() if _key(entry.name) == _key(name)), None)
        # The same function may come again: a notebook cell or a module that is run a second time.
        if known is not None and (known.name, _identity(known.function)) != (name, _identity(function)):
            raise MethodError(f"A method is called '{known.name}' already. Give yours another name than '{name}'.")
        _ENTRIES[name] = Method(
            name=name,
            function=function,
            needs=needs,
            class_specific=class_specific,
            signed=signed,
            rectified=rectified,
            source=source,
            passes=passes,
            retarget=retarget,
            colours=colours,
            scaling=scaling,
            shows=shows,
            layers=layers,
            fuse=fuse,
            otherwise=otherwise,
            together=together,
        )
        return function

    return register


def methods() -> MethodTable:
    """Return all methods, controls last: entries with `.name`, `.options`, `.source`, ...; prints as a table."""
    return MethodTable(sorted(_ENTRIES.values(), key=lambda entry: entry.source.startswith("control")))


def find_method(name: str) -> Method:
    """Return the method of this name; common spellings ("GradCAM", "gradcam_pp") are understood.

    Raises:
        MethodError: there is none; the nearest names are told.
    """
    if isinstance(name, str) and name.strip().casefold().startswith(CAPTUM):
        from seewhy.maps.foreign.captum_names import captum_method

        return captum_method(name)
    by_key = {_key(entry): found for entry, found in _ENTRIES.items()}
    if not isinstance(name, str) or _key(name) not in by_key:
        raise MethodError(
            f"No method is called '{name}'.{did_you_mean(str(name), _ENTRIES)} `seewhy methods` lists them."
        )
    return by_key[_key(name)]


def meant_as_keyword(name: str) -> str:
    """Return a question that names the argument of a call which an unknown option was meant as, or nothing."""
    others = [keyword for keyword in _CALL if keyword != name]  # this one, the call did not take
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
    return f" Did you mean {close[0]}=?" if close else ""


def _identity(function: MapFunction) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _key(name: str) -> str:
    """Return a name with all that spellings differ in taken out: case, hyphens, "++" against "pp" or "plusplus"."""
    folded = re.sub(r"plus[ _-]?plus|pp$|\+\+", "2plus", name.casefold())
    return re.sub(r"[^a-z0-9]", "", folded)


def _as_given(value: Any, default: Any) -> Any:
    """Return an option of any kind; the word None is what a default of None looks like in text."""
    return None if default is None and isinstance(value, str) and value == "None" else value


def _convert(method_name: str, option: str, value: Any, default: Any) -> Any:
    """Return text as the type of the option's default; check other values against it."""
    if default is None:
        return value
    kind = type(default)
    wanted = _IN_WORDS.get(kind, kind.__name__)
    if isinstance(value, str) and kind is not str:
        try:
            value = {"true": True, "false": False}[value.casefold()] if kind is bool else kind(value)
        except (ValueError, KeyError) as error:
            raise MethodError(f"{method_name}: {option}={value!r} is not {wanted}.") from error
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise MethodError(f"{method_name}: {option}={value!r} must be {wanted}, like its default {default!r}.")
    return value
