"""Maps from what a layer's cells have in common: their first principal component, or what stands out in each channel.

A component has no sign of its own. Here it gets the one that makes it agree with HiResCAM, the first-order support for the target
cell by cell, so that high means "supports" as everywhere; where the two are uncorrelated, high means large activations. Where no
derivatives can be had, the score itself tells it, when the activations go a step along the component: to first order its change
is that correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.principal import KERNELS, centred, first_component, first_kernel_component, signed_like
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording, Variants

Map = Float[Tensor, " batch *grid"]

_STEP = 0.1
"""How far activations go along a component whose largest value is 1, as a part of themselves."""


@dataclass(frozen=True)
class PlainComponent:
    """The first principal component of a layer's cells, in any sign."""

    def __call__(self, activations: Float[Tensor, "batch channel *grid"]) -> Map:
        """Return it for each sample."""
        return first_component(activations)


@dataclass(frozen=True)
class KernelComponent:
    """The first kernel principal component of a layer's cells, in any sign.

    Attributes:
        kernel: by its name.
        gamma: its scale.
    """

    kernel: str
    gamma: float

    def __call__(self, activations: Float[Tensor, "batch channel *grid"]) -> Map:
        """Return it for each sample."""
        return first_kernel_component(activations, KERNELS[self.kernel], self.gamma)


@dataclass(frozen=True)
class AlongComponent:
    """The layer's activations a step along their own component, cell by cell, and a step against it.

    Attributes:
        component: makes it.
    """

    component: Callable[[Tensor], Tensor]

    def __call__(self, sample: Recording) -> Variants:
        """Return the two edits of one sample's activations."""
        along = torch.nan_to_num(self.component(sample.activations))
        step = _STEP * along / along.abs().max().clamp_min(torch.finfo(along.dtype).tiny)
        edits = torch.cat([sample.activations * (1 + step[:, None]), sample.activations * (1 - step[:, None])])
        return Variants(2, lambda numbers: edits[numbers.start : numbers.stop])


@method(
    "eigen-cam",
    needs=Needs.GRADIENTS,
    otherwise=Needs.REPLAY,
    class_specific=False,  # but for the sign
    signed=True,
    source="Muhammad & Yeasin 2020, arXiv:2008.00299",
)
def eigen_cam(rec: Recording) -> Map:
    """Project each cell's activations on the first principal component of all cells.

    The target decides nothing but the sign: two targets get the same map, or one the other's negative.

    Formula: map = s (A - mean over cells of A) v, where A is (cells x channels), v the first right singular vector of the centred
    A, and s = +1 or -1 as the correlation of the map with sum_k A_k G_k; of a model without derivatives, as score(A (1 + e map))
    - score(A (1 - e map)).
    Elsewhere: the paper's formula has no centring; without it the component is mostly the mean activation. pytorch-grad-cam 1.5.7
    centres, as here, but leaves the sign to chance (its issue 315): its map may be the negative of what is meant.
    """
    return _signed(PlainComponent(), rec)


@method(
    "eigen-grad-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="github.com/jacobgil/pytorch-grad-cam, EigenGradCAM",
)
def eigen_grad_cam(rec: Recording) -> Map:
    """Eigen-CAM of activations multiplied by gradients.

    Formula: map = s (P - mean over cells of P) v, where P_k = A_k G_k, v is the first right singular vector of the centred P, and
    s = +1 or -1 as the correlation of the map with sum_k P_k.
    Elsewhere: pytorch-grad-cam 1.5.7 leaves the sign to chance.
    """
    return _supporting(first_component(rec.activations * rec.gradients), rec)


@method(
    "seg-eigen-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Chung & Ying 2025, doi:10.3390/app15137562",
)
def seg_eigen_cam(rec: Recording) -> Map:
    """Eigen-CAM of activations multiplied by the size of their gradients; made for segmentation.

    Formula: map = s (P - mean over cells of P) v, where P_k = A_k |G_k|, v is the first right singular vector of the centred P,
    and s = +1 or -1 as the correlation of the map with sum_k A_k G_k.
    Elsewhere: the paper (eq. 13) and pytorch-grad-cam 1.5.7 choose the sign whose largest value is the larger, whether it speaks
    for the target or against it.
    """
    return _supporting(first_component(rec.activations * rec.gradients.abs()), rec)


