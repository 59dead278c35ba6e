"""The map that masks choose: the choice by hand, one masked input after the other, and what it does where a part is missing."""

from __future__ import annotations

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
from seewhy.targets import LogOddsTarget
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
    assert np.array_equal(why.raw, plain.raw) == (best == f"{TOLD}contributions")


def test_where_relevance_ends_before_the_input_grad_cam_is_tried_instead(image: Tensor) -> None:
    """The derivatives end where the model detaches its input."""
    why = seewhy.explain(Detaching(), image, target=1, method="auto", rounds=1)
    assert f"{TOLD}grad-cam" in why.reported
    assert f"{TOLD}relevance" not in why.reported
    assert why.raw.max() > 0


def test_a_budget_that_ends_before_the_choice_leaves_a_map(image: Tensor) -> None:
    why = seewhy.explain(make_small_net(1), image, target=1, method="auto", budget=4)
    assert why.raw.max() > 0
    assert any("the budget ended the work" in note for note in why.notes)
    assert all(np.isfinite(value) for value in why.reported.values())


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
