"""`python -m bench.localisation FOLDER`: how often each method's map of an ImageNet class lies on COCO's boxes of it.

FOLDER holds photographs with YOLO's `.txt` and `classes.txt`. Each kind of thing in a photograph that ImageNet has a class for
(bench/coco_classes.py) and the model sees, is asked for: the likeliest of its classes, if that is among the model's first --rank.
What fills more than half of the model's input is left out, since any map lies on it. Methods run at their own layers with at
most 200 forwards a map. Beside them stands a blob in the middle, for things that are photographed are mostly there.
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
from seewhy.datasets.truth import Truths, open_truth
from seewhy.errors import SeewhyError
from seewhy.explainer import Explainer
from seewhy.measures.statistics import interval

METRICS = ("pointing-game", "energy-pointing-game")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
RANK = 10
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


def measured(ask: Explainer, picture: Path, index: int, edges: Sequence[Edges]) -> dict[str, dict[str, float]]:
    """Return each method's values by metric, and those of a random map and of a blob in the middle."""
    made = ask.compare(picture, "all", targets=[index])
    rows = seewhy.measure(ask, picture, list(made), METRICS, truth=list(edges))
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.map, {})[row.metric] = row.value
        found.setdefault(CENTRE, {})[row.metric] = float(row.centre[0])
        found.setdefault("random maps, mean", {})[row.metric] = float(row.random[0])
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the methods with both metrics, highest energy first, and how far each is from the blob in the middle."""
    names = [name for name in rows[0]["values"] if all(name in row["values"] for row in rows)]
    values = {
        name: np.array([[row["values"][name][metric] for metric in METRICS] for row in rows], dtype=np.float64)
        for name in names
    }
    centre = values[CENTRE]
    lines = ["| map | pointing game | against the centre | energy | against the centre |", "|---|---|---|---|---|"]
    for name in sorted(names, key=lambda each: -float(np.nanmean(values[each][:, 1]))):
        cells = [
            cell
            for metric in range(len(METRICS))
            for cell in (f"{np.nanmean(values[name][:, metric]):.3f}", _gap(values[name][:, metric], centre[:, metric]))
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    photographs = len({row["photograph"] for row in rows})
    return "\n".join([*lines, f"\n{len(rows)} things in {photographs} photographs."])


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
    asked.add_argument("--results", type=Path, default=Path("build/localisation.jsonl"), help="the file of results")
    given = asked.parse_args(arguments)
    ledger = Ledger(given.results)
    if given.folder is not None:
        ask = seewhy.Explainer("efficientnet_lite0")
        pictures = sorted(path for path in given.folder.iterdir() if path.suffix.casefold() in PICTURES)
        truths = open_truth(given.folder, given.folder, [path.name for path in pictures])
        done = {(row["photograph"], row["kind"]) for row in ledger.rows}
        for picture in pictures:
            for kind, index, edges in asked_of(ask, picture, truths, given.rank):
                if (picture.name, kind) in done:
                    continue
                try:
                    values = measured(ask, picture, index, edges)
                except SeewhyError as error:
                    print(f"{kind} in {picture.name} is left out: {error}", flush=True)
                    continue
                ledger.add({"photograph": picture.name, "kind": kind, "class": index, "values": values})
    print(table(ledger.rows))


if __name__ == "__main__":
    main()
