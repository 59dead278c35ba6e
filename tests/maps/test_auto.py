"""The map that masks choose: the choice by hand, one masked input after the other, and what it does where a part is missing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.planted_marks import KINDS, drawn, trained
from torch import Tensor, nn

import seewhy
from seewhy.maps import auto as room
from seewhy.maps.auto import AREAS, Parts
from seewhy.maps.held import Held
from seewhy.recorder import Conditions, Recording, TorchRecorder
from seewhy.render.files import as_json
from seewhy.targets import ContrastTarget, LogOddsTarget
from small_models import make_small_net

TOLD = "alone minus without, parts of "


class Detaching(nn.Module):
    """A model whose layers know nothing of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_small_net(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images.detach().clone())


def recorded(model: nn.Module, images: Tensor, index: int = 1) -> list[Recording]:
    """Return what two layers did about the log-odds of a class."""
    recorder = TorchRecorder(model)
    rows = [row for row in recorder.table(images) if row.name in ("first", "second")]
    asked = (LogOddsTarget(index),) * len(images)
    needs = seewhy.Needs.GRADIENTS | seewhy.Needs.INPUT_GRADIENTS | seewhy.Needs.PROPAGATION
    found = recorder.record(images, rows, lambda *_: [asked], needs=needs, conditions=Conditions(seed=3))
    return [found.at(row.name, 0) for row in rows]


@pytest.fixture
def image(batch: Tensor) -> Tensor:
    return batch[0]


@pytest.fixture
def maps() -> dict[str, Tensor]:
    drawing = torch.Generator().manual_seed(0)
    return {name: torch.randn(3, 24, 40, generator=drawing) for name in ("a", "b", "c")}


def worth_by_hand(model: nn.Module, image: Tensor, guide: Tensor, index: int) -> float:
    """Return the mean of p(the highest part alone over zeros) - p(the input with zeros there); all baselines are zeros here."""
    found = []
    for area in AREAS:
        count = round(area * guide.numel())
        mask = (guide >= guide.flatten().sort(descending=True).values[count - 1]).float()
        alone, without = (model(each[None]).softmax(1)[0, index] for each in (mask * image, (1 - mask) * image))
        found.append(float(alone - without))
    return float(np.mean(found))


