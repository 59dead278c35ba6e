"""The doctor finds what was made wrong on purpose, says what to do, and finds nothing where nothing is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from checkup import sick_models as sick
from seewhy.checkup.report import Report
from small_models import make_small_net

pytestmark = pytest.mark.usefixtures("one_core")

PREPARED = {"size": (48, 48), "fit": "squash"}
PICTURE = (np.random.default_rng(0).random((60, 60, 3)) * 255).astype(np.uint8)


def report(model: Any, image: Any = PICTURE, **options: Any) -> Report:
    return seewhy.doctor(model, image, preprocess=PREPARED, labels=list("abcde"), **options)


@pytest.mark.parametrize(
    ("model", "check", "verdict", "found", "remedy"),
    [
        (sick.made(sick.Overwrites), "in-place", "note", "by 'second' and by the input needs", "x = x + y"),
        (sick.in_training(), "modes", "warning", "training mode in 9 parts", "model.eval()"),
        (sick.made(sick.Detaches), "input gradient", "warning", "cannot be differentiated", "occlusion"),
        (
            sick.made(sick.Detaches),
            "gradient",
            "note",
            "none at 3 layers: 'relu', 'norm', 'first'",
            "without gradients",
        ),
        (sick.made(sick.DetachesAtTheEnd), "gradient", "fails", "it gets to no layer", "detaches behind it"),
        (sick.made(sick.WithoutGradient), "input gradient", "note", "own `no_grad`", "Nothing to do"),
        (sick.made(sick.GivesNan), "outputs", "fails", "1 of 5 numbers are NaN", "weights"),
        (sick.made(sick.Views), "memory order", "note", "at a view()", "reshape()"),
        (sick.made(sick.Mixes), "batch", "warning", "two inputs at once differ", "batch_size=1"),
        (sick.made(sick.OneByOne), "batch", "warning", "one picture at a time", "batch_size=1"),
        (
            sick.made(sick.Dictionary),
            "outputs",
            "note",
            "2 tensors: features 1x4x24x24; logits 1x5; 'logits'",
            "output=",
        ),
        (
            sick.made(sick.FixedSize),
            "sizes",
            "note",
            "fixed at 48x48; 48x96 fails: expected 48 x 48",
            "tensors of this",
        ),
        (sick.zero_head(), "gradient", "fails", "zero at every place of 'second'; it gets to no layer", "untrained"),
        (sick.made(sick.Overflows), "float16", "warning", "5 of 5 scores are NaN or infinite", "float32 or bfloat16"),
        (sick.made(sick.AlwaysRandom), "repeatable", "warning", "two runs differ", "training=self.training"),
        (sick.made(sick.Probabilities), "outputs", "note", "probabilities already", "output="),
        (sick.made(sick.OwnProbabilities), "outputs", "note", "probabilities already", "output="),
        (sick.made(sick.Smooth), "activations", "note", "1 silu; no ReLU", "take saliency"),
        (sick.trained_on_other_range(), "preprocessing", "warning", "'norm' it spreads 0.0", "preprocess="),
        (sick.made(sick.Raises), "outputs", "fails", "raised KeyError", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_what_is_wrong_is_found(model: nn.Module, check: str, verdict: str, found: str, remedy: str) -> None:
    row = report(model).check(check)
    assert row.verdict == verdict
    assert found in row.found
    assert remedy in row.remedy


@pytest.mark.slow
def test_the_built_in_model_is_healthy(chelsea: np.ndarray) -> None:
    found = seewhy.doctor("efficientnet_lite0", chelsea)
    assert [row.name for row in found if row.verdict != "ok"] == []
    assert found.verdict == "ok"
    assert "tiger cat" in found.check("labels").found
    assert found.check("folding").numbers["pairs"] == 49


def test_a_small_healthy_model_has_no_warning() -> None:
    found = report(make_small_net())
    assert [row for row in found if row.verdict in ("warning", "fails")] == []
    assert {row.name for row in found} >= {"loads", "batch", "replay", "folding", "memory", "time", "methods"}


@pytest.mark.parametrize("make", [sick.in_training, make_small_net, lambda: sick.made(sick.Mixes)])
def test_the_model_is_given_back_as_it_was(make: Callable[[], nn.Module]) -> None:
    model, image = make(), torch.randn(3, 48, 48)
    before, given = copy.deepcopy(model.state_dict()), image.clone()
    modes = [part.training for part in model.modules()]
    random = torch.get_rng_state()
    report(model, image)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes
    assert all(each.grad is None and each.requires_grad for each in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(image, given)


def test_the_difference_of_modes_is_that_of_the_models_own_answers() -> None:
    model = make_small_net()
    model.dropout.p = 0.0
    model.train()
    image = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(3))
    found = report(model, image).check("modes").numbers["difference"]
    two = torch.stack([image, image.flip(-1) * 0.6])
    own = copy.deepcopy(model)
    with torch.no_grad():
        evaluated, training = copy.deepcopy(model).eval()(two), own(two)
    expected = (training - evaluated).abs().max() / (evaluated - evaluated.mean()).abs().max()
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_numbers_are_those_of_the_model() -> None:
    model = make_small_net()
    found = report(model)
    image = seewhy.explain(model, PICTURE, preprocess=PREPARED)  # the same input and question
    assert found.check("loads").numbers["parameters"] == sum(each.numel() for each in model.parameters())
    assert found.check("gradient").numbers["peak"] > 0
    assert f"'{image.layers[0]}'" in found.check("layers").found
    assert found.check("activations").numbers["activations"] == {"relu": 2}


def test_one_ill_check_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(sick.made(sick.Raises))
    assert found.check("outputs").verdict == "fails"
    assert found.check("loads").verdict == "ok"
    after = [row for row in found if row.found.startswith("not looked at: it fails as")]
    assert len(after) >= 5
    assert found.verdict == "fails"


def test_running_out_of_memory_is_told_as_such() -> None:
    class Huge(sick.SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    row = report(sick.made(Huge)).check("outputs")
    assert row.verdict == "fails"
    assert "memory ran out: CUDA out of memory" in row.found
    assert "smaller image" in row.remedy


def test_labels_that_do_not_fit_are_a_warning() -> None:
    found = seewhy.doctor(make_small_net(), PICTURE, preprocess=PREPARED, labels=list("abc"))
    assert found.check("labels").verdict == "warning"
    assert "3 names for 5 classes" in found.check("labels").found


def test_without_a_picture_and_labels_it_is_said_what_is_missing() -> None:
    found = seewhy.doctor(make_small_net())
    assert found.check("preprocessing").verdict == "note"
    assert "assumed" in found.check("preprocessing").found
    assert found.check("labels").verdict == "note"


class Twins(nn.Module):
    """Compares two pictures by one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = make_small_net()

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.body(one) - self.body(other)


