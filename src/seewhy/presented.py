"""Maps as a caller hands them over to be measured: names of methods, explanations, or arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.comparison import Comparison
from seewhy.errors import MetricError
from seewhy.explainer import Explainer
from seewhy.explanation import Explanation
from seewhy.images import Geometry, size_words
from seewhy.inputs import Sample, split
from seewhy.measured import Origin
from seewhy.measures.placing import on_input
from seewhy.targets import ClassTarget, LogOddsTarget, SimilarContrastTarget, Target

Raw = tuple[npt.NDArray[np.float32], Geometry | None]
"""A map `(*grid)`, and the input that it covers; None: the model's own, or the picture, where it has that shape."""

_Given = tuple[str, Raw, Explanation | None]
"""A map's name, itself, and the explanation that it is of, where it is one's."""


@dataclass(frozen=True, eq=False)
class Presented:
    """What is measured.

    Attributes:
        names: of the maps.
        maps: for each image its maps.
        target: what they explain.
        methods, layers, how: where the maps were asked for by name, how they are made again.
        origins: how each map was made; None for arrays.
        skipped: methods that this model does not allow, and why.
        seen: the layers that each of these is of.
        explanations: for each image those that were handed over; None for arrays.
    """

    names: tuple[str, ...]
    maps: tuple[tuple[Raw, ...], ...]
    target: Any
    methods: tuple[str, ...] = ()
    layers: Any = None
    how: Mapping[str, Any] | None = None
    origins: tuple[Origin | None, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    seen: tuple[tuple[str, ...], ...] = ()
    explanations: tuple[tuple[Explanation | None, ...], ...] = ()

    def on_inputs(self, geometries: Sequence[Geometry]) -> Float[Tensor, "batch map *space"]:
        """Return the maps at the resolution of the model's inputs.

        Raises:
            MetricError: another number of images, or maps that do not fit them.
        """
        if len(geometries) != len(self.maps):
            raise MetricError(
                f"Maps of {len(self.maps)} images were given for {len(geometries)} images. Give them for each."
            )
        return torch.stack(
            [
                torch.stack([torch.from_numpy(_on_input(raw, geometry)) for raw in own])
                for own, geometry in zip(self.maps, geometries, strict=True)
            ]
        )

    def check_pictures(self, samples: Sequence[Sample]) -> None:
        """Refuse explanations of other pictures.

        Raises:
            MetricError: one is.
        """
        for given, sample in zip(self.explanations, samples, strict=False):  # of maps made by name there are none
            for why in given:
                if why is not None:
                    _check_picture(why, sample)

    @property
    def totals(self) -> Float[Tensor, "batch map"]:
        """The sums of the raw maps."""
        return torch.tensor([[float(raw.sum()) for raw, _ in own] for own in self.maps])


def present(ask: Explainer, image: Any, maps: Any, target: Any, layers: Any, how: Mapping[str, Any]) -> Presented:
    """Return what a caller handed over, as maps.

    Raises:
        MetricError: it is none of what :func:`seewhy.measure` takes.
    """
    named = (maps,) if isinstance(maps, str) else tuple(maps) if _are_names(maps) else ()
    if named:
        return by_name(ask, image, named, target, layers, how)
    if layers is not None or set(how) - {"wrt"}:
        raise MetricError("layers= and how= are for methods given by name; these maps are made already.")
    several = not split(image, ask.model.module)[1]
    each = list(maps) if several and isinstance(maps, list | tuple) else [maps]
    found = [_of_one(own) for own in each]
    names = tuple(name for name, _, _ in found[0])
    if any(tuple(name for name, _, _ in own) != names for own in found):
        raise MetricError("Every image must come with maps of the same names, in the same order.")
    about = [_question(own) for own in found]
    known = target is None and all(question is not None for question in about)
    asked = (about if several else about[0]) if known else target
    raws = tuple(tuple(raw for _, raw, _ in own) for own in found)
    explained = tuple(tuple(why for _, _, why in own) for own in found)
    return Presented(names, raws, asked, origins=_origins(found), explanations=explained)


def _question(maps: Sequence[_Given]) -> Target | None:
    """Return what explanations of one image are about; None where none is known.

    Raises:
        MetricError: they are about several questions.
    """
    asked = [_of_class(why.asked) for _, _, why in maps if why is not None and why.asked is not None]
    if len(set(asked)) > 1:
        words = ", ".join(sorted({f"'{why.target}'" for _, _, why in maps if why is not None}))
        raise MetricError(
            f"These maps are about several questions: {words}. Measure those of each alone, or give target=."
        )
    return asked[0] if asked else None


def _of_class(target: Target) -> Target:
    """Return the plain class that a method asks about in a way of its own."""
    is_class = isinstance(target, LogOddsTarget | SimilarContrastTarget) and getattr(target, "side", None) is None
    return ClassTarget(target.index) if is_class or isinstance(target, ClassTarget) else target  # type: ignore[arg-type]


def by_name(
    ask: Explainer, image: Any, methods: Sequence[str], target: Any, layers: Any, how: Mapping[str, Any]
) -> Presented:
    """Return the maps of methods."""
    compared = ask.compare(image, methods, layers, () if target is None else [target], **how)
    each: list[Any] = [compared] if compared and isinstance(compared[0], Explanation) else list(compared)
    found = [_of_one(own) for own in each]
    names = tuple(name for name, _, _ in found[0])
    maps = tuple(tuple(raw for _, raw, _ in own) for own in found)
    skipped = compared.skipped if isinstance(compared, Comparison) else compared[0].skipped
    seen = tuple(why.layers for why in each[0])
    return Presented(names, maps, target, tuple(methods), layers, how, _origins(found), skipped, seen)


def names_of(made: Sequence[Explanation]) -> list[str]:
    """Return what one image's maps are called: by their method, and by their layers where it has several."""
    several = len({why.method for why in made}) < len(made)
    return [f"{why.method} {'+'.join(why.layers)}".strip() if several else why.method for why in made]


def _are_names(maps: Any) -> bool:
    return isinstance(maps, list | tuple) and len(maps) > 0 and all(isinstance(each, str) for each in maps)


def _origins(found: Sequence[list[_Given]]) -> tuple[Origin | None, ...]:
    """Return how each map was made, from all images' maps."""
    made = []
    for each in zip(*found, strict=True):
        known = [explanation for _, _, explanation in each if explanation is not None]
        costs = tuple(explanation.cost for explanation in known)
        made.append(Origin(known[0].method, known[0].layers, costs) if known else None)
    return tuple(made)


def _of_one(maps: Any) -> list[_Given]:
    """Return one image's maps."""
    if isinstance(maps, Explanation):
        maps = [maps]
    if isinstance(maps, Mapping):
        return [(str(name), (_array(values, f"The map '{name}'"), None), None) for name, values in maps.items()]
    if isinstance(maps, list | tuple) and maps and all(isinstance(each, Explanation) for each in maps):
        return [(name, (each.raw, each.geometry), each) for name, each in zip(names_of(maps), maps, strict=True)]
    return [("map", (_array(maps, "The map"), None), None)]


def _array(values: Any, name: str) -> npt.NDArray[np.float32]:
    found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if found.dtype.kind not in "fiub" or not 1 <= found.ndim <= 3:
        raise MetricError(
            f"A {type(values).__name__} of shape {found.shape} is no map. Give an Explanation, several, names of methods, or "
            "arrays of numbers with one entry a place."
        )
    if missing := int((~np.isfinite(found)).sum()):
        raise MetricError(
            f"{name} holds {missing} values of {found.size} that are no numbers (NaN or infinite): such places have no order. "
            "Put numbers there, such as the map's least value."
        )
    return found.astype(np.float32)


def _check_picture(why: Explanation, sample: Sample) -> None:
    shapes = (why.geometry.original_shape, sample.geometry.original_shape)
    own, given = (why.image, sample.image) if why.input is None else (why.input, sample.values)
    is_other = shapes[0] != shapes[1]
    if not is_other and own is not None and given is not None:
        gap = float(np.abs(own.astype(np.float32) - given).mean()) if own.shape == given.shape else np.inf
        is_other = gap > _SAME * float(given.std())
    if is_other:
        raise MetricError(
            f"The explanation of '{why.name}' ({size_words(shapes[0])}) is measured on another picture, '{sample.name}' "
            f"({size_words(shapes[1])}). Give each picture its own explanation."
        )


_SAME = 0.25
"""Of a picture's standard deviation: by how much two readings of it may differ on average."""


def _on_input(raw: Raw, geometry: Geometry) -> npt.NDArray[np.float32]:
    """Return one map at the resolution of the model's input, linearly."""
    values, covers = raw
    if values.ndim != len(geometry.axes):
        raise MetricError(
            f"A map of shape {values.shape} does not fit an input of {len(geometry.axes)} spatial axes. A map has one axis for "
            "each of these, and none for channels or a batch: take one of those (values[0]), or their sum."
        )
    shape = geometry.original_shape
    if covers is None and values.shape != shape and values.shape == shape[::-1]:
        raise MetricError(
            f"A map of shape {values.shape} lies on its side: the picture's is {shape}. Give its transpose (values.T)."
        )
    return on_input(values, covers, geometry)
