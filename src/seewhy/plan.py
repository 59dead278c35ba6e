"""What a call asks for, checked before the model is run: methods with their options, layers, questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, get_args

from torch import nn

from seewhy.errors import LayerError, MethodError, TargetError, did_you_mean
from seewhy.frameworks import Shell
from seewhy.frameworks.shell import without_layers
from seewhy.maps import Method, find_method, meant_as_keyword, methods
from seewhy.maps.smoothing import NEEDS_CHANNELS, Eigen, Smoothing
from seewhy.reading import Fuse, Reduction
from seewhy.recorder import LayerLike, LayerRow, LayerTable, Layout, Needs
from seewhy.recorder.layout import Order
from seewhy.targets import Question, Subject, TargetLike, ask

USUAL, USUAL_OF_PLACES = "grad-cam", "hires-cam"
"""The methods taken when none is named. The gradient of a box or a region is not the same everywhere, as a class's after pooling
nearly is: by its mean over places, grad-cam would show all objects of the class."""

Layers = LayerLike | Sequence[LayerLike] | None
LayoutLike = Layout | str | Mapping[str, Any] | None


@dataclass(frozen=True)
class Wanted:
    """One method.

    Attributes:
        method: its entry.
        options: its own.
        optional: whether it is one of several and may be left out where it cannot work.
        smooth: what is put around it, the innermost first.
    """

    method: Method
    options: Mapping[str, Any]
    optional: bool = False
    smooth: tuple[Smoothing, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that one call asks for.

    Attributes:
        wanted: the methods.
        targets: the questions, each for all samples or one for each.
        layers: groups of layers; a group of several is fused into one map.
        fuse: how a group's maps become one; see :func:`seewhy.fusion.fused`.
        own: the layers of methods that fuse layers by themselves, by the method's name.
        reduction: how colour channels become one map; None: as each method says.
        skipped: filled while the plan is carried out: optional methods that this model does not allow, and why.
        notes: what was chosen for the caller and must be told.
    """

    wanted: tuple[Wanted, ...]
    targets: tuple[Any, ...]
    layers: tuple[tuple[LayerRow, ...], ...]
    fuse: Fuse = "mean"
    own: Mapping[str, tuple[LayerRow, ...]] = field(default_factory=dict)
    reduction: Reduction | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        """What must be recorded for all the methods."""
        return reduce(Needs.__or__, (wanted.method.needs for wanted in self.wanted), Needs(0))

    @property
    def rows(self) -> tuple[LayerRow, ...]:
        """Every layer once."""
        return tuple({row.name: row for group in (*self.layers, *self.own.values()) for row in group}.values())

    def __post_init__(self) -> None:
        if self.fuse not in get_args(Fuse):
            raise LayerError(f"fuse='{self.fuse}' is not known. Known: mean, max, product, none (one map each).")

        if self.reduction is not None and self.reduction not in get_args(Reduction):
            raise MethodError(f"reduce='{self.reduction}' is not known. Known: {', '.join(get_args(Reduction))}.")
        if self.reduction is not None and not any(each.method.colours for each in self.wanted):
            names = ", ".join(each.method.name for each in self.wanted)
            raise MethodError(f"reduce='{self.reduction}' is for methods that keep colour channels; {names} has none.")

    def groups(self, wanted: Wanted) -> tuple[tuple[LayerRow, ...], ...]:
        """Return the layers that a method makes maps of; a method that looks at no layer makes one map, of no layer."""
        if not wanted.method.needs.layer:
            return ((),)
        own = self.own.get(wanted.method.name)
        return self.layers if own is None else (own,)

    def questions(self, subjects: Sequence[Subject], numbers: Sequence[int]) -> list[tuple[Question | None, ...]]:
        """Return for each question asked: itself, and then as each method changes it (None: the method cannot).

        Args:
            subjects: the samples, with what the model answered.
            numbers: each sample's place among all images, for targets that are given one an image.
        """
        found: list[tuple[Question | None, ...]] = []
        for target in self.targets:
            each = one_each(target)
            own = target if each is None else [each[place] for place in numbers]
            for question in ask(own, subjects):
                found.append((question, *(self._changed(wanted, question, subjects) for wanted in self.wanted)))
        return found

    def _changed(self, wanted: Wanted, question: Question, subjects: Sequence[Subject]) -> Question | None:
        """Return the question as a method asks it; None, and a word in `skipped`, when an optional method cannot."""
        retarget = wanted.method.retarget
        if retarget is None:
            return question
        _, own = wanted.method.split_options(wanted.options)
        try:
            return tuple(retarget(target, subject, **own) for target, subject in zip(question, subjects, strict=True))
        except MethodError as error:
            if not wanted.optional:
                raise
            self.skipped[wanted.method.name] = str(error)
            return None