def test_a_model_of_two_inputs_is_looked_at_with_both() -> None:
    one, other = torch.randn(3, 48, 48), torch.randn(3, 48, 48)
    found = seewhy.doctor(Twins().eval(), (one, other), wrt=0)
    assert [row for row in found if row.verdict in ("warning", "fails") and row.name != "sizes"] == []
    assert "runs 2 times" in found.check("repeated layers").found
    missing = seewhy.doctor(Twins().eval(), one)
    assert missing.check("outputs").verdict == "fails"
    assert "other" in missing.check("outputs").found


def test_another_layer_is_looked_at() -> None:
    assert "'first' (Conv2d)" in report(make_small_net(), layer="first").check("layers").found
    row = report(make_small_net(), layer="frst").check("layers")
    assert row.verdict == "fails"
    assert "Nearest: 'first'" in row.found


def test_a_model_that_cannot_be_had_is_one_row() -> None:
    [row] = seewhy.doctor("resnet1888")
    assert (row.name, row.verdict) == ("loads", "fails")
    assert "Nearest: 'resnet18'" in row.found


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_sealed_models_are_told_what_works(form: str) -> None:
    model, image = make_small_net(), torch.randn(1, 3, 48, 48)
    made = torch.jit.trace(model, image) if form == "traced" else torch.jit.script(model)
    found = report(made, image[0])
    assert found.verdict == "note"
    kinds = found.check("kinds of methods")
    works = kinds.found.partition("; not")[0]
    assert "saliency" in works
    assert "occlusion" in works
    assert "grad-cam (layers)" in kinds.numbers["fails"]
    assert "the module that it was made from" in kinds.remedy
    runs = found.check("time").numbers["runs"]
    assert runs["integrated-gradients"] == 102
    assert "grad-cam" not in runs
    assert "guided-backprop" not in runs


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_files_are_told_for_what_they_are(tmp_path) -> None:
    model, image = make_small_net(), torch.randn(1, 3, 48, 48)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    torch.jit.trace(model, image).save(tmp_path / "traced.pt")
    torch.export.save(torch.export.export(model, (image,)), tmp_path / "exported.pt2")
    for name, words in (("weights.pth", "weights"), ("traced.pt", "TorchScript"), ("exported.pt2", "exported program")):
        [row] = seewhy.doctor(str(tmp_path / name))
        assert row.verdict == "fails"
        assert words in row.found
        assert "weights" in row.remedy if words == "weights" else "Where you trust it" in row.remedy


