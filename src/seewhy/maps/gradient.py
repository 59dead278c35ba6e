"""Class activation maps from one recording: activations A, gradients G = d score / d A, sums over channels k.

Every function takes a Recording and returns what each channel contributes to the raw map, `(batch, channel, *grid)`; the map
is their sum: signed where the mathematics is, not scaled, not resized, before any final ReLU.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.maps.noise import GaussianNoise
from seewhy.maps.registry import find_method, method
from seewhy.recorder import Needs, Recording
from seewhy.targets import ClassTarget, PlacesTarget, SimilarContrastTarget, Subject, Target

Parts = Float[Tensor, "batch channel *grid"]
Channels = Float[Tensor, "batch channel *grid"]


@method(
    "grad-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Selvaraju et al. 2017, arXiv:1610.02391, eq. 1-2",
)
def grad_cam(rec: Recording) -> Parts:
    """Weight each channel by the mean of its gradient.

    Formula: sum over k of mean(G_k) A_k, with A the layer's activations and G = d score / d A; the picture shows its positive
        part.
    Elsewhere: peers clip at zero and stretch to 0..1 before anything can be compared; here the raw map stays signed.
    """
    return _weighted(rec.activations, rec.gradients.flatten(2).mean(2))


@method(
    "grad-cam++",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Chattopadhay et al. 2018, arXiv:1710.11063",
)
def grad_cam_plus_plus(rec: Recording) -> Parts:
    """Weight each channel by its positive gradients, each weighted by how little of the evidence is elsewhere.

    Formula: sum over k of sum(a relu(G_k)) A_k, with a = G^2 / (2 G^2 + sum(A_k) G^3) at every place.
    Elsewhere: torchcam 0.5.0 divides a copy, so that a is G^2; pytorch-grad-cam adds 1e-6 to the divisor, which outweighs small
        gradients.
    """
    return _weighted(rec.activations, _plus_plus(rec.activations, rec.gradients[None]))


@method(
    "smooth-grad-cam++",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Omeiza et al. 2019, arXiv:1908.01224",
    passes="1 + {samples}",
)
def smooth_grad_cam_plus_plus(rec: Recording, *, samples: int = 16, spread: float = 0.3) -> Parts:
    """Grad-CAM++ with its derivatives averaged over noisy copies of the input.

    Formula: Grad-CAM++ with G, G^2 and G^3 replaced by their means over copies x + N(0, spread^2).
    Options: samples, the number of noisy copies; spread, the noise's standard deviation in units of the model's input.
    Elsewhere: torchcam takes the gradient and the activations of the last noisy copy only.
    """
    noisy = torch.cat(
        [part.gradients.view(-1, *rec.gradients.shape) for part in rec.varied(GaussianNoise(samples, spread))]
    )
    return _weighted(rec.activations, _plus_plus(rec.activations, noisy))


@method(
    "xgrad-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Fu et al. 2020, arXiv:2008.02312",
)
def xgrad_cam(rec: Recording) -> Parts:
    """Weight each channel by its gradients, averaged with its activations as weights.

    Formula: sum over k of (sum(A_k G_k) / sum(A_k)) A_k.
    """
    activations = rec.activations.flatten(2)
    total = activations.sum(2)
    weights = (activations * rec.gradients.flatten(2)).sum(2) / total
    return _weighted(rec.activations, torch.where(total == 0, 0.0, weights))


@method(
    "hires-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Draelos & Carin 2020, arXiv:2011.08891",
)
def hires_cam(rec: Recording) -> Parts:
    """Multiply activations by gradients cell by cell, and sum over channels.

    Formula: sum over k of G_k A_k.
    """
    return rec.activations * rec.gradients


@method(
    "grad-cam-elementwise",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=False,
    source="github.com/jacobgil/pytorch-grad-cam, GradCAMElementWise",
)
def grad_cam_elementwise(rec: Recording) -> Parts:
    """HiResCAM with negative products dropped before the sum.

    Formula: sum over k of relu(G_k A_k).
    """
    return (rec.activations * rec.gradients).relu()


@method(
    "layer-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943",
)
def layer_cam(rec: Recording) -> Parts:
    """Weight each cell of each channel by its positive gradient; made for early layers too.

    Formula: sum over k of relu(G_k) A_k.
    """
    return rec.activations * rec.gradients.relu()


def _against_similar(target: Target, subject: Subject, *, strength: float = 0.6, references: int = 3) -> Target:
    """Return the question "why this class rather than those that score nearest to it"."""
    output = subject.output
    if isinstance(target, PlacesTarget):
        means = replace(subject, output=target.means(output))
        return target.asking(_against_similar(target.what, means, strength=strength, references=references))
    if not isinstance(target, ClassTarget) or output.ndim != 1 or len(output) < 2:
        raise MethodError(
            "finer-cam sets one class against similar ones: it needs a class as target, and at least two classes."
        )
    distance = (output - output[target.index]).abs().float()
    distance[target.index] = torch.inf
    nearest = distance.topk(min(references, len(output) - 1), largest=False).indices
    return SimilarContrastTarget(target.index, tuple(nearest.tolist()), strength, target.predicted)


@method(
    "finer-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Zhang et al. 2025, arXiv:2501.11309",
    retarget=_against_similar,
)
def finer_cam(rec: Recording) -> Parts:
    """Grad-CAM of the class's score minus that of the classes that score nearest to it.

    Formula: Grad-CAM of score_c - strength * mean over the nearest classes d of score_d.
    Options: strength, the weight of the other classes' mean score; references, how many of them.
    Elsewhere: pytorch-grad-cam weights the other classes by their probabilities and differentiates these weights too.
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
def cam(rec: Recording) -> Parts:
    """Weight each channel by the classifier's own weight for it; only for global average pooling and one linear layer.

    Formula: sum over k of w_ck A_k, with w the classifier's weights.
    """
    return _weighted(rec.activations, rec.head)


