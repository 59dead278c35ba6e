"""seewhy.measure, end to end: what it takes, what it tells, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.measures.trials import Weighted
from tests.small_models import make_small_net
from torch import Tensor, nn

import seewhy
from seewhy.measures.registry import find_metric


class Corner(nn.Module):
    """Class 0 is how bright the upper left quarter is, class 1 how bright all is, both as logits."""

    def forward(self, images: Tensor) -> Tensor:
        grey, (height, width) = images.mean(1), images.shape[2:]
        return torch.stack([grey[:, : height // 2, : width // 2].mean((1, 2)), grey.mean((1, 2))], 1)


SQUASH = {"size": (32, 32), "fit": "squash", "mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture
def corner() -> seewhy.Explainer:
    return seewhy.Explainer(Corner().eval(), preprocess=SQUASH)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(100, 255, (48, 80, 3), np.uint8)


def _upper_left(shape: tuple[int, int]) -> np.ndarray:
    values = np.zeros(shape, np.float32)
    values[: shape[0] // 2, : shape[1] // 2] = 1
    return values


def test_arrays_cover_the_picture_or_the_input(corner: seewhy.Explainer, picture: np.ndarray) -> None:
    """The same map at the picture's size, at the input's, and coarse."""
    maps = {"picture": _upper_left((48, 80)), "input": _upper_left((32, 32)), "coarse": _upper_left((2, 2))}
    found = seewhy.measure(corner, picture, maps, "deletion", target=0, fill="black", steps=4)
    values = [row.value for row in found]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert values[0] == pytest.approx(values[2], abs=0.01)
    assert found[0].beats_random
    assert [row.map for row in found] == list(maps)


def test_an_array_of_a_cropped_picture_is_cropped_with_it(picture: np.ndarray) -> None:
    """The model sees the middle square: a map of the picture's left edge is a map of nothing there."""
    ask = seewhy.Explainer(Corner().eval(), preprocess={**SQUASH, "fit": "crop", "resize": (32, 32)})
    left = np.zeros((48, 80), np.float32)
    left[:, :8] = 1
    seen = np.zeros((48, 80), np.float32)
    seen[:, 16:40] = 1
    found = seewhy.measure(ask, picture, {"left": left, "seen": seen}, "sparseness", target=0)
    by_name = {row.map: row.value for row in found}
    assert np.isnan(by_name["left"])
    assert by_name["seen"] == pytest.approx(0.5, abs=0.03)


