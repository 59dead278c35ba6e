"""Many runs of a model for one batch: nothing lost, nothing twice, within the budget, and told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder import Budget, Conditions, Derived, Variants, engine
from seewhy.recorder.engine import Engine
from seewhy.targets import ClassTarget
from small_models import SmallNet, make_small_net


@pytest.fixture(autouse=True)
def same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is run at once depends on the machine; here 16 forwards, or 8 with backwards, of 224 x 224."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr("seewhy.recorder.memory._ON_CPU", {False: 4, True: 2})


class Plain:
    """A model of one line: the outputs are the image's sum, its square and its number of pixels.

    Attributes:
        room: how many images fit into its memory.
        seconds: how long a run takes; `waiting`, how long one waits for the model.
        seen: the sums of the images of each run that went well; `tried`, how many images went in each time.
        held: whether it is held now.
    """

    def __init__(self, room: int = 10**9, seconds: float = 0.0, waiting: float = 0.0) -> None:
        self.room, self.seconds, self.waiting = room, seconds, waiting
        self.seen: list[list[float]] = []
        self.tried: list[int] = []
        self.held = False
        self.rehearsed = 0
        self.now = 0.0

    @contextmanager
    def holding(self, seed: int) -> Iterator[None]:
        assert not self.held
        self.now += self.waiting
        self.held = True
        try:
            yield
        finally:
            self.held = False

    most, differentiable = None, True

    def rehearse(self, image: Tensor) -> None:
        assert self.held
        assert len(image) == 1
        self.rehearsed += 1

    def outputs(self, images: Tensor) -> Tensor:
        assert self.held
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        sums = images.flatten(1).sum(1)
        self.seen.append(sums.tolist())
        self.now += self.seconds
        return torch.stack([sums, sums**2, torch.full_like(sums, images[0].numel())], 1)

    def derivatives(self, images: Tensor, score: Any, rule: str | None) -> tuple[Tensor, Tensor]:
        scores = score(self.outputs(images))
        return scores, images * 2

    def bias_shares(self, images: Tensor, score: Any) -> list[Any]:
        raise NotImplementedError

    def module(self, target: Any, seed: int) -> AbstractContextManager[nn.Module]:
        raise NotImplementedError

    def replayer(self, image: Tensor, layer: Any, call: int) -> Any:
        raise NotImplementedError


def shifted(images: Tensor, counts: list[int]) -> list[Variants]:
    """Return variants of each image: itself plus 1, plus 2, ..."""

    def of(row: int) -> Variants:
        def make(numbers: range) -> Tensor:
            steps = torch.arange(numbers.start + 1, numbers.stop + 1).view(-1, *(1,) * (images.ndim - 1))
            return images[row] + steps

        return Variants(counts[row], make)

    return [of(row) for row in range(len(images))]


def question(batch: int, index: int) -> tuple[ClassTarget, ...]:
    return (ClassTarget(index),) * batch


def images_of(batch: int, side: int = 2) -> Tensor:
    return torch.arange(batch).float().view(-1, 1, 1, 1).expand(batch, 1, side, side) * 100


def test_every_sample_gets_the_scores_of_its_own_variants_by_its_own_target() -> None:
    images, counts = images_of(3), [4, 0, 9]
    asked = [(ClassTarget(0), ClassTarget(0), ClassTarget(1)), question(3, 2)]
    (first, second), spent = Engine(Plain(), images, Conditions()).score(shifted(images, counts), asked)
    for row, count in enumerate(counts):
        sums = [4 * (100 * row + n + 1) for n in range(count)]
        values = [each**2 for each in sums] if row == 2 else sums
        assert first.values[row, :count].tolist() == values
        assert second.values[row, :count].tolist() == [4] * count
        assert first.known[row].tolist() == [n < count for n in range(9)]
        assert not first.values[row, count:].any()
    assert (spent.done, spent.planned, spent.cost.forwards) == (9, 9, 9)


def test_results_that_share_a_variant_share_its_run() -> None:
    images, backend = images_of(1), Plain()
    [plain] = shifted(images, [3])
    variants = Variants(3, plain.make, torch.tensor([2, 2, 0, 1, 2]))
    [found], spent = Engine(backend, images, Conditions()).score([variants], [question(1, 0)])
    assert found.values.tolist() == [[12, 12, 4, 8, 12]]
    assert backend.tried == [3]
    assert spent.cost.forwards == 3
    [cut], _ = Engine(backend, images, Conditions(budget=Budget(2))).score([variants], [question(1, 0)])
    assert cut.known.tolist() == [[False, False, True, True, False]]
    assert cut.values.tolist() == [[0, 0, 4, 8, 0]]


@pytest.mark.parametrize(
    ("room", "tried"), [(1000, [120]), (50, [120, 60, *[30] * 4]), (7, [120, 60, 30, 15, *[7] * 17, 1])]
)
def test_when_memory_runs_out_chunks_are_halved_and_none_is_run_twice(room: int, tried: list[int]) -> None:
    images, counts, backend = images_of(2), [60, 60], Plain(room)
    [found], spent = Engine(backend, images, Conditions()).score(shifted(images, counts), [question(2, 0)])
    expected = [[4 * (100 * row + n + 1) for n in range(60)] for row in range(2)]
    assert found.values.tolist() == expected
    assert backend.tried == tried
    assert sorted(each for run in backend.seen for each in run) == sorted(expected[0] + expected[1])
    assert spent.cost.forwards == 60


def test_derivatives_are_handed_over_once_each_also_when_memory_runs_out() -> None:
    images, backend = images_of(2), Plain(room=9)
    got: list[tuple[int, int, float, float]] = []

    def take(part: Derived) -> None:
        for number, score, gradient in zip(part.numbers.tolist(), part.scores, part.gradients, strict=True):
            got.append((part.row, number, float(score), float(gradient.sum())))

    spent = Engine(backend, images, Conditions()).derive(shifted(images, [20, 11]), question(2, 0), take, None)
    sums = {(row, n): 4.0 * (100 * row + n + 1) for row, count in ((0, 20), (1, 11)) for n in range(count)}
    assert sorted(got) == [(row, n, total, 2 * total) for (row, n), total in sorted(sums.items())]
    assert (spent.cost.forwards, spent.cost.backwards, spent.done) == (20, 20, 20)


def test_memory_that_runs_out_in_the_method_itself_is_not_tried_again() -> None:
    """What it has added up already would be added a second time."""
    images, total = images_of(2), []

    def take(part: Derived) -> None:
        if total:
            raise torch.OutOfMemoryError("out of memory")
        total.append(part.row)

    with pytest.raises(torch.OutOfMemoryError):
        Engine(Plain(), images, Conditions()).derive(shifted(images, [4, 4]), question(2, 0), take, None)
    assert total == [0]


def test_samples_advance_alike() -> None:
    """First chunks of 16 pictures of 224 x 224 hold as many variants of one sample as of the other."""
    images, backend = images_of(2, side=224), Plain()
    Engine(backend, images, Conditions()).score(shifted(images, [20, 20]), [question(2, 2)])
    of_first = [sum(each < 100 * 224**2 for each in run) for run in backend.seen]
    assert of_first == [8, 8, 4]
    assert backend.tried == [16, 16, 8]


@pytest.mark.parametrize(("counts", "times"), [([23], 0), ([24], 1), ([12, 12], 0), ([3, 24], 1)])
def test_many_runs_of_a_sample_are_rehearsed_once(counts: list[int], times: int) -> None:
    images, backend = images_of(len(counts)), Plain()
    Engine(backend, images, Conditions()).score(shifted(images, counts), [question(len(counts), 2)])
    assert backend.rehearsed == times
    backend.rehearsed = 0
    Engine(backend, images, Conditions(budget=Budget(forwards=23))).score(
        shifted(images, counts), [question(len(counts), 2)]
    )
    assert backend.rehearsed == 0


def told(watch: list[tuple[int, int]], **more: Any) -> Conditions:
    return Conditions(watch=lambda done, planned: watch.append((done, planned)), **more)


@pytest.mark.parametrize(
    ("counts", "room", "steps"),
    [
        ([40], 99, [0, 16, 32, 40]),
        ([20, 20], 99, [0, 16, 32, 40]),
        ([20], 5, [0, *range(4, 21, 4)]),
        ([1], 99, [0, 1]),
        ([0], 99, [0]),
    ],
)
def test_the_progress_is_told_from_0_to_all(counts: list[int], room: int, steps: list[int]) -> None:
    images, watch = images_of(len(counts), side=224), []
    Engine(Plain(room), images, told(watch)).score(shifted(images, counts), [question(len(counts), 0)])
    assert watch == [(step, sum(counts)) for step in steps]


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Plain:
    """A model whose runs take a second each, on a clock of its own."""
    backend = Plain(seconds=1.0, waiting=100.0)
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: backend.now))
    return backend


@pytest.mark.parametrize(
    ("seconds", "batch", "runs"), [(2.5, 1, 3), (2.5, 2, 6), (0.1, 1, 1), (0.1, 3, 1), (1e9, 1, 7)]
)
def test_seconds_are_for_each_map_and_one_chunk_is_always_run(
    seconds: float, batch: int, runs: int, clocked: Plain
) -> None:
    images, watch = images_of(batch, side=224), []
    conditions = told(watch, budget=Budget(seconds=seconds))
    [found], spent = Engine(clocked, images, conditions).score(shifted(images, [100] * batch), [question(batch, 0)])
    assert clocked.tried[:-1] == [16] * (runs - 1)
    done = found.known.sum(1).tolist()
    assert sum(done) == min(16 * runs, 100 * batch)
    assert max(done) - min(done) <= 16
    assert (spent.done, spent.planned) == (max(done), 100)
    assert spent.cost.seconds == pytest.approx(runs / batch)  # waiting for the model is neither cost nor budget
    assert watch[-1] == (100 * batch, 100 * batch)
    assert watch == sorted(set(watch))


def test_forwards_are_for_each_sample_and_are_told(small_net: SmallNet, batch: Tensor) -> None:
    found = seewhy.explain(small_net, batch, 2, "occlusion", window=8, budget=7)
    alone = seewhy.explain(small_net, batch[2], 2, "occlusion", window=8, budget=7)
    for why in found:
        assert why.cost.forwards == 8
        assert "the budget ended the work after 7 of 45 runs" in why.notes
    np.testing.assert_allclose(found[2].raw, alone.raw, atol=1e-6)
    seconds = seewhy.explain(small_net, batch[2], 2, "occlusion", window=8, budget="1000s")
    assert seconds.cost.forwards == 46
    assert not any("budget" in note for note in seconds.notes)


class Narrow(SmallNet):
    """More than so many images are too many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.tried = most, []

    def forward(self, images: Tensor) -> Tensor:
        self.tried.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(images)


