"""Maps of the score's derivative by the input itself; colour channels are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seewhy.maps.gradient import grad_cam
from seewhy.maps.registry import method
from seewhy.maps.smoothing import Noise
from seewhy.recorder import Derived, Needs, Propagation, Recording, Variants

Colours = Float[Tensor, "batch image_channel *space"]


@dataclass(frozen=True)
class Itself:
    """The input as it is."""

    def __call__(self, sample: Recording) -> Variants:
        """Return one variant: the input."""
        return Variants(1, lambda _: sample.images)


def input_gradient(rec: Recording, rule: str | Propagation | None = None) -> Colours:
    """Return d score / d input, by the functions' own derivatives or by other rules for them."""
    found = torch.zeros_like(rec.images)

    def take(part: Derived) -> None:
        found[part.row] = part.gradients[0]

    rec.derive(Itself(), take, rule=rule)
    return found


@method(
    "saliency",
    needs=Needs.INPUT_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Simonyan et al. 2013, arXiv:1312.6034",
    passes="2 + 1",
    colours="max-abs",
    scaling="percentile",
    shows="influence",
)
def saliency(rec: Recording) -> Colours:
    """Take the derivative of the score by each pixel; the map is the largest absolute value of its colours.

    Formula: S = max over colours c of |d score / d x_c|.
    """
    return input_gradient(rec)


@method(
    "input-x-gradient",
    needs=Needs.INPUT_GRADIENTS,
    class_specific=True,
    signed=True,
    source="Shrikumar et al. 2016, arXiv:1605.01713",
    passes="2 + 1",
    colours="sum",
    scaling="percentile",
)
def input_x_gradient(rec: Recording) -> Colours:
    """Multiply each pixel's value by its derivative.

    Formula: x * d score / d x, summed over colours.
    """
    return rec.images * input_gradient(rec)


@method(
    "smoothgrad",
    needs=Needs.INPUT_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Smilkov et al. 2017, arXiv:1706.03825",
    passes="1 + {samples} x (1 + 1)",
    colours="max-abs",
    scaling="percentile",
    shows="influence",
)
def smoothgrad(rec: Recording, *, samples: int = 25, spread: float = 0.15) -> Colours:
    """Take the mean of the derivative over noisy copies of the input.

    Formula: mean over n of d score / d x at x + N(0, sigma^2); sigma is a part of the input's range.
    Options: samples, the number of noisy copies; spread, the noise's standard deviation as a part of the input's range.
    Elsewhere: captum's noise is absolute, in the model's units; PAIR's GetSmoothedMask squares by default.
    """
    return Noise(samples, spread, "mean").around(input_gradient)(rec)


@method(
    "smoothgrad-squared",
    needs=Needs.INPUT_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Hooker et al. 2019, arXiv:1806.10758",
    passes="1 + {samples} x (1 + 1)",
    colours="sum",
    scaling="percentile",
    shows="influence",
)
def smoothgrad_squared(rec: Recording, *, samples: int = 25, spread: float = 0.15) -> Colours:
    """Take the mean of the squared derivative over noisy copies of the input.

    Formula: mean over n of (d score / d x)^2 at x + N(0, sigma^2).
    Options: samples, the number of noisy copies; spread, the noise's standard deviation as a part of the input's range.
    """
    return Noise(samples, spread, "square").around(input_gradient)(rec)


@method(
    "vargrad",
    needs=Needs.INPUT_GRADIENTS,
    class_specific=True,
    signed=False,
    source="Adebayo et al. 2018, arXiv:1810.03307",
    passes="1 + {samples} x (1 + 1)",
    colours="sum",
    scaling="percentile",
    shows="influence",
)
def vargrad(rec: Recording, *, samples: int = 25, spread: float = 0.15) -> Colours:
    """Take the variance of the derivative over noisy copies of the input.

    Formula: variance over n of d score / d x at x + N(0, sigma^2).
    Options: samples, the number of noisy copies; spread, the noise's standard deviation as a part of the input's range.
    """
    return Noise(samples, spread, "variance").around(input_gradient)(rec)


@method(
    "guided-backprop",
    needs=Needs.INPUT_GRADIENTS | Needs.RELU_RULE,
    class_specific=False,
    signed=False,
    source="Springenberg et al. 2014, arXiv:1412.6806",
    passes="2 + 1",
    colours="max-abs",
    scaling="percentile",
    shows="influence",
)
def guided_backprop(rec: Recording) -> Colours:
    """Take the derivative of the score by each pixel, dropping what is negative at every ReLU on the way back.

    Formula: at each ReLU, R_in = R_out where its input and R_out are both positive, else 0.
    Elsewhere: depends little on the class (Adebayo et al. 2018); pytorch-grad-cam explains only the first image of a batch.
    """
    return input_gradient(rec, "guided")


@method(
    "deconvnet",
    needs=Needs.INPUT_GRADIENTS | Needs.RELU_RULE,
    class_specific=False,
    signed=False,
    source="Zeiler & Fergus 2013, arXiv:1311.2901",
    passes="2 + 1",
    colours="max-abs",
    scaling="percentile",
    shows="influence",
)
def deconvnet(rec: Recording) -> Colours:
    """Take the derivative of the score by each pixel, with ReLU applied to the derivative instead of its own mask.

    Formula: at each ReLU, R_in = max(R_out, 0), whatever its input was.
    """
    return input_gradient(rec, "deconvnet")


@method(
    "guided-grad-cam",
    needs=Needs.INPUT_GRADIENTS | Needs.RELU_RULE | Needs.GRADIENTS,
    class_specific=True,
    signed=True,
    source="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2",
    passes="2 + 2",
    colours="sum",
    scaling="percentile",
)
def guided_grad_cam(rec: Recording) -> Colours:
    """Multiply guided backpropagation by the positive part of Grad-CAM.

    Formula: guided backpropagation * linear upsampling of relu(Grad-CAM).
    Elsewhere: captum upsamples by nearest neighbours.
    """
    coarse = grad_cam(rec).sum(1, keepdim=True).relu()
    return input_gradient(rec, "guided") * resized(coarse, rec.images.shape[2:])


def resized(
    maps: Float[Tensor, "batch channel *grid"], space: tuple[int, ...]
) -> Float[Tensor, "batch channel *space"]:
    """Return maps interpolated linearly to another number of cells."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    return functional.interpolate(maps, size=tuple(space), mode=mode, align_corners=False)
