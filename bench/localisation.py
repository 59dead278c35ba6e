"""`python -m bench.localisation FOLDER`: how often each method's map of an ImageNet class lies on COCO's boxes of it.

FOLDER holds photographs with YOLO's `.txt` and `classes.txt`. Each kind of thing in a photograph that ImageNet has a class for
(bench/coco_classes.py) and the model sees, is asked for: the likeliest of its classes, if that is among the model's first --rank.
What fills more than half of the model's input is left out, since any map lies on it. Methods run at their own layers with at
most 200 forwards a map. Beside them stands a blob in the middle, for things that are photographed are mostly there.

One line a thing is written to --results as it is measured; another call goes on, also with other --methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import seewhy
from bench.coco_classes import imagenet_of
from bench.ledger import Ledger
from seewhy.datasets.pictures import ENDINGS
from seewhy.datasets.truth import Truths, open_truth
from seewhy.errors import SeewhyError
from seewhy.explainer import Explainer
from seewhy.measures.statistics import interval

METRICS = ("pointing-game", "energy-pointing-game")
RANK = 10
FORWARDS = 200
LARGEST = 0.5
CENTRE = "centre blob"

Edges = tuple[float, float, float, float]


def asked_of(ask: Explainer, picture: Path, truths: Truths, rank: int) -> Iterator[tuple[str, int, list[Edges]]]:
    """Yield each kind of thing in a picture that the model sees: COCO's name, ImageNet's class, and the boxes."""
    recorded, _ = ask.recorded(picture)
    [output], [sample] = recorded.recordings.outputs, recorded.samples
    order = output.flatten().argsort(descending=True).tolist()
    boxes = truths.of(picture.name, sample.geometry.original_shape)
    if not isinstance(boxes, list):
        return
    for kind in dict.fromkeys(each.kind for each in boxes):
        places = [order.index(index) for index in imagenet_of(kind or "")]
        edges = [each.edges for each in boxes if each.kind == kind]
        if places and min(places) < rank and 0 < _share(ask, picture, edges) <= LARGEST:
            yield str(kind), order[min(places)], edges


def _share(ask: Explainer, picture: Path, edges: Sequence[Edges]) -> float:
    """Return which part of the model's input boxes cover: the energy of a map that is the same everywhere."""
    return seewhy.measure(ask, picture, np.ones((8, 8)), METRICS[1], truth=list(edges)).value(METRICS[1])


def measured(
    ask: Explainer, picture: Path, index: int, edges: Sequence[Edges], methods: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return each method's values by metric, and those of a random map and of a blob in the middle."""
    made = ask.compare(picture, methods, targets=[index], budget=FORWARDS)
    rows = seewhy.measure(ask, picture, list(made), METRICS, truth=list(edges))
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.map, {})[row.metric] = row.value
        found.setdefault(CENTRE, {})[row.metric] = float(row.centre[0])
        found.setdefault("random maps, mean", {})[row.metric] = float(row.random[0])
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the methods with both metrics, highest energy first, and how far each is from the blob in the middle."""
    things: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in rows:
        things.setdefault((row["photograph"], row["kind"]), {}).update(row["values"])
    lines = [
        "| map | things | pointing game | against the centre | energy | against the centre |", "|---|---|---|---|---|---|"
    ]  # fmt: skip
    told = {
        name: _line(name, list(things.values())) for name in {name: None for each in things.values() for name in each}
    }
    lines += [line for _, line in sorted(told.values(), reverse=True)]
    photographs = len({photograph for photograph, _ in things})
    return "\n".join([*lines, f"\n{len(things)} things in {photographs} photographs."])


def _line(name: str, things: Sequence[dict[str, dict[str, float]]]) -> tuple[float, str]:
    """Return a map's energy and its line, over the things that it was made of."""
    known = [each for each in things if name in each]
    cells, energy = [], 0.0
    for metric in METRICS:
        own, centre = (np.array([each[of][metric] for each in known], dtype=np.float64) for of in (name, CENTRE))
        energy = float(np.nanmean(own))
        cells += [f"{energy:.3f}", _gap(own, centre)]
    return energy, f"| {name} | {len(known)} | " + " | ".join(cells) + " |"


def _gap(values: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> str:
    """Return the mean difference and where it lies with 95 %."""
    gaps = values - centre
    gaps = gaps[np.isfinite(gaps)]
    between = interval(gaps)
    return f"{gaps.mean():+.3f}" + ("" if between is None else f" ({between[0]:+.3f} to {between[1]:+.3f})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not yet in the file of results, and print the table of all that is."""
    asked = argparse.ArgumentParser(prog="python -m bench.localisation", description=__doc__)
    asked.add_argument(
        "folder", nargs="?", type=Path, help="photographs with boxes; none: print the table of the results"
    )
    asked.add_argument("--rank", type=int, default=RANK, help=f"of a class among the model's, at most ({RANK})")
    asked.add_argument("--methods", default="all", help="names, separated by commas (all)")
    asked.add_argument("--results", type=Path, default=Path("build/localisation.jsonl"), help="the file of results")
    given = asked.parse_args(arguments)
    ledger = Ledger(given.results)
    if given.folder is not None:
        ask = seewhy.Explainer("efficientnet_lite0")
        pictures = sorted(path for path in given.folder.iterdir() if path.suffix.casefold() in ENDINGS)
        truths = open_truth(given.folder, given.folder, [path.name for path in pictures])
        done = {(row["photograph"], row["kind"], row["methods"]) for row in ledger.rows}
        for picture in pictures:
            for kind, index, edges in asked_of(ask, picture, truths, given.rank):
                if (picture.name, kind, given.methods) in done:
                    continue
                try:
                    values = measured(ask, picture, index, edges, given.methods.split(","))
                except SeewhyError as error:
                    print(f"{kind} in {picture.name} is left out: {error}", flush=True)
                    continue
                thing = {"photograph": picture.name, "kind": kind, "class": index, "methods": given.methods}
                ledger.add({**thing, "values": values})
    print(table(ledger.rows))


if __name__ == "__main__":
    main()