def test_the_map_whose_parts_matter_most_is_chosen_for_each_image(
    batch: Tensor, maps: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_TIES", 0.0)
    model = make_small_net(1)
    rec = recorded(model, batch)[0]
    found = room._chosen(rec, maps)
    with torch.no_grad():
        slow = {name: [worth_by_hand(model, batch[at], each[at], 1) for at in range(3)] for name, each in maps.items()}
    for name, values in slow.items():
        np.testing.assert_allclose(rec.reported[TOLD + name].numpy(), values, atol=1e-5)
    best = [max(slow, key=lambda name: slow[name][at]) for at in range(3)]
    assert len(set(best)) > 1  # or the test says nothing about each
    for at, name in enumerate(best):
        assert torch.equal(found[at], maps[name][at])


def test_a_part_alone_and_the_rest_make_the_whole(batch: Tensor, maps: dict[str, Tensor]) -> None:
    around = Held(torch.full_like(batch, 2.0))
    variants = Parts(tuple(map(Held, maps.values())), around, around, AREAS, 0)(
        recorded(make_small_net(1), batch)[0].row(0)
    )
    made = variants.make(range(variants.count)).view(len(AREAS), 2, len(maps), *batch.shape[1:])
    torch.testing.assert_close(made[:, 0] + made[:, 1], (batch[0] + 2).expand_as(made[:, 0]))
    again = torch.cat([variants.make(range(at, at + 1)) for at in range(variants.count)])
    assert torch.equal(again, made.flatten(0, 2))
    shares = (made[:, 0] - 2).abs().flatten(3).gt(0.5).float().mean((1, 2, 3))
    assert (shares.diff() > 0).all()  # from area to area more is shown


def test_between_equal_places_neither_their_order_nor_another_map_decides(batch: Tensor) -> None:
    flat = Held(torch.zeros(3, 24, 40))
    rec = recorded(make_small_net(1), torch.ones_like(batch))[0].row(0)
    parts = Parts((flat, flat), Held(torch.zeros_like(batch)), Held(torch.zeros_like(batch)), (0.5,), 0)
    alone, other = parts(rec).make(range(2))[:, 0]
    assert torch.equal(alone, other)
    assert 0.1 < float(alone[:12].mean()) < 0.9


def test_a_batch_is_what_each_would_get_alone(batch: Tensor) -> None:
    ask = seewhy.Explainer(make_small_net(6))
    together = ask(list(batch), 0, "auto", rounds=1)
    for image, one in zip(batch, together, strict=True):
        alone = ask(image, 0, "auto", rounds=1)
        np.testing.assert_allclose(one.raw, alone.raw, atol=2e-3)
        assert one.reported == pytest.approx(alone.reported, abs=1e-4)
        assert one.notes == alone.notes
    assert len({one.notes for one in together}) > 1  # each image has its own


@pytest.mark.parametrize("at", range(3))
def test_what_is_told_is_what_was_chosen(at: int, batch: Tensor) -> None:
    ask, image = seewhy.Explainer(make_small_net(6)), batch[at]
    why = ask(image, 0, "auto", rounds=1)
    assert set(why.reported) == {TOLD + name for name in ("contributions under masks", "contributions", "relevance")}
    plain = ask(image, 0, "auto", rounds=0)
    assert not plain.reported
    best = max(why.reported, key=lambda name: why.reported[name])
    assert f"chosen of 3 maps: {best.removeprefix(TOLD)}" in why.notes
    assert (why.among, plain.among) == (3, 1)
    assert as_json(why)["among"] == 3
    assert np.array_equal(why.raw, plain.raw) == (best == f"{TOLD}contributions")


def test_where_relevance_ends_before_the_input_grad_cam_is_tried_instead(image: Tensor) -> None:
    """The derivatives end where the model detaches its input."""
    why = seewhy.explain(Detaching(), image, target=1, method="auto", rounds=1)
    assert f"{TOLD}grad-cam" in why.reported
    assert f"{TOLD}relevance" not in why.reported
    assert any("the model's derivatives do not reach its input" in note for note in why.notes)
    assert why.raw.max() > 0


def _failing(error: Exception) -> Callable[[Recording], Tensor]:
    def fail(_: Recording) -> Tensor:
        raise error

    return fail


def test_memory_that_runs_out_for_relevance_takes_no_map_away(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "relevance", _failing(torch.OutOfMemoryError("too much")))
    why = seewhy.explain(make_small_net(1), image, target=1, method="auto", rounds=1)
    assert f"{TOLD}grad-cam" in why.reported
    assert "grad-cam stands for relevance among the maps: memory ran out" in why.notes
    monkeypatch.setattr(room, "relevance", _failing(RuntimeError("broken")))
    with pytest.raises(seewhy.MethodError, match="RuntimeError: broken"):
        seewhy.explain(make_small_net(1), image, target=1, method="auto", rounds=1)


@pytest.mark.parametrize("nothing", [0.0, 2.0, math.nan])
def test_a_map_that_says_nothing_is_never_chosen(batch: Tensor, nothing: float) -> None:
    """By luck it would be: the places that are taken for its highest are those of a random field."""
    rec = recorded(make_small_net(1), batch)[0]
    low = torch.full((3, 24, 40), nothing)
    low[2] = torch.rand(24, 40, generator=torch.Generator().manual_seed(0))
    found = room._chosen(rec, {f"map {at}": -recorded_map for at, recorded_map in enumerate([low[[2, 2, 2]], low])})
    assert rec.notes_of_each[:2] == ("chosen of 2 maps: map 0",) * 2
    assert torch.equal(found, -low[[2, 2, 2]])


def test_a_score_that_is_no_classs_chooses_by_itself(batch: Tensor, maps: dict[str, Tensor]) -> None:
    model = make_small_net(1)
    recorder = TorchRecorder(model)
    rows = [row for row in recorder.table(batch) if row.name == "first"]
    asked = (ContrastTarget(0, 2),) * 3
    made = recorder.record(batch, rows, lambda *_: [asked], needs=seewhy.Needs.GRADIENTS, conditions=Conditions(seed=3))
    rec = made.at("first", 0)
    room._chosen(rec, maps)
    mask = maps["a"][0] >= maps["a"][0].flatten().sort(descending=True).values[round(0.05 * 960) - 1]
    parts = Parts((Held(maps["a"]),), Held(torch.zeros_like(batch)), Held(torch.zeros_like(batch)), (0.05,), 3)
    with torch.no_grad():
        alone, without = (model(each[None])[0] for each in (mask * batch[0], ~mask * batch[0]))
    expected = float((alone[0] - alone[2]) - (without[0] - without[2]))
    assert float(room._worth(rec, parts)[0, 0]) == pytest.approx(expected, abs=0.02)
    assert abs(expected) > 0.05


def test_a_budget_that_ends_before_the_choice_leaves_a_map_that_was_not_chosen(image: Tensor) -> None:
    why = seewhy.explain(make_small_net(1), image, target=1, method="auto", budget=4)
    assert why.raw.max() > 0
    assert any("the budget ended the work" in note for note in why.notes)
    assert any(note.startswith("which of the maps matters most is not known") for note in why.notes)
    assert not why.reported
    assert why.among == 1


def test_a_budget_that_ends_within_the_choice_compares_what_was_run_of_every_map(image: Tensor) -> None:
    why = seewhy.explain(make_small_net(1), image, target=1, method="auto", budget=7)
    assert why.among == 3
    assert all(np.isfinite(value) and value for value in why.reported.values())


def test_the_test_of_a_chosen_map_counts_the_luck_of_all() -> None:
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    ask = seewhy.Explainer(trained("tag"))
    chosen, plain = (ask(image, 1, "auto", rounds=rounds, verify=True) for rounds in (1, 0))
    assert chosen.evidence is not None
    assert plain.evidence is not None
    assert "the best of 3 shuffled maps" in chosen.evidence.reason
    assert "a shuffled map does" in plain.evidence.reason


@pytest.mark.slow
def test_auto_finds_a_known_mark_at_least_as_often_as_the_best_single_method() -> None:
    names = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "finer-cam", "eigen-cam")
    hits: dict[str, list[bool]] = {}
    for kind in KINDS:
        ask = seewhy.Explainer(trained(kind))
        pictures = drawn(kind, 67, torch.Generator().manual_seed(7), with_mark=True)
        images, classes = list(pictures.images), pictures.classes.tolist()
        made = [list(each) for each in ask.compare(images, names, ["-1", "-2", "-3"], [classes])]
        for name in ("guided-backprop", "auto"):
            for one, why in zip(made, ask(images, classes, name), strict=True):
                one.append(why)
        for one, mark in zip(made, pictures.marks, strict=True):
            for why in one:
                raw = torch.from_numpy(np.array(why.raw))[None, None]
                large = torch.nn.functional.interpolate(raw, size=mark.shape, mode="bilinear")
                name = why.method if why.method == "auto" else f"{why.method} at {why.layers}"
                hits.setdefault(name, []).append(bool(mark.flatten()[large.argmax()]))
    found = {named: float(np.mean(each)) for named, each in hits.items()}
    assert {len(each) for each in hits.values()} == {201}
    assert found["auto"] >= max(found.values())
    assert found["grad-cam at ('2',)"] < 0.5  # the layer that is usual misses it: it takes more than one
