"""Questions about one box: which it is, what its score is, where it is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.images import Geometry
from seewhy.models import Labels
from seewhy.targets import DetectionTarget, Subject, ask, detected
from seewhy.targets.detections import overlaps

LABELS = Labels(("dog", "cat", "time: noon"))
ROWS = torch.tensor(
    [
        [0.0, 0, 10, 10, 0.95, 0.9, 0.1, 0],
        [1.0, 0, 11, 10, 0.9, 0.8, 0.1, 0],  # the same dog
        [0.0, 0, 10, 10, 0.8, 0.1, 0.7, 0],  # a cat in the dog's box
        [20.0, 20, 40, 30, 0.5, 0.0, 0.45, 0],
        [50.0, 50, 60, 60, 0.1, 0.02, 0.03, 0.01],  # too weak
    ]
)


def target(wanted: object, rows: Tensor = ROWS, geometry: Geometry | None = None) -> DetectionTarget:
    [[found]] = ask(wanted, [Subject(rows, "boxes", LABELS, geometry)])
    assert isinstance(found, DetectionTarget)
    return found


def slow_overlap(one: list[float], other: list[float]) -> float:
    across = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return across * down / (both - across * down)


def test_suppression_is_the_greedy_one() -> None:
    draws = torch.Generator().manual_seed(0)
    low = torch.rand(200, 2, generator=draws) * 60
    rows = torch.cat([low, low + 10 + torch.rand(200, 2, generator=draws) * 20, torch.rand(200, 3, generator=draws)], 1)
    left = sorted(range(200), key=lambda row: -float(rows[row, 5:].max()))
    kept: list[int] = []
    for row in left:
        alike = [other for other in kept if rows[other, 5:].argmax() == rows[row, 5:].argmax()]
        if rows[row, 5:].max() >= 0.05 and all(
            slow_overlap(rows[row].tolist(), rows[o].tolist()) <= 0.5 for o in alike
        ):
            kept.append(row)
    assert detected(rows).tolist() == kept
    assert 10 < len(kept) < 190
    found = overlaps(rows[0, :4], rows[:, :4])
    np.testing.assert_allclose(found, [slow_overlap(rows[0].tolist(), row.tolist()) for row in rows], atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "row", "score", "words"),
    [
        (None, 0, 0.9, "box 0: dog"),
        ("box:0", 0, 0.9, "box 0: dog"),
        ("box: 1", 2, 0.7, "box 1: cat"),
        ("Box:cat", 2, 0.7, "box 1: cat"),
        ("cat", 2, 0.7, "box 1: cat"),
        (1, 2, 0.7, "box 1: cat"),
        ("box:2", 3, 0.45, "box 2: cat"),
        ("box:0:class", 0, 0.9, "box 0: dog"),
        ("box:0:objectness", 0, 0.95, "box 0: anything at all, a dog"),
        ("box:0:position", 0, 1.0, "box 0: the place of a dog"),
        ("box:0:cat", 0, 0.1, "box 0: cat"),
        ("box:cat:objectness", 2, 0.8, "box 1: anything at all, a cat"),
    ],
)
def test_every_way_to_ask_for_a_box(wanted: object, row: int, score: float, words: str) -> None:
    found = target(wanted)
    assert (found.row, found.describe(LABELS)) == (row, words)
    assert float(found(ROWS)) == pytest.approx(score)


def test_the_most_confident_boxes_are_asked_one_by_one() -> None:
    questions = ask("top:3", [Subject(ROWS, "boxes", LABELS)])
    assert [question[0].row for question in questions] == [0, 2, 3]
    with pytest.raises(seewhy.TargetError, match=r"number 3, counted from 0, and 3 were detected"):
        ask("top:4", [Subject(ROWS, "boxes", LABELS)])


def test_on_another_input_the_best_of_all_predictions_counts() -> None:
    moved = ROWS.flip(0).clone()
    moved[:, 5] *= 0.5
    moved[4, :4] = torch.tensor([0.0, 0, 10, 5])  # the dog's own box, halved; its neighbour overlaps by 9 / 11
    assert float(target("box:0")(moved)) == pytest.approx(max(0.5 * 0.45, 9 / 11 * 0.4))
    assert float(target("box:0:position")(moved)) == pytest.approx(9 / 11)


def test_a_box_of_ones_own_is_found_by_overlap_and_in_the_pictures_pixels() -> None:
    geometry = Geometry.identity((30, 60)).resized((60, 120)).cropped((-30, 0), (120, 120))  # a letterbox
    found = target(seewhy.BoxTarget((10, 5, 20, 15), of="dog"), geometry=geometry)
    assert found.box == (20, 40, 40, 60)
    outline = found.outline(geometry)
    assert outline.shape == (30, 60)
    assert outline.sum() == 100
    assert outline[5:15, 10:20].all()
    assert float(found(torch.tensor([[20.0, 40, 40, 50, 1, 0.8, 0, 0]]))) == pytest.approx(0.5 * 0.8)


def test_position_has_the_derivative_from_inside() -> None:
    rows = ROWS.clone().requires_grad_()
    [gradient] = torch.autograd.grad(target("box:0:position")(rows), rows)
    # Of a box 10 wide: an edge that moves in by one pixel takes a tenth of the overlap.
    assert gradient[0, :4].tolist() == pytest.approx([-0.1, -0.1, 0.1, 0.1])
    assert gradient[1:].abs().sum() == 0


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("box:3", r"number 3, counted from 0, and 3 were detected \(0 to 2"),
        ("box:time: noon", r"No time: noon was detected.*0\.01.*BoxTarget\(\(left, top, right, bottom\), of=2\)"),
        ("box:bird", "No class is called 'bird'"),
        ("box:0:smell", "No class is called 'smell'"),
        (7, "3 classes"),
    ],
)
def test_what_cannot_be_asked_is_told(wanted: object, told: str) -> None:
    with pytest.raises(seewhy.TargetError, match=told):
        target(wanted)


def test_nothing_detected_says_the_highest_score_and_what_to_try() -> None:
    with pytest.raises(seewhy.TargetError, match=r"nothing was detected: the highest score .* is 0\.03, .*preprocess="):
        target(None, ROWS[4:])
    for wrong in ((5, 5, 5, 9), (1, 2, 3), (0, 0, math.inf, 1)):
        with pytest.raises(seewhy.TargetError, match="left < right"):
            seewhy.BoxTarget(wrong, of=0)  # type: ignore[arg-type]
    with pytest.raises(seewhy.TargetError, match="needs predictions with boxes"):
        ask(seewhy.BoxTarget((0, 0, 1, 1), of=0), [Subject(torch.zeros(3), "classes")])


class Bright(nn.Module):
    """Sees a dog in each of two boxes as sure as the box is bright; says so as a detector that suppresses by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.body.weight, 1 / 3)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        maps = self.body(images)[:, 0]
        boxes = torch.tensor([[0.0, 0, 12, 12], [20, 12, 32, 24]])
        return [{"boxes": boxes, "sure": torch.stack([m[:12, :12].mean(), m[12:, 20:].mean()])} for m in maps]


