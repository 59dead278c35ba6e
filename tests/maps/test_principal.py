"""First components equal full decompositions in float64, and stay sane where there is no component."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import KernelPCA
from torch import Tensor

from seewhy.maps import principal
from seewhy.maps.principal import KERNELS, first_component, first_kernel_component, landmarks, signed_like

DRAW = torch.Generator()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers whose channels have very different sizes, so that the spectrum falls."""
    values = torch.randn(shape, generator=DRAW.manual_seed(seed))
    sizes = torch.arange(1, shape[1] + 1, dtype=torch.float32) ** -0.7
    return values * sizes.view(1, -1, *(1,) * (len(shape) - 2))


def rows_of(values: Tensor) -> np.ndarray:
    """One sample's cells as rows, centred."""
    rows = values.double().flatten(1).T.numpy()
    return rows - rows.mean(0)


def by_svd(values: Tensor) -> np.ndarray:
    """One sample's component by the full decomposition."""
    rows = rows_of(values)
    direction = np.linalg.svd(rows, full_matrices=False)[2][0]
    return (rows @ direction).reshape(values.shape[1:])


def by_full_kernel(values: Tensor, kernel: str, gamma: float) -> np.ndarray:
    """One sample's kernel component by all eigenvectors of the centred kernel matrix, made entry by entry."""
    functions = {
        "sigmoid": lambda x, y: math.tanh(gamma * (x @ y) + 1),
        "rbf": lambda x, y: math.exp(-gamma * ((x - y) @ (x - y))),
        "poly": lambda x, y: (gamma * (x @ y) + 1) ** 3,
        "linear": lambda x, y: x @ y,
        "cosine": lambda x, y: x @ y / np.sqrt((x @ x) * (y @ y)),
    }
    rows = rows_of(values)
    matrix = np.array([[functions[kernel](x, y) for y in rows] for x in rows])
    mean = np.eye(len(rows)) - 1 / len(rows)
    eigenvalues, eigenvectors = np.linalg.eigh(mean @ matrix @ mean)
    return (eigenvectors[:, -1] * np.sqrt(eigenvalues[-1])).reshape(values.shape[1:])


def assert_equal_but_for_sign(found: Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    sign = np.sign((found.numpy() * expected).sum())
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found.numpy() * sign / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((2, 40, 7, 7), id="fewer channels than cells"),
        pytest.param((2, 300, 5, 7), id="fewer cells than channels"),
        pytest.param((1, 530, 23, 24), id="many of both: iterated"),
        pytest.param((2, 6, 50), id="one axis"),
        pytest.param((2, 6, 3, 4, 5), id="three axes"),
    ],
)
def test_the_first_component_equals_the_full_decomposition(shape: tuple[int, ...]) -> None:
    values = drawn(*shape)
    found = first_component(values)
    assert found.shape == (shape[0], *shape[2:])
    assert found.dtype == torch.float32
    for sample, component in zip(values, found, strict=True):
        assert_equal_but_for_sign(component, by_svd(sample))


def test_iteration_is_right_where_eigenvalues_are_close() -> None:
    """Of 600 eigenvalues the largest are 1, 0.98, 0.96, ...: plain power iteration would need hundreds of rounds."""
    basis = torch.linalg.qr(torch.randn(600, 600, generator=DRAW.manual_seed(1), dtype=torch.float64))[0]
    eigenvalues = torch.linspace(1, -11, 600, dtype=torch.float64)
    matrix = ((basis * eigenvalues) @ basis.T)[None]
    largest, vector = principal._top_eigenpair(matrix, lambda block: matrix @ block, lambda: matrix)
    assert float(largest[0]) == pytest.approx(1, abs=1e-9)
    assert abs(float(vector[0] @ basis[:, 0])) == pytest.approx(1, abs=1e-9)


def test_the_component_has_the_values_units() -> None:
    values = drawn(1, 8, 6, 6)
    once = first_component(values)
    for factor in (1e-20, 1e-3, 1e15):
        torch.testing.assert_close(first_component(values * factor) / factor, once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [None, *KERNELS])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(torch.full((2, 5, 4, 4), 0.1), id="constant"),
        pytest.param(torch.zeros(2, 5, 4, 4), id="zero"),
        pytest.param(drawn(2, 5, 1, 1), id="one cell"),
        pytest.param(torch.full((1, 5, 24, 24), 3.7), id="constant, many cells"),
        pytest.param(0.1 + 1e-8 * drawn(2, 5, 4, 4), id="constant but for rounding"),
    ],
)
def test_where_all_cells_are_alike_the_component_is_zero(kernel: str | None, values: Tensor) -> None:
    found = first_component(values) if kernel is None else first_kernel_component(values, KERNELS[kernel], 0.2)
    assert found.shape == (len(values), *values.shape[2:])
    assert not found.any()


def test_of_one_channel_the_component_is_the_channel() -> None:
    values = drawn(2, 1, 5, 6)
    for found, sample in zip(first_component(values), values, strict=True):
        assert_equal_but_for_sign(found, (sample[0] - sample[0].mean()).numpy(), 1e-6)


