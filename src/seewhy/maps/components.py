"""Maps from what a layer's cells have in common: their first principal component, or what stands out in each channel.

A component has no sign of its own. Here it gets the one that makes it agree with HiResCAM, the first-order support for the target
cell by cell, so that high means "supports" as everywhere; where the two are uncorrelated, high means large activations.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.principal import KERNELS, centred, first_component, first_kernel_component, signed_like
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording

Map = Float[Tensor, " batch *grid"]


@method(
    "eigen-cam",
    needs=Needs.GRADIENTS,
    class_specific=False,  # but for the sign
    signed=True,
    source="Muhammad & Yeasin 2020, arXiv:2008.00299",
)
def eigen_cam(rec: Recording) -> Map:
    """Project each cell's activations on the first principal component of all cells.

    The target decides nothing but the sign: two targets get the same map, or one the other's negative.

    Formula: map = s (A - mean over cells of A) v, where A is (cells x channels), v the first right singular vector of the centred
    A, and s = +1 or -1 as the correlation of the map with sum_k A_k G_k.
    Elsewhere: the paper's formula has no centring; without it the component is mostly the mean activation. pytorch-grad-cam 1.5.7
    centres, as here, but leaves the sign to chance (its issue 315): its map may be the negative of what is meant.
    """
    return _supporting(first_component(rec.activations), rec)


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
    sum_k A_k G_k.
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
    return _supporting(first_kernel_component(rec.activations, KERNELS[kernel], scale), rec)


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


def _supporting(component: Map, rec: Recording) -> Map:
    """Return the component with the sign of the support for the target; where they are uncorrelated, of the cells' energy."""
    energy = rec.activations.square().sum(1)
    support = (rec.activations * rec.gradients).sum(1)
    return signed_like(signed_like(component, energy), support)