@method(
    "shapley-cam",
    needs=Needs.CURVATURE | Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Cai 2025, arXiv:2501.06261",
    passes="1 + 2",
)
def shapley_cam(rec: Recording) -> Parts:
    """Weight each channel by its Shapley value to second order: the mean of its gradient, less half the curvature.

    Formula: sum over k of mean(G_k - (H A)_k / 2) A_k, with H the Hessian of the score by the activations.
    Elsewhere: where the score is linear in the layer (a linear head on ReLU features) this is Grad-CAM.
    """
    return _weighted(rec.activations, (rec.gradients - rec.curvature / 2).flatten(2).mean(2))


@method(
    "refine-cam",
    needs=Needs.GRADIENTS,
    class_specific=True,
    signed=False,
    source="arXiv:2605.14641",
    scaling="percentile",
    layers="all-stages",
    fuse="product",
)
def refine_cam(rec: Recording, *, base: str = "grad-cam++") -> Parts:
    """Multiply the positive parts of another method's maps at all stages: what every stage agrees on, sharply.

    Formula: product over layers of relu(L) / max relu(L), on the finest grid.
    Options: base, the method; for one that needs more than gradients write fuse="product" with that method instead.
    Elsewhere: pytorch-grad-cam passes eigen smoothing in the place of augmentation, and its rescaling changes nothing.
    """
    entry = find_method(base)
    if not entry.needs.layer or entry.fuse:
        raise MethodError(
            f"refine-cam goes around methods that look at one layer, such as grad-cam; {entry.name} does not."
        )
    if entry.needs & ~(Needs.GRADIENTS | Needs.ACTIVATIONS) or entry.retarget:
        raise MethodError(
            f"refine-cam cannot be put around {entry.name}: ask for {entry.name} with fuse='product' instead."
        )
    return entry.function(rec)


def _weighted(activations: Channels, weights: Float[Tensor, "batch channel"]) -> Parts:
    """Return each channel's part of the map: weight times activation."""
    return activations * weights.view(*weights.shape, *(1,) * (activations.ndim - 2))


def _plus_plus(
    activations: Channels, gradients: Float[Tensor, "sample batch channel *grid"]
) -> Float[Tensor, "batch channel"]:
    """Return Grad-CAM++'s channel weights; the first three derivatives are means over samples of powers of G.

    alpha = second / (2 second + sum(A) third), 0 where that is 0 / 0; weight = sum of alpha relu(first). G is divided by its
    peak meanwhile: its cube would leave the range of float32.
    """
    peak = gradients.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    unit = gradients / peak
    first, second, third = unit.mean(0), (unit**2).mean(0), (unit**3).mean(0)
    total = activations.flatten(2).sum(2).view(*activations.shape[:2], *(1,) * (activations.ndim - 2))
    divisor = 2 * second + total * peak * third
    alpha = torch.where(divisor == 0, 0.0, second / divisor)
    return (alpha * first.relu()).flatten(2).sum(2) * peak