@dataclass(frozen=True)
class Request:
    """What a caller asks for, which becomes a plan when the model's layers are known.

    Attributes:
        wanted: the methods.
        targets: the questions, each for all samples or one for each.
        layers: which layers, in the caller's words.
        layout: how they are read, where the caller says.
        apart: whether each layer has a map of its own, rather than all one together.
        fuse: how the maps of several become one.
        reduction: how colour channels become one map; None: as each method says.
        is_usual: whether no method was named.
        skipped: as in :class:`Plan`.
    """

    wanted: tuple[Wanted, ...]
    targets: tuple[Any, ...]
    layers: Layers = None
    layout: LayoutLike = None
    apart: bool = False
    fuse: Fuse = "mean"
    reduction: Reduction | None = None
    is_usual: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def is_layered(self) -> bool:
        """Whether layers must be known."""
        return any(each.method.needs.layer for each in self.wanted)

    def plan(self, table: LayerTable | None, root: nn.Module) -> Plan:
        """Return the plan for a model's layers; None: no method needs any.

        Raises:
            LayerError: there is no such layer, `layout` does not fit, or `fuse` is not known.
            MethodError: `reduction` is not known, or none of the methods keeps colours.
        """
        wanted = self.wanted
        notes: tuple[str, ...] = ()
        if self.is_usual and isinstance(root, Shell) and root.usual is not None:
            notes = (f"method: {root.usual}, as none was named and {root.why_usual}",)
        elif self.is_usual and table is not None and table.kind in ("boxes", "places"):
            wanted = tuple(replace(each, method=find_method(USUAL_OF_PLACES)) for each in wanted)

        def rows(layers: Layers) -> tuple[LayerRow, ...]:
            return () if table is None else tuple(choose_layers(layers, table, root, self.layout))

        own = {
            each.method.name: rows(each.method.layers if self.layers is None else self.layers)
            for each in wanted
            if (each.method.fuse is not None or each.method.together) and table is not None
        }
        if table is None or all(each.method.name in own for each in wanted):
            groups: tuple[tuple[LayerRow, ...], ...] = ((),)
        else:
            groups = tuple((row,) for row in rows(self.layers)) if self.apart else (rows(self.layers),)
        return Plan(wanted, self.targets, groups, self.fuse, own, self.reduction, self.skipped, notes)

    def on(self, root: nn.Module) -> Request:
        """Return what of it a model allows at all; of several methods, those that it does not are left out and told.

        Raises:
            MethodError: it allows none of them.
            LayerError: a layer is named, and it has none.
        """
        if not isinstance(root, Shell):
            return self
        wanted = [replace(each, method=_another_way(root, each.method)) for each in self.wanted]
        errors = {each.method.name: lacking(root, each.method) for each in wanted}
        possible = tuple(each for each in wanted if errors[each.method.name] is None)
        self.skipped.update({name: str(error) for name, error in errors.items() if error is not None})
        if not possible:
            raise next(error for error in errors.values() if error is not None)
        if self.layers is not None and not root.has_layers:
            raise LayerError(without_layers(root))
        return replace(self, wanted=possible)


def _another_way(root: Shell, method: Method) -> Method:
    """Return a method as it works on a model that lacks what the method usually needs, where it has such a way."""
    if method.otherwise is None or _missing(root, method.needs) is None:
        return method
    return replace(method, needs=method.otherwise)


def lacking(root: Shell, method: Method) -> MethodError | None:
    """Return why a method cannot be had of a model of another framework; None where it can, be it in another way."""
    missing = _missing(root, _another_way(root, method).needs)
    return None if missing is None else MethodError(f"'{method.name}' cannot be had of {root.words}: {missing}")


def _missing(root: Shell, needs: Needs) -> str | None:
    """Return why a model of another framework does not give all that is needed; None where it does."""
    return next((why for need, why in root.lacks.items() if Needs[need] & needs), None)


