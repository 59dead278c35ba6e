"""`python -m bench.peak JSON`: a process of its own whose growth of memory is measured, in MiB; prints JSON.

On a CPU: the largest resident set of the process while something runs, less the resident set before it, when the model is
loaded and has run once. On a GPU: the largest amount of allocated memory, less the amount before.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

import seewhy
from bench.repeated_peers import bind_grad_cam_score, bind_torchcam_score
from bench.subject import EMBEDDED, Subject, make_subject
from bench.tuning import Enough, stop_after

BATCH = {"pytorch-grad-cam": 16, "torchcam": 32}
"""The peers' own batch sizes."""

BEFORE = {"pytorch-grad-cam": 1, "torchcam": 2}
"""Forwards of the whole image before the masked ones."""

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def can_reset() -> bool:
    """Return whether this system lets a process forget its peak, as Linux does; else only a new peak is seen."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def growth(run: Callable[[], Any], device: str) -> float:
    """Return by how many MiB memory grew at most while something ran."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would hide growth
    known = can_reset()
    before = _status("VmRSS") if known else _largest()
    run()
    return max(0.0, (_status("VmHWM") if known else _largest()) - before)


def score_cam(who: str, model: str, device: str, budget: int) -> dict[str, Any]:
    """Return the growth of Score-CAM at the last stage, by one library; peers are stopped in their third masked batch."""
    subject = make_subject(model, device=device)
    with ExitStack() as stack:
        return {who: growth(score_cam_run(subject, who, budget, stack), device)}


def score_cam_run(subject: Subject, who: str, budget: int, stack: ExitStack) -> Callable[[], Any]:
    """Return a run that reaches the peak of a library's Score-CAM; the model has run once before."""
    task = subject.task(subject.stages[-1])
    if who == "seewhy":
        ask = seewhy.Explainer(subject.loaded)
        return partial(ask, task.images[0], task.classes[0], "score-cam", task.layers, budget=budget)
    stop_after(subject.model, BEFORE[who] + 2)
    bind = {"pytorch-grad-cam": bind_grad_cam_score, "torchcam": bind_torchcam_score}[who]
    whole = bind(task, BATCH[who], stack)  # with a copy of the model, which is not counted: it is made before

    def run() -> None:
        with suppress(Enough):
            whole()

    return run


def methods(names: Sequence[str], side: int, device: str, budget: int) -> dict[str, Any]:
    """Return the growth of each of seewhy's methods on one square image with the embedded model, or its error's words."""
    return methods_of(make_subject(EMBEDDED, device=device), names, side, budget)


def methods_of(subject: Subject, names: Sequence[str], side: int, budget: int) -> dict[str, Any]:
    """Return the growth of each method on one square image."""
    image = torch.nn.functional.interpolate(subject.images[:1], (side, side), mode="bilinear")[0]
    ask = seewhy.Explainer(subject.loaded)
    target = subject.classes(image[None])[0]
    ask(subject.images[0], target)  # what is imported and set up once
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = growth(partial(ask, image, target, name, budget=budget), subject.device)
        except seewhy.SeewhyError as error:
            found[name] = str(error)
    return found


def _status(name: str) -> float:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def _largest() -> float:
    """Return the largest resident set of this process ever, in MiB."""
    import resource

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2**20 if sys.platform == "darwin" else found / 1024


KINDS: dict[str, Callable[..., dict[str, Any]]] = {"score_cam": score_cam, "methods": methods}


def main() -> None:
    """Measure what the first argument asks for."""
    asked = json.loads(sys.argv[1])
    found = KINDS[asked.pop("kind")](**asked)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
