"""What methods of the input's derivative are compared with: one image and one backward at a time, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.maps.noise import GaussianNoise

Array = np.ndarray
Score = Callable[[Tensor], Tensor]


def derivative(model: nn.Module, image: Tensor, score: Score) -> Array:
    """Return d score / d image, `(channel, *space)`, by the whole graph of a copy of the model."""
    leaf = image.detach().double()[None].requires_grad_()
    output = copy.deepcopy(model).double().eval()(leaf * 1.0)[0]
    return torch.autograd.grad(score(output), leaf)[0][0].numpy()


def of_class(index: int) -> Score:
    return lambda output: output[index]


def noisy_copies(image: Tensor, samples: int, spread: float, seed: int) -> list[Tensor]:
    """Return the copies that the library draws for this seed, one by one."""
    noise = GaussianNoise(samples, spread, relative=True)
    return [each[0] for each in noise(image[None], torch.Generator().manual_seed(seed))]


def enlarged(values: Array, space: tuple[int, ...]) -> Array:
    """Interpolate linearly between the centres of cells, axis after axis; beyond the outer centres it is level."""
    for axis, size in enumerate(space):
        cells = values.shape[axis]
        at = (np.arange(size) + 0.5) * cells / size - 0.5
        values = np.apply_along_axis(lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, values)
    return values


def assert_close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest value."""
    scale = np.abs(expected).max()
    assert scale > 0
    assert found.shape == expected.shape
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)
