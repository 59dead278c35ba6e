"""How much two rows of numbers, or two maps, are alike."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import Tensor

from seewhy.errors import MetricError, did_you_mean

Similarity = Literal["spearman", "pearson", "ssim"]

_FLAT = 1e-7
"""How much of their length rows must differ from their mean by: less is rounding."""


def pearson(a: Float[Tensor, "*rows number"], b: Float[Tensor, "*rows number"]) -> Float[Tensor, "*rows"]:
    """Return the correlation of each two rows; NaN where one of them is constant."""
    centred = [each.double() - each.double().mean(-1, keepdim=True) for each in (a, b)]
    lengths = [each.norm(dim=-1) for each in centred]
    found: Tensor = (centred[0] * centred[1]).sum(-1) / (lengths[0] * lengths[1])
    return found.clamp(-1, 1).masked_fill(are_flat(a) | are_flat(b), torch.nan).float()


def spearman(a: Float[Tensor, "*rows number"], b: Float[Tensor, "*rows number"]) -> Float[Tensor, "*rows"]:
    """Return the correlation of each two rows' ranks, those of equal values shared; NaN where one is constant."""
    ranked = [torch.from_numpy(rankdata(each.detach().cpu().numpy(), axis=-1)) for each in (a, b)]
    return pearson(ranked[0], ranked[1])


def ssim(a: Float[Tensor, "batch map *space"], b: Float[Tensor, "batch map *space"]) -> Float[Tensor, "batch map"]:
    """Return the structural similarity (Wang et al. 2004) of each two maps, both brought to 0..1 with their zero at 1/2.

    With values on both sides of 0 the index is no measure: of a map and its negative both its factors change their sign, so that
    their product is that of like maps.

    Raises:
        MetricError: the maps are smaller than its smallest window.
    """
    side = min(7, *a.shape[2:])
    if side < 3:
        raise MetricError(
            f"similarity='ssim' looks at windows of 3 places and more along each axis, and the maps are {tuple(a.shape[2:])}. "
            "Use 'spearman' or 'pearson'."
        )
    both = [_scaled(each).flatten(0, 1).double().cpu().numpy() for each in (a, b)]
    window = side - 1 + side % 2
    found = [structural_similarity(x, y, data_range=1.0, win_size=window) for x, y in zip(*both, strict=True)]
    flat = are_flat(a.flatten(2)) | are_flat(b.flatten(2))
    return torch.tensor(found, dtype=torch.float32).view(a.shape[:2]).masked_fill(flat, torch.nan)


def alike(
    kind: Similarity, a: Float[Tensor, "batch map *space"], b: Float[Tensor, "batch map *space"]
) -> Float[Tensor, "batch map"]:
    """Return how alike maps are, 1 the same; 0 to a map `b` that is the same everywhere, NaN for such a map `a`.

    Raises:
        MetricError: unknown kind.
    """
    if kind not in get_args(Similarity):
        raise MetricError(
            f"similarity='{kind}' is not known. Known: {', '.join(get_args(Similarity))}."
            + did_you_mean(str(kind), get_args(Similarity))
        )
    found = ssim(a, b) if kind == "ssim" else _ROWS[kind](a.flatten(2), b.flatten(2))
    return found.where(~are_flat(b.flatten(2)), 0.0).masked_fill(are_flat(a.flatten(2)), torch.nan)


def are_flat(given: Tensor) -> Tensor:
    """Return which rows `(..., number)` are the same everywhere."""
    rows = given.double()
    flat: Tensor = (rows - rows.mean(-1, keepdim=True)).norm(dim=-1) <= _FLAT * rows.norm(dim=-1)
    return flat


def _scaled(maps: Tensor) -> Tensor:
    peaks = maps.abs().flatten(2).amax(2).clamp_min(torch.finfo(torch.float32).tiny)
    return (maps / peaks.view(*peaks.shape, *(1,) * (maps.ndim - 2)) + 1) / 2


_ROWS = {"spearman": spearman, "pearson": pearson}
