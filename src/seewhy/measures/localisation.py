"""Whether a map is high where the thing is."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from skimage.filters import threshold_otsu
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.measures.registry import Wants, metric
from seewhy.measures.trial import Trial

Values = Float[Tensor, "batch map"]

_share = partial(metric, better="higher", range=(0.0, 1.0), wants=Wants.TRUTH, baseline="the mask's share of the input")
"""Registers a metric that is a share, or a chance, of the mask: 0..1, of a map that knows nothing the mask's size."""


@_share("pointing-game", source="Zhang et al. 2016, arXiv:1608.00507")
def pointing_game(trial: Trial, *, tolerance: int = 0) -> Values:
    """Whether a map's highest place is on the thing: 1 or 0; over images, how often.

    Formula: 1 where the highest place is at most tolerance from the nearest place of the mask, else 0.
    Options: tolerance, in places of the model's input, Euclidean; 15 in the paper.
    Elsewhere: Quantus counts a hit where any of several equally high places is on the thing: a map that is the same
        everywhere always hits there; here one of them is drawn.
    """
    if tolerance < 0:
        raise MetricError(f"tolerance={tolerance} must be at least 0.")
    found = []
    for mask, ranks in zip(trial.truth, trial.ranks, strict=True):
        highest = torch.stack([(each == 0).nonzero()[0] for each in ranks]).double()
        inside = mask.cpu().nonzero().double()
        apart = torch.cdist(highest, inside, compute_mode="donot_use_mm_for_euclid_dist")  # exact: 5 is not above 5
        distances = apart.amin(1) if len(inside) else torch.full((len(ranks),), torch.nan)
        found.append((distances <= tolerance).float().masked_fill(distances.isnan(), torch.nan))
    return torch.stack(found)


@_share("energy-pointing-game", source="Wang et al. 2020, arXiv:1910.01279")
def energy_pointing_game(trial: Trial) -> Values:
    """Which part of a map's positive sum is on the thing.

    Formula: sum over the mask of max(map, 0) / sum over all places of max(map, 0).
    """
    return _inside(trial.maps.clamp_min(0), trial)


@_share("relevance-mass-accuracy", source="Arras et al. 2022, arXiv:2003.07258")
def relevance_mass_accuracy(
    trial: Trial, *, pooling: Literal["absolute", "squared", "positive"] = "absolute"
) -> Values:
    """Which part of a map's sum is on the thing, what speaks against the target counted, too.

    Formula: sum over the mask of v / sum over all places of v, with v = |map|, map², or max(map, 0).
    Options: pooling, "absolute", "squared" or "positive", with which it is energy-pointing-game.
    Elsewhere: Quantus sums signed values unless abs is asked for: where their sum is near 0, so is the denominator.
    """
    pooled = {"absolute": torch.abs, "squared": torch.square, "positive": lambda maps: maps.clamp_min(0)}
    if pooling not in pooled:
        raise MetricError(f"pooling='{pooling}' is not known. Known: {', '.join(pooled)}.")
    return _inside(pooled[pooling](trial.maps), trial)


@_share("relevance-rank-accuracy", source="Arras et al. 2022, arXiv:2003.07258")
def relevance_rank_accuracy(trial: Trial) -> Values:
    """Which part of the highest places, as many as the thing has, is on the thing.

    Formula: |the K highest places and the mask| / K, with K the places of the mask.
    """
    sizes = trial.truth.flatten(1).sum(1).tolist()
    return _highest(trial, [int(size) for size in sizes])


@_share("top-k-intersection", source="Theiner et al. 2022, arXiv:2104.14995")
def top_k_intersection(trial: Trial, *, k: int = 1000) -> Values:
    """Which part of a map's k highest places is on the thing.

    Formula: |the k highest places and the mask| / k.
    Options: k, a number of places of the model's input; all, where it has fewer.
    """
    if k < 1:
        raise MetricError(f"k={k} must be at least 1.")
    return _highest(trial, [min(k, trial.truth[0].numel())] * len(trial.truth))


