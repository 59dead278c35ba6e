"""`python -m bench [case ...]`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.cases import CASES
from bench.report import page, write
from bench.subject import GIVEN, Subject, make_subject

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def parser() -> argparse.ArgumentParser:
    """Return the command line's arguments."""
    asked = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    asked.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; none: all of them")
    asked.add_argument("--repeats", type=int, default=15, help="rounds of a cheap case; dear ones take a third (15)")
    asked.add_argument(
        "--model", default="resnet50", help="a name that seewhy.load knows; needs feature maps (resnet50)"
    )
    asked.add_argument("--weights", type=Path, help="a state dict's file; without it, weights are random")
    asked.add_argument("--images", type=Path, help="a folder of pictures; without it, scikit-image's own")
    asked.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    asked.add_argument("--out", type=Path, default=PAGE, help="the page to write (docs/benchmarks.md)")
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases asked for."""
    asked = parser().parse_args(arguments)
    if unknown := sorted(set(asked.cases) - set(CASES)):
        raise SystemExit(f"There is no case {', '.join(unknown)}. There are: {', '.join(CASES)}.")
    if asked.repeats < 1:
        raise SystemExit(f"--repeats {asked.repeats} must be at least 1.")
    subject = _subjects(asked)
    tables = []
    for name in asked.cases or CASES:
        begin = time.perf_counter()
        for part in CASES[name]:
            own = subject(part.model)
            table = part.run(own, asked.repeats)
            tables.append(table if part.model == GIVEN else replace(table, model=own.words))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    text = page(tables, subject(GIVEN), command(asked))
    write(text, asked.out)
    print(f"\n{text}")


def _subjects(asked: argparse.Namespace) -> Callable[[str], Subject]:
    """Return a function from a model's name to what is measured on; each is loaded once."""

    @cache
    def subject(name: str) -> Subject:
        weights = asked.weights if name == GIVEN else None
        return make_subject(name or asked.model, weights=weights, folder=asked.images, device=asked.device)

    return subject


def command(asked: argparse.Namespace) -> str:
    """Return the command that repeats this, with files by their names only."""
    words = ["python", "-m", "bench", *asked.cases]
    for name, default in (("repeats", 15), ("model", "resnet50"), ("device", "cpu")):
        if getattr(asked, name) != default:
            words += [f"--{name}", str(getattr(asked, name))]
    words += [f"--{name}={path.name}" for name in ("weights", "images") if (path := getattr(asked, name))]
    threads = os.environ.get("OMP_NUM_THREADS")
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(words)


if __name__ == "__main__":
    main()
