"""Masks with classes become scores a class and place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder.mask_queries import semantic_scores
from seewhy.recorder.outputs import read_scores

CLASSES = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
MASKS = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [dict, SimpleNamespace])
@pytest.mark.parametrize("names", [("class_queries_logits", "masks_queries_logits"), ("pred_logits", "pred_masks")])
def test_the_score_is_the_sum_over_queries_of_both_probabilities(make: Any, names: tuple[str, str]) -> None:
    scores, kind = read_scores(make(**dict(zip(names, (CLASSES, MASKS), strict=True))), 2)
    assert kind == "places"
    assert scores.shape == (2, 4, 4, 6)  # the fifth class is "no object"
    for sample, label, row, column in ((0, 0, 0, 0), (1, 3, 3, 5), (0, 2, 1, 4)):
        expected = sum(
            float(CLASSES[sample, query].softmax(0)[label]) * float(MASKS[sample, query, row, column].sigmoid())
            for query in range(3)
        )
        assert float(scores[sample, label, row, column]) == pytest.approx(expected, rel=1e-5)


def test_detectors_with_masks_and_other_answers_are_left_alone() -> None:
    assert semantic_scores({"pred_logits": CLASSES, "pred_masks": MASKS, "pred_boxes": CLASSES[..., :4]}, 2) is None
    assert semantic_scores({"pred_logits": CLASSES, "pred_masks": MASKS[:, :2]}, 2) is None
    assert semantic_scores({"pred_logits": CLASSES}, 2) is None
    assert semantic_scores(CLASSES, 2) is None


class Queries(nn.Module):
    """Three queries: their classes are fixed, their masks are linear in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 3, 3, padding=1)
        self.classes = nn.Parameter(CLASSES[0].clone())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pred_logits": self.classes.expand(len(images), -1, -1), "pred_masks": self.encoder(images)}


def test_the_map_is_the_derivative_of_the_semantic_score() -> None:
    torch.manual_seed(0)
    model, image = Queries().eval(), torch.randn(3, 6, 8)
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    why = seewhy.explain(model, image, seewhy.Region(mask, 2), "hires-cam", layers="encoder")
    masks = model.encoder(image[None])[0].detach().requires_grad_()
    score = (CLASSES[0].softmax(1)[:, 2, None, None] * masks.sigmoid()).sum(0)[torch.from_numpy(mask)].mean()
    [slope] = torch.autograd.grad(score, masks)
    assert why.score == pytest.approx(score.item(), rel=1e-5)
    np.testing.assert_allclose(why.raw, (slope * masks.detach()).sum(0), rtol=1e-4, atol=1e-8)
