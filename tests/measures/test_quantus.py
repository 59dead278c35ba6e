"""The same numbers as Quantus 0.6.0 gives, where its code does what it says.

It is not needed to run these tests: what it gave is written down. Where it can be imported, the numbers are made again, by
`by_quantus`, and must be those: `pip install --target DIR --no-deps quantus==0.6.0 opencv-python-headless pandas cachetools`,
and DIR on PYTHONPATH.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tests.measures.trials import Remade, tried
from torch import Tensor, nn

from seewhy.measures import correlations, find_metric, robustness
from seewhy.measures.agreement import pearson
from seewhy.measures.removal import Sets, cells_of

RECORDED: dict[str, list[float]] = {
    "faithfulness-correlation": [0.2076159, -0.1698972, -0.0549658],
    "max-sensitivity": [0.1972255, 0.0429952, 0.0818925],
    "sparseness": [0.3910697, 0.4274797, 0.4284357],
    "complexity": [3.9026589, 3.857615, 3.8513577],
    "pointing-game": [1.0, 0.0, 0.0],
    "relevance-mass-accuracy": [0.3305935, 0.29317, 0.3231137],
    "energy-pointing-game": [0.3154601, 0.3262654, 0.343505],
    "relevance-rank-accuracy": [0.25, 0.25, 0.35],
    "top-k-intersection": [0.2941176, 0.2352941, 0.2941176],
    "localisation-auc": [0.5102273, 0.5011364, 0.5375],
}

SIDE, IMAGES, RUNS, SUBSET, RADIUS = 8, 3, 40, 12, 0.1
DRAWN = np.random.RandomState(0)
X = DRAWN.rand(IMAGES, 1, SIDE, SIDE).astype(np.float32)
MAPS = DRAWN.rand(IMAGES, 1, SIDE, SIDE).astype(np.float32)
SIGNED = DRAWN.randn(IMAGES, 1, SIDE, SIDE).astype(np.float32)
WEIGHTS = DRAWN.randn(2, SIDE * SIDE).astype(np.float32) / SIDE
MASKS = np.zeros((IMAGES, 1, SIDE, SIDE), bool)
for _row, _place in enumerate(((1, 2), (0, 0), (3, 1))):
    MASKS[_row, 0, _place[0] : _place[0] + 4, _place[1] : _place[1] + 5] = True


class Curved(nn.Module):
    """Two classes' scores, neither linear nor even."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(WEIGHTS))

    def forward(self, images: Tensor) -> Tensor:
        sums = images.flatten(1) @ self.weights.T
        return torch.tanh(sums) + 0.3 * sums**2


def gradients(images: Tensor) -> Tensor:
    """Return the derivative of class 0's score, `(batch, channel, *space)`."""
    images = images.detach().requires_grad_()
    [found] = torch.autograd.grad(Curved()(images)[:, 0].sum(), images)
    return found


