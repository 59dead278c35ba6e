"""Noisy copies of the input, as a variation that methods share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError


@dataclass(frozen=True)
class GaussianNoise:
    """The input plus normal noise, `samples` times.

    Attributes:
        samples: number of copies, at least 1.
        spread: the noise's standard deviation, in units of the model's input; 0 or more.
        relative: whether the unit is each sample's own range, its largest value minus its smallest.
    """

    samples: int
    spread: float
    relative: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or not (self.spread >= 0 and math.isfinite(self.spread)):
            raise MethodError(
                f"samples={self.samples} must be at least 1 and spread={self.spread} a finite number, not negative."
            )

    def __len__(self) -> int:
        return self.samples

    def __call__(
        self, images: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "batch channel *space"]]:
        """Yield the noisy copies; a sample's noise does not depend on the batch it is in."""
        scale = self._scale(images)
        for _ in range(self.samples):
            noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32)
            yield images + (noise.to(images.device) * scale).to(images.dtype)

    def _scale(self, images: Tensor) -> Tensor:
        """Return each sample's standard deviation, `(batch, 1, ...)`."""
        flat = images.float().flatten(1)
        unit = flat.amax(1) - flat.amin(1) if self.relative else torch.ones(len(flat), device=flat.device)
        return (self.spread * unit).view(-1, *(1,) * (images.ndim - 1))
