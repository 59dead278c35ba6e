"""Cases: gradient methods on one image, many at once, and a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

import seewhy
from bench.maps import difference
from bench.peers import (
    GRAD_CAM,
    NOTES,
    REFERENCES,
    SAMPLES,
    SPREAD,
    STRENGTH,
    TORCHCAM,
    Maps,
    Task,
    bind_captum,
    bind_peers,
    bind_torchcam,
    run_grad_cam_each,
)
from bench.subject import Subject
from bench.tables import BARE, OURS, Row, Table, is_peer, make_row, make_rows, ours
from bench.timing import Runner, alternate

SINGLE_PASS = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "grad-cam-elementwise", "layer-cam")
OPTIONS: dict[str, dict[str, Any]] = {
    "smooth-grad-cam++": {"samples": SAMPLES, "spread": SPREAD},
    "finer-cam": {"strength": STRENGTH, "references": REFERENCES},
}
BATCH = 32


def single(subject: Subject, repeats: int) -> Table:
    """Measure one image, the last stage, each gradient method that a peer has."""
    images, layer = subject.images[:1], subject.stages[-1]
    task = Task(subject.model, (layer,), images, tuple(subject.classes(images)))
    rows: list[Row] = []
    rounds = 0
    for method in (*SINGLE_PASS, "smooth-grad-cam++", "finer-cam"):
        with ExitStack() as stack:
            runners = [
                Runner(BARE, partial(subject.bare, images)),
                Runner(OURS, ours(subject, task, method, **OPTIONS.get(method, {}))),
                *(Runner(who, run) for who, run in bind_peers(method, task, stack).items()),
            ]
            times = alternate(_seeded(runners, method), repeats=repeats, limit=30, device=subject.device)
        notes = {who: NOTES.get((method, who), "") for who in times}
        rows += make_rows(times, method, notes=notes, told=not rows)
        rounds = max(rounds, len(times[BARE].seconds))
    text = (
        f"One image, layer `{layer}`, the predicted class; from the model's input to the map, hooks included, the "
        f"library bound to the model beforehand. Smooth Grad-CAM++ takes {SAMPLES} noisy copies everywhere."
    )
    return Table("One image", text, tuple(rows), rounds)


def multi(subject: Subject, repeats: int) -> Table:
    """Measure six single-pass methods at every stage of the network, for one class."""
    images, stages = subject.images[:1], subject.stages
    task = Task(subject.model, stages, images, tuple(subject.classes(images)))
    ask = seewhy.Explainer(subject.loaded)

    def at_once() -> list[Maps]:
        found = ask.compare(images[0], SINGLE_PASS, stages, task.classes[0])
        return [each.raw[None] for each in found]

    known = [method for method in SINGLE_PASS if method in TORCHCAM]
    with ExitStack() as stack:
        torchcam = [bind_torchcam(TORCHCAM[method], task, stack) for method in known]
        runners = [
            Runner(BARE, partial(subject.bare, images)),
            Runner(OURS, at_once),
            Runner("torchcam", lambda: [maps for run in torchcam for maps in run()]),
            Runner("captum", bind_captum(task)),
            Runner("pytorch-grad-cam", lambda: run_grad_cam_each([GRAD_CAM[m] for m in SINGLE_PASS], task), every=6),
        ]
        times = alternate(runners, repeats=repeats, limit=75, device=subject.device)
    every = [(method, stage) for method in SINGLE_PASS for stage in stages]
    own = dict(zip(every, times[OURS].result, strict=True))
    told = {
        OURS: every,
        "torchcam": [(method, stage) for method in known for stage in stages],
        "captum": [("grad-cam", stage) for stage in stages],
        "pytorch-grad-cam": every,
    }
    faithful = {who: [key for key in keys if (key[0], who) not in NOTES] for who, keys in told.items()}
    rows = []
    for who, measured in times.items():
        apart, note = None, ""
        if who != BARE:
            maps = dict(zip(told[who], measured.result, strict=True))
            note = f"{len(maps)} maps" + ("" if len(faithful[who]) == len(maps) else "; compared without grad-cam++")
            if is_peer(who):
                apart = difference([own[key] for key in faithful[who]], [maps[key] for key in faithful[who]])
        rows.append(make_row("", who, times, apart=apart, note=note))
    text = (
        f"{', '.join(SINGLE_PASS)} at {', '.join(f'`{stage}`' for stage in stages)}: {len(every)} maps of one image and "
        "one class. seewhy: one `compare`. torchcam: one run a method, all layers, for the methods that it has. captum: "
        "one run a layer, Grad-CAM only. pytorch-grad-cam: one run a map (several layers in one run are averaged by it)."
    )
    return Table("Many methods and layers at once", text, tuple(rows), len(times[BARE].seconds))


def batch(subject: Subject, repeats: int, size: int = BATCH) -> Table:
    """Measure Grad-CAM on a batch, in images a second."""
    images = subject.batch(size)
    task = Task(subject.model, subject.stages[-1:], images, tuple(subject.classes(images)))
    fast = images.contiguous(memory_format=torch.channels_last)
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, images)),
            Runner(f"{BARE}, channels_last", partial(subject.bare, fast)),
            Runner(OURS, ours(subject, task, "grad-cam")),
            *(Runner(who, run) for who, run in bind_peers("grad-cam", task, stack).items()),
        ]
        repeats = max(1, repeats // 3)
        times = alternate(runners, repeats=repeats, warmups=1, limit=75, device=subject.device)
    text = (
        f"Grad-CAM at `{task.layers[0]}` for {size} images in one call, each for its predicted class. seewhy hands batches "
        "to the model in the channels_last memory order, and its peers take them as they come."
    )
    return Table(f"A batch of {size}", text, tuple(make_rows(times, size=size)), len(times[BARE].seconds))


def _seeded(runners: Sequence[Runner], method: str) -> list[Runner]:
    """Return the runners; where noise is drawn, peers start from seewhy's seed, so that both draw the same."""
    if not method.startswith("smooth"):
        return list(runners)

    def seeded(run: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return run()

    return [replace(each, run=partial(seeded, each.run)) for each in runners]
