"""First principal components of a layer's cells: every cell is a point, its channels are the point's coordinates.

Everything here is computed in float64 and in batches, on the device the values are on; on MPS, which has no float64, on the CPU.
Values arrive as `(batch, channel, *grid)`, components leave as float32 `(batch, *grid)`: centred over the cells, in the values'
units, of arbitrary sign until :func:`signed_like` sets it, 0 where all cells are alike, NaN for a sample that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Values = Float[Tensor, "batch channel *grid"]
Map = Float[Tensor, "batch *grid"]
Cells = Float[Tensor, "batch cell channel"]
Kernel = Callable[[Tensor, Tensor, float], Tensor]
"""From two sets of cells `(batch, one, channel)`, `(batch, other, channel)` and gamma to `(batch, one, other)`."""

ROUNDING = 1e-6
"""Differences below this share of a channel's peak are what float32 layers leave behind, not structure."""
DENSE = 512
"""Largest matrix whose eigenvectors are all computed; larger ones are only multiplied with."""
BLOCK = 8
"""Vectors that are iterated together: the first is exact the sooner, the further behind it the ninth eigenvalue is."""
MOST_CELLS = 4096
"""Largest number of cells whose kernel matrix is computed in full."""
LANDMARKS = 2048
"""Cells that stand for all others where there are more than that."""
KERNEL_ENTRIES = MOST_CELLS**2
"""Entries of kernel matrices that are held at once: as many samples as fit go together."""


def first_component(values: Values) -> Map:
    """Return the cells' projections on the first principal component of all cells of the same sample."""
    cells = centred(values)
    # The Gram matrix of the smaller side has the same eigenvalues, and each side's eigenvectors give the other's.
    rows = cells if cells.shape[1] <= cells.shape[2] else cells.mT
    largest, vectors = _top_eigenpair(rows, lambda block: rows @ (rows.mT @ block), lambda: rows @ rows.mT)
    projected = _times(cells, vectors) if rows is not cells else vectors * largest.clamp_min(0).sqrt()[:, None]
    return _as_map(projected, values)


