"""Case: peak memory, each measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import seewhy
from bench.subject import Subject
from bench.tables import OURS, Row, Table

SIDE = 1024
LIMIT = 4096.0
"""MiB that no method may need for an image of SIDE x SIDE."""

BUDGET = {"cpu": 8, "cuda": 64}
"""Runs of the model a map: some chunks. The peak does not depend on how many there are."""

SCORED = {"cpu": 64, "cuda": 512}
"""Masked images of seewhy's Score-CAM: four chunks."""

LIBRARIES = (OURS, "torchcam", "pytorch-grad-cam")
_ROOT = Path(__file__).parent.parent


def score_cam_memory(subject: Subject, _repeats: int = 1, libraries: Sequence[str] = LIBRARIES) -> Table:
    """Measure the peak memory of Score-CAM at the last stage."""
    budget = SCORED[_kind(subject.device)]
    asked = {"model": subject.loaded.name, "device": subject.device, "budget": budget}
    found: dict[str, float] = {}
    for who in libraries:
        found |= measured("score_cam", who=who, **asked)
    layer = subject.stages[-1]
    text = (
        f"Score-CAM at `{layer}` ({subject.channels(layer)} channels), one image, random weights, each library at its own "
        f"batch size in a fresh process: {_what(subject.device)}, when the model is loaded and has run once. To save time "
        f"seewhy scores {budget} channels, chunk by chunk, and the peers are stopped in their third batch of masked images: by "
        "then they have made all that they make beforehand (pytorch-grad-cam: every mask and every masked image)."
    )
    rows = [
        Row("", who, mib=mib, leaner=mib / max(found[OURS], 1.0) if who != OURS and OURS in found else None)
        for who, mib in found.items()
    ]
    return Table("Peak memory of Score-CAM", text, tuple(rows))


def large_image(subject: Subject, _repeats: int = 1, side: int = SIDE, names: Sequence[str] | None = None) -> Table:
    """Measure the peak memory of every method on a large image with the embedded model."""
    names = [row.name for row in seewhy.methods()] if names is None else names
    budget = BUDGET[_kind(subject.device)]
    # On a CPU what one method leaves in the heap would change the next one's peak; two processes at a time.
    groups = [list(names)] if subject.device.startswith("cuda") else [[name] for name in names]
    measure = partial(measured, "methods", threads=1, side=side, device=subject.device, budget=budget)
    found: dict[str, float | str] = {}
    with ThreadPoolExecutor(2) as pool:
        for each in pool.map(lambda group: measure(names=group), groups):
            found |= each
    alone = "" if subject.device.startswith("cuda") else ", each in a fresh process of one thread"
    text = (
        f"Every method of seewhy on one image of {side} x {side} with its default layer and options{alone}: "
        f"{_what(subject.device)}, when the model is loaded and has run once on that image. "
        f"Methods that run the model many times were given a budget of {budget} runs, which are several chunks. None may need "
        f"{LIMIT:.0f} MiB."
    )
    return Table(f"Peak memory at {side} x {side}", text, tuple(method_rows(found)))


def method_rows(found: Mapping[str, float | str]) -> list[Row]:
    """Return a row for each method: MiB, or why there are none."""
    rows = []
    for name, mib in found.items():
        if isinstance(mib, str):
            rows.append(Row(name, OURS, note=mib.replace("|", "/")))
        else:
            rows.append(Row(name, OURS, mib=mib, note="" if mib < LIMIT else "more than it may"))
    return rows


def measured(kind: str, threads: int | None = None, **asked: Any) -> dict[str, Any]:
    """Return what a fresh process measured, with so many threads; None: as many as it takes by itself."""
    surroundings = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    words = [sys.executable, "-m", "bench.peak", json.dumps({"kind": kind, **asked})]
    done = subprocess.run(words, cwd=_ROOT, env=surroundings, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"bench.peak {kind} {asked} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _kind(device: str) -> str:
    return "cuda" if device.startswith("cuda") else "cpu"


def _what(device: str) -> str:
    on_gpu = "the largest amount of memory allocated on the GPU less the amount before"
    return on_gpu if device.startswith("cuda") else "the process's largest resident set less the one before"