@method(
    "kpca-cam",
    needs=Needs.GRADIENTS,
    otherwise=Needs.REPLAY,
    class_specific=False,  # but for the sign
    signed=True,
    source="Karmani et al. 2024, arXiv:2410.00267",
)
def kpca_cam(rec: Recording, *, kernel: str = "sigmoid", gamma: float = 0.0) -> Map:
    """Eigen-CAM with a kernel: the first kernel principal component of all cells' activations.

    The target decides nothing but the sign. With more than 4096 cells the component is that of 2048 evenly spaced ones, and all
    are projected on it.

    Formula: map = s sqrt(lambda) v, where lambda and v are the largest eigenvalue of the centred kernel matrix H K H and its
    eigenvector, K_ij = kernel(a_i, a_j), a_i the cells' centred activations, and s = +1 or -1 as the correlation of the map with
    sum_k A_k G_k; of a model without derivatives, as score(A (1 + e map)) - score(A (1 - e map)).
    Options: kernel, one of sigmoid (tanh(gamma x.y + 1)), rbf (exp(-gamma |x - y|^2)), poly ((gamma x.y + 1)^3), linear (then it
    is Eigen-CAM) and cosine; gamma, the kernel's scale, 0 for 1 / channels.
    Elsewhere: pytorch-grad-cam 1.5.7 leaves the sign to chance; its matrices grow with the square of the number of cells.
    """
    if kernel not in KERNELS:
        raise MethodError(
            f"kpca-cam has no kernel '{kernel}'.{did_you_mean(kernel, KERNELS)} It has: {', '.join(KERNELS)}."
        )
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise MethodError(f"kpca-cam: gamma={gamma} must be a finite number, not negative; 0 means 1 / channels.")
    scale = gamma or 1 / rec.activations.shape[1]
    return _signed(KernelComponent(kernel, scale), rec)


@method(
    "fem",
    needs=Needs.ACTIVATIONS,
    class_specific=False,
    signed=True,
    source="Fuad et al. 2020, doi:10.1109/IPTA50016.2020.9286629",
    passes="1 + 0",
)
def fem(rec: Recording, *, k: float = 2.0) -> Map:
    """Count the channels in which a cell stands out, each weighted by its mean activation.

    No value lies more than sqrt(cells - 1) standard deviations above its channel's mean: on four cells or fewer the default's map
    is 0.

    Formula: map = sum_k mean(A_k) [A_k > mean(A_k) + k std(A_k)], means and standard deviations over the channel's cells.
    Options: k, how many standard deviations above its channel's mean a cell must lie.
    Elsewhere: the authors' code and xplique weight the binary maps by the channels' means, as here (xplique with >= for >).
    pytorch-grad-cam 1.5.7 does the opposite: it weights the activations by the means of the binary maps.
    """
    if not math.isfinite(k):
        raise MethodError(f"fem: k={k} must be a finite number.")
    cells = centred(rec.activations).mT
    outstanding = cells > k * cells.square().mean(2, keepdim=True).sqrt()
    weights = rec.activations.flatten(2).mean(2)
    masks = outstanding.to(rec.activations).view(rec.activations.shape)
    return torch.einsum("bc...,bc->b...", masks, weights)


def _signed(component: Callable[[Tensor], Tensor], rec: Recording) -> Map:
    """Return a component with the sign of the support for the target, by derivatives or, where there are none, by the score."""
    if rec.has(Needs.GRADIENTS):
        return _supporting(component(rec.activations), rec)
    activations = rec.activations
    # One by one, as the edits are made: the sign that comes of itself must be the same.
    found = torch.cat([component(activations[row : row + 1]) for row in range(len(activations))])
    scores = rec.replay(AlongComponent(component))
    change = scores.values[:, 0] - scores.values[:, 1]
    rounding = 1e-6 * scores.values.abs().amax(1)
    decided = (scores.known.all(1) & (change.abs() > rounding)).view(-1, *(1,) * (found.ndim - 1))
    by_score = torch.where(change.view_as(decided) < 0, -found, found)
    return torch.where(decided, by_score, signed_like(found, activations.square().sum(1)))


def _supporting(component: Map, rec: Recording) -> Map:
    """Return the component with the sign of the support for the target; where they are uncorrelated, of the cells' energy."""
    energy = rec.activations.square().sum(1)
    support = (rec.activations * rec.gradients).sum(1)
    return signed_like(signed_like(component, energy), support)
