"""Whether maps can be trusted on a model at all: they are made again of what must not give the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.checkup import trust
from seewhy.checkup.outcomes import Name, Outcome, Sanity
from seewhy.comparison import Comparison
from seewhy.errors import MetricError, SeewhyError, TargetError
from seewhy.explainer import Explainer, ModelLike, Recorded
from seewhy.explanation import Explanation
from seewhy.images import Geometry
from seewhy.maps import find_method
from seewhy.measures.controls import elsewhere
from seewhy.measures.placing import on_input
from seewhy.plan import Layers
from seewhy.presented import names_of
from seewhy.targets import (
    ClassTarget,
    DirectionTarget,
    LogOddsTarget,
    PlacesTarget,
    ProbabilityTarget,
    Target,
    TargetLike,
)
from seewhy.untrained import untrained

METHODS = ("grad-cam", "layer-cam", "attn-lrp")
"""The methods of a call that names none: three that ask in different ways."""

OTHERS = 3
"""Other classes, drawn at random: one alone may look like the class."""

DRAWS = 2
"""Draws of the weights."""

PARTS = (1 / 3, 2 / 3, 1.0)
"""Which parts of the layers are drawn anew, from the last one on."""

INPUTS = 3
"""Pictures of noise, and as many with shuffled patches."""

NOISE, PATCHES = "noise", "shuffled patches"


def sanity(
    model: ModelLike,
    image: Any,
    methods: Sequence[str] | str = METHODS,
    *,
    target: TargetLike = None,
    other: TargetLike = None,
    layers: Layers = None,
    how: Mapping[str, Any] | None = None,
) -> Sanity:
    """Check whether maps can be trusted on a model at all: Adebayo et al. 2018, arXiv:1810.03292; Sixt et al. 2020.

    A map must be another one for another class ("class"), with weights that learnt nothing ("weights"), and of noise or of the
    picture with its patches shuffled ("input"); and it should be alike to those of other methods ("agreement"). How alike two
    maps are is the correlation of their values' ranks. What must differ fails above 0.71, from where on one map tells more than
    half of how the other varies; methods disagree where their maps are no more alike than 95 % of maps with the same values
    elsewhere.

    Args:
        model: an :class:`seewhy.Explainer`, or what one takes.
        image: one image; see :func:`seewhy.explain`.
        methods: names.
        target: what the maps are about; None: the predicted class.
        other: what they must differ from; None: up to three other classes, drawn at random.
        layers: as in :func:`seewhy.explain`, all in one map.
        how: further arguments of the methods, such as `{"smooth": "aug"}`.

    Returns:
        Rows (check x method) with `.verdict` ("passes", "fails", "cannot be asked"), `.value`, `.threshold`, `.chance`, `.found`
        and `.remedy`; `.agreement`, `.maps`, `.figure()` and `.save()`; prints as a table.

    Raises:
        MetricError: several images or questions ("top:3"), or a model of several inputs.
        TargetError: there is no such `target` or `other`, or both are the same.
        SeewhyError: as :func:`seewhy.explain`.
    """
    ask = model if isinstance(model, Explainer) else Explainer(model)
    recorded, _ = ask.recorded(image, target)
    _check(recorded, target)
    sample, question = recorded.samples[0], recorded.recordings.questions[0][0]
    names = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    maker = _Maker(names, layers, how or {})
    own = maker.of(ask, [sample.tensor], question)[0]
    maps = _on_input(own, sample.tensor)
    bench = _Bench(ask, maker.like(own), sample.tensor, recorded.recordings.outputs[0], question, maps)
    known = _known(own, maps, ask.seed)
    drawn = {each.method: {"the picture": why} for each, why in zip(known, own, strict=True)}
    rows: list[Outcome] = []
    checks: tuple[tuple[Name, Callable[[], _Found]], ...] = (
        ("class", lambda: bench.other_classes(other)),
        ("weights", bench.other_weights),
        ("input", bench.other_inputs),
    )
    for check, look in checks:
        rows += _looked(check, look, known, drawn)
    cells = trust.coarse(maps)
    agreement = trust.agreement_of(cells)
    rows += trust.of_agreement(_known(own, cells, ask.seed), agreement)
    return Sanity(rows, ask.model.name, own[0].target, agreement, drawn, own.skipped)


@dataclass(frozen=True, eq=False)
class _Found:
    """What one check made.

    Attributes:
        judge: from what is known of a map, and its number, to the outcome.
        shown: what is drawn of it: by what it is of, an explanation a method.
    """

    judge: Callable[[trust.Known, int], Outcome]
    shown: Mapping[str, Sequence[Explanation]]


def _looked(
    check: Name,
    look: Callable[[], _Found],
    known: Sequence[trust.Known],
    drawn: dict[str, dict[str, Explanation]],
) -> list[Outcome]:
    """Return one check's outcomes; where it cannot be made of this model, the error says why."""
    try:
        found = look()
    except TargetError:
        raise  # what was asked for is wrong, not the model
    except SeewhyError as error:
        return [each.unasked(check, str(error)) for each in known]
    for what, explanations in found.shown.items():
        for each, why in zip(known, explanations, strict=True):
            drawn[each.method][what] = why
    return [
        each.unasked(check, each.unknowable) if each.unknowable else found.judge(each, number)
        for number, each in enumerate(known)
    ]


