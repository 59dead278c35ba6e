"""Filling from around: closed forms, a dense system written out place by place, and pytorch-grad-cam's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from seewhy.measures.imputation import TOLERANCE, imputed


def _slowly(image: Tensor, removed: Tensor) -> Tensor:
    """Every removed place's equation, one after the other, solved densely in float64."""
    places = [tuple(place) for place in removed.nonzero().tolist()]
    number = {place: index for index, place in enumerate(places)}
    left, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(image)))
    for place, row in number.items():
        for step in itertools.product((-1, 0, 1), repeat=removed.ndim):
            other = tuple(here + by for here, by in zip(place, step, strict=True))
            if not any(step) or not all(0 <= at < side for at, side in zip(other, removed.shape, strict=True)):
                continue
            weight = 2.0 ** step.count(0)
            left[row, row] += weight
            if other in number:
                left[row, number[other]] -= weight
            else:
                right[row] += weight * image[(slice(None), *other)].double().numpy()
    found = image.double().clone()
    found[:, removed] = torch.from_numpy(np.linalg.solve(left, right)).T
    return found


def _apart(found: Tensor, expected: Tensor, image: Tensor) -> float:
    return float((found - expected).abs().max() / (image.max() - image.min()))


@pytest.mark.parametrize("space", [(40,), (3,), (13, 18), (16, 16), (30, 5), (7, 6, 5)])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_it_equals_a_dense_solution(space: tuple[int, ...], part: float, generator: torch.Generator) -> None:
    image = torch.randn((2, *space), generator=generator) + 3
    order = torch.rand(space, generator=generator).flatten().argsort()
    removed = torch.zeros(order.numel(), dtype=torch.bool)
    removed[order[: max(1, int(part * order.numel()))]] = True
    removed = removed.view(space)
    [found] = imputed(image, removed[None])
    assert _apart(found, _slowly(image, removed), image) < TOLERANCE
    assert torch.equal(found[:, ~removed], image[:, ~removed])


def test_a_gap_in_a_line_is_filled_with_a_straight_line() -> None:
    image = torch.zeros(1, 12)
    image[0, 0], image[0, 11] = 2.0, 13.0
    removed = torch.ones(12, dtype=torch.bool)
    removed[[0, 11]] = False
    torch.testing.assert_close(
        imputed(image, removed[None])[0, 0], torch.arange(2.0, 14.0), atol=11 * TOLERANCE, rtol=0
    )


def test_a_slope_is_filled_with_itself() -> None:
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(70.0), indexing="ij")
    image = (0.3 * rows - 0.2 * columns)[None]
    removed = torch.zeros(60, 70, dtype=torch.bool)
    removed[5:50, 3:66] = True  # nothing of the edge
    assert _apart(imputed(image, removed[None])[0], image, image) < TOLERANCE


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # it gives tensors to NumPy
def test_it_equals_pytorch_grad_cam(generator: torch.Generator) -> None:
    image = torch.randn((3, 24, 31), generator=generator)
    removed = torch.rand((24, 31), generator=generator) < 0.6
    expected = NoisyLinearImputer(noise=0)(image, (~removed).float())
    assert _apart(imputed(image, removed[None])[0], expected, image) < TOLERANCE


def test_large_holes_are_filled_as_exactly_as_small_ones(generator: torch.Generator) -> None:
    image = torch.randn((2, 224, 200), generator=generator).cumsum(1).cumsum(2) / 200
    removed = torch.ones(224, 200, dtype=torch.bool)
    removed[200:, 180:] = False  # most is far from all that is known
    expected = _sparsely(image, removed)
    assert _apart(imputed(image, removed[None])[0], expected, image) < TOLERANCE


def _sparsely(image: Tensor, removed: Tensor) -> Tensor:
    """The same system in float64 by a sparse factorisation."""
    number = torch.full(removed.shape, -1)
    number[removed] = torch.arange(int(removed.sum()))
    padded = torch.nn.functional.pad(number, (1, 1, 1, 1), value=-2)
    values = torch.nn.functional.pad(image.double(), (1, 1, 1, 1))
    count = int(removed.sum())
    diagonal, right = np.zeros(count), np.zeros((count, len(image)))
    rows, columns, weights = [np.arange(count)], [np.arange(count)], [diagonal]
    for down, along in itertools.product((-1, 0, 1), repeat=2):
        if not (down or along):
            continue
        weight = 2.0 if 0 in (down, along) else 1.0
        window = (slice(1 + down, 1 + down + removed.shape[0]), slice(1 + along, 1 + along + removed.shape[1]))
        other = padded[window][removed].numpy()
        diagonal += weight * (other != -2)
        right += weight * (other == -1)[:, None] * values[:, window[0], window[1]][:, removed].T.numpy()
        rows.append(np.flatnonzero(other >= 0))
        columns.append(other[other >= 0])
        weights.append(np.full((other >= 0).sum(), -weight))
    system = csc_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))))
    found = image.double().clone()
    found[:, removed] = torch.from_numpy(splu(system).solve(right)).T
    return found


def test_no_mask_depends_on_those_beside_it(generator: torch.Generator) -> None:
    image = torch.randn((3, 20, 20), generator=generator)
    masks = torch.rand((11, 20, 20), generator=generator) < torch.linspace(0.1, 0.9, 11)[:, None, None]
    together = imputed(image, masks)
    for mask, found in zip(masks, together, strict=True):
        torch.testing.assert_close(imputed(image, mask[None])[0], found, atol=2e-5, rtol=0)


def test_where_nothing_is_left_the_mean_is_everywhere(generator: torch.Generator) -> None:
    image = torch.randn((2, 10, 10), generator=generator)
    [found] = imputed(image, torch.ones(1, 10, 10, dtype=torch.bool))
    torch.testing.assert_close(found, image.mean((1, 2), keepdim=True).expand_as(image))


def test_an_image_of_one_colour_stays(generator: torch.Generator) -> None:
    image = torch.full((3, 9, 9), 0.7)
    removed = torch.rand((1, 9, 9), generator=generator) < 0.5
    torch.testing.assert_close(imputed(image, removed)[0], image)


def test_double_precision_stays(generator: torch.Generator) -> None:
    image = torch.randn((1, 9, 9), generator=generator, dtype=torch.float64)
    assert imputed(image, torch.rand((1, 9, 9), generator=generator) < 0.5).dtype == torch.float64
