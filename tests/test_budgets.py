"""A budget ends the work early, says so, and what is known by then is shown; what else a method leaves to say is told too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder import Conditions, Needs, Recording, TorchRecorder, Variants
from seewhy.targets import ClassTarget
from small_models import SmallNet


def told(why: seewhy.Explanation) -> list[str]:
    return [note for note in why.notes if note.startswith("the budget")]


@pytest.mark.parametrize(
    ("name", "options", "planned"),
    [("smoothgrad", {"samples": 25}, 25), ("smooth-grad-cam++", {"samples": 16}, 16), ("rise", {"masks": 50}, 50)],
)
def test_every_kind_of_further_run_keeps_to_the_forwards(
    name: str, options: dict[str, int], planned: int, small_net: SmallNet, batch: Tensor
) -> None:
    why = seewhy.explain(small_net, batch[0], 1, name, budget=7, **options)
    assert why.cost.forwards == 1 + 7
    assert told(why) == [f"the budget ended the work after 7 of {planned} runs"]
    assert np.isfinite(why.raw).all()
    assert told(seewhy.explain(small_net, batch[0], 1, name, budget=planned, **options)) == []


def test_smoothing_keeps_to_the_budget_too(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 1, smooth=seewhy.Noise(samples=12), budget=5)
    assert why.cost.forwards == 6
    assert told(why) == ["the budget ended the work after 5 of 12 runs"]
    few = seewhy.explain(small_net, batch[0], 1, smooth=seewhy.Noise(samples=5))
    np.testing.assert_allclose(why.raw, few.raw, atol=1e-6)  # the first five draws are the same


def test_the_largest_of_several_pieces_of_work_is_told(small_net: SmallNet, batch: Tensor) -> None:
    why = seewhy.explain(small_net, batch[0], 1, "integrated-gradients", baseline="black,white", budget=1)
    assert told(why) == ["the budget ended the work after 1 of 100 runs"]


class Pixel:
    """The input with its first channel doubled."""

    def __call__(self, sample: Recording) -> Variants:
        return Variants(1, lambda _: sample.images * torch.tensor([2.0, 1, 1])[:, None, None])


def test_the_recording_of_one_sample_asks_about_that_sample(small_net: SmallNet, batch: Tensor) -> None:
    question = (ClassTarget(0), ClassTarget(1), ClassTarget(2))
    whole = (
        TorchRecorder(small_net)
        .record(batch, (), lambda _: [question], needs=Needs.SCORE, conditions=Conditions())
        .at("", 0)
    )
    perturbation = Pixel()
    together = whole.score(perturbation).values[:, 0]
    alone = torch.stack([whole.row(row).score(perturbation).values[0, 0] for row in range(3)])
    again = torch.stack([whole.row(row).row(0).score(Pixel()).values[0, 0] for row in range(3)])
    assert len(set(together.tolist())) == 3
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(again, together)


def test_activations_that_a_rule_leaves_alone_are_told(batch: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ).eval()
    why = seewhy.explain(model, batch[0], 0, "guided-backprop")
    assert any("silu" in note for note in why.notes)
    assert not any("silu" in note for note in seewhy.explain(model, batch[0], 0, "saliency").notes)


def test_reduce_is_refused_where_there_are_no_colours_and_before_anything_is_run(
    small_net: SmallNet, batch: Tensor
) -> None:
    with pytest.raises(
        seewhy.MethodError, match="reduce='norm' is for methods that keep colour channels; grad-cam has none"
    ):
        seewhy.explain(small_net, batch[0], reduce="norm")
    found = seewhy.explain(small_net, batch[0], 1, "saliency", reduce="norm")
    np.testing.assert_allclose(found.raw, np.sqrt((found.colours**2).sum(0)), rtol=1e-5)
