"""Correlations and structural similarity: scipy's and skimage's, and what is the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity

import seewhy
from seewhy.measures.agreement import alike, pearson, spearman


def test_correlations_of_rows_are_scipys(generator: torch.Generator) -> None:
    a, b = torch.randn((2, 3, 30), generator=generator), torch.randn((2, 3, 30), generator=generator).round()
    for found, expected in ((pearson(a, b), stats.pearsonr), (spearman(a, b), stats.spearmanr)):
        rows = [
            [expected(x, y).statistic for x, y in zip(*own, strict=True)]
            for own in zip(a.numpy(), b.numpy(), strict=True)
        ]
        torch.testing.assert_close(found, torch.tensor(rows, dtype=torch.float32))


@pytest.mark.parametrize("way", [pearson, spearman])
def test_a_constant_row_has_no_correlation(way: object, generator: torch.Generator) -> None:
    flat, other = torch.full((1, 9), 0.1), torch.randn((1, 9), generator=generator)
    assert way(flat, other).isnan().all()
    assert way(other, flat).isnan().all()


def test_small_differences_of_large_numbers_are_no_rounding() -> None:
    row = 1000 + torch.arange(9.0) / 100
    assert pearson(row[None], torch.arange(9.0)[None]).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["spearman", "pearson", "ssim"])
def test_maps_are_as_alike_as_can_be_to_themselves_at_any_scale(kind: str, generator: torch.Generator) -> None:
    maps = torch.randn((2, 2, 9, 12), generator=generator)
    torch.testing.assert_close(alike(kind, maps, 3 * maps), torch.ones(2, 2))
    assert (alike(kind, maps, -maps) < 0).all()


def test_structural_similarity_is_skimages(generator: torch.Generator) -> None:
    a, b = (torch.randn((2, 2, 5, 12), generator=generator) for _ in range(2))
    expected = [
        [
            structural_similarity(
                (x / np.abs(x).max() + 1) / 2, (y / np.abs(y).max() + 1) / 2, data_range=1, win_size=5
            )
            for x, y in zip(*own, strict=True)
        ]
        for own in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    torch.testing.assert_close(alike("ssim", a, b), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["spearman", "pearson", "ssim"])
def test_a_map_that_became_flat_is_not_alike_and_a_flat_one_has_no_value(kind: str, generator: torch.Generator) -> None:
    maps, flat = torch.randn((1, 1, 8, 8), generator=generator), torch.full((1, 1, 8, 8), 0.3)
    assert alike(kind, maps, flat).item() == 0
    assert alike(kind, flat, maps).isnan().all()


def test_what_cannot_be_compared_is_told(unchecked: None) -> None:
    with pytest.raises(
        seewhy.MetricError, match=r"similarity='ssmi' is not known\. Known: spearman, pearson, ssim\. Nearest: 'ssim'"
    ):
        alike("ssmi", torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
    with pytest.raises(
        seewhy.MetricError, match=r"windows of 3 places and more along each axis, and the maps are \(2, 8\)"
    ):
        alike("ssim", torch.ones(1, 1, 2, 8), torch.ones(1, 1, 2, 8))
