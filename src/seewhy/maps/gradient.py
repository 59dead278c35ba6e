"""Class activation maps from one recording: activations A, gradients G = d score / d A, sums over channels k.

Every function takes a Recording and returns the raw map `(batch, *grid)`: signed where the mathematics is, not scaled, not
resized, before any final ReLU.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.maps.noise import GaussianNoise
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording
from seewhy.targets import SimilarContrastTarget, Target

Map = Float[Tensor, " batch *grid"]
Channels = Float[Tensor, "batch channel *grid"]


@method(
    "grad-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Selvaraju et al. 2017, arXiv:1610.02391, eq. 1-2",
)
def grad_cam(rec: Recording) -> Map:
    """Weight each channel by the mean of its gradient."""
    return _weighted(rec.activations, rec.gradients.flatten(2).mean(2))


@method(
    "grad-cam++",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Chattopadhay et al. 2018, arXiv:1710.11063, eq. 13-19",
)
def grad_cam_plus_plus(rec: Recording) -> Map:
    """Weight each channel by its positive gradients, each weighted by how little of the evidence is elsewhere."""
    gradients = rec.gradients
    return _weighted(rec.activations, _plus_plus(rec.activations, gradients, gradients**2, gradients**3))


@method(
    "smooth-grad-cam++",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Omeiza et al. 2019, arXiv:1908.01224, eq. 9-11",
    passes="1 + samples",
)
def smooth_grad_cam_plus_plus(rec: Recording, *, samples: int = 16, spread: float = 0.3) -> Map:
    """Grad-CAM++ with its derivatives averaged over noisy copies of the input.

    Options: samples, the number of noisy copies; spread, the noise's standard deviation in units of the model's input.
    """
    noisy = rec.varied(GaussianNoise(samples, spread))
    first, second, third = (torch.stack([each.gradients**power for each in noisy]).mean(0) for power in (1, 2, 3))
    return _weighted(rec.activations, _plus_plus(rec.activations, first, second, third))


@method(
    "xgrad-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Fu et al. 2020, arXiv:2008.02312, eq. 8",
)
def xgrad_cam(rec: Recording) -> Map:
    """Weight each channel by its gradients, averaged with its activations as weights."""
    activations = rec.activations.flatten(2)
    total = activations.sum(2)
    weights = (activations * rec.gradients.flatten(2)).sum(2) / total
    return _weighted(rec.activations, torch.where(total == 0, 0.0, weights))


@method(
    "hires-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Draelos & Carin 2020, arXiv:2011.08891, eq. 5",
)
def hires_cam(rec: Recording) -> Map:
    """Multiply activations by gradients cell by cell, and sum over channels."""
    return (rec.activations * rec.gradients).sum(1)


@method(
    "grad-cam-elementwise",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=False,
    source="Pillai & Pirsiavash 2021 (consistent explanations); named GradCAMElementWise in pytorch-grad-cam",
)
def grad_cam_elementwise(rec: Recording) -> Map:
    """HiResCAM with negative products dropped before the sum."""
    return (rec.activations * rec.gradients).relu().sum(1)


@method(
    "layer-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, eq. 5-6",
)
def layer_cam(rec: Recording) -> Map:
    """Weight each cell of each channel by its positive gradient; made for early layers too."""
    return (rec.activations * rec.gradients.relu()).sum(1)


def _against_similar(target: Target, *, strength: float = 0.6, references: int = 3) -> Target:
    """Return the question "why this class rather than those that score nearest to it"."""
    if target.index is None:
        raise MethodError("finer-cam compares a class with similar ones; it needs a class as target, not a function.")
    return SimilarContrastTarget(target.index, strength, references)


@method(
    "finer-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Zhang et al. 2025, arXiv:2501.11309",
    retarget=_against_similar,
)
def finer_cam(rec: Recording) -> Map:
    """Grad-CAM of the class's score minus that of the classes that score nearest to it.

    Options: strength, the weight of the other classes' mean score; references, how many of them.
    """
    return grad_cam(rec)


@method(
    "cam",
    needs=Needs.ACTIVATIONS | Needs.HEAD,
    class_specific=True,
    signed=True,
    source="Zhou et al. 2016, arXiv:1512.04150, eq. 2",
    passes="1 + 0",
)
def cam(rec: Recording) -> Map:
    """Weight each channel by the classifier's own weight for it; only for global average pooling and one linear layer."""
    return _weighted(rec.activations, rec.head)


def _weighted(activations: Channels, weights: Float[Tensor, "batch channel"]) -> Map:
    """Return the sum over channels of weight times activation."""
    return torch.einsum("bc...,bc->b...", activations, weights)


def _plus_plus(
    activations: Channels, first: Channels, second: Channels, third: Channels
) -> Float[Tensor, "batch channel"]:
    """Return Grad-CAM++'s channel weights from the score's first three derivatives (powers of G for an exponential score).

    alpha = second / (2 second + sum(A) third), 0 where that is 0 / 0; weight = sum of alpha relu(first).
    """
    total = activations.flatten(2).sum(2).view(*activations.shape[:2], *(1,) * (activations.ndim - 2))
    divisor = 2 * second + total * third
    alpha = torch.where(divisor == 0, 0.0, second / divisor)
    return (alpha * first.relu()).flatten(2).sum(2)
