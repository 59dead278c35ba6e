"""How many runs are put in order, cut into chunks, and counted against a budget."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch

import seewhy
from seewhy.recorder import Budget, Variants, is_out_of_memory
from seewhy.recorder.memory import first_chunk, first_replay
from seewhy.recorder.variants import in_chunks, interleaved, parts

COUNTS = [[5], [7, 7, 7], [1, 9, 0, 4], [0, 0], [], [3] * 40]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("size", [1, 4, 16])
def test_every_variant_of_every_sample_comes_once_and_in_its_own_order(counts: list[int], size: int) -> None:
    pairs = interleaved(counts, size)
    for row, count in enumerate(counts):
        assert [number for other, number in pairs if other == row] == list(range(count))
    assert len(pairs) == sum(counts)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_samples_advance_alike(size: int) -> None:
    """Wherever the work ends, no sample is ahead of another by more than its share of a chunk."""
    counts = [50, 50, 50]
    pairs = interleaved(counts, size)
    for end in range(len(pairs)):
        done = [sum(row == other for other, _ in pairs[:end]) for row in range(3)]
        assert max(done) - min(done) <= max(1, size // 3)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("size", [1, 4, 16])
def test_chunks_are_runs_of_consecutive_variants(counts: list[int], size: int) -> None:
    pairs = interleaved(counts, size)
    for at in range(0, len(pairs), size):
        chunk = pairs[at : at + size]
        found = parts(chunk)
        assert [(row, number) for row, numbers in found for number in numbers] == chunk
        assert len(found) <= max(1, len(counts)) + 1


def test_results_may_share_a_variant() -> None:
    plain = Variants(3, lambda numbers: torch.zeros(len(numbers), 1, 2))
    assert plain.results.tolist() == [0, 1, 2]
    shared = Variants(3, plain.make, torch.tensor([2, 0, 0, 1]))
    assert shared.results.tolist() == [2, 0, 0, 1]


class Memory:
    """Takes only so many at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[range] = []

    def __call__(self, chunk: range) -> int:
        self.tried.append(chunk)
        if len(chunk) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(chunk)


@pytest.mark.parametrize(
    ("room", "sizes"),
    [(100, [8, 8, 4]), (8, [8, 8, 4]), (7, [8, 4, 4, 4, 4, 4]), (2, [8, 4, *[2] * 10]), (1, [8, 4, 2, *[1] * 20])],
)
def test_a_chunk_that_is_too_large_is_halved_and_nothing_is_done_twice(room: int, sizes: list[int]) -> None:
    run = Memory(room)
    done = list(in_chunks(20, 8, run))
    assert [len(chunk) for chunk in run.tried] == sizes
    assert [number for chunk, _ in done for number in chunk] == list(range(20))
    assert sum(result for _, result in done) == sum(range(20))


def test_memory_that_runs_out_later_costs_only_the_chunk_it_ran_out_in() -> None:
    run = Memory(100)
    chunks = in_chunks(20, 8, run)
    assert next(chunks)[0] == range(8)
    run.room = 4
    assert [chunk for chunk, _ in chunks] == [range(8, 12), range(12, 16), range(16, 20)]
    assert run.tried == [range(8), range(8, 16), range(8, 12), range(12, 16), range(16, 20)]


def test_memory_that_runs_out_for_a_single_one_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(in_chunks(5, 4, Memory(0)))


def test_another_error_is_not_taken_for_memory() -> None:
    def fail(chunk: range) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        list(in_chunks(5, 4, fail))


def test_what_a_failed_chunk_held_is_free_before_the_next_is_run() -> None:
    """An error holds the frames, and they the tensors: on a full device the halves would then not fit either."""
    held: list[weakref.ref] = []

    def run(chunk: range) -> None:
        assert all(reference() is None for reference in held)
        large = np.zeros(3)
        held.append(weakref.ref(large))
        if len(chunk) > 2:
            raise MemoryError

    gc.disable()
    try:
        assert [chunk for chunk, _ in in_chunks(8, 8, run)] == [range(at, at + 2) for at in range(0, 8, 2)]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("no"), False),
    ],
)
def test_which_errors_say_that_memory_ran_out(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory


def test_the_first_chunk_follows_the_size_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    sizes = [first_chunk(torch.zeros(3, *space), backward=False) for space in [(224, 224), (448, 448), (4000, 4000)]]
    assert sizes == [12, 3, 1]
    assert first_chunk(torch.zeros(3, 224, 224), backward=True) == 12
    assert first_chunk(torch.zeros(1, 10), backward=False) == 96  # small ones have their own cost a run
    assert first_chunk(torch.zeros(1, 0), backward=False) == 96
    assert first_replay(torch.zeros(512, 7, 7)) == 256
    assert first_replay(torch.zeros(64, 112, 112)) == 20
    assert first_replay(torch.zeros(2048, 112, 112)) == 4
    assert first_replay(torch.zeros(1, 1)) == 256


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, Budget()),
        (500, Budget(forwards=500)),
        (np.int64(7), Budget(forwards=7)),
        ("500", Budget(forwards=500)),
        (" 500 F ", Budget(forwards=500)),
        ("12 forwards", Budget(forwards=12)),
        (20.0, Budget(forwards=20)),
        ("30s", Budget(seconds=30.0)),
        ("1.5min", Budget(seconds=90.0)),
        ("2m", Budget(seconds=120.0)),
        ("0.5 sec", Budget(seconds=0.5)),
        ("2.25 Seconds", Budget(seconds=2.25)),
        (Budget(3, 4.0), Budget(3, 4.0)),
    ],
)
def test_a_budget_is_a_number_of_forwards_or_of_seconds(given: object, found: Budget) -> None:
    assert Budget.of(given) == found


@pytest.mark.parametrize("given", [0, "0", "0s", "0.0 s", 2.5, "2.5", "0.5f"])
def test_a_budget_that_allows_nothing_whole_is_refused(given: object) -> None:
    with pytest.raises(seewhy.MethodError, match="at least one whole forward, or more than 0 seconds"):
        Budget.of(given)


@pytest.mark.parametrize(
    "given", [-1, "-3s", True, False, "soon", "", "5 hours", "1e3", "s", math.inf, math.nan, [5], (1, "s")]
)
def test_another_budget_is_refused(given: object) -> None:
    with pytest.raises(seewhy.MethodError, match=r"neither a number of forwards, such as 500, nor a time"):
        Budget.of(given)


@pytest.mark.parametrize("budget", [-1, "5 hours", True])
def test_a_budget_is_checked_before_the_model_is_run(budget: object, small_net: torch.nn.Module) -> None:
    runs: list[object] = []
    small_net.register_forward_pre_hook(lambda *_: runs.append(1))
    for call in (seewhy.explain, seewhy.compare):
        with pytest.raises(seewhy.MethodError, match="neither a number of forwards"):
            call(small_net, torch.zeros(3, 16, 16), budget=budget)
    assert not runs


def test_a_budget_is_capped_and_shared() -> None:
    assert [Budget().capped(9), Budget(4).capped(9), Budget(40).capped(9)] == [9, 4, 9]
    assert [Budget().limit, Budget(seconds=2.0).limit] == [math.inf, 2.0]
    assert Budget(10, 6.0).shared(3) == Budget(3, 2.0)
    assert Budget(2).shared(5) == Budget(1)  # one at least
    assert Budget().shared(5) == Budget()
