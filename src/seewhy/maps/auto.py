"""The map that is chosen by the model itself: of three that are good where others fail, that whose parts matter most to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import LayerError
from seewhy.images.blur import gaussian_blur
from seewhy.maps.attn_lrp import relevance
from seewhy.maps.gradient import grad_cam
from seewhy.maps.held import Held
from seewhy.maps.masked import (
    Large,
    added,
    contributions,
    highest,
    masked_evidence,
    normal_ranks,
    of_odds,
    smooth_field,
)
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording, Variants, is_out_of_memory
from seewhy.targets import Subject, Target, log_odds

AREAS = (0.05, 0.2, 0.4)
"""Parts of the input by which maps are compared: alone, and removed."""
_FINE = 1 / 56  # of the shorter side, by which relevance is blurred: 4 pixels of 224
_TIES = 0.01  # the weight of a smooth random field, so that places that are equal to a map are not taken in their order


@dataclass(frozen=True)
class Parts:
    """Each input with the highest part of each map alone, and without it: variant `(area * 2 + without) * maps + map`.

    Attributes:
        maps: `(batch, *space)` each.
        shown: `(batch, channel, *space)`, what is seen around a part that is alone.
        covered: the same, what is seen in place of a part that is removed.
        areas: of the parts, each over 0 and below 1.
        seed: decides between places that are equal to a map.
    """

    maps: tuple[Held, ...]
    shown: Held
    covered: Held
    areas: tuple[float, ...]
    seed: int

    def __call__(self, sample: Recording) -> Variants:
        """Return the variants of one sample."""
        own = slice(sample.place, sample.place + 1)
        image, shown, covered = sample.images, self.shown.value[own], self.covered.value[own]
        field = smooth_field(tuple(image.shape[2:]), torch.Generator().manual_seed(self.seed)).to(image.device)
        ranks = torch.cat([normal_ranks(each.value[own]) for each in self.maps]) + _TIES * field
        masks = torch.cat([highest(ranks, area) > 0 for area in self.areas])
        count = len(self.maps)

        def make(numbers: range) -> Tensor:
            each = torch.tensor(list(numbers), device=image.device)
            number = each // count
            part = masks[number // 2 * count + each % count]
            without = (number % 2 == 1).view(-1, *(1,) * (image.ndim - 1))
            return torch.where(part == without, torch.where(without, covered, shown), image)

        return Variants(2 * len(self.areas) * count, make)


def _as_odds(target: Target, subject: Subject) -> Target:
    return log_odds(target, subject.output, subject.chances)


@method(
    "auto",
    needs=Needs.GRADIENTS | Needs.IMAGES | Needs.INPUT_GRADIENTS | Needs.PROPAGATION,
    otherwise=Needs.GRADIENTS | Needs.IMAGES,
    class_specific=True,
    signed=False,
    source="seewhy: docs/which-method.md",
    passes="1 + 1; in each of {rounds} rounds 8 + 8 more; for relevance 1 + 1; to choose 18 + 0",
    retarget=_as_odds,
    layers="all-stages",
    together=True,
)
def auto(layers: Sequence[Recording], *, rounds: int = 3) -> Large:
    """Make three maps, and keep that whose highest parts raise the probability most alone, and lower it most when removed.

    Formula: of three maps that with the greatest mean, over its highest 5, 20 and 40 %, of p(that part alone, the rest blurred)
        - p(the input with that part in the mean colour), p being the class's probability, or the score of what is no class.
        C: sum over layers of relu(C) / max relu(C), C resized to the input, with C = sum over channels k of relu(A_k G_k) - 0.7
        relu(-A_k G_k) and G_k the derivative of p by A_k. M: the same of C's mean over masked inputs; a round's masks keep, and
        then hide, 5, 20, 40 and 60 % of the places, those where the map of the rounds before, plus a smooth random field, is
        highest. R: the positive part of AttnLRP's relevance, blurred by 1/56 of the shorter side; where it cannot be had,
        Grad-CAM at all these layers, added as C is. A map that is the same everywhere is not chosen.
    Options: rounds, how often masks are drawn for M; 0: C alone without a choice, which costs no more than Grad-CAM.
    """
    [first, *_] = layers
    space = tuple(first.images.shape[2:])
    plain = added([contributions(rec) for rec in layers], space)
    if rounds == 0:
        return plain
    maps = {"contributions under masks": masked_evidence(layers, rounds=rounds), "contributions": plain}
    if (fine := _fine_relevance(first, space)) is not None:
        maps["relevance"] = fine
    else:
        maps["grad-cam"] = added([grad_cam(rec).sum(1) for rec in layers], space)
    return _chosen(first, maps)


def _fine_relevance(rec: Recording, space: tuple[int, ...]) -> Large | None:
    """Return where in the input relevance is, 0..1; None where it cannot be had, which is told of a model of torch."""
    if not rec.has(Needs.PROPAGATION):
        return None
    try:
        found = relevance(rec)
    except (LayerError, RuntimeError, MemoryError) as error:
        ended = isinstance(error, LayerError)  # such a model works on a detached copy of its input
        if not ended and not is_out_of_memory(error):
            raise
        why = "the model's derivatives do not reach its input" if ended else "memory ran out"
        rec.tell(f"grad-cam stands for relevance among the maps: {why}")
        return None
    return added(
        [gaussian_blur(found.sum(1, keepdim=True).clamp_min(0), _FINE * min(space), edges="repeat")[:, 0]], space
    )


def _chosen(rec: Recording, maps: dict[str, Large]) -> Large:
    """Return, for each sample, the map whose highest parts matter most, and tell how much those of each do."""
    shown, covered = Held(rec.baseline("blur")), Held(rec.baseline("dataset"))
    parts = Parts(tuple(Held(each) for each in maps.values()), shown, covered, AREAS, rec.seed)
    worth = _worth(rec, parts)
    each = torch.stack(list(maps.values()), 1)
    varies = each.flatten(2).amax(2) > each.flatten(2).amin(2)  # false also of one that is not a number
    if worth.isnan().all():
        rec.tell("which of the maps matters most is not known: this is that of contributions under masks")
        return each[:, 0]
    for name, values in zip(maps, worth.T, strict=True):
        rec.report(f"alone minus without, parts of {name}", values)
    best = worth.where(varies & worth.isfinite(), -torch.inf).argmax(1)
    rec.chose(list(maps), best.tolist())
    return each[torch.arange(len(best), device=best.device), best]


def _worth(rec: Recording, parts: Parts) -> Float[Tensor, "batch map"]:
    """Return by how much each map's parts change the probability, or another score.

    Of those that a budget left to be run of every map; NaN where there are none, and where the model says NaN.
    """
    scores = rec.score(parts)
    values = torch.where(of_odds(rec)[:, None], scores.values.sigmoid(), scores.values)
    shape = (len(values), len(parts.areas), 2, len(parts.maps))
    alone, without = values.view(shape).unbind(2)
    known = scores.known.view(shape).flatten(2).all(2, keepdim=True)
    return torch.where(known, alone - without, 0.0).sum(1) / known.sum(1)
