"""Cases: Eigen-CAM, and smoothing over changed inputs."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bench.repeated_peers import bind_augmented, bind_eigen
from bench.subject import Subject
from bench.tables import BARE, OURS, Table, make_rows, ours
from bench.timing import Runner, alternate


def eigen(subject: Subject, repeats: int) -> Table:
    """Measure Eigen-CAM at the last stage."""
    task = subject.task(subject.stages[-1])
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, task.images)),
            Runner(OURS, ours(subject, task, "eigen-cam")),
            Runner("pytorch-grad-cam", bind_eigen(task, stack)),
        ]
        times = alternate(runners, repeats=repeats, limit=40, device=subject.device)
    text = (
        f"One image, layer `{task.layers[0]}`. seewhy runs the model backwards as well, to give the map the sign that speaks for "
        "the class; pytorch-grad-cam leaves the sign to chance, so the signed maps are compared up to it."
    )
    return Table("Eigen-CAM", text, tuple(make_rows(times, how="either sign")), len(times[BARE].seconds))


def smooth(subject: Subject, repeats: int) -> Table:
    """Measure Grad-CAM over the six usual changed inputs, at the last stage."""
    task = subject.task(subject.stages[-1])
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, task.images)),
            Runner(OURS, ours(subject, task, "grad-cam", smooth="aug")),
            Runner("pytorch-grad-cam", bind_augmented(task, stack)),
        ]
        times = alternate(runners, repeats=max(1, repeats // 2), limit=40, device=subject.device)
    note = {"pytorch-grad-cam": "averages maps scaled to 0..1 each; compared before that"}
    text = (
        f"Grad-CAM at `{task.layers[0]}`, the mean over six inputs: as it is and reflected, times 0.9, 1 and 1.1 "
        '(seewhy: `smooth="aug"`, pytorch-grad-cam: `aug_smooth=True`).'
    )
    return Table("Grad-CAM over changed inputs", text, tuple(make_rows(times, notes=note)), len(times[BARE].seconds))
