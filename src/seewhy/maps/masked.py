"""What layers say of the input with its most telling part alone, and without that part, averaged over rounds of masks.

One recording tells what a layer does about the whole picture, where the score is saturated: parts that could stand in for each
other get little. Under masks each of them is needed in turn. Every round's masks are drawn around the map of the rounds before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.images.blur import gaussian_blur
from seewhy.maps.backprop import resized
from seewhy.maps.held import Held
from seewhy.recorder import Recording
from seewhy.targets import LogOddsTarget

Map = Float[Tensor, "batch *grid"]
Large = Float[Tensor, "batch *space"]

AREAS = (0.05, 0.2, 0.4, 0.6)
"""Parts of the input that are kept, and then removed: what is first to tell, and what is last."""
NET = 0.7
"""How much of a place's negative contributions counts; at 1 channels that disagree cancel out, at 0 noise adds up."""
_EDGE = 1 / 112  # of the shorter side: 2 pixels of 224, so that a mask draws no sharp outline
_CELLS = 8  # of the random fields, along the shorter side


@dataclass(frozen=True)
class MaskedRound:
    """Each input with only the part where its guide is highest, and with everything but that part, for several areas.

    Attributes:
        guide: a map `(batch, *space)`, high where the input matters; its order is used, not its values.
        shown: `(batch, channel, *space)`, what is seen around a part that is kept.
        covered: the same, what is seen in place of a part that is removed.
        areas: of the parts, each over 0 and below 1.
        wander: how far the masks stray from the guide: the weight of a smooth random field, in standard deviations.
        seed: of the random fields, which are the same for every sample.
    """

    guide: Held
    shown: Held
    covered: Held
    areas: tuple[float, ...]
    wander: float
    seed: int

    def __post_init__(self) -> None:
        if not self.areas or not all(0 < area < 1 for area in self.areas) or not 0 <= self.wander < math.inf:
            raise MethodError(
                f"areas={self.areas} must be at least one, each over 0 and below 1, and wander={self.wander} not negative."
            )

    def __len__(self) -> int:
        return 2 * len(self.areas)

    def masks(self) -> Iterator[Float[Tensor, "batch 1 *space"]]:
        """Yield each area's mask, 1 where the part is."""
        ranks = normal_ranks(self.guide.value)
        space = tuple(ranks.shape[1:])
        generator = torch.Generator().manual_seed(self.seed)
        for area in self.areas:
            part = highest(ranks + self.wander * smooth_field(space, generator).to(ranks.device), area)
            yield gaussian_blur(part, _EDGE * min(space), edges="repeat")

    def __call__(
        self, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "batch channel *space"]]:
        """Yield, for each area, the inputs with the part alone and without it."""
        del generator  # the same in every round
        shown, covered = self.shown.value, self.covered.value
        for mask in self.masks():
            yield shown + mask * (images - shown)
            yield images + mask * (covered - images)


def masked_evidence(
    layers: Sequence[Recording], *, rounds: int = 3, areas: tuple[float, ...] = AREAS, wander: float = 1.0
) -> Large:
    """Return one map of several layers: what they contribute to the score, averaged over rounds of masked inputs.

    A round costs two runs, each forwards and backwards, an area. Ask about log-odds: each masked input then weighs as much as
    the probability can change there, so that one in which the class is lost, or is beyond doubt, adds next to nothing.

    Args:
        layers: recordings with gradients, of one run and one question, one a layer; coarse and fine ones complete each other.
        rounds: how often masks are drawn around the map so far; 0: the recording alone.
        areas: parts of the input that are kept and removed in each round.
        wander: how far masks stray from the map so far.

    Returns:
        `(batch, *space)` at the input's resolution, each layer's part 0..1 before they are added.

    Raises:
        MethodError: no layer, a negative number of rounds, areas that are no parts, a wander that is negative.
    """
    if not layers or rounds < 0:
        raise MethodError(
            f"{len(layers)} layers and rounds={rounds}: at least one layer is needed, and no negative number."
        )
    first = layers[0]
    space = tuple(first.images.shape[2:])
    found = added([contributions(rec) for rec in layers], space)
    shown, covered = Held(first.baseline("blur")), Held(first.baseline("dataset"))
    sums = [torch.zeros(()) for _ in layers]
    for number in range(rounds):
        masked = MaskedRound(Held(found), shown, covered, areas, wander, first.seed + number)
        for parts in first.varied_layers(masked, layers):
            for place, part in enumerate(parts):
                one = contributions(part) * _weights(part)
                sums[place] = sums[place].to(one) + one.view(-1, len(first.images), *one.shape[1:]).sum(0)
        found = added(sums, space)
    return found