def test_a_sample_that_is_not_finite_is_nan_and_spoils_no_other() -> None:
    values = drawn(3, 5, 4, 4)
    expected = [component(values) for component in (first_component, kernel_component)]
    values[1, 2, 3, 3] = torch.inf
    for component, before in zip((first_component, kernel_component), expected, strict=True):
        found = component(values)
        assert found[1].isnan().all()
        torch.testing.assert_close(found[[0, 2]], before[[0, 2]])


def kernel_component(values: Tensor) -> Tensor:
    return first_kernel_component(values, KERNELS["sigmoid"], 0.2)


@pytest.mark.parametrize("shape", [(3, 20, 5, 5), (3, 560, 23, 23)])
def test_a_batch_equals_one_by_one(shape: tuple[int, ...]) -> None:
    values = drawn(*shape)
    together = first_component(values)
    for number in range(3):
        assert_equal_but_for_sign(first_component(values[number : number + 1])[0], together[number].numpy(), 1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_the_kernel_component_equals_the_full_decomposition(kernel: str, size: float) -> None:
    values = drawn(2, 6, 5, 7) * size
    found = first_kernel_component(values, KERNELS[kernel], 0.4)
    for sample, component in zip(values, found, strict=True):
        assert_equal_but_for_sign(component, by_full_kernel(sample, kernel, 0.4))


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf"])
def test_the_kernel_component_of_many_cells_equals_scikit_learn(kernel: str) -> None:
    """More cells than are decomposed densely; the sigmoid kernel's matrix is indefinite."""
    values = drawn(1, 12, 23, 24)
    found = first_kernel_component(values, KERNELS[kernel], 0.3)[0]
    peer = KernelPCA(1, kernel=kernel, gamma=0.3, eigen_solver="dense").fit_transform(rows_of(values[0]))
    assert_equal_but_for_sign(found, peer.reshape(23, 24))


def test_with_the_linear_kernel_it_is_the_first_component() -> None:
    values = drawn(2, 10, 6, 6)
    for one, other in zip(first_kernel_component(values, KERNELS["linear"], 1.0), first_component(values), strict=True):
        assert_equal_but_for_sign(one, other.numpy())


def smooth(*grid: int) -> Tensor:
    """Channels that are waves over the grid, as a layer's are: neighbouring cells are alike."""
    axes = torch.meshgrid(*(torch.linspace(0, 1, size) for size in grid), indexing="ij")
    phase = torch.rand(12, 1 + len(grid), generator=DRAW.manual_seed(3)) * 6
    waves = [sum(p[1 + i] * axis for i, axis in enumerate(axes)) + p[0] for p in phase]
    return torch.stack([wave.sin() / (1 + number) for number, wave in enumerate(waves)])[None]


@pytest.mark.parametrize("kernel", KERNELS)
def test_landmarks_stand_for_many_cells(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = smooth(20, 30)
    exact = first_kernel_component(values, KERNELS[kernel], 0.5).flatten()
    monkeypatch.setattr(principal, "MOST_CELLS", 100)
    monkeypatch.setattr(principal, "LANDMARKS", 80)
    found = first_kernel_component(values, KERNELS[kernel], 0.5).flatten()
    assert abs(float(torch.corrcoef(torch.stack([exact, found]))[0, 1])) > 0.998
    monkeypatch.setattr(principal, "LANDMARKS", 600)  # all of them
    assert_equal_but_for_sign(first_kernel_component(values, KERNELS[kernel], 0.5).flatten(), exact.numpy())


@pytest.mark.parametrize("grid", [(5000,), (100, 100), (3, 2000), (1, 9000), (20, 20, 20), (4, 4, 5000)])
def test_landmarks_are_distinct_cells_spread_over_every_axis(grid: tuple[int, ...]) -> None:
    chosen = landmarks(grid)
    assert principal.LANDMARKS / 4 <= len(chosen) <= principal.LANDMARKS
    assert len(chosen.unique()) == len(chosen)
    for axis, places in enumerate(np.unravel_index(chosen.numpy(), grid)):
        gaps = np.diff(np.unique(places), prepend=-1, append=grid[axis])
        assert gaps.max() <= 2 * max(1, grid[axis] / len(np.unique(places)))


def test_few_cells_are_all_landmarks() -> None:
    assert landmarks((64, 64)).tolist() == list(range(4096))


def test_large_kernel_matrices_are_made_for_fewer_samples_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(3, 6, 4, 5)
    whole = kernel_component(values)
    seen: list[int] = []

    def watched(one: Tensor, other: Tensor, gamma: float) -> Tensor:
        seen.append(len(one))
        return KERNELS["sigmoid"](one, other, gamma)

    monkeypatch.setattr(principal, "KERNEL_ENTRIES", 2 * 20**2)
    found = first_kernel_component(values, watched, 0.2)
    assert max(seen) == 2
    for one, other in zip(found, whole, strict=True):
        assert_equal_but_for_sign(one, other.numpy())


def test_the_sign_is_the_references_sample_by_sample() -> None:
    component = drawn(4, 3, 5)
    reference = component * torch.tensor([2.0, -1.0, 0.0, -3.0]).view(4, 1, 1) + 7
    expected = component * torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1)
    centred = component - component.mean((1, 2), keepdim=True)
    assert torch.equal(signed_like(component, reference), expected)
    assert torch.equal(signed_like(centred, torch.full_like(centred, 0.1)), centred)
    assert torch.equal(signed_like(centred, torch.full_like(centred, torch.nan)), centred)
