"""Random draws that belong to an image: alone or in a batch it gets the same, and other images get others."""

from __future__ import annotations

import zlib

import torch
from jaxtyping import Float
from torch import Tensor


def drawn_for(image: Float[Tensor, " channel *space"], seed: int, purpose: str = "") -> torch.Generator:
    """Return a new generator, which depends on the image's values, the seed and what the draws are for, and on nothing else."""
    own = zlib.crc32(image.detach().cpu().float().numpy().tobytes(), zlib.crc32(purpose.encode()))
    return torch.Generator().manual_seed((seed * 1_000_003 + own) % 2**63)
