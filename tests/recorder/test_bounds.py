"""Whether scores are probabilities is found out from the model, not guessed from the numbers of one input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from seewhy.frameworks import shell_of
from seewhy.recorder import TorchRecorder
from seewhy.recorder.bounds import bounded
from seewhy.recorder.forward import Forward

pytestmark = pytest.mark.usefixtures("one_core")


class Ends(nn.Module):
    """A small body, a linear layer, and an end that a test chooses."""

    def __init__(self, end: Callable[[Tensor], Tensor], scores: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, scores)
        self.end = end
        self.forwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += 1
        return self.end(self.head(self.norm(self.body(images).mean((2, 3)))))


IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))

PROBABILITIES = {
    "sigmoid": torch.sigmoid,
    "written out": lambda scores: 1 / (1 + torch.exp(-scores)),
    "hard": nn.functional.hardsigmoid,
    "tanh": lambda scores: (scores.tanh() + 1) / 2,
    "clamp": lambda scores: (scores + 0.5).clamp(0, 1),
    "one of a softmax": lambda scores: scores.softmax(1)[:, 1:],
    "log of a softmax": lambda scores: scores.log_softmax(1).exp()[:, :1],
    "mean": lambda scores: (scores.sigmoid() + (2 * scores).sigmoid()) / 2,
    "at least one": lambda scores: 1 - (1 - scores.sigmoid()).prod(1, keepdim=True),
    "largest": lambda scores: scores.sigmoid().amax(1, keepdim=True),
    "recalibrated": lambda scores: torch.where(scores > 0.2, (scores.sigmoid() + 1) / 2, scores.sigmoid() / 2),
}

SCORES = {
    "logits": lambda scores: scores,
    "nearly the same for any input": lambda scores: 0.3 + 0.001 * scores,
    "not negative": torch.relu,
    "softplus": nn.functional.softplus,
    "-1..1": torch.tanh,
    "largest": lambda scores: scores.amax(1, keepdim=True),
    "of a cosine": lambda scores: nn.functional.normalize(scores, dim=1),
    "times a gate": lambda scores: scores[:, :1] * scores[:, 1:].sigmoid(),
    "constant": lambda scores: scores * 0 + 0.3,
    "no number": lambda scores: scores.abs().sqrt() - (scores.abs() * torch.inf),
}


def found(model: nn.Module, image: Tensor = IMAGE) -> bool:
    with torch.no_grad():
        return bounded(Forward(model.eval()), image, model(image))


@pytest.mark.parametrize("end", PROBABILITIES)
def test_what_cannot_leave_0_to_1_is_known_in_any_words(end: str) -> None:
    assert found(Ends(PROBABILITIES[end]))


@pytest.mark.parametrize("end", SCORES)
def test_what_can_leave_0_to_1_is_a_score(end: str) -> None:
    assert not found(Ends(SCORES[end]))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_in_every_precision(precision: torch.dtype) -> None:
    for end, expected in ((torch.sigmoid, True), (PROBABILITIES["written out"], True), (torch.relu, False)):
        assert found(Ends(end).to(precision), IMAGE.to(precision)) == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "levit_128s"])
def test_in_models_of_a_library(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=1)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert not found(model, image)
    assert found(nn.Sequential(model, nn.Sigmoid()), image)


def test_one_score_a_place() -> None:
    head = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    larger = nn.Upsample(scale_factor=2, mode="bilinear")
    assert not found(nn.Sequential(head, larger))
    assert found(nn.Sequential(head, nn.Sigmoid(), larger))


def test_a_model_of_which_only_the_whole_can_be_run() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    for ready in (False, True):
        program = torch.export.export(nn.Sequential(plain, nn.Sigmoid()) if ready else plain, (IMAGE,))
        assert found(shell_of(program)) == ready


class ChecksItself(nn.Module):
    """Refuses features that no image has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        if features.abs().max() > 1e3:
            raise ValueError("out of range")
        return features.mean((2, 3)).sigmoid()


def test_a_model_that_refuses_the_noise_gives_scores() -> None:
    assert not found(ChecksItself())


def test_the_model_is_given_back_as_it_was() -> None:
    model = Ends(torch.sigmoid).train()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    bounded(Forward(model), IMAGE, torch.zeros(1, 2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training and not part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def chances(model: nn.Module, image: Tensor = IMAGE, **more: Any) -> tuple[bool, bool]:
    with torch.no_grad():
        outputs = model(image)
    kind = "places" if outputs.ndim > 2 else "classes"
    told = TorchRecorder(model).chances(image, outputs, kind, **{"independent": True, **more})
    return told.independent, told.ready


def test_it_is_found_out_once_a_model() -> None:
    model = Ends(torch.sigmoid).eval()
    for image, forwards in ((IMAGE, 3), (IMAGE + 1, 4), (torch.cat([IMAGE, IMAGE]), 5)):
        assert chances(model, image) == (True, True)
        assert model.forwards == forwards  # each time the test's own, the first time two more


def test_it_is_found_out_again_when_the_models_parts_change() -> None:
    model = nn.Sequential(Ends(lambda scores: 0.3 + 0.001 * scores)).eval()
    assert chances(model) == (True, False)
    model.append(nn.Sigmoid())
    assert chances(model) == (True, True)
    model[1] = nn.Identity()
    assert chances(model) == (True, False)


def test_scores_outside_of_0_to_1_need_no_further_run() -> None:
    model = Ends(lambda scores: scores * 0 - 0.5).eval()
    assert chances(model) == (True, False)
    assert model.forwards == 1


def test_a_distribution_needs_no_further_run_and_one_score_a_place_is_independent() -> None:
    model = Ends(lambda scores: scores.softmax(1), scores=3).eval()
    assert chances(model, independent=False) == (False, True)
    assert model.forwards == 1
    assert chances(nn.Conv2d(3, 1, 1).eval(), independent=False) == (True, False)
    assert chances(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid()).eval(), independent=False) == (True, True)
    assert chances(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)).eval(), independent=False) == (False, True)