def test_an_explanation_says_what_it_is_about(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    for target in (1, 3):
        why = ask(batch[0], target, "grad-cam")
        known = seewhy.measure(ask, batch[0], why, "insertion", steps=5, fill="mean")
        told = seewhy.measure(ask, batch[0], why, "insertion", steps=5, fill="mean", target=target)
        by_name = seewhy.measure(ask, batch[0], "grad-cam", "insertion", steps=5, fill="mean", target=target)
        assert known[0].value == told[0].value == by_name[0].value
    assert known[0].value != seewhy.measure(ask, batch[0], why, "insertion", steps=5, fill="mean", target=1)[0].value


def test_several_explanations_go_by_their_methods_or_layers(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    each = ask.compare(batch[0], ["grad-cam", "saliency"])
    assert [row.map for row in seewhy.measure(ask, batch[0], each, "sparseness")] == ["grad-cam", "saliency"]
    layers = ask.compare(batch[0], "grad-cam", ["first", "second"])
    names = [row.map for row in seewhy.measure(ask, batch[0], list(layers), "sparseness")]
    assert names == ["grad-cam first", "grad-cam second"]
    named = seewhy.measure(ask, batch[0], "grad-cam", "sparseness", layers=["first", "second"])
    assert [row.map for row in named] == names


def test_several_images_are_each_ones_value_with_an_interval_around_their_mean(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    names = ["insertion", "faithfulness-correlation"]
    batch = torch.cat([batch, batch.flip(3)])
    together = seewhy.measure(ask, list(batch), ["grad-cam"], names, steps=5, runs=20, target=2, fill="mean")
    for row in together:
        assert row.values.shape == (6,)
        assert row.value == pytest.approx(row.values.mean())
        low, high = row.interval
        assert row.values.min() <= low < row.value < high <= row.values.max()
    alone = [seewhy.measure(ask, image, "grad-cam", "insertion", steps=5, target=2, fill="mean") for image in batch]
    np.testing.assert_allclose(together[0].values, [each[0].value for each in alone], atol=1e-5)
    assert alone[0][0].interval is None
    explained = [ask(image, 2, "grad-cam") for image in batch]
    again = seewhy.measure(ask, list(batch), explained, "insertion", steps=5, fill="mean")
    np.testing.assert_allclose(again[0].values, together[0].values, atol=1e-5)


def test_the_value_is_the_mean_over_fills_which_may_disagree(corner: seewhy.Explainer, picture: np.ndarray) -> None:
    maps = {"mine": _upper_left((48, 80))}
    both = seewhy.measure(corner, picture, maps, "deletion", target=0, fill=["black", "white"], steps=4)
    each = [
        seewhy.measure(corner, picture, maps, "deletion", target=0, fill=fill, steps=4)[0]
        for fill in ("black", "white")
    ]
    assert both[0].value == pytest.approx(np.mean([row.value for row in each]))
    assert both[0].fills["black"][0] == pytest.approx(each[0].value)
    assert (each[0].beats_random, each[1].beats_random) == (True, False)  # white makes the corner brighter
    assert both[0].disagree
    assert "fills disagree: black" in str(both)


def test_without_controls_the_values_are_the_same_and_nothing_stands_beside(batch: Tensor) -> None:
    model = make_small_net(1)
    beside = seewhy.measure(model, list(batch), ["grad-cam", "eigen-cam"], steps=4)
    alone = seewhy.measure(model, list(batch), ["grad-cam", "eigen-cam"], steps=4, controls=False)
    for one, other in zip(beside, alone, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-6)
        assert np.isfinite(one.random).all() and np.isfinite(one.centre).all()
        assert np.isnan(other.random).all() and np.isnan(other.centre).all()
        assert set(one.curves) == {"map", "random", "centre"} and set(other.curves) == {"map"}


@pytest.mark.parametrize("kind", ["box", "boxes", "mask", "file", "tensor"])
def test_truth_as_a_box_or_a_mask(kind: str, corner: seewhy.Explainer, picture: np.ndarray, tmp_path: Path) -> None:
    mask = _upper_left((48, 80)) > 0
    Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    truth = {
        "box": (0, 0, 40, 24),
        "boxes": [(0, 0, 20, 24), (20, 0, 40, 24)],
        "mask": mask,
        "file": tmp_path / "mask.png",
        "tensor": torch.from_numpy(mask),
    }[kind]
    maps = {"right": mask.astype(np.float32), "wrong": (~mask).astype(np.float32)}
    names = ["pointing-game", "energy-pointing-game", "localisation-auc"]
    found = seewhy.measure(corner, picture, maps, names, target=0, truth=truth)
    for name in names:
        assert found.value(name, "right") == pytest.approx(1, abs=0.03)
        assert found.value(name, "wrong") == pytest.approx(0, abs=0.03)


def test_a_thing_too_small_for_the_inputs_places_is_where_it_covers_most(corner: seewhy.Explainer) -> None:
    """A picture of 320 x 480 pixels on 32 x 32 places, of 10 x 15 pixels each."""
    picture = np.full((320, 480, 3), 128, np.uint8)
    right, beside = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    right[7, 4], beside[7, 5] = 1, 1
    maps = {"right": right, "beside": beside}
    names = ["pointing-game", "energy-pointing-game"]
    for box, beside_too in (((62, 71, 66, 74), 0), ((73, 71, 77, 74), 1)):  # the second lies across two places
        found = seewhy.measure(corner, picture, maps, names, target=0, truth=box)
        for name, shares in (("pointing-game", (1, beside_too)), ("energy-pointing-game", (1, beside_too))):
            assert (found.value(name, "right"), found.value(name, "beside")) == shares
    gone = seewhy.Explainer(Corner().eval(), preprocess={**SQUASH, "fit": "crop", "resize": (32, 32)})
    [row] = seewhy.measure(gone, picture, {"right": right}, "pointing-game", target=0, truth=(0, 0, 9, 9))
    assert np.isnan(row.value)  # what was cropped away is nowhere


def test_truth_of_several_images_is_one_each(corner: seewhy.Explainer, picture: np.ndarray) -> None:
    left, right = _upper_left((48, 80)), _upper_left((48, 80))[:, ::-1].copy()
    maps = [{"mine": left}, {"mine": right}, {"mine": left}]
    boxes = [(0, 0, 40, 24), (40, 0, 80, 24), [(40, 0, 80, 24), (0, 24, 80, 48)]]
    [row] = seewhy.measure(corner, [picture] * 3, maps, "energy-pointing-game", target=0, truth=boxes)
    np.testing.assert_allclose(row.values, [1, 1, 0], atol=0.03)


def test_options_go_to_the_metrics_that_have_them(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    maps = {"mine": np.random.default_rng(0).random((24, 40))}
    names = ["insertion", "top-k-intersection"]
    found = seewhy.measure(ask, batch[0], maps, names, steps=3, k=5, truth=(3, 3, 20, 20), fill="mean")
    assert found.value("top-k-intersection") * 5 == pytest.approx(round(found.value("top-k-intersection") * 5))
    assert found.value("insertion") == seewhy.measure(ask, batch[0], maps, "insertion", steps=3, fill="mean").value(
        "insertion"
    )


def test_the_same_seed_gives_the_same_numbers_and_nothing_else_is_touched(batch: Tensor) -> None:
    model = make_small_net()
    before, state = {name: each.clone() for name, each in model.state_dict().items()}, torch.get_rng_state()
    names = ["faithfulness-correlation", "infidelity", "monotonicity-correlation", "max-sensitivity"]
    how = {"metrics": names, "runs": 5, "fill": "mean"}
    first, again, other = (
        seewhy.measure(seewhy.Explainer(model, seed=s), batch[0], "grad-cam", **how) for s in (0, 0, 1)
    )
    assert [row.value for row in first] == [row.value for row in again] != [row.value for row in other]
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_signals_and_volumes_are_measured_as_pictures_are() -> None:
    for space in ((40,), (8, 9, 10)):
        weights = torch.zeros(2, 1, *space)
        weights[0].view(-1)[:30] = 1
        images = torch.rand(1, *space, generator=torch.Generator().manual_seed(0)) + 0.5
        kind = {1: nn.Conv1d, 3: nn.Conv3d}[len(space)]
        ask = seewhy.Explainer(nn.Sequential(kind(1, 1, 1), Weighted(weights)).eval())
        with torch.no_grad():
            ask.model.module[0].weight.fill_(1)
            ask.model.module[0].bias.fill_(0)
        maps = {"exact": (images[0] * weights[0, 0]).numpy()}
        names = ["faithfulness-correlation", "completeness", "insertion", "sparseness"]
        found = seewhy.measure(ask, images, maps, names, target=0, fill="dataset", baseline="dataset", cells=None)
        assert found.value("faithfulness-correlation") == pytest.approx(1, abs=1e-3)
        assert found.value("completeness") == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", [entry.name for entry in seewhy.metrics()])
def test_every_metric_measures_methods_of_several_pictures(name: str, batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    entry = find_metric(name)
    more = {
        key: value
        for key, value in {"runs": 3, "steps": 8, "sizes": 2, "cells": 4, "k": 30}.items()
        if key in entry.options
    }
    boxes = [(3, 2, 20, 15)] * 3
    fill = "mean" if entry.is_filled else "blur"
    found = seewhy.measure(ask, list(batch), ["grad-cam", "saliency"], name, truth=boxes, fill=fill, **more)
    low, high = entry.range
    for row in found:
        assert np.isfinite(row.values).all()
        assert ((row.values >= low - 1e-5) & (row.values <= high + 1e-5)).all()
        assert row.better == entry.better
    assert name in str(found)
    few = (
        "pointing-game",
        "monotonicity",
        "increase-in-confidence",
        "average-gain",
    )  # of few values, or none rises here
    if name not in few:
        assert found[0].value != found[1].value


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"metrics": "insertoin"}, "No metric is called 'insertoin'. Nearest: 'insertion'"),
        ({"metrics": []}, "No metric was given"),
        ({"metrics": "insertion", "stesp": 3}, "insertion has no option 'stesp'. Nearest: 'steps'"),
        ({"metrics": "iou"}, "give truth=, a mask or boxes"),
        ({"metrics": "iou", "truth": (0, 0, 9, 9), "layers": "last"}, "layers= and how= are for methods given by name"),
        ({"maps": {"mine": np.ones((3, 24, 40, 2))}}, r"of shape \(3, 24, 40, 2\) is no map"),
        ({"maps": {"mine": np.array(["a"])}}, r"A ndarray of shape \(1,\) is no map"),
        (
            {"maps": {"mine": np.ones((3, 24, 40))}},
            r"A map of shape \(3, 24, 40\) does not fit an input of 2 spatial axes",
        ),
        ({"maps": {"mine": np.ones((40, 24))}}, r"of shape \(40, 24\) lies on its side: the picture's is \(24, 40\)"),
        ({"maps": {"mine": np.full((24, 40), np.nan)}}, "'mine' holds 960 values of 960 that are no numbers"),
        ({"metrics": "iou", "truth": (0.1, 0.1, 0.5, 0.6)}, "is in parts of the picture.* 40 wide and 24 high"),
    ],
)
def test_what_does_not_fit_is_told(more: dict[str, object], words: str, batch: Tensor) -> None:
    given = {"maps": {"mine": np.ones((24, 40))}, "metrics": "sparseness", **more}
    with pytest.raises((seewhy.MetricError, seewhy.TargetError), match=words):
        seewhy.measure(make_small_net(), batch[0], **given)


def test_several_questions_are_refused(batch: Tensor) -> None:
    """The maps of all of them would be judged by what the first asks."""
    ask = seewhy.Explainer(make_small_net())
    for maps in ("grad-cam", {"mine": np.ones((24, 40))}):
        with pytest.raises(seewhy.MetricError, match=r"target='top:3' asks 3 questions; measure each alone: target="):
            seewhy.measure(ask, batch[0], maps, "sparseness", target="top:3")
    alone = seewhy.measure(ask, batch[0], "grad-cam", "sparseness", target="top:1")
    assert [row.map for row in alone] == ["grad-cam"]


def test_explanations_of_other_pictures_are_refused(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net())
    why = ask(batch[0])
    assert len(seewhy.measure(ask, batch[0] * 1.01, why, "sparseness")) == 1  # much the same picture, read otherwise
    with pytest.raises(seewhy.MetricError, match="is measured on another picture"):
        seewhy.measure(ask, batch[1], why, "sparseness")
    with pytest.raises(seewhy.MetricError, match=r"\(40 x 24\) is measured on another picture, '.*' \(40 x 20\)"):
        seewhy.measure(ask, batch[0, :, :20], why, "sparseness")


def test_a_map_that_is_the_same_everywhere_beats_nothing(batch: Tensor) -> None:
    maps = {"flat": np.ones((24, 40)), "other": np.arange(960.0).reshape(24, 40)}
    found = seewhy.measure(make_small_net(), batch[0], maps, ["deletion", "insertion"], steps=4)
    for row in found:
        assert row.flat == (row.map == "flat")
        assert not (row.flat and row.beats_random)
    assert "the map is the same everywhere: its places have no order" in found.columns()[1][0][-1]


def test_lists_that_do_not_fit_each_other_are_told(batch: Tensor) -> None:
    ask, mine = seewhy.Explainer(make_small_net()), {"mine": np.ones((24, 40))}
    with pytest.raises(seewhy.MetricError, match="Maps of 2 images were given for 3 images"):
        seewhy.measure(ask, list(batch), [mine, mine], "sparseness")
    with pytest.raises(seewhy.MetricError, match="maps of the same names, in the same order"):
        seewhy.measure(ask, list(batch), [mine, {"other": np.ones((24, 40))}, mine], "sparseness")
    with pytest.raises(seewhy.MetricError, match="1 truths were given for 3 images"):
        seewhy.measure(ask, list(batch), [mine] * 3, "iou", truth=[(0, 0, 9, 9)])
    with pytest.raises(seewhy.ImageError, match="Inputs of 2 sizes cannot be measured in one go"):
        seewhy.measure(ask, [batch[0], batch[0, :, :20]], "grad-cam", "sparseness")


def test_maps_of_models_with_several_inputs_cannot_be_made_again() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(6, 3)

        def forward(self, images: Tensor, facts: Tensor) -> Tensor:
            return self.head(torch.cat([self.body(images).relu().mean((2, 3)), facts], 1))

    inputs = (torch.randn(3, 16, 16), torch.randn(2))
    found = seewhy.measure(Two().eval(), inputs, "grad-cam", "insertion", steps=3, fill="dataset", target=0)
    assert np.isfinite(found[0].value)
    with pytest.raises(seewhy.MetricError, match="not possible yet for a model that takes several inputs"):
        seewhy.measure(Two().eval(), inputs, "grad-cam", "max-sensitivity", target=0)


def test_a_metric_of_ones_own_is_measured_like_the_others(batch: Tensor) -> None:
    from seewhy.measures import Trial, Wants, registry

    known = dict(registry._ENTRIES)
    try:

        @seewhy.metric("peak-height", better="higher", range=(0.0, 9.0), source="nobody 2026", wants=Wants.MAPS)
        def peak_height(trial: Trial, *, times: float = 1.0) -> Tensor:
            """How high the highest place is."""
            return times * trial.maps.flatten(2).amax(2)

        found = seewhy.measure(make_small_net(), batch[0], {"mine": np.full((24, 40), 0.25)}, "PeakHeight", times=3.0)
        assert found.value("peak-height") == pytest.approx(0.75)
        with pytest.raises(seewhy.MetricError, match="A metric is called 'peak-height' already"):
            seewhy.metric("peak-height", better="higher", range=(0.0, 9.0), source="nobody 2026")(
                lambda trial: trial.totals
            )
    finally:
        registry._ENTRIES.clear()
        registry._ENTRIES.update(known)


def test_batches_of_signals_and_single_volumes_come_with_their_maps() -> None:
    for space in ((20,), (5, 6, 7)):
        kind = {1: nn.Conv1d, 3: nn.Conv3d}[len(space)]
        ask = seewhy.Explainer(nn.Sequential(kind(1, 1, 1), nn.Flatten(), nn.Linear(int(np.prod(space)), 2)).eval())
        images = torch.rand(2, 1, *space, generator=torch.Generator().manual_seed(0))
        maps = [{"mine": image[0].numpy()} for image in images]
        [batch] = seewhy.measure(ask, images, maps, "complexity", target=0)
        each = [
            seewhy.measure(ask, image, own, "complexity", target=0)[0] for image, own in zip(images, maps, strict=True)
        ]
        np.testing.assert_allclose(batch.values, [row.value for row in each])
        [listed] = seewhy.measure(ask, [images[0]], maps[:1], "complexity", target=0)
        assert listed.value == each[0].value


def test_metrics_of_a_probability_are_refused_where_the_target_has_none(batch: Tensor) -> None:
    torch.manual_seed(0)
    ask = seewhy.Explainer(nn.Conv2d(3, 4, 1).eval())  # a score a class and place
    given = {"fill": "mean"}
    for name in ("average-drop", "average-gain", "adcc", "arcc", "irof"):
        words = f"{name} is about a probability, and the target, '.*predicted', has none here: it is a score"
        with pytest.raises(seewhy.MetricError, match=words):
            seewhy.measure(ask, batch[0], "saliency", ["insertion", name], **given)
    told = seewhy.measure(ask, batch[0], "saliency", ["average-drop", "irof"], target="probability:1", **given)
    for row in told:
        assert row.values.max() <= 1
    scores = seewhy.measure(ask, batch[0], "saliency", ["deletion", "aopc", "confidence-change"], **given)
    assert all(np.isfinite(row.value) for row in scores)
    mine = {"mine": np.random.default_rng(0).random((24, 40))}
    with pytest.raises(seewhy.MetricError, match="the target, 'a function', has none here"):
        seewhy.measure(ask, batch[0], mine, "irof", target=lambda output: 5 + output[0].mean().sigmoid(), segments=4)
    found = seewhy.measure(ask, batch[0], mine, "irof", target=lambda output: output[0].mean().sigmoid(), segments=4)
    assert np.isfinite(found[0].value)
