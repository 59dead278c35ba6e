"""The results as a page of Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.subject import Subject
from bench.tables import Row, Table

PACKAGES = ("seewhy", "torch", "torchvision", "timm", "grad-cam", "torchcam", "captum")


def page(tables: Sequence[Table], subject: Subject, command: str) -> str:
    """Return docs/benchmarks.md.

    Args:
        tables: the cases' results.
        subject: what was measured on.
        command: how to repeat it.
    """
    head = f"""# Benchmarks

This page is written by `{command}` (or `make bench`); do not edit it.

All libraries are run on the same model, layer and image in one process, in turn (A B C A B C ...), after a warm-up. Times are
medians; *forwards* is the median, over the rounds, of the time divided by that of one bare `torch.inference_mode()` forward of
the same model in the same round, so it hardly depends on what else the machine does; *times faster* is the median of the
library's time divided by seewhy's in the same round. *Difference* is the largest between any cell of the library's map and of
seewhy's, both at the layer's resolution, positive part divided by its peak (0 to 1); where signed maps are compared, both are
divided by their largest absolute value. Where a section says nothing else, the model is this one:

- Model: {subject.words}.
- Machine: {machine(subject.device)}.
- Versions: {versions()}.
"""
    return "\n".join([head, *(_section(table) for table in tables)])


def machine(device: str) -> str:
    """Return the machine in words, without its name."""
    words = [f"{os.cpu_count()} CPU cores ({_processor()})", f"torch threads: {torch.get_num_threads()}"]
    if device.startswith("cuda"):
        words.append(torch.cuda.get_device_name())
    return ", ".join(words)


def versions() -> str:
    """Return Python's and the packages' versions."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def write(text: str, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _section(table: Table) -> str:
    """Return a heading, a paragraph and a table; columns that would be empty are left out."""
    columns = {name: [cell(row) for row in table.rows] for name, cell in _COLUMNS.items()}
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    rule = ["---" if name in ("method", "library", "note") else "--:" for name in kept]
    lines = [list(kept), rule, *map(list, zip(*kept.values(), strict=True))]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    rounds = f" {table.rounds} round{'' if table.rounds == 1 else 's'}." if table.rounds else ""
    model = f"Model: {table.model}. " if table.model else ""
    return f"## {table.title}\n\n{model}{table.text}{rounds}\n\n{body}\n"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    return f"{row.difference:.0e}" if row.difference < 0.001 else f"{row.difference:.3f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


_COLUMNS = {
    "method": lambda row: row.what,
    "library": lambda row: row.who,
    "ms": lambda row: _number(row.seconds and row.seconds * 1000, 1),
    "forwards": lambda row: _number(row.forwards, 2),
    "times faster": lambda row: _number(row.faster, 2 if row.faster is not None and row.faster < 10 else 0),
    "images/s": lambda row: _number(row.rate, 1),
    "share": lambda row: "" if row.share is None else f"{row.share:.0%}",
    "MiB": lambda row: _number(row.mib, 0),
    "times leaner": lambda row: _number(row.leaner, 1),
    "difference": _difference,
    "note": lambda row: row.note,
}
