"""All that is told of one model is in one unit: its numbers are scores, or they are probabilities, for every input alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.targets import Chances, LogOddsTarget

pytestmark = pytest.mark.usefixtures("one_core")


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


class Says(nn.Module):
    """Scores that hardly depend on the image, and may be made probabilities."""

    def __init__(self, *scores: float, ready: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scores = torch.tensor(scores)
        self.ready = ready
        self.forwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += 1
        scores = self.scores + 0.001 * self.conv(images).mean((1, 2, 3))[:, None]
        return scores.sigmoid() if self.ready else scores


IMAGE = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
READY = "the model's outputs are probabilities already: they were not put through a sigmoid again"


@pytest.mark.parametrize(("score", "name"), [(0.3, "dog"), (0.7, "dog"), (-0.3, "cat")])
def test_the_sign_of_one_logit_tells_two_classes_apart(score: float, name: str) -> None:
    why = seewhy.explain(Says(score), IMAGE, labels=["cat", "dog"])
    assert (why.target, READY in why.notes) == (name, False)
    ready = seewhy.explain(Says(score, ready=True), IMAGE, labels=["cat", "dog"])  # 0.57, 0.67 and 0.43
    assert (ready.target, READY in ready.notes) == (name, True)


def test_logits_between_0_and_1_of_several_labels_are_logits() -> None:
    why = seewhy.explain(Says(0.3, 0.6), IMAGE, "probability:0", multi_label=True)
    assert why.score == pytest.approx(sigmoid(0.3), abs=1e-3)
    assert [each.probability for each in why.prediction] == pytest.approx([sigmoid(0.6), sigmoid(0.3)], abs=1e-3)
    assert READY not in why.notes
    ready = seewhy.explain(Says(0.3, 0.6, ready=True), IMAGE, "probability:0", multi_label=True)
    assert ready.score == pytest.approx(sigmoid(0.3), abs=1e-3)
    assert [each.probability for each in ready.prediction] == pytest.approx([sigmoid(0.6), sigmoid(0.3)], abs=1e-3)
    assert READY in ready.notes


def test_a_logit_near_0_is_not_unlikely() -> None:
    def codes(score: float, **how: object) -> list[str]:
        return [each.code for each in seewhy.explain(Says(score, 0.6), IMAGE, 0, multi_label=True, **how).diagnosis]

    asked = [seewhy.explain(Says(0.0, -9, 3), IMAGE, target).diagnosis for target in ("1", "1-vs-2")]
    assert ["unlikely" in {each.code for each in found} for found in asked] == [
        True,
        False,
    ]  # of two, neither is the answer
    assert "unlikely" not in codes(0.005)
    assert "unlikely" in codes(-6)


def test_what_is_asked_of_two_classes_by_one_score_is_unlikely_by_its_own_probability() -> None:
    def told(target: str) -> tuple[float, bool]:
        why = seewhy.explain(Says(-6), IMAGE, target, labels=["cat", "dog"], multi_label=True)
        return why.score, "unlikely" in [each.code for each in why.diagnosis]

    assert told("probability:dog") == (pytest.approx(sigmoid(-6), rel=1e-2), True)
    assert told("probability:cat") == (pytest.approx(1 - sigmoid(-6), rel=1e-2), False)
    assert told("dog") == (pytest.approx(-6, rel=1e-2), True)
    assert told("cat") == (pytest.approx(6, rel=1e-2), False)


class Brightest(nn.Module):
    """A logit of -1..1: twice the brightest place, minus one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(2).amax(2) * 2 - 1


def test_the_input_as_it_is_and_its_variants_are_in_one_unit() -> None:
    image = torch.zeros(1, 16, 16)
    image[:, 4:8, 4:8] = 0.7  # a logit of 0.4, and of -1 where the square is hidden
    how = {"method": "occlusion", "window": 4, "stride": 4, "baseline": 0.0, "multi_label": True}
    why = seewhy.explain(Brightest(), image, "probability:0", **how)
    expected = np.zeros((16, 16))
    expected[4:8, 4:8] = sigmoid(0.4) - sigmoid(-1)
    assert why.score == pytest.approx(sigmoid(0.4), rel=1e-5)
    np.testing.assert_allclose(why.raw, expected, atol=1e-6)


def test_a_warm_map_is_one_forward() -> None:
    model = Says(0.3, ready=True)
    ask = seewhy.Explainer(model, labels=["cat", "dog"])
    ask(IMAGE)
    before = model.forwards
    why = ask(IMAGE)
    assert model.forwards == before + 1
    assert (why.cost.forwards, why.cost.backwards) == (1, 1)


class PerPlace(nn.Module):
    """Scores a class and place."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu()) + 1


def test_several_labels_at_one_place() -> None:
    model = PerPlace(3)
    why = seewhy.explain(model, IMAGE, "probability:1", multi_label=True)
    with torch.no_grad():
        scores = model(IMAGE[None])[0]
    where = scores.argmax(0) == 1
    assert why.score == pytest.approx(float(scores[1][where].sigmoid().mean()), rel=1e-5)
    usual = seewhy.explain(model, IMAGE, "probability:1")
    assert usual.score == pytest.approx(float(scores.softmax(0)[1][where].mean()), rel=1e-5)


@pytest.mark.parametrize("multi_label", [None, True])
def test_one_score_a_place_has_the_probability_of_its_sigmoid(multi_label: bool | None) -> None:
    model = PerPlace(1)
    with torch.no_grad():
        scores = model(IMAGE[None])[0, 0]
    for asked, more in ((model, ()), (nn.Sequential(model, nn.Sigmoid()), (READY,))):
        why = seewhy.explain(asked, IMAGE, "probability", multi_label=multi_label)
        assert why.score == pytest.approx(float(scores[scores > 0].sigmoid().mean()), rel=1e-5)
        assert tuple(note for note in why.notes if note == READY) == more


def test_a_distribution_place_by_place_is_told() -> None:
    why = seewhy.explain(nn.Sequential(PerPlace(3), nn.Softmax(1)), IMAGE)
    assert "the model's outputs are probabilities already: they were not put through softmax again" in why.notes


def test_log_odds_of_a_probability_keep_a_derivative_at_both_ends() -> None:
    for value in (0.0, 1e-9, 0.5, 1 - 1e-8, 1.0):
        output = torch.tensor([value, 1 - value], requires_grad=True)
        odds = LogOddsTarget(0, Chances(ready=True))(output)
        [gradient] = torch.autograd.grad(odds, output)
        assert gradient[0] > 0
        assert odds.isfinite()
    assert float(LogOddsTarget(0, Chances(ready=True))(torch.tensor([0.8, 0.2]))) == pytest.approx(np.log(4))
