"""The input without the highest part of a map, or with that alone: what most measures of faithfulness ask about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.maps.held import Held
from seewhy.measures.trial import Examined
from seewhy.recorder import Variants


@dataclass(frozen=True)
class Cut:
    """For each map and each part, the input with that part of the places removed, or with it alone.

    Result `map * len(parts) + n` is that of part n. A part of nothing or of all is the same for every map, and run once.

    Attributes:
        parts: which parts of all places, 0..1, the highest first.
        keeps: whether the part is what is left, rather than what is removed.
        fill: what is put at the other places.
    """

    parts: tuple[float, ...]
    keeps: bool
    fill: Held

    def __call__(self, sample: Examined) -> Variants:
        """Return the variants of one sample."""
        image, nothing = sample.image, sample.nothing(self.fill.value)
        ranks = sample.ranks.to(image.device)
        places, number = ranks[0].numel(), len(ranks)
        counts = torch.tensor([round(part * places) for part in self.parts])
        inner = ((counts > 0) & (counts < places)).nonzero().flatten()
        ends = [(places if self.keeps else 0), (0 if self.keeps else places)]  # the whole input, and nothing of it
        runs: list[tuple[int, int]] = [(0, end) for end in ends if end in counts.tolist()]
        runs += [(row, int(counts[n])) for row in range(number) for n in inner]
        place = {run: index for index, run in enumerate(runs)}
        index = [
            place.get((row, count), place.get((0, count), 0)) for row in range(number) for count in counts.tolist()
        ]

        def make(numbers: range) -> Tensor:
            chosen = [runs[each] for each in numbers]
            rows = torch.tensor([row for row, _ in chosen], device=image.device)
            most = torch.tensor([count for _, count in chosen], device=image.device)
            high = ranks[rows] < most.view(-1, *(1,) * (ranks.ndim - 1))
            return torch.where((high if self.keeps else ~high)[:, None], image, nothing)

        return Variants(len(runs), make, torch.tensor(index))
