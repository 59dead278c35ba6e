"""Models whose answer is no plain tensor of class scores: where the scores are, and what one number is asked."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from small_models import SmallNet


class Pair(NamedTuple):
    features: Tensor
    verdict: Tensor


@dataclass
class Answer:
    loss: None
    logits: Tensor
    other: Tensor


class Wrapped(nn.Module):
    """A model that hands its scores back in some structure."""

    def __init__(self, model: nn.Module, wrap: Any) -> None:
        super().__init__()
        self.model = model
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.model(images))


def other(scores: Tensor) -> Tensor:
    """Something else of the same shape, with another map."""
    return scores.flip(1) * torch.arange(1.0, scores.shape[1] + 1)


def grid(scores: Tensor) -> Tensor:
    return scores[:, :, None, None].expand(-1, -1, 2, 2)


FOUND = {
    "dict": lambda scores: {"aux": other(scores), "logits": scores},
    "out": lambda scores: {"out": scores, "aux": other(scores)},
    "the only 2-D": lambda scores: {"a": grid(scores), "b": scores, "c": scores[:, 0]},
    "tuple": lambda scores: (scores, other(scores)),
    "list": lambda scores: [scores, [other(scores)]],
    "named tuple": lambda scores: Pair(grid(scores), scores),
    "dataclass": lambda scores: Answer(None, scores, other(scores)),
    "object": lambda scores: SimpleNamespace(pred=scores, other=other(scores)),
    "nested": lambda scores: {"decoder": {"scores": scores, "mask": grid(scores)}},
}
CHOSEN = {
    "key": (lambda scores: {"logits": other(scores), "mine": scores}, "mine"),
    "position": (lambda scores: (other(scores), scores), 1),
    "position in words": (lambda scores: (other(scores), scores), "[1]"),
    "field": (lambda scores: Answer(None, other(scores), scores), "other"),
    "path": (lambda scores: {"logits": other(scores), "heads": [other(scores), {"b": scores}]}, "heads[1].b"),
    "dots": (lambda scores: {"logits": other(scores), "heads": [other(scores), {"b": scores}]}, "heads.1.b"),
    "function": (lambda scores: {"a": scores / 2, "b": scores / 2, "logits": other(scores)}, lambda r: r["a"] + r["b"]),
}


def maps(model: nn.Module, image: Tensor, method: str, **more: Any) -> np.ndarray:
    options = {"window": 8} if method == "occlusion" else {}
    return seewhy.explain(model, image, 3, method, **options, **more).raw


@pytest.mark.parametrize("wrap", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("method", ["grad-cam", "occlusion", "ablation-cam", "saliency"])
def test_the_scores_are_found(wrap: Any, method: str, small_net: SmallNet, batch: Tensor) -> None:
    np.testing.assert_allclose(
        maps(Wrapped(small_net, wrap), batch[0], method), maps(small_net, batch[0], method), atol=1e-6
    )


@pytest.mark.parametrize(("wrap", "output"), CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("method", ["grad-cam", "occlusion", "ablation-cam", "saliency", "lrp", "captum:Saliency"])
def test_the_scores_are_where_the_caller_says(
    wrap: Any, output: Any, method: str, small_net: SmallNet, batch: Tensor
) -> None:
    found = maps(Wrapped(small_net, wrap), batch[0], method, output=output)
    expected = maps(small_net, batch[0], method)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("wrap", "output", "told"),
    [
        (lambda s: {"logits": s, "aux": s}, "auks", r"output='auks' .*Nearest: 'aux'.*logits \(1, 5\); aux \(1, 5\)"),
        (
            lambda s: (s, s.argmax(1)),
            1,
            r"output=1 gives a torch.int64 tensor \(1,\), where real numbers .*\(1, \.\.\.\)",
        ),
        (lambda s: {"logits": s}, lambda returned: returned, "function given as output= gives a dict"),
        (lambda s: {"a": s, "b": s}, None, r"no scores of shape .*a \(1, 5\); b \(1, 5\).*output="),
        (lambda s: "nothing", None, "returned a str .*It returned: no tensor"),
    ],
)
def test_what_came_out_is_listed_where_no_scores_are(
    wrap: Any, output: Any, told: str, small_net: SmallNet, batch: Tensor
) -> None:
    with pytest.raises(seewhy.SeewhyError, match=told):
        seewhy.explain(Wrapped(small_net, wrap), batch[0], 3, output=output)


@pytest.mark.parametrize("method", ["grad-cam", "cam", "occlusion", "integrated-gradients"])
def test_down_is_the_opposite_of_up(method: str, small_net: SmallNet, batch: Tensor) -> None:
    model = Wrapped(small_net, lambda scores: scores[:, 2:3])
    options = {"window": 8} if method == "occlusion" else {}
    up, down, usual = (
        (seewhy.explain(model, batch[0], target, method, **options) for target in ("up", "down", None))
        if method != "cam"
        else (seewhy.explain(small_net, batch[0], t, method) for t in ("up:2", "down:2", 2))
    )
    np.testing.assert_allclose(down.raw, -up.raw, atol=1e-6)
    np.testing.assert_allclose(usual.raw, up.raw, atol=1e-6)
    assert np.abs(up.raw).max() > 0
    if method != "cam":
        assert (up.target, down.target) == ("a higher output", "a lower output")
        assert usual.notes[0].startswith("target: what raises the model's one output")
    assert up.score == pytest.approx(-down.score)


def test_one_of_several_outputs_can_go_down(small_net: SmallNet, batch: Tensor) -> None:
    labels = ["a", "b", "c", "d", "e"]
    why = seewhy.explain(small_net, batch[0], "down:c", labels=labels)
    np.testing.assert_allclose(why.raw, -seewhy.explain(small_net, batch[0], 2).raw, atol=1e-6)
    assert why.target == "a lower c"
    with pytest.raises(seewhy.TargetError, match=r"one output; this one has 5.*'up:NAME'"):
        seewhy.explain(small_net, batch[0], "up")


@pytest.mark.parametrize("sign", [1, -1])
def test_one_logit_tells_two_named_classes_apart(sign: int, small_net: SmallNet, batch: Tensor) -> None:
    model = Wrapped(small_net, lambda scores: sign * (scores[:, :1].abs() + 2))
    labels = ["benign", "malignant"]
    likely, unlikely = labels[::-sign]
    up = seewhy.explain(model, batch[0], "up").raw
    usual = seewhy.explain(model, batch[0], labels=labels)
    assert usual.target == likely
    np.testing.assert_allclose(usual.raw, sign * up, atol=1e-6)
    opposite = seewhy.explain(model, batch[0], unlikely, labels=labels)
    assert opposite.target == unlikely
    np.testing.assert_allclose(opposite.raw, -sign * up, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_single_logit_whose_axis_was_squeezed_away(rows: int) -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.body(images).relu().mean((1, 2, 3)).squeeze()

    torch.manual_seed(0)
    model, images = Squeezed(), torch.rand(rows, 3, 8, 8)
    found = seewhy.explain(model, images, "up", layers="body")
    for why, score in zip(found, model(images).reshape(-1).tolist(), strict=True):
        assert why.score == pytest.approx(score, rel=1e-5)