def _check(recorded: Recorded, target: TargetLike) -> None:
    if len(recorded.samples) != 1:
        raise MetricError(
            f"The sanity checks are about one image, and {len(recorded.samples)} were given. Ask for each alone."
        )
    if recorded.samples[0].call is not None:
        raise MetricError(
            "The sanity checks make the maps again of other inputs, which is not possible yet for a model that takes several."
        )
    if (count := len(recorded.recordings.questions)) > 1:
        raise MetricError(
            f"The sanity checks are about one question, and target={target!r} asks {count}. Ask for each alone."
        )


def _known(made: Comparison, maps: Float[Tensor, " map *space"], seed: int) -> list[trust.Known]:
    return [
        trust.known_of(
            name, values, seed, is_blind=not entry.class_specific, is_control=entry.source.startswith("control")
        )
        for name, entry, values in zip(names_of(made), (find_method(why.method) for why in made), maps, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Maker:
    """How the maps are made, again and again.

    Attributes:
        methods, layers, how: as asked for.
        seen: the method and layers of each map, where they must be those.
    """

    methods: tuple[str, ...]
    layers: Layers
    how: Mapping[str, Any]
    seen: tuple[tuple[str, tuple[str, ...]], ...] | None = None

    def of(self, ask: Explainer, images: list[Any], *targets: Any) -> list[Comparison]:
        """Return the maps of each image: methods x layers x targets.

        Raises:
            MetricError: they are of other layers than before.
        """
        made: Any = ask.compare(images, self.methods, self.layers, targets, **self.how)
        for each in made:
            seen = _seen(each[:: len(targets)])
            if self.seen not in (None, seen):
                raise MetricError(
                    f"The maps are of {_told(self.seen)}, and those made again of {_told(seen)}: they cannot be compared. "
                    "Name layers=."
                )
        return list(made)

    def like(self, made: Comparison) -> _Maker:
        """Return the same for the layers of these maps: with other weights another layer might be the default."""
        entries = [find_method(why.method) for why in made]
        found = {why.layers for why in made if why.layers}
        plain = len(found) == 1 and not any(entry.fuse is not None or entry.together for entry in entries)
        layers = list(*found) if self.layers is None and plain else self.layers
        return replace(self, layers=layers, seen=_seen(made))


def _seen(made: Sequence[Explanation]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((why.method, why.layers) for why in made)


def _told(seen: Any) -> str:
    return "; ".join(f"{method} {'+'.join(layers)}".strip() for method, layers in seen)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What the maps are made again of.

    Attributes:
        ask, maker: the model, and how maps of it are made.
        image: `(channel, *space)`, as the model takes it; `output`: what it answered.
        target: what the maps are about.
        maps: `(map, *space)`.
    """

    ask: Explainer
    maker: _Maker
    image: Tensor
    output: Tensor
    target: Target
    maps: Float[Tensor, " map *space"]

    def other_classes(self, other: TargetLike) -> _Found:
        """Make the maps of other classes.

        Raises:
            MetricError: there are none.
            TargetError: it is the class that the maps are about, or there are several.
        """
        if other is not None:
            self._check_other(other)
        others = self._drawn_classes() if other is None else [other]
        made = self.maker.of(self.ask, [self.image], *others)[0]
        each = [made[number :: len(others)] for number in range(len(others))]
        found = np.stack([self._likeness(maps) for maps in each])
        asked, names = self.target.describe(self.ask.model.labels), [maps[0].target for maps in each]
        return _Found(
            lambda known, number: trust.of_class(known, found[:, number], asked, names, chosen=other is not None),
            {f"for {names[0]}": each[0]},
        )

    def other_weights(self) -> _Found:
        """Make the maps of copies of which layers were drawn anew."""
        made = [
            [
                self.maker.of(
                    untrained(self.ask, self.image[None], part, self.ask.seed + draw), [self.image], self.target
                )[0]
                for part in PARTS
            ]
            for draw in range(DRAWS)
        ]
        found = np.stack([np.stack([self._likeness(maps) for maps in each]) for each in made])
        return _Found(
            lambda known, number: trust.of_weights(known, found[:, :, number], PARTS),
            {"weights drawn anew": made[0][-1]},
        )

    def other_inputs(self) -> _Found:
        """Make the maps of noise, and of the picture with its patches shuffled."""
        generator = torch.Generator().manual_seed(self.ask.seed)
        kinds = {NOISE: self._noise(generator), PATCHES: [elsewhere(self.image, generator) for _ in range(INPUTS)]}
        made = {kind: self.maker.of(self.ask, images, self.target) for kind, images in kinds.items()}
        found = {kind: np.stack([self._likeness(maps) for maps in each]) for kind, each in made.items()}
        return _Found(
            lambda known, number: trust.of_input(known, {kind: each[:, number] for kind, each in found.items()}),
            {kind: each[0] for kind, each in made.items()},
        )

    def _check_other(self, other: TargetLike) -> None:
        recorded, _ = self.ask.recorded(self.image, other)
        questions = recorded.recordings.questions
        if len(questions) > 1:
            raise TargetError(f"other={other!r} (--other) asks {len(questions)} questions. Name one other class.")
        if _is_same(questions[0][0], self.target):
            raise TargetError(
                f"other={other!r} (--other) is what the maps are about already, '{self.target.describe(self.ask.model.labels)}'. "
                "Name another class, or none: up to three are then drawn at random."
            )

    def _drawn_classes(self) -> list[int]:
        index, output = self.target.index, self.output
        if index is None or output.ndim != 1 or len(output) < 2:
            raise MetricError(
                "These maps are not about one class of several. Name what else to ask about: other= (--other)."
            )
        generator = torch.Generator().manual_seed(self.ask.seed)
        return [each for each in torch.randperm(len(output), generator=generator).tolist() if each != index][:OTHERS]

    def _noise(self, generator: torch.Generator) -> list[Tensor]:
        """Return normal noise with the picture's mean and deviation in each channel."""
        wide = (-1, *(1,) * (self.image.ndim - 1))
        spread, mean = torch.std_mean(self.image.float().flatten(1), dim=1)
        drawn = torch.randn((INPUTS, *self.image.shape), generator=generator).to(mean)
        return list((mean.view(wide) + spread.view(wide) * drawn).to(self.image))

    def _likeness(self, made: Sequence[Explanation]) -> Any:
        """Return how alike maps are to the given ones: `(map,)`."""
        return trust.likeness(self.maps, _on_input(made, self.image))


def _is_same(one: Target, other: Target) -> bool:
    """Return whether two questions are about the same thing, be it as a score or as a probability."""
    if isinstance(one, PlacesTarget) and isinstance(other, PlacesTarget):
        return _is_same(one.what, other.what) and torch.equal(one.weights, other.weights)
    if isinstance(one, DirectionTarget) and isinstance(other, DirectionTarget):
        return (one.index, one.up) == (other.index, other.up)
    if isinstance(one, _OF_CLASSES) and isinstance(other, _OF_CLASSES):
        return (one.index, getattr(one, "side", None)) == (other.index, getattr(other, "side", None))
    return one == other


_OF_CLASSES = (ClassTarget, ProbabilityTarget, LogOddsTarget)


def _on_input(made: Sequence[Explanation], image: Tensor) -> Float[Tensor, " map *space"]:
    covers = Geometry.identity(tuple(image.shape[1:]))
    return torch.stack([torch.from_numpy(on_input(why.raw, why.geometry, covers)) for why in made])