def by_quantus() -> dict[str, list[float]]:
    """Return what Quantus gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        def explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
            return gradients(torch.as_tensor(np.asarray(inputs), dtype=torch.float32)).numpy()

        how: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False}
        plain = {**how, "normalise": False, "abs": False, "return_aggregate": False}

        def asked(metric: Any, maps: np.ndarray, **more: Any) -> list[float]:
            np.random.seed(0)  # noqa: NPY002 - it is what Quantus draws from
            given = {"a_batch": maps.copy(), "s_batch": MASKS, "y_batch": np.zeros(IMAGES, int), "batch_size": IMAGES}
            return [float(each) for each in metric(model=Curved().eval(), x_batch=X, device="cpu", **{**given, **more})]

        correlation = quantus.FaithfulnessCorrelation(nr_runs=RUNS, subset_size=SUBSET, perturb_baseline=0.0, **plain)
        sensitivity = quantus.MaxSensitivity(nr_samples=RUNS, lower_bound=RADIUS, **plain)
        return {
            "faithfulness-correlation": asked(correlation, SIGNED, softmax=False),
            "max-sensitivity": asked(sensitivity, gradients(torch.from_numpy(X)).numpy(), explain_func=explain),
            "sparseness": asked(quantus.Sparseness(**how), SIGNED),
            "complexity": asked(quantus.Complexity(**how), SIGNED),
            "pointing-game": asked(quantus.PointingGame(**plain), SIGNED),
            "relevance-mass-accuracy": asked(quantus.RelevanceMassAccuracy(**{**plain, "abs": True}), SIGNED),
            "energy-pointing-game": asked(quantus.RelevanceMassAccuracy(**plain), MAPS),
            "relevance-rank-accuracy": asked(quantus.RelevanceRankAccuracy(**plain), SIGNED),
            "top-k-intersection": asked(quantus.TopKIntersection(k=17, **plain), SIGNED),
            "localisation-auc": asked(quantus.AUC(**plain), SIGNED),
        }


@dataclass(frozen=True)
class Chosen:
    """The sets that Quantus draws for one image of the batch."""

    row: int

    def __call__(self, space: tuple[int, ...], generator: torch.Generator) -> Sets:
        drawn = np.random.RandomState(0)
        sets = [[drawn.choice(SIDE * SIDE, SUBSET, replace=False) for _ in range(IMAGES)] for _ in range(RUNS)]
        members = torch.zeros(RUNS, SIDE * SIDE, dtype=torch.bool)
        for run, each in enumerate(sets):
            members[run, torch.from_numpy(each[self.row])] = True
        return Sets(cells_of(space, None), members)


def _tried(maps: np.ndarray, **more: Any) -> Any:
    where = torch.from_numpy(MASKS[:, 0])
    return tried(Curved(), torch.from_numpy(X), torch.from_numpy(maps), logits=True, truth=where, **more)


def _close(name: str, found: Tensor, within: float = 1e-5) -> None:
    expected = torch.tensor(RECORDED[name])[:, None]
    torch.testing.assert_close(found, expected, atol=within, rtol=0)


def test_faithfulness_correlation_over_its_sets_is_that_of_quantus() -> None:
    for row in range(IMAGES):
        trial = _tried(SIGNED)
        draw = Chosen(row)
        found = pearson(correlations._sums(trial, draw), correlations._drops(trial, draw, 0))
        assert found[row, 0].item() == pytest.approx(RECORDED["faithfulness-correlation"][row], abs=1e-5)


def test_max_sensitivity_with_its_noise_is_that_of_quantus(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.RandomState(0)
    noise = [drawn.uniform(-RADIUS, RADIUS, (IMAGES, SIDE * SIDE)) for _ in range(RUNS)]
    even = iter(
        [torch.from_numpy((row / RADIUS + 1) / 2).float().view(1, SIDE, SIDE) for each in noise for row in each]
    )
    monkeypatch.setattr(robustness.torch, "rand", lambda *_, **__: next(even))
    trial = _tried(gradients(torch.from_numpy(X)).numpy(), remade=Remade(gradients))
    _close("max-sensitivity", robustness.max_sensitivity(trial, runs=RUNS, radius=RADIUS))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sparseness", {}),
        ("complexity", {}),
        ("pointing-game", {}),
        ("relevance-mass-accuracy", {"pooling": "absolute"}),
        ("relevance-rank-accuracy", {}),
        ("top-k-intersection", {"k": 17}),
        ("localisation-auc", {}),
    ],
)
def test_what_is_read_off_a_map_is_what_quantus_reads_off(name: str, options: dict[str, Any]) -> None:
    _close(name, find_metric(name).function(_tried(SIGNED), **options))


def test_the_energy_of_a_map_without_negative_values_is_quantus_relevance_mass() -> None:
    _close("energy-pointing-game", find_metric("energy-pointing-game").function(_tried(MAPS)))


def test_the_recorded_numbers_are_those_of_quantus() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("quantus")
    found = by_quantus()
    assert found.keys() == RECORDED.keys()
    for name, values in found.items():
        assert values == pytest.approx(RECORDED[name], abs=1e-6), name
