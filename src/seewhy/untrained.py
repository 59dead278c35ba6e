"""A copy of a model whose last layers have learnt nothing; the model itself is not touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import MetricError
from seewhy.explainer import Explainer
from seewhy.frameworks import Shell
from seewhy.recorder.borrow import unwrap

NOISE = 4
"""Images of noise from which batch norms measure their statistics."""


def untrained(ask: Explainer, images: Float[Tensor, "batch channel *space"], part: float, seed: int) -> Explainer:
    """Return a model whose last layers were drawn anew, in the order in which they run.

    Each parameter is normal, with its own mean and deviation. Batch norms from there on measure their statistics anew, on noise
    as wide as the images: with those that they had, each layer lets more through than the last (in EfficientNet-Lite0 logits
    become six times as wide), and drawn as layers are before they learn, 50 layers let nothing through at all.

    Args:
        ask: the model.
        images: as the model takes them; the first tells in which order the layers run.
        part: how many, as a part of all layers with parameters of their own, in 0..1; at least one.
        seed: for the draws.

    Raises:
        MetricError: the model is of another framework, cannot be copied, or has no weights.
    """
    root = unwrap(ask.model.module)
    if isinstance(root, Shell):
        raise MetricError(
            "The metric draws weights anew in a copy of the model, which is possible for torch modules alone."
        )
    other = ask.on_module(_copied(root))
    ordered = _in_order(other, images[0])
    weighted = [part for part in ordered if any(True for _ in part.parameters(recurse=False))]
    if not weighted:
        raise MetricError("The metric draws weights anew, and this model has none.")
    drawn = weighted[len(weighted) - max(1, round(part * len(weighted))) :]
    generator = torch.Generator().manual_seed(seed)
    for layer in drawn:
        _draw(layer, generator)
    _measure(other, [part for part in ordered[ordered.index(drawn[0]) :] if _has_statistics(part)], images, generator)
    return other


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MetricError(
            f"The metric draws weights anew in a copy of the model, and copy.deepcopy cannot make one: '{reason}'. Keep what "
            "cannot be copied out of the module, or leave the metric out."
        ) from error


def _in_order(ask: Explainer, image: Float[Tensor, " channel *space"]) -> list[nn.Module]:
    """Return a model's modules as they begin to run; those that are not called stand with the part that they lie in."""
    parts = dict(unwrap(ask.model.module).named_modules())
    began: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            began.setdefault(name, len(began))

        return hook

    _run(ask, [image], {parts[name]: note(name) for name in parts})

    def place(name: str) -> int:
        while name and name not in began:
            name = name.rpartition(".")[0]
        return began.get(name, -1)

    return [parts[name] for name in sorted(parts, key=place)]  # stable: at one place in the order of registration


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw a layer's parameters anew: normal, of their own mean and deviation."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            if parameter.is_floating_point() and parameter.numel() > 1:
                spread, mean = torch.std_mean(parameter.float())
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.copy_(mean + spread * noise)


def _has_statistics(part: nn.Module) -> bool:
    return all(isinstance(getattr(part, name, None), Tensor) for name in ("running_mean", "running_var"))


def _measure(ask: Explainer, norms: Sequence[nn.Module], images: Tensor, generator: torch.Generator) -> None:
    """Give batch norms the statistics of what reaches them when noise goes in, one after the other in one run."""
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def put(norm: Any, mean: Tensor, variance: Tensor) -> None:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    def measure(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        if norm not in found:
            channels = given[0].detach().float().transpose(0, 1).flatten(1)
            found[norm] = channels.mean(1), channels.var(1, unbiased=False)
            put(norm, *found[norm])

    if not norms:
        return
    apart = images.float().transpose(0, 1).flatten(1)
    ends = [each.view(-1, *(1,) * (images.ndim - 2)) for each in (apart.mean(1), apart.std(1))]
    noise = torch.randn((NOISE, *images.shape[1:]), generator=generator).to(ends[0])
    _run(ask, list((ends[0] + ends[1] * noise).to(images)), dict.fromkeys(norms, measure))
    with torch.no_grad():
        for norm, statistics in found.items():  # the run gave all buffers back as they were
            put(norm, *statistics)


def _run(ask: Explainer, images: list[Tensor], listeners: Mapping[nn.Module, Callable[..., None]]) -> None:
    """Run a model that is ours, with hooks before some of its modules."""
    handles = [part.register_forward_pre_hook(hook) for part, hook in listeners.items()]
    try:
        ask.recorded(images)
    finally:
        for handle in handles:
            handle.remove()
