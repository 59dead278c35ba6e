"""Maps that know nothing of the model: what any true map must beat."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording


@method(
    "random",
    needs=Needs.ACTIVATIONS,
    class_specific=False,
    signed=False,
    source="control",
    passes="1 + 0",
)
def random_map(rec: Recording) -> Float[Tensor, " batch *grid"]:
    """Control: uniform noise on the layer's grid, the same for every image.

    Formula: U(0, 1) at every cell.
    """
    noise = torch.rand(rec.activations.shape[2:], generator=rec.generator, dtype=torch.float32)
    return noise.to(rec.activations.device).expand(rec.activations.shape[0], *noise.shape).clone()


@method(
    "edges",
    needs=Needs.IMAGES,
    class_specific=False,
    signed=False,
    source="control; Sobel 1968",
    passes="1 + 0",
    scaling="percentile",
)
def edges(rec: Recording) -> Float[Tensor, " batch *space"]:
    """Control: the strength of the edges in the input, by Sobel's operator along every axis.

    Formula: square root of the sum over axes of the squared Sobel derivative of the channels' mean.
    """
    grey = rec.images.mean(1, keepdim=True)
    axes = grey.ndim - 2
    squares = [_sobel(grey, along, axes) ** 2 for along in range(axes)]
    return torch.stack(squares).sum(0).sqrt()[:, 0]


def _sobel(grey: Float[Tensor, "batch 1 *space"], along: int, axes: int) -> Float[Tensor, "batch 1 *space"]:
    """Return the derivative along one axis: (-1 0 1) / 2 there, (1 2 1) / 4 across the others; edges are repeated."""
    result = grey
    for axis in range(axes):
        kernel = torch.tensor(
            [-0.5, 0.0, 0.5] if axis == along else [0.25, 0.5, 0.25], device=grey.device, dtype=grey.dtype
        )
        moved = result.movedim(axis + 2, -1)
        padded = functional.pad(moved.flatten(0, -2)[:, None], (1, 1), mode="replicate")
        result = functional.conv1d(padded, kernel.view(1, 1, 3))[:, 0].view(moved.shape).movedim(-1, axis + 2)
    return result