def choose_methods(
    names: Sequence[str], options: Mapping[str, Any], smooth: tuple[Smoothing, ...] = ()
) -> tuple[Wanted, ...]:
    """Return the methods of these names; each takes those of the options that it has.

    Raises:
        MethodError: unknown method, or an option that none of them has.
    """
    found = [find_method(name) for name in names if name != "all"]
    if "all" in names:
        found += [entry for entry in methods() if entry not in found]
    if not found:
        raise MethodError("No method was given. `seewhy methods` lists them.")
    if any(isinstance(each, Eigen) for each in smooth) and not any(entry.needs.layer for entry in found):
        names = [entry.name for entry in found]
        raise MethodError(f"{NEEDS_CHANNELS}; {', '.join(names)} {'looks' if len(names) == 1 else 'look'} at no layer.")
    if len(found) == 1:
        return (Wanted(found[0], found[0].check_options(options), smooth=smooth),)
    for name in options:
        known = sorted({option for entry in found for option in entry.options})
        if name not in known:
            has = f"They have: {', '.join(known)}." if known else "They have no options."
            near = meant_as_keyword(name) or did_you_mean(name, known)
            raise MethodError(f"None of these methods has an option '{name}'.{near} {has}")
    own = [{name: value for name, value in options.items() if name in entry.options} for entry in found]
    return tuple(
        Wanted(entry, entry.check_options(given), optional=True, smooth=smooth)
        for entry, given in zip(found, own, strict=True)
    )


def choose_layers(wanted: Layers, table: LayerTable, root: nn.Module, layout: LayoutLike) -> list[LayerRow]:
    """Return the layers that a caller means, in the caller's order, each once.

    Raises:
        LayerError: there is no such layer, or `layout` does not fit.
    """
    given = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not given:
        raise LayerError("layers= is an empty list. Leave it out for the default layer.")
    rows: dict[str, LayerRow] = {}
    for each in given:
        if layout is not None and (unread := _unread(each, table, layout)):
            rows[unread.name] = unread
            continue
        for row in table.select("last" if each is None else each, root):
            rows[row.name] = row if layout is None else _with_layout(row, layout)
    return list(rows.values())


def check_targets(targets: Sequence[TargetLike | Sequence[TargetLike]] | TargetLike) -> tuple[Any, ...]:
    """Return one or several targets as a tuple; none given is the predicted class."""
    if isinstance(targets, Sequence) and not isinstance(targets, str):
        return tuple(targets) or (None,)
    return (targets,)


def one_each(target: Any) -> list[Any] | None:
    """Return targets that are given one for each image (a list, a tuple, a tensor or array of indices), else None."""
    if isinstance(target, list | tuple):
        return list(target)
    return target.tolist() if getattr(target, "ndim", 0) == 1 and hasattr(target, "tolist") else None


def check_lengths(targets: Sequence[Any], images: int) -> None:
    """Raise TargetError when targets that are given one for each image are more or fewer than the images."""
    for target in targets:
        if (each := one_each(target)) is not None and len(each) != images:
            raise TargetError(
                f"{len(each)} targets were given for {images} images. Give one for all, or exactly one for each image."
            )


def _unread(wanted: Any, table: LayerTable, layout: LayoutLike) -> LayerRow | None:
    """Return the row of a layer in which no map was found by itself, when the caller says in full how to read it."""
    if not isinstance(wanted, str) or wanted not in table.others:
        return None
    if isinstance(layout, Mapping) and {"order", "grid", "channels"} <= set(layout):
        layout = _with_layout(LayerRow(wanted, "", Layout("channels-first", (), 0), ()), layout).layout
    return LayerRow(wanted, "", layout, ()) if isinstance(layout, Layout) else None


def _with_layout(row: LayerRow, layout: Layout | str | Mapping[str, Any]) -> LayerRow:
    """Return the row, read as the caller says."""
    if isinstance(layout, Layout):
        return replace(row, layout=layout)
    if isinstance(layout, Mapping):
        if set(layout) <= {"order", "grid", "channels", "prefix"} and layout.get("order", "tokens") in get_args(Order):
            return replace(row, layout=replace(row.layout, **layout))
        raise LayerError(
            f"layout= takes order ({', '.join(get_args(Order))}), grid, channels and prefix; {dict(layout)} was given."
        )
    shape = row.layout.shape
    if layout == "channels-first" and len(shape) > 2:
        return replace(row, layout=Layout("channels-first", shape[1:], shape[0]))
    if layout == "channels-last" and len(shape) > 2:
        return replace(row, layout=Layout("channels-last", shape[:-1], shape[-1]))
    raise LayerError(
        f"layout='{layout}' does not fit layer '{row.name}' of shape (batch, {', '.join(map(str, shape))}). Give "
        "'channels-first', 'channels-last', or a dict of order, grid, channels and prefix."
    )
