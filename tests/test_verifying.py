"""When maps are put to the test unasked, what is kept when that fails, and which question measures ask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.verifying import FEW, FORWARDS
from small_models import SmallNet, make_small_net


class FailsUnderMasks(SmallNet):
    """Raises for more inputs than the recording needs."""

    left = 10**9

    def forward(self, images: Tensor) -> Tensor:
        self.left -= len(images)
        if self.left < 0:
            raise ValueError("no more")
        return super().forward(images)


@pytest.fixture
def image() -> Tensor:
    return torch.randn((3, 24, 40), generator=torch.Generator().manual_seed(1))


def test_a_map_is_whole_where_a_test_that_nobody_asked_for_fails(image: Tensor) -> None:
    model = FailsUnderMasks().eval()
    ask = seewhy.Explainer(model)
    ask(image)
    model.left = 5
    why = ask(image, verify="cheap")
    assert why.evidence is None
    assert any("could not be put to the test" in note for note in why.notes)
    model.left = 5
    with pytest.raises(seewhy.RecordingError) as told:
        ask(image, verify=True)
    assert len(told.value.partial) == 1


def test_many_maps_and_budgets_are_not_put_to_the_test_unasked(image: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    methods = ["grad-cam", "hires-cam", "layer-cam", "eigen-cam", "xgrad-cam"]
    assert len(methods) > FEW
    many = ask.compare(image, methods, verify="cheap")
    assert all(each.evidence is None for each in many)
    assert all(any("not put to the test" in note for note in each.notes) for each in many)
    limited = ask(image, budget=100, verify="cheap")
    assert limited.evidence is None
    assert any("a budget was given" in note for note in limited.notes)
    assert ask(image, verify="cheap").evidence.forwards == FORWARDS


def test_a_function_is_not_called_more_than_its_map_needs(image: Tensor) -> None:
    calls: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return images.reshape(len(images), -1)[:, :3]

    ask = seewhy.Explainer(seewhy.function(predict))
    ask(image, 0, "occlusion")
    before = sum(calls)
    calls.clear()
    assert ask(image, 0, "occlusion", verify="cheap").evidence is None
    assert sum(calls) <= before
    assert ask(image, 0, "occlusion", verify=True).evidence is not None


@pytest.mark.parametrize("target", ["0-vs-1", 2, "probability:1"])
def test_explanations_are_measured_about_their_own_question(target: str | int, image: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    why = ask(image, target, "hires-cam")
    own = seewhy.measure(ask, image, why, "insertion", steps=4)
    told = seewhy.measure(ask, image, {"map": why.raw}, "insertion", target=target, steps=4)
    assert own.value("insertion") == pytest.approx(told.value("insertion"), abs=1e-6)
    other = seewhy.measure(ask, image, {"map": why.raw}, "insertion", target=4, steps=4)
    assert own.value("insertion") != pytest.approx(other.value("insertion"), abs=1e-4)


def test_the_direction_of_a_single_output_is_kept(image: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    ask = seewhy.Explainer(model)
    down = seewhy.measure(ask, image, ask(image, "down"), "insertion", steps=4, fill="mean").value("insertion")
    up = seewhy.measure(ask, image, {"map": ask(image, "down").raw}, "insertion", target="up", steps=4, fill="mean")
    assert down == pytest.approx(-up.value("insertion"), abs=1e-6)


def test_methods_with_a_question_of_their_own_are_measured_about_the_class(image: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    both = ask.compare(image, ["grad-cam", "finer-cam", "auto"], targets=1)
    found = seewhy.measure(ask, image, both, "deletion", steps=4)
    assert [row.map for row in found] == ["grad-cam", "finer-cam", "auto"]
    plain = seewhy.measure(ask, image, {each.method: each.raw for each in both}, "deletion", target=1, steps=4)
    for row, other in zip(found, plain, strict=True):
        assert row.value == pytest.approx(other.value, abs=1e-6)


def test_maps_about_several_questions_are_not_measured_as_one(image: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    with pytest.raises(seewhy.MetricError, match="several questions"):
        seewhy.measure(ask, image, [ask(image, 1), ask(image, 2)])


def test_auto_is_not_smoothed(image: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match="cannot be put around auto"):
        seewhy.explain(make_small_net(), image, method="auto", smooth="aug")
    found = seewhy.compare(make_small_net(), image, ["grad-cam", "auto"], smooth="aug")
    assert [each.method for each in found] == ["grad-cam"]
    assert "auto" in found.skipped
