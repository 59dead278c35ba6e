"""The cases: what is measured, and against what."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
from bench.subject import PHOTOGRAPH, Subject, write_photograph
from bench.timing import Runner, Times, alternate
from seewhy.render.files import PICTURE_SIDE

SINGLE_PASS = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "grad-cam-elementwise", "layer-cam")
OPTIONS: dict[str, dict[str, Any]] = {
    "smooth-grad-cam++": {"samples": SAMPLES, "spread": SPREAD},
    "finer-cam": {"strength": STRENGTH, "references": REFERENCES},
}
BATCH = 32
BARE = "bare forward"


@dataclass(frozen=True)
class Row:
    """One measured thing.

    Attributes:
        what: the method, when a table has several.
        who: the library.
        seconds: median.
        forwards: median ratio to the bare forward of the same round.
        rate: images a second, in a table about a batch.
        difference: largest difference between its maps and seewhy's, 0..1; None where there is nothing to compare.
        note: what a reader should know.
    """

    what: str
    who: str
    seconds: float
    forwards: float
    rate: float | None = None
    difference: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """One case's result: a title, what was done in words, the rows, and how many rounds were measured."""

    title: str
    text: str
    rows: tuple[Row, ...]
    rounds: int


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
                Runner("seewhy", _seewhy(subject, task, method)),
                *(Runner(who, run) for who, run in bind_peers(method, task, stack).items()),
            ]
            times = alternate(_seeded(runners, method), repeats=repeats, limit=30, device=subject.device)
        rows += _rows(times, method)
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

    def ours() -> list[Maps]:
        found = ask.compare(images[0], SINGLE_PASS, stages, task.classes[0])
        return [each.raw[None] for each in found]

    known = [method for method in SINGLE_PASS if method in TORCHCAM]
    with ExitStack() as stack:
        torchcam = [bind_torchcam(TORCHCAM[method], task, stack) for method in known]
        runners = [
            Runner(BARE, partial(subject.bare, images)),
            Runner("seewhy", ours),
            Runner("torchcam", lambda: [maps for run in torchcam for maps in run()]),
            Runner("captum", bind_captum(task)),
            Runner("pytorch-grad-cam", lambda: run_grad_cam_each([GRAD_CAM[m] for m in SINGLE_PASS], task), every=6),
        ]
        times = alternate(runners, repeats=repeats, limit=75, device=subject.device)
    every = [(method, stage) for method in SINGLE_PASS for stage in stages]
    own = dict(zip(every, times["seewhy"].result, strict=True))
    told = {
        "seewhy": every,
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
            if who != "seewhy":
                apart = difference([own[key] for key in faithful[who]], [maps[key] for key in faithful[who]])
        rows.append(_row("", who, measured, times[BARE], apart=apart, note=note))
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
            Runner("seewhy", _seewhy(subject, task, "grad-cam")),
            *(Runner(who, run) for who, run in bind_peers("grad-cam", task, stack).items()),
        ]
        repeats = max(1, repeats // 3)
        times = alternate(runners, repeats=repeats, warmups=1, limit=75, device=subject.device)
    text = (
        f"Grad-CAM at `{task.layers[0]}` for {size} images in one call, each for its predicted class. seewhy hands batches "
        "to the model in the channels_last memory order, and its peers take them as they come."
    )
    return Table(f"A batch of {size}", text, tuple(_rows(times, "", size)), len(times[BARE].seconds))


def photo(subject: Subject, repeats: int, size: tuple[int, int] = PHOTOGRAPH) -> Table:
    """Measure the way from a photograph's file to the overlay's file, and the steps of it."""
    ask, layer = seewhy.Explainer(subject.loaded), subject.stages[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = write_photograph(Path(folder) / "photograph.jpg", size=size)
        given = seewhy.inputs.prepare(path, subject.loaded.preprocess)
        images = given.tensor[None].to(subject.device)
        made = ask(path, layers=layer)
        out = Path(folder) / "why.png"
        whole = "file to overlay, beyond the bare forward"
        runners = [
            Runner(BARE, partial(subject.bare, images)),
            Runner("whole", lambda: ask(path, layers=layer).save(out)),
            Runner("reading: file to pixels", lambda: seewhy.images.read(path)),
            Runner("reading and preprocessing", lambda: seewhy.inputs.prepare(path, subject.loaded.preprocess)),
            Runner("explaining the prepared input", lambda: ask(images[0], layers=layer)),
            Runner("saving the overlay (.png)", lambda: made.save(out)),
        ]
        times = alternate(runners, repeats=repeats, limit=45, device=subject.device)
    bare, total = times[BARE], times["whole"]
    beyond = Times({turn: seconds - bare.seconds[turn] for turn, seconds in total.seconds.items()})
    rows = [_row("", BARE, bare, bare), _row("", "seewhy: file to overlay", total, bare), _row("", whole, beyond, bare)]
    rows += [_row("", f"of which {name}", each, bare) for name, each in list(times.items())[2:]]
    text = (
        f"A JPEG photograph of {size[0]} x {size[1]} pixels: read, preprocessed, explained (Grad-CAM at `{layer}`) and "
        f"saved as a PNG overlay with its legend (at most {PICTURE_SIDE} pixels wide). The steps are measured apart."
    )
    return Table("A photograph, from file to file", text, tuple(rows), len(bare.seconds))


CASES: dict[str, Callable[[Subject, int], Table]] = {"single": single, "multi": multi, "batch": batch, "photo": photo}


def _seewhy(subject: Subject, task: Task, method: str) -> Callable[[], list[Maps]]:
    """Return a run of seewhy on the task, given the model's input as a tensor."""
    ask = seewhy.Explainer(subject.loaded)
    options = OPTIONS.get(method, {})
    alone = len(task.images) == 1
    image: Any = task.images[0] if alone else task.images
    target: Any = task.classes[0] if alone else list(task.classes)

    def run() -> list[Maps]:
        found = ask(image, target, method, task.layers, **options)
        return [found.raw[None]] if alone else [np.stack([each.raw for each in found])]

    return run


def _seeded(runners: Sequence[Runner], method: str) -> list[Runner]:
    """Return the runners; where noise is drawn, peers start from seewhy's seed, so that both draw the same."""
    if not method.startswith("smooth"):
        return list(runners)

    def seeded(run: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return run()

    return [Runner(each.name, partial(seeded, each.run), each.every) for each in runners]


def _rows(times: dict[str, Times], method: str, size: int | None = None) -> list[Row]:
    """Return a table's rows; maps are compared with seewhy's."""
    own = times["seewhy"].result
    rows = []
    for who, measured in times.items():
        if who == BARE and method not in ("", SINGLE_PASS[0]):
            continue  # told once
        peer = not who.startswith(BARE) and who != "seewhy"
        apart = difference(own, measured.result) if peer else None
        what = "" if who == BARE else method
        rows.append(_row(what, who, measured, times[BARE], apart=apart, note=NOTES.get((method, who), ""), size=size))
    return rows


def _row(
    what: str,
    who: str,
    measured: Times,
    bare: Times,
    *,
    apart: float | None = None,
    note: str = "",
    size: int | None = None,
) -> Row:
    rate = None if size is None else size / measured.median
    return Row(what, who, measured.median, measured.over(bare), rate, apart, note)
