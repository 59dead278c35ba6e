"""What the tests of metrics draw from."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded."""
    return torch.Generator().manual_seed(0)
