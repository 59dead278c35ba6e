"""Case: how much of the bare forward's throughput is left when Score-CAM sends masked images through the model."""

from __future__ import annotations

import copy
import time
from functools import partial

import torch

import seewhy
from bench.subject import Subject
from bench.tables import BARE, OURS, Row, Table
from bench.timing import Runner, alternate, wait

SIZES = (1, 8, 16, 32, 64, 128)
BUDGET = 256
"""Masked images on a CPU, where all of a wide layer's channels would take minutes."""


def throughput(subject: Subject, repeats: int, sizes: tuple[int, ...] = SIZES) -> Table:
    """Measure Score-CAM's images a second and those of the bare forward at its best batch size."""
    on_cuda = subject.device.startswith("cuda")
    sizes = (*sizes, 256) if on_cuda else sizes
    task, ask = subject.task(subject.stages[-1]), seewhy.Explainer(subject.loaded)
    bare = bare_runners(subject, sizes)
    found = {}
    for number, runner in bare.values():
        found[runner.name] = number / _seconds(runner, subject.device)
    kept = sorted(bare, key=lambda name: found[name], reverse=True)[:3]
    budget = None if on_cuda else BUDGET
    score = partial(ask, task.images[0], task.classes[0], "score-cam", task.layers, budget=budget)
    runners = [*(bare[name][1] for name in kept), Runner(OURS, score)]
    times = alternate(runners, repeats=max(1, repeats // 5), warmups=1, limit=45, device=subject.device)
    rates = {name: bare[name][0] / times[name].median for name in kept}
    best = max(rates.values())
    rows = [Row("", name, times[name].median, rate=rate, share=rate / best) for name, rate in rates.items()]
    masked = times[OURS].result.cost.forwards - 1
    rate = masked / times[OURS].median
    note = f"{masked} masked images; the whole call, from the input to the map"
    rows.append(Row("", f"{OURS}: score-cam", times[OURS].median, rate=rate, share=rate / best, note=note))
    text = (
        f"Score-CAM at `{task.layers[0]}` of one image{f', at most {budget} of its channels' if budget else ''}, beside the bare "
        f"forward, of which the best three of batches of {', '.join(map(str, sizes))} in either memory order are shown. *Share* "
        "is of the best rate."
    )
    return Table(f"Throughput: {subject.loaded.name}", text, tuple(rows), len(times[OURS].seconds))


def bare_runners(subject: Subject, sizes: tuple[int, ...]) -> dict[str, tuple[int, Runner]]:
    """Return the batch size and a bare forward by name, for each size and memory order (of model and images)."""
    fast = copy.deepcopy(subject.model).to(memory_format=torch.channels_last)
    found = {}
    for size in sizes:
        images = subject.batch(size)
        turned = images.contiguous(memory_format=torch.channels_last)
        for name, model, batch in (("", subject.model, images), (", channels_last", fast, turned)):
            label = f"{BARE}, {size} at once{name}"
            found[label] = (size, Runner(label, partial(_bare, model, batch)))
    return found


@torch.inference_mode()
def _bare(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images)


def _seconds(runner: Runner, device: str) -> float:
    """Return the seconds of the second of two runs."""
    runner.run()
    wait(device)
    begin = time.perf_counter()
    runner.run()
    wait(device)
    return time.perf_counter() - begin