def first_kernel_component(values: Values, kernel: Kernel, gamma: float) -> Map:
    """Return the cells' projections on the first kernel principal component, centred in the kernel's space.

    With more than MOST_CELLS cells the component is that of LANDMARKS of them, and all are projected on it (Nystroem): on the
    first block of EfficientNet-lite0, 112 x 112 cells, the result correlates with the exact one by 0.998.
    """
    chosen = landmarks(values.shape[2:])
    together = max(1, KERNEL_ENTRIES // len(chosen) ** 2)
    parts = [_projected_on_kernel(centred(part), chosen, kernel, gamma) for part in torch.split(values, together)]
    return _as_map(torch.cat(parts), values)


def signed_like(component: Map, reference: Map) -> Map:
    """Return the component with the sign that makes it correlate positively with the reference, cell by cell.

    A sample whose correlation is zero, but for rounding, keeps its sign.
    """
    one, other = _wide(component).flatten(1), _wide(reference).flatten(1)
    agreement = ((one - one.mean(1, keepdim=True)) * other).sum(1)
    opposed = agreement < -ROUNDING * one.norm(dim=1) * other.norm(dim=1)
    flip = opposed.to(component.device).view(-1, *(1,) * (component.ndim - 1))
    return torch.where(flip, -component, component)


def centred(values: Values) -> Cells:
    """Return the cells as float64 vectors, each channel's mean taken off; 0 where a channel varies no more than by rounding.

    A sample that holds NaN or infinity is 0 throughout.
    """
    cells = _wide(values).flatten(2)
    peak = cells.abs().amax(2, keepdim=True)
    cells = torch.where(peak.isfinite().all(1, keepdim=True), cells, 0.0)
    cells = cells - cells.mean(2, keepdim=True)
    return torch.where(cells.abs().amax(2, keepdim=True) > ROUNDING * peak, cells, 0.0).mT


def landmarks(grid: Sequence[int]) -> Int[Tensor, " landmark"]:
    """Return the flat indices of at most LANDMARKS cells, evenly spaced along every axis; of all where MOST_CELLS suffice."""
    total, budget = math.prod(grid), LANDMARKS
    if total <= MOST_CELLS:
        return torch.arange(total)
    counts = dict.fromkeys(range(len(grid)), 1)
    # The shortest axis first: what it cannot use is left to the longer ones.
    for done, axis in enumerate(sorted(counts, key=lambda axis: grid[axis])):
        share = (budget / total) ** (1 / (len(grid) - done))
        counts[axis] = min(max(1, int(grid[axis] * share)), grid[axis])
        total, budget = total // grid[axis], budget // counts[axis]
    flat = torch.zeros(1, dtype=torch.long)
    for axis, size in enumerate(grid):
        middles = ((torch.arange(counts[axis]) + 0.5) * (size / counts[axis])).long()
        flat = (flat[:, None] * size + middles).flatten()
    return flat


def linear(one: Tensor, other: Tensor, _gamma: float) -> Tensor:
    """Return x . y: kernel principal components become principal components."""
    return one @ other.mT


def polynomial(one: Tensor, other: Tensor, gamma: float) -> Tensor:
    """Return (gamma x . y + 1)^3 - 1.

    The constant that is taken off here and below is lost in centring anyway; without it small products keep their digits.
    """
    product = gamma * (one @ other.mT)
    return product * (product * (product + 3) + 3)


def radial(one: Tensor, other: Tensor, gamma: float) -> Tensor:
    """Return exp(-gamma |x - y|^2) - 1."""
    squares = [each.square().sum(2) for each in (one, other)]
    distances = (squares[0][:, :, None] + squares[1][:, None] - 2 * (one @ other.mT)).clamp_min_(0)
    return distances.mul_(-gamma).expm1_()


def sigmoid(one: Tensor, other: Tensor, gamma: float) -> Tensor:
    """Return tanh(gamma x . y + 1) - tanh(1), by the addition theorem."""
    inner, shift = (one @ other.mT).mul_(gamma).tanh_(), math.tanh(1)
    divisor = inner * shift + 1
    return inner.mul_(1 - shift**2).div_(divisor)


def cosine(one: Tensor, other: Tensor, _gamma: float) -> Tensor:
    """Return the cosine of the angle between x and y, 0 where either is 0."""
    return torch.nn.functional.normalize(one, dim=2) @ torch.nn.functional.normalize(other, dim=2).mT


KERNELS: dict[str, Kernel] = {
    "sigmoid": sigmoid,
    "rbf": radial,
    "poly": polynomial,
    "linear": linear,
    "cosine": cosine,
}
"""The kernels by their names in scikit-learn, with its defaults: degree 3, constant 1."""


def _projected_on_kernel(
    cells: Cells, landmark: Int[Tensor, " landmark"], kernel: Kernel, gamma: float
) -> Float[Tensor, "batch cell"]:
    """Return the cells' projections on the first kernel principal component of the landmarks."""
    chosen = cells[:, landmark.to(cells.device)]
    among = kernel(chosen, chosen, gamma)

    def apply(block: Tensor) -> Tensor:
        inside = among @ (block - block.mean(1, keepdim=True))
        return inside - inside.mean(1, keepdim=True)

    largest, vectors = _top_eigenpair(among, apply, lambda: _doubly_centred(among))
    # Some kernels are indefinite: with no positive eigenvalue there is no component, only rounding.
    present = largest > 1e-12 * among.shape[1] * among.abs().amax((1, 2))
    weights = vectors * torch.where(present, largest, torch.inf).rsqrt()[:, None]
    parts = [_times(kernel(part, chosen, gamma), weights) for part in torch.split(cells, MOST_CELLS, dim=1)]
    return torch.cat(parts, 1) - _times(among, weights).mean(1, keepdim=True)


def _top_eigenpair(
    like: Float[Tensor, "batch side other"], apply: Callable[[Tensor], Tensor], dense: Callable[[], Tensor]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch side"]]:
    """Return the largest eigenvalue of a batch of symmetric matrices `(batch, side, side)`, and its unit eigenvector.

    Args:
        like: a tensor whose first two sizes, type and device are the matrices'.
        apply: multiplies the matrices with `(batch, side, columns)`.
        dense: makes the matrices; called where they are small.
    """
    batch, side = like.shape[:2]
    if side <= DENSE:
        values, vectors = torch.linalg.eigh(dense())
        return values[:, -1], vectors[:, :, -1]
    start = torch.randn(side, BLOCK, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return _subspace_iteration(apply, start.to(like).expand(batch, -1, -1))


def _subspace_iteration(
    apply: Callable[[Tensor], Tensor], start: Float[Tensor, "batch side column"], rounds: int = 100
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch side"]]:
    """Return the largest eigenvalue and its eigenvector by power iteration of a block, each round ended by Rayleigh-Ritz.

    A round looks for the best vectors among all that it met, V, AV, A^2 V and A^3 V, and not only in the last: far fewer rounds
    where eigenvalues are close, and right for indefinite matrices too.
    """
    width = start.shape[2]
    block, largest = start, start.new_zeros(len(start))
    for _ in range(rounds):
        powers = [torch.linalg.qr(block)[0]]
        for _power in range(3):
            powers.append(torch.linalg.qr(apply(powers[-1]))[0])
        basis = torch.linalg.qr(torch.cat(powers, 2))[0]
        image = apply(basis)
        small = basis.mT @ image
        values, turn = torch.linalg.eigh((small + small.mT) / 2)
        block, largest = basis @ turn[:, :, -width:], values[:, -1]
        rest = (image @ turn[:, :, -1:] - block[:, :, -1:] * largest[:, None, None]).flatten(1).norm(dim=1)
        if bool((rest <= 1e-8 * values.abs().amax(1)).all()):
            break
    return largest, block[:, :, -1]


def _doubly_centred(matrix: Float[Tensor, "batch side side"]) -> Float[Tensor, "batch side side"]:
    """Return H M H, where H takes off the mean."""
    halfway = matrix - matrix.mean(1, keepdim=True)
    return halfway - halfway.mean(2, keepdim=True)


def _times(
    matrix: Float[Tensor, "batch row column"], vector: Float[Tensor, "batch column"]
) -> Float[Tensor, "batch row"]:
    return (matrix @ vector[:, :, None])[:, :, 0]


def _as_map(projected: Float[Tensor, "batch cell"], values: Values) -> Map:
    """Return one number a cell as a map like the values; NaN where the values were not finite."""
    component = projected.float().to(values.device).view(len(values), *values.shape[2:])
    finite = values.isfinite().flatten(1).all(1).view(-1, *(1,) * (component.ndim - 1))
    return torch.where(finite, component, torch.nan)


def _wide(values: Tensor) -> Tensor:
    """Return the values in float64."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
