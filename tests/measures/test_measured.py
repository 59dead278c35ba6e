"""What is said of values that are not there for every image."""

from __future__ import annotations

import numpy as np

from seewhy.measured import Measured


def test_a_map_is_compared_with_random_ones_over_the_same_images() -> None:
    """Better on each image where both have a value, and worse by means over different ones; and the other way round."""
    values, random = np.array([0.9, 0.2, np.nan]), np.array([np.nan, 0.1, 0.8])
    for better, beats in (("higher", True), ("lower", False)):
        row = Measured("m", "map", better, values, random, random)
        assert row.beats_random is beats
    empty = Measured("m", "map", "higher", np.array([1.0, np.nan]), np.array([np.nan, 0.0]), random)
    assert not empty.beats_random  # nothing in common
