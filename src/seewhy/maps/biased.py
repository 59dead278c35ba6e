"""FullGrad: input and biases together carry the whole score."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.maps.backprop import input_gradient, resized
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording


@method(
    "fullgrad",
    needs=Needs.INPUT_GRADIENTS | Needs.BIASES,
    class_specific=True,
    signed=False,
    shows="influence",
    source="Srinivas & Fleuret 2019, arXiv:1905.00780",
    passes="3 + 2",
)
def fullgrad(rec: Recording) -> Float[Tensor, " batch *space"]:
    """Add up what the input and every bias of every layer contribute to the score, each layer stretched to 0..1.

    Formula: psi(x * d score / d x) + sum over layers and channels of psi(b * d score / d b), with psi the absolute value,
        stretched to 0..1 by the layer's smallest and largest, resized to the input.
    Elsewhere: pytorch-grad-cam stretches every channel by itself, so that weak channels count as much as strong ones.
    """
    products = rec.images * input_gradient(rec)
    shares = rec.biases()
    carried = products.flatten(1).sum(1) + sum(share.total for share in shares)
    rec.report("completeness gap", carried - rec.scores)
    rec.report("score difference", rec.scores)
    absolute = products.abs()
    low, high = absolute.flatten(1).amin(1), absolute.flatten(1).amax(1)
    found = _stretched(absolute.sum(1), low, high, products.shape[1])
    for share in shares:
        if share.values is not None:
            part = _stretched(share.values, share.low, share.high, share.channels)
            found = found + resized(part[:, None], tuple(found.shape[1:]))[:, 0]
    return found


def _stretched(sums: Tensor, low: Tensor, high: Tensor, channels: int) -> Tensor:
    """Return the sum over channels of each channel stretched from low..high to 0..1, from the channels' sum."""
    column = (-1, *(1,) * (sums.ndim - 1))
    span = (high - low).clamp_min(torch.finfo(torch.float32).tiny).view(column)
    return (sums - channels * low.view(column)) / span
