"""The score when a channel of a layer is taken away: Ablation-CAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording, Variants

Parts = Float[Tensor, "batch channel *grid"]


@dataclass(frozen=True)
class WithoutChannel:
    """The layer's activations with one channel at a time set to zero, the strongest first; channels that are zero stay out.

    Attributes:
        top: only so many of the strongest; 0: all.
    """

    top: int

    def order(self, activations: Float[Tensor, " channel *grid"]) -> Tensor:
        """Return the channels that are taken away, the strongest first."""
        energy = (activations.flatten(1) ** 2).sum(1)
        order = energy.argsort(descending=True, stable=True)
        order = order[energy[order] > 0]
        return order[: self.top] if self.top else order

    def __call__(self, sample: Recording) -> Variants:
        """Return the edited activations; result k is channel k's, the last one is that of the activations as they are."""
        activations = sample.activations[0]
        order = self.order(activations)

        def make(numbers: range) -> Tensor:
            edited = activations.expand(len(numbers), *activations.shape).clone()
            # Number 0 is the activations as they are, to which all are compared.
            first = int(numbers.start == 0)
            chosen = order[max(0, numbers.start - 1) : numbers.stop - 1]
            edited[torch.arange(first, len(numbers), device=edited.device), chosen] = 0
            return edited

        place = torch.zeros(len(activations) + 1, dtype=torch.long)
        place[order.cpu()] = torch.arange(1, len(order) + 1)
        return Variants(len(order) + 1, make, place)


@method(
    "ablation-cam",
    needs=Needs.REPLAY,
    class_specific=True,
    signed=True,
    source="Desai & Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360",
    passes="1 + 0; the model's tail for each channel that is not zero",
)
def ablation_cam(rec: Recording, *, top: int = 0, slope: bool = False) -> Parts:
    """Weight each channel by how much of the score is lost without it; no gradient is used.

    Formula: sum over k of ((score - score without A_k) / |score|) A_k.
    Options: top, take away only so many of the strongest channels (0: all), the others get weight 0; slope, divide the loss by
        the channel's sum of absolute values instead of the score, the paper's first form: on a linear head this is CAM.
    Elsewhere: the paper and pytorch-grad-cam divide by the score itself, so that their maps of a negative score show what
        speaks against it. pytorch-grad-cam replaces channels that have negative values by a very large negative one, not by
        zero; in transformers it takes the channel from the class token too, here only from the places that the map shows.
    """
    if top < 0:
        raise MethodError(f"top={top} must be a number of channels, or 0 for all.")
    scores = rec.replay(WithoutChannel(top))
    whole = scores.values[:, -1:]
    lost = torch.where(scores.known[:, :-1], whole - scores.values[:, :-1], 0.0)
    size = rec.activations.flatten(2).abs().sum(2) if slope else whole.abs()
    weights = torch.where(size > 0, lost / size.clamp_min(torch.finfo(torch.float32).tiny), lost)
    return rec.activations * weights.view(*weights.shape, *(1,) * (rec.activations.ndim - 2))
