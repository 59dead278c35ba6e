"""Derivatives of a single image through batch normalisation, whatever the order of the gradient in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy


class Tokens(nn.Module):
    """A convolution with batch normalisation that gives tokens behind a class token, as the stem of many transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.Linear(6, 6)
        self.classes = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.conv(images)).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], 1)
        return self.classes(torch.tanh(self.mix(tokens)).mean(1))


@pytest.fixture
def model() -> Tokens:
    torch.manual_seed(0)
    model = Tokens().double()
    model.norm.running_var.uniform_(0.2, 3)
    model.norm.weight.data.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("layer", [None, "conv"])
def test_a_single_image_has_the_derivatives_it_has_in_a_batch(model: Tokens, layer: str | None) -> None:
    images = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    method = "saliency" if layer is None else "hires-cam"
    together = seewhy.explain(model, images, 1, method, layer)
    for image, expected in zip(images, together, strict=True):
        found = seewhy.explain(model, image, 1, method, layer)
        np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6 * np.abs(expected.raw).max())


def test_they_are_those_of_finite_differences(model: Tokens) -> None:
    image = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    along = torch.randn(image.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (model((image + step * along)[None])[0, 2] for step in (1e-5, -1e-5))
    found = seewhy.explain(model, image, 2, "saliency").colours
    assert float((torch.from_numpy(found) * along).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-4)