def both(returned: list[dict[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [each["boxes"] for each in returned], [torch.stack([each["sure"], 0 * each["sure"]], 1) for each in returned]


@pytest.mark.parametrize("method", [None, "grad-cam-elementwise", "rise", "occlusion", "input-x-gradient"])
def test_any_detector_is_asked_through_a_function_and_the_map_lies_in_the_box(method: str | None) -> None:
    image = torch.full((3, 24, 32), 0.2)
    image[:, :12, :12], image[:, 12:, 20:] = 0.9, 0.8
    options = {"rise": {"masks": 400}, "occlusion": {"window": 4}}.get(method or "", {})
    for number, place in enumerate((np.s_[:12, :12], np.s_[12:, 20:])):
        why = seewhy.explain(Bright(), image, f"box:{number}", method, output=both, **options)
        inside = np.zeros((24, 32), bool)
        inside[place] = True
        assert np.array_equal(why.outline, inside)
        positive = np.maximum(why.heatmap, 0)
        assert positive[inside].mean() > 1.5 * positive[~inside].mean()
        assert [found.score for found in why.detections] == pytest.approx([0.9, 0.8], rel=1e-4)
    assert [each.name for each in why.prediction] == ["class 0", "class 0"]
    assert why.about.probability == why.probability == pytest.approx(0.8, rel=1e-4)