@metric(
    "iou",
    better="higher",
    range=(0.0, 1.0),
    source="Zhou et al. 2016, arXiv:1512.04150",
    wants=Wants.TRUTH,
)
def iou(trial: Trial, *, threshold: float | Literal["otsu"] = 0.2) -> Values:
    """How much the places where a map is high and the thing's own overlap.

    Formula: |H and mask| / |H or mask|, with H the places where max(map, 0) is above threshold times its peak.
    Options: threshold, a part of the peak (0.2 in the paper), or "otsu", the value that parts low from high best.
    Elsewhere: the paper takes the box around the largest connected part of H; here H is taken as it is.
    """
    if not (threshold == "otsu" if isinstance(threshold, str) else 0 <= threshold < 1):
        raise MetricError(f"threshold={threshold!r} must be a part of the peak, from 0 to less than 1, or 'otsu'.")
    maps = trial.maps.clamp_min(0)
    least = _otsu(maps) if isinstance(threshold, str) else threshold * maps.flatten(2).amax(2)
    high, mask = maps > _as_maps(least, maps), _masks(trial)
    both, either = (each.flatten(2).sum(2) for each in (high & mask, high | mask))
    return (both / either).where(mask.flatten(2).any(2), torch.nan)


@metric(
    "localisation-auc",
    better="higher",
    range=(0.0, 1.0),
    source="Fawcett 2006, doi:10.1016/j.patrec.2005.10.010",
    wants=Wants.TRUTH,
    baseline="0.5",
)
def localisation_auc(trial: Trial) -> Values:
    """How often a place on the thing is higher than one beside it: the area under the map's ROC curve.

    Formula: the part of pairs (a place of the mask, one outside) of which the first is higher, equal ones counted half.
    """
    inside = _masks(trial).flatten(2)
    ranks = torch.from_numpy(rankdata(trial.maps.flatten(2).numpy(), axis=2))
    number, others = inside.sum(2).double(), (~inside).sum(2).double()
    won = (ranks * inside).sum(2) - number * (number + 1) / 2
    return (won / (number * others)).float()


def _inside(values: Tensor, trial: Trial) -> Values:
    """Return which part of values, none of them negative, is on the mask; NaN where there are none, or no mask."""
    mask, values = _masks(trial), values.double()
    found = (values * mask).flatten(2).sum(2) / values.flatten(2).sum(2)
    return found.where(mask.flatten(2).any(2), torch.nan).float()


def _highest(trial: Trial, counts: list[int]) -> Values:
    """Return which part of each image's so many highest places is on its mask; NaN where there is none."""
    mask = _masks(trial)
    most = torch.tensor(counts).view(-1, *(1,) * (trial.maps.ndim - 1))
    hits = ((trial.ranks < most) & mask).flatten(2).sum(2)
    return (hits / torch.tensor(counts)[:, None]).where(mask.flatten(2).any(2), torch.nan)


def _masks(trial: Trial) -> Bool[Tensor, "batch map *space"]:
    """Return each image's mask for each of its maps."""
    return trial.truth.cpu()[:, None].expand(trial.maps.shape)


def _otsu(maps: Tensor) -> Values:
    """Return the threshold of each map by which the two parts' variances are least (Otsu 1979); 0 where it has one value."""
    is_flat = maps.flatten(2).amax(2) == maps.flatten(2).amin(2)
    found = [
        [0.0 if flat else threshold_otsu(each.numpy()) for each, flat in zip(*own, strict=True)]
        for own in zip(maps, is_flat, strict=True)
    ]
    return torch.tensor(found, dtype=maps.dtype)


def _as_maps(values: Values, maps: Tensor) -> Tensor:
    return values.view(*values.shape, *(1,) * (maps.ndim - 2))