def of_odds(rec: Recording) -> Bool[Tensor, " batch"]:
    """Return of which samples the score is the logarithm of odds."""
    return torch.tensor([isinstance(target, LogOddsTarget) for target in rec.asked], device=rec.images.device)


def _weights(rec: Recording) -> Float[Tensor, "batch ..."]:
    """Return p (1 - p) for log-odds, which makes the derivative that of the probability p, and 1 for other scores."""
    scores = rec.scores.double()
    weights = torch.where(of_odds(rec), scores.sigmoid() * (-scores).sigmoid(), 1.0).float()
    return weights.view(-1, *(1,) * (rec.activations.ndim - 2))


def contributions(rec: Recording) -> Map:
    """Return what a layer's places contribute to the score, negative contributions of channels weighed less: `(batch, *grid)`.

    Sum over channels k of relu(A_k G_k) - NET relu(-A_k G_k); HiResCAM (arXiv:2011.08891) where NET is 1.
    """
    products = rec.activations * rec.gradients
    return (1 - NET) * products.clamp_min(0).sum(1) + NET * products.sum(1)


def normal_ranks(maps: Map) -> Map:
    """Return each sample's values replaced by the normal distribution's quantiles of their ranks; equal ones get their mean."""
    flat = maps.flatten(1)
    quantiles = (torch.arange(flat.shape[1], device=flat.device, dtype=torch.float32) + 0.5) / flat.shape[1]
    normal = torch.special.ndtri(quantiles)
    ranked = []
    for values in flat:
        _, group, counts = values.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), device=flat.device).index_add_(0, group.sort().values, normal)
        ranked.append((sums / counts)[group])
    return torch.stack(ranked).view(maps.shape)


def added(maps: Sequence[Tensor], space: tuple[int, ...]) -> Large:
    """Return the sum of the maps' positive parts at one resolution, each divided by its largest value."""
    total = torch.zeros(())
    for each in maps:
        large = resized(each[:, None].float(), space)[:, 0].clamp_min(0)
        peak = large.flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        total = total.to(large) + large / peak.view(-1, *(1,) * len(space))
    return total


def highest(where: Large, area: float) -> Float[Tensor, "batch 1 *space"]:
    """Return a mask that is 1 at the highest places, which make up an area, and 0 elsewhere."""
    flat = where.flatten(1)
    count = max(1, round(area * flat.shape[1]))
    return torch.zeros_like(flat).scatter_(1, flat.topk(count).indices, 1.0).view_as(where)[:, None]


def smooth_field(space: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, " *space"]:
    """Return a smooth random field, of mean 0 and standard deviation 1."""
    cell = math.ceil(min(space) / _CELLS)
    grid = tuple(math.ceil(length / cell) + 1 for length in space)
    large = resized(torch.randn(1, 1, *grid, generator=generator), tuple(cells * cell for cells in grid))[0, 0]
    corner = [int(torch.randint(cell, (), generator=generator)) for _ in space]
    field = large[tuple(slice(at, at + length) for at, length in zip(corner, space, strict=True))]
    return (field - field.mean()) / field.std(correction=0).clamp_min(torch.finfo(torch.float32).tiny)
