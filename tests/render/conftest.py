"""Explanations written down by hand, so that every pixel is known."""

from collections.abc import Callable

import numpy as np
import pytest

from seewhy.explanation import Explanation, Prediction
from seewhy.images import Geometry
from seewhy.recorder import Cost, Layout

Make = Callable[..., Explanation]


@pytest.fixture
def make() -> Make:
    """Return a function from a raw map (and any other fields) to an explanation of a grey picture."""

    def explanation(raw: object = ((1, 0), (0, 0)), size: tuple[int, int] | None = None, **more: object) -> Explanation:
        raw = np.asarray(raw, np.float32)
        geometry = Geometry.identity(size or raw.shape)
        facts = {
            "raw": raw,
            "geometry": geometry,
            "image": np.full((*geometry.original_shape, 3), 100, np.uint8),
            "name": "cat.jpg",
            "target": "tabby",
            "target_index": 1,
            "score": 3.0,
            "prediction": (Prediction(1, "tabby", 3.0, 0.7), Prediction(0, "tench", 2.0, 0.2)),
            "method": "grad-cam",
            "options": {},
            "layers": ("body",),
            "layouts": (Layout("channels-first", (2, 2), 3),),
            "view": "positive",
            "cost": Cost(1, 1, 0.1),
            "model": "net",
        }
        return Explanation(**(facts | more))

    return explanation