def test_the_report_prints_well_and_goes_into_json() -> None:
    found = report(sick.made(sick.Dictionary))
    lines = str(found).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("note     outputs"))
    assert lines[at + 1].lstrip().startswith("> Where another is meant")
    assert lines[-1].startswith("Dictionary: ")
    assert max(map(len, found.lines(100))) <= 100
    document = json.loads(json.dumps(found.as_dict()))
    assert document["verdict"] == found.verdict
    assert [each["check"] for each in document["checks"]] == [row.name for row in found]
    assert "<table>" in found._repr_html_()
    with pytest.raises(KeyError, match="There are: loads"):
        found.check("leads")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            lambda seen: {"pooler_output": seen},
            "'pooler_output' is taken: a vector of 4 numbers, asked with similar_to",
        ),
        (
            lambda seen: {"logits": seen[:, None].expand(-1, 3, -1), "pred_boxes": seen[:, None].expand(-1, 3, -1)},
            "they are read together: 3 boxes before suppression, 3 classes, asked as 'box:0'",
        ),
    ],
)
def test_answers_that_are_no_classes_are_told_for_what_they_are(answer: Callable[[Tensor], object], told: str) -> None:
    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.config = SimpleNamespace(num_labels=3)

        def forward(self, images: Tensor) -> object:
            return answer(self.body(images).mean((2, 3)))

    torch.manual_seed(0)
    found = seewhy.doctor(Answers().eval(), torch.rand(3, 12, 12)).check("outputs").found
    assert told in found


def test_a_detector_is_looked_at_by_its_surest_class_and_not_by_where_its_boxes_lie() -> None:
    class Detects(nn.Module):
        """Its boxes lie where they lie; how sure it is depends on what it sees."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
            self.config = SimpleNamespace(num_labels=2)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            logits = self.head(self.body(images)).flatten(2).mT
            return {"logits": logits, "pred_boxes": torch.full((*logits.shape[:2], 4), 0.5)}

    torch.manual_seed(0)
    model, image = Detects().eval(), torch.rand(3, 12, 12)
    found = seewhy.doctor(model, image)
    pixels = image[None].requires_grad_()
    maps = model.body(pixels)
    surest = model.head(maps).sigmoid().max()
    by_layer, by_input = torch.autograd.grad(surest, (maps, pixels))
    assert "at 'body'" in found.check("gradient").found
    assert found.check("gradient").numbers["norm"] == pytest.approx(float(by_layer.norm()), rel=1e-4)
    assert found.check("input gradient").numbers["norm"] == pytest.approx(float(by_input.norm()), rel=1e-4)


def test_a_model_that_lacks_an_input_is_not_told_to_have_a_fixed_size() -> None:
    class TwoInputs(nn.Module):
        def forward(self, images: Tensor, age: Tensor) -> Tensor:
            return images.mean((2, 3)) + age

    found = seewhy.doctor(TwoInputs().eval(), torch.rand(3, 12, 12))
    assert "Give all inputs as a tuple, or as a dict by their names" in found.check("outputs").found
    assert found.check("sizes").found == "not looked at: it fails as 'outputs' does"
