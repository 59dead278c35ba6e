"""Several layers' maps as one."""

import numpy as np
import pytest

from seewhy.errors import LayerError
from seewhy.fusion import fused

FINE = np.array([[[0, 4], [2, -4]]], np.float32)
COARSE = np.array([[[100]]], np.float32)


@pytest.mark.parametrize(("how", "expected"), [("mean", [[0.5, 1], [0.75, 0]]), ("max", [[1, 1], [1, 1]])])
def test_layers_of_different_size_and_magnitude_count_the_same(how: str, expected: list[list[float]]) -> None:
    # Divided by their peaks the maps are (0 1 / .5 -1) and 1 everywhere.
    np.testing.assert_allclose(fused([COARSE, FINE], how), [expected])


def test_each_sample_is_scaled_by_its_own_peak_and_a_blank_map_stays_blank() -> None:
    batch = np.stack([FINE[0], FINE[0] * 1000, np.zeros((2, 2), np.float32)])
    found = fused([batch, batch], "mean")
    np.testing.assert_allclose(found[0], [[0, 1], [0.5, -1]])
    np.testing.assert_allclose(found[1], found[0])
    assert not found[2].any()


def test_a_coarse_map_is_interpolated_between_the_centres_of_its_cells() -> None:
    ramp = np.array([[[0, 1]]], np.float32)
    # Four columns over two cells: centres at 1/4, 3/4, 5/4, 7/4 of a cell's width; beyond the outer centres it is level.
    np.testing.assert_allclose(fused([ramp, np.zeros((1, 1, 4), np.float32)], "mean"), [[[0, 0.125, 0.375, 0.5]]])


def test_an_unknown_way_to_fuse_is_told_the_known_ones() -> None:
    with pytest.raises(LayerError, match="mean, max, product, none"):
        fused([FINE, FINE], "median")
