"""Gaussian blur along each spatial axis: a wide kernel costs no more than a narrow one.

A picture's side is one small matrix product; a long signal, whose matrix would fill any memory, goes by Fourier transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seewhy.errors import ImageError, did_you_mean

Edges = Literal["zero", "repeat"]
Sigma = int | float | Sequence[int | float]

_REACH = 4.0  # standard deviations after which the kernel is cut off, as scipy and scikit-image do
_LONGEST_MATRIX = 4096  # pixels
_WIDEST = 100_000.0  # pixels; wider than any picture that is read, and its kernel still fits into memory easily


def gaussian_blur(
    images: Float[Tensor, "batch channel *space"], sigma: Sigma, *, edges: Edges
) -> Float[Tensor, "batch channel *space"]:
    """Blur images with a Gaussian, separately along each of their 1 to 3 spatial axes.

    Args:
        images: in any units, of any float type, on any device; float16 and bfloat16 are computed in float32.
        sigma: the Gaussian's standard deviation in pixels, one or one an axis; an axis with 0 is left as it is.
        edges: what lies outside: "zero" (scipy's mode="constant") or "repeat", the outermost pixel (scipy's
            mode="nearest"). The kernel sums to 1 over all that it reaches, outside included.

    Returns:
        The blurred images, a new tensor; the images themselves where every sigma is 0.

    Raises:
        ImageError: not floats, other axes, a sigma that is negative, not finite or over 100,000, or unknown edges.
    """
    if not images.is_floating_point() or images.ndim not in (3, 4, 5):
        raise ImageError(
            f"Only float tensors (batch, channel, *space) with 1 to 3 spatial axes are blurred; this is {images.dtype} of "
            f"shape {tuple(images.shape)}."
        )
    if edges not in get_args(Edges):
        known = get_args(Edges)
        raise ImageError(f"edges='{edges}' is not known. Known: {', '.join(known)}.{did_you_mean(str(edges), known)}")
    result = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    for axis, width in enumerate(_widths(sigma, images.ndim - 2), start=2):
        if width > 0:
            lines = result.movedim(axis, -1)
            if images.shape[axis] > _LONGEST_MATRIX:
                result = _by_fourier(lines, width, edges).movedim(-1, axis)
                continue
            matrix = _matrix(images.shape[axis], width, edges).to(result.device, result.dtype)
            result = (lines @ matrix.T).movedim(-1, axis)
    return result.to(images.dtype).contiguous() if result is not images else images


def _by_fourier(lines: Float[Tensor, "*lines length"], sigma: float, edges: Edges) -> Float[Tensor, "*lines length"]:
    """Return lines blurred, by their Fourier transform."""
    length = lines.shape[-1]
    side = _side(sigma)
    reach = min(len(side) - 1, length)  # what is further out lies in the constant that is added below
    kernel = torch.cat([side[1 : reach + 1].flip(0), side[: reach + 1]]).to(lines.device, lines.dtype)
    padding = (reach, reach)
    flat = lines.reshape(1, -1, length)
    wide = functional.pad(flat, padding, mode="replicate") if edges == "repeat" else functional.pad(flat, padding)
    size = wide.shape[-1]
    blurred: Tensor = torch.fft.irfft(torch.fft.rfft(wide) * torch.fft.rfft(kernel, size), size)[..., 2 * reach :]
    if edges == "repeat":
        beyond = side[reach + 1 :].sum().to(lines.device, lines.dtype)
        blurred = blurred + beyond * (flat[..., :1] + flat[..., -1:])
    return blurred.reshape(lines.shape)


def _side(sigma: float) -> Float[Tensor, " reach"]:
    """Return the kernel's float64 weights at distance 0, 1, 2, ...; with both sides they sum to 1."""
    reach = math.floor(_REACH * sigma + 0.5)
    side = torch.exp(-0.5 * (torch.arange(reach + 1, dtype=torch.float64) / sigma) ** 2)
    return side / (2 * side.sum() - side[0])


def _widths(sigma: Sigma, axes: int) -> tuple[float, ...]:
    """Return one standard deviation an axis."""
    given = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * axes
    try:
        widths = tuple(float(width) for width in given)
    except (TypeError, ValueError) as error:
        raise ImageError(f"sigma={sigma!r} must be a number of pixels, one or one a spatial axis.") from error
    if len(widths) != axes:
        raise ImageError(f"sigma={sigma!r} has {len(widths)} numbers for {axes} spatial axes.")
    if not all(0 <= width <= _WIDEST for width in widths):
        raise ImageError(f"sigma={sigma!r} must be from 0 to {_WIDEST:,.0f} pixels.")
    return widths


def _matrix(length: int, sigma: float, edges: Edges) -> Float[Tensor, "length length"]:
    """Return the float64 matrix whose row i holds the weights that the pixels of a line have in blurred pixel i."""
    side = _side(sigma)
    reach = len(side) - 1
    at = torch.arange(length)
    distance = (at[:, None] - at).abs()
    matrix = torch.where(distance <= reach, side[distance.clamp(max=reach)], 0.0)
    if edges == "repeat":
        tail = side.flip(0).cumsum(0).flip(0)  # tail[d]: the weight of all that is d or more pixels away on one side
        outside = torch.zeros(length, dtype=torch.float64)
        near = min(reach, length)
        outside[:near] = tail[1 : near + 1]  # pixel i has the edge's outside from distance i + 1 on
        matrix[:, 0] += outside
        matrix[:, -1] += outside.flip(0)
    return matrix
