"""Second implementations of every method: from the papers' equations, in float64, with loops instead of broadcasting.

They share nothing with the library: activations and gradients come from a plain forward with the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


def observe(
    model: nn.Module, layer: nn.Module, image: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[Array, Array, Array]:
    """Return a layer's activations, d score / d activations (both as the layer gave them, one sample) and the outputs."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output.retain_grad()
        seen.append(output)
        return output.clone()  # an in-place layer behind must not overwrite what is kept

    handle = layer.register_forward_hook(keep)
    output = model(image.clone().requires_grad_())
    handle.remove()
    gradients = torch.autograd.grad(score(output[0]), seen[-1])[0]
    return seen[-1][0].detach().double().numpy(), gradients[0].double().numpy(), output[0].detach().double().numpy()


def grad_cam(a: Array, g: Array) -> Array:
    """Selvaraju 2017, eq. 1 and the sum in eq. 2."""
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = sum(g[k].flat) / g[k].size
        result += weight * a[k]
    return result


def grad_cam_plus_plus(a: Array, g: Array) -> Array:
    """Chattopadhay 2018, eq. 10 with the derivatives of exp(S): proportional to g, g^2, g^3."""
    return _plus_plus(a, g, g**2, g**3)


def _plus_plus(a: Array, first: Array, second: Array, third: Array) -> Array:
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total = sum(a[k].flat)
        weight = 0.0
        for place in np.ndindex(*a.shape[1:]):
            divisor = 2 * second[k][place] + total * third[k][place]
            alpha = second[k][place] / divisor if divisor != 0 else 0.0
            weight += alpha * max(first[k][place], 0.0)
        result += weight * a[k]
    return result


def smooth_grad_cam_plus_plus(a: Array, noisy: list[Array]) -> Array:
    """Omeiza 2019, eq. 9-11: the derivatives are averaged over noisy copies; the map is of the clean activations."""
    mean = [sum(g**power for g in noisy) / len(noisy) for power in (1, 2, 3)]
    return _plus_plus(a, *mean)


def xgrad_cam(a: Array, g: Array) -> Array:
    """Fu 2020, eq. 8."""
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total = sum(a[k].flat)
        weight = sum(a[k][place] / total * g[k][place] for place in np.ndindex(*a.shape[1:])) if total != 0 else 0.0
        result += weight * a[k]
    return result


def hires_cam(a: Array, g: Array) -> Array:
    """Draelos 2020, eq. 5."""
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for place in np.ndindex(*a.shape[1:]):
            result[place] += a[k][place] * g[k][place]
    return result


def grad_cam_elementwise(a: Array, g: Array) -> Array:
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for place in np.ndindex(*a.shape[1:]):
            result[place] += max(a[k][place] * g[k][place], 0.0)
    return result


def layer_cam(a: Array, g: Array) -> Array:
    """Jiang 2021, eq. 5-6."""
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for place in np.ndindex(*a.shape[1:]):
            result[place] += max(g[k][place], 0.0) * a[k][place]
    return result


def cam(a: Array, class_weights: Array) -> Array:
    """Zhou 2016, eq. 2."""
    return sum(class_weights[k] * a[k] for k in range(len(a)))


def finer_score(index: int, strength: float, references: int) -> Callable[[Tensor], Tensor]:
    """Zhang 2025: the class's score minus strength times the mean score of the classes that score nearest to it."""

    def score(output: Tensor) -> Tensor:
        values = output.detach().tolist()
        others = sorted((i for i in range(len(values)) if i != index), key=lambda i: abs(values[i] - values[index]))
        chosen = others[:references]
        return output[index] - strength * sum(output[i] for i in chosen) / len(chosen)

    return score


SINGLE_PASS: dict[str, Callable[[Array, Array], Array]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "xgrad-cam": xgrad_cam,
    "hires-cam": hires_cam,
    "grad-cam-elementwise": grad_cam_elementwise,
    "layer-cam": layer_cam,
}
