"""The score of the input seen through masks: what a layer's channels show (Score-CAM and its relatives)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.maps.backprop import resized
from seewhy.maps.held import Held
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Recording, Variants

Parts = Float[Tensor, "batch channel *grid"]


@dataclass(frozen=True)
class ChannelMasks:
    """The input seen through each channel of the layer, resized to the input and stretched to 0..1.

    The strongest channels come first, so that a budget keeps them. A channel that is the same everywhere shows nothing:
    all of those share one variant, the baseline.

    Attributes:
        baseline: what is seen where a mask is 0.
        samples: variants of each mask.
        noise: standard deviation of normal noise added to each variant of a mask (SS-CAM).
        brightened: whether the variants of a mask are it times 1/samples, 2/samples, ..., 1 (IS-CAM).
    """

    baseline: Held
    samples: int = 1
    noise: float = 0.0
    brightened: bool = False

    def __call__(self, sample: Recording) -> Variants:
        """Return the masked inputs; result `channel * samples + n` is variant n of a channel's mask."""
        activations, image = sample.activations[0], sample.images[0]
        flat = activations.flatten(1)
        alive = (flat.amax(1) > flat.amin(1)).cpu()
        order = (flat**2).sum(1).cpu().argsort(descending=True)
        order = order[alive[order]]
        nothing = sample.baseline(self.baseline.value)[0]
        seeds = torch.randint(2**31, (len(flat) * self.samples,), generator=sample.generator)
        dead = int(len(order) < len(flat))

        def make(numbers: range) -> Tensor:
            begin = [nothing[None]] if numbers.start < dead else []
            chosen = torch.tensor([number - dead for number in numbers if number >= dead], dtype=torch.long)
            if not len(chosen):
                return begin[0]
            channels = order[chosen // self.samples]
            masks = self._varied(_masks(activations[channels], image), channels, chosen % self.samples, seeds)
            return torch.cat([*begin, nothing + masks * (image - nothing)])

        place = torch.zeros(len(flat), dtype=torch.long)
        place[order] = torch.arange(len(order)) * self.samples + dead
        inner = torch.arange(self.samples) * alive[:, None]
        return Variants(dead + len(order) * self.samples, make, (place[:, None] + inner).flatten())

    def _varied(self, masks: Tensor, channels: Tensor, which: Tensor, seeds: Tensor) -> Tensor:
        if self.brightened:
            return masks * ((which + 1) / self.samples).to(masks).view(-1, *(1,) * (masks.ndim - 1))
        if not self.noise:
            return masks
        drawn = [
            seeds[channel * self.samples + n] for channel, n in zip(channels.tolist(), which.tolist(), strict=True)
        ]
        noise = [torch.randn(masks.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in drawn]
        return masks + self.noise * torch.stack(noise).to(masks)


def _masks(channels: Float[Tensor, " number *grid"], image: Tensor) -> Float[Tensor, "number 1 *space"]:
    """Return channels resized to the input, each stretched to 0..1."""
    large = resized(channels[:, None], image.shape[1:])
    rest = tuple(range(1, large.ndim))
    low, high = large.amin(rest, keepdim=True), large.amax(rest, keepdim=True)
    return (large - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)


def _weighted(rec: Recording, masks: ChannelMasks) -> Parts:
    """Return activations weighted by the softmax, over channels, of the mean score through each channel's masks."""
    if masks.samples < 1 or masks.noise < 0:
        raise MethodError(f"samples={masks.samples} must be at least 1, and noise={masks.noise} not negative.")
    scores = rec.score(masks)
    values, known = (each.view(len(each), -1, masks.samples) for each in (scores.values, scores.known))
    count = known.sum(2)
    means = (values * known).sum(2) / count.clamp_min(1)
    weights = means.masked_fill(count == 0, -torch.inf).softmax(1)
    flat = rec.activations.flatten(2)
    rec.report("channels that show something", (flat.amax(2) > flat.amin(2)).sum(1))
    return rec.activations * weights.view(*weights.shape, *(1,) * (rec.activations.ndim - 2))


@method(
    "score-cam",
    needs=Needs.ACTIVATIONS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Wang et al. 2019, arXiv:1910.01279",
    passes="1 + 0; a forward for each channel that is not the same everywhere",
)
def score_cam(rec: Recording, *, baseline: Any = "dataset") -> Parts:
    """Weight each channel by the score of the input seen through it; no gradient is used.

    Formula: sum over k of softmax_k(score(x * s(up(A_k)))) A_k, with s stretching to 0..1.
    Options: baseline, what is seen where a mask is 0: "dataset" (the mean of the pictures that the model was trained on, 0 in its
        own units), black, white, mean (of this picture), blur, noise, a number, a picture.
    Elsewhere: torchcam stretches to 0..1 before it resizes; pytorch-grad-cam resizes the masks from corner to corner, so that
        they lie beside what it shows.
    """
    return _weighted(rec, ChannelMasks(Held(baseline)))


@method(
    "ss-cam",
    needs=Needs.ACTIVATIONS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Wang et al. 2020, arXiv:2006.14255",
    passes="1 + 0; {samples} forwards for each channel that is not the same everywhere",
)
def ss_cam(rec: Recording, *, samples: int = 8, noise: float = 0.3, baseline: Any = "dataset") -> Parts:
    """Score-CAM with each channel's score averaged over noisy copies of its mask.

    Formula: Score-CAM with mean over n of score(x * (s(up(A_k)) + N(0, noise^2))).
    Options: samples, noisy copies of each mask; noise, its standard deviation, for masks in 0..1; baseline as in score-cam.
    Elsewhere: torchcam takes 35 samples and noise 2.0, twice the masks' whole range.
    """
    return _weighted(rec, ChannelMasks(Held(baseline), samples, noise))


@method(
    "is-cam",
    needs=Needs.ACTIVATIONS | Needs.SCORE,
    class_specific=True,
    signed=True,
    source="Naidu et al. 2020, arXiv:2010.03023",
    passes="1 + 0; {samples} forwards for each channel that is not the same everywhere",
)
def is_cam(rec: Recording, *, samples: int = 10, baseline: Any = "dataset") -> Parts:
    """Score-CAM with each channel's score averaged while its mask is brightened step by step.

    Formula: Score-CAM with mean over n = 1..N of score(x * (n / N) s(up(A_k))).
    Options: samples, the steps N; baseline as in score-cam.
    Elsewhere: torchcam adds the factors up, so that its masks grow to (N + 1) / 2.
    """
    return _weighted(rec, ChannelMasks(Held(baseline), samples, brightened=True))
