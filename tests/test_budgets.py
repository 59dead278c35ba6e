"""A budget ends the work early, says so, and what is known by then is shown; what else a method leaves to say is told too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder import Conditions, Needs, Recording, TorchRecorder, Variants
from seewhy.render.overlay import overlay
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
        .record(batch, (), lambda *_: [question], needs=Needs.SCORE, conditions=Conditions())
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


def test_a_map_that_was_cut_short_says_so_in_its_picture(small_net: SmallNet, batch: Tensor) -> None:
    ask = seewhy.Explainer(small_net)
    cut, whole = (ask(batch[0], 3, "occlusion", window=8, stride=4, budget=budget) for budget in (7, None))
    assert cut.cut_short == (7, int(whole.cost.forwards) - 1)
    assert whole.cut_short is None
    # The picture has one line more than that of the whole map, which has the same caption otherwise.
    assert overlay(cut, legend=True).height > overlay(replace(cut, cut_short=None), legend=True).height


def test_eigen_is_refused_before_anything_is_run_where_no_layer_is_looked_at(
    small_net: SmallNet, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(small_net), "forward", lambda *_: pytest.fail("it ran"))
    with pytest.raises(seewhy.MethodError, match="occlusion looks at no layer"):
        seewhy.explain(small_net, batch[0], 3, "occlusion", smooth="aug,eigen")


@pytest.mark.parametrize(
    ("baseline", "told"), [("black", True), (0.5, True), ("dataset", False), ("blur", False), (None, False)]
)
def test_a_baseline_in_units_that_nobody_told_is_told(
    baseline: object, told: bool, small_net: SmallNet, batch: Tensor
) -> None:
    options = {} if baseline is None else {"baseline": baseline}
    method = "grad-cam" if baseline is None else "occlusion"
    more = {} if baseline is None else {"window": 16}
    why = seewhy.explain(small_net, batch[0], 3, method, **options, **more)
    assert any(note.startswith("units assumed") for note in why.notes) == told
    known = seewhy.explain(small_net, batch[0], 3, method, preprocess={"mean": (0.0,) * 3}, **options, **more)
    assert not any(note.startswith("units assumed") for note in known.notes)