@pytest.mark.parametrize("name", ["occlusion", "score-cam", "ablation-cam", "smoothgrad"])
def test_a_model_for_which_most_chunks_are_too_large(name: str, batch: Tensor) -> None:
    options: dict[str, Any] = {"occlusion": {"window": 8}, "smoothgrad": {"samples": 9}}.get(name, {})
    model = Narrow(most=1000).eval()
    model.load_state_dict(make_small_net().state_dict())
    expected = seewhy.explain(model, batch, [0, 1, 2], name, **options)
    model.most = 3
    for why, other in zip(seewhy.explain(model, batch, [0, 1, 2], name, **options), expected, strict=True):
        np.testing.assert_allclose(why.raw, other.raw, atol=1e-5)
        assert why.cost.forwards == other.cost.forwards
        assert why.cost.replays == other.cost.replays


@pytest.mark.parametrize("name", ["occlusion", "score-cam", "saliency"])
def test_a_single_variant_that_is_too_large_is_an_error_that_says_what_to_do(name: str) -> None:
    class FullLater(SmallNet):
        left = 10**9

        def forward(self, images: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(images)

    torch.manual_seed(0)
    model = FullLater().eval()
    ask = seewhy.Explainer(model)
    ask.layers(torch.zeros(3, 16, 16))
    model.left = 1
    with pytest.raises(seewhy.RecordingError, match=r"single image of shape \(3, 16, 16\).*smaller image"):
        ask(torch.ones(3, 16, 16), 0, name)
