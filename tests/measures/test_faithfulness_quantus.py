"""Pixel flipping, region perturbation and IROF as Quantus 0.6.0 has them, where its code does what it says.

It is not needed to run these tests: what it gave is written down. Where it can be imported, the numbers are made again, by
`by_quantus`, and must be those. (`pip install --target DIR --no-deps quantus==0.6.0 opencv-python-headless pandas cachetools`,
and DIR on the path.) Inputs have one channel: of several, it flips single values, and its IROF refuses them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from skimage.segmentation import slic
from tests.measures.trials import tried
from torch import Tensor, nn

from seewhy.maps.held import Held
from seewhy.measures.curves import curve, pixel_flipping
from seewhy.measures.regions import WithoutRegions, aopc

RECORDED: dict[str, list[list[float]]] = {
    "pixel-flipping": [
        [0.681852, 0.851979, 0.641273, 0.677814, 0.566193, 0.560049, 0.463491, 0.508075],
        [1.182812, 0.959072, 0.673519, 0.56556, 0.451574, 0.626243, 0.554518, 0.508075],
    ],
    "region-perturbation": [
        [0.151006, 0.362755, 0.246857, 0.343512, 0.30586, 0.320456],
        [-0.078685, -0.045562, 0.068858, 0.078204, 0.232356, 0.306148],
    ],
    "irof": [
        [4.775326],
        [7.896702],
    ],
}

SIDE, IMAGES, STEPS, PATCH, REGIONS = 16, 2, 8, 4, 6
FILL = 0.25
DRAWN = np.random.RandomState(0)
X = DRAWN.rand(IMAGES, 1, SIDE, SIDE).astype(np.float32)
MAPS = DRAWN.randn(IMAGES, 1, SIDE, SIDE).astype(np.float32)
WEIGHTS = DRAWN.randn(2, SIDE * SIDE).astype(np.float32) / SIDE


class Curved(nn.Module):
    """Two classes' scores, neither linear nor even."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(WEIGHTS))

    def forward(self, images: Tensor) -> Tensor:
        sums = images.flatten(1) @ self.weights.T
        return torch.tanh(sums) + 0.3 * sums**2


def by_quantus() -> dict[str, list[list[float]]]:
    """Return what Quantus gives, one list an image."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(np, "trapz", np.trapezoid, raising=False)  # it calls what NumPy 2.4 no longer has
        import quantus

        how: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
        how |= {"return_aggregate": False, "perturb_baseline": FILL}

        def asked(metric: Any, *, softmax: bool) -> list[list[float]]:
            given = {"x_batch": X, "y_batch": np.zeros(IMAGES, int), "a_batch": MAPS.copy(), "batch_size": 1}
            found = metric(model=Curved().eval(), device="cpu", softmax=softmax, **given)
            return [np.atleast_1d(each).astype(float).tolist() for each in found]

        flipping = quantus.PixelFlipping(features_in_step=SIDE * SIDE // STEPS, **how)
        regions = quantus.RegionPerturbation(patch_size=PATCH, regions_evaluation=REGIONS, **how)
        return {
            "pixel-flipping": asked(flipping, softmax=False),
            "region-perturbation": asked(regions, softmax=False),
            "irof": asked(quantus.IROF(**how), softmax=True),
        }


def _tried(row: int = 0, *, alone: bool = False) -> Any:
    rows = slice(row, row + 1) if alone else slice(None)
    return tried(Curved(), torch.from_numpy(X[rows]), torch.from_numpy(MAPS[rows]))


def test_pixel_flipping_is_the_mean_of_quantus_curve() -> None:
    expected = torch.tensor(RECORDED["pixel-flipping"])
    parts = tuple(step / STEPS for step in range(1, STEPS + 1))
    found = curve(_tried(), parts, keeps=False, fill=FILL, of="score")[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(pixel_flipping(_tried(), steps=STEPS, fill=FILL)[:, 0], expected.mean(1))


def test_aopc_is_made_of_quantus_falls() -> None:
    expected = torch.tensor(RECORDED["region-perturbation"])
    found = aopc(_tried(), side=PATCH, steps=REGIONS, fill=FILL)[:, 0]
    torch.testing.assert_close(found, expected.sum(1) / (REGIONS + 1), atol=1e-5, rtol=0)


def test_the_curve_of_irof_is_that_of_quantus() -> None:
    for row, [expected] in enumerate(RECORDED["irof"]):
        labels = torch.from_numpy(slic(np.moveaxis(X[row], 0, -1).astype("double"), start_label=0))
        trial = _tried(row, alone=True)
        curve = trial.score(WithoutRegions(Held([labels]), None, Held(FILL)))[0] / trial.whole()
        assert len(curve) - float(torch.trapezoid(curve)) == pytest.approx(expected, abs=1e-4)


def test_the_recorded_numbers_are_those_of_quantus() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("quantus")
    found = by_quantus()
    assert found.keys() == RECORDED.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, RECORDED[name], atol=1e-5, err_msg=name)


if __name__ == "__main__":
    print(by_quantus())  # noqa: T201 - how the numbers above were made
