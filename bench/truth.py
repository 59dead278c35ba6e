"""`python -m bench.truth FOLDER...`: which method, at which layer, tells most truly what a model looks at.

The truth T of a map is the mean, over 5, 20, 40 and 60 % of the places, of the class's probability with the highest part of the
input alone, minus that without it. What is hidden is filled by what no map is made with: noise, linear interpolation from around
(ROAD), shuffled patches of another photograph. One line a photograph is written to --results as it is measured; another call
goes on. From --race photographs on, single maps that are surely below the best single one are measured no more.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import seewhy
from bench.ledger import Ledger
from seewhy.datasets.pictures import ENDINGS
from seewhy.errors import MethodError, SeewhyError
from seewhy.explainer import Explainer
from seewhy.explanation import Explanation
from seewhy.maps.held import Held
from seewhy.measures import Trial
from seewhy.measures.controls import elsewhere
from seewhy.measures.cut import Cut
from seewhy.measures.placing import on_input
from seewhy.measures.road import Imputed
from seewhy.measures.statistics import interval

PARTS = (0.05, 0.2, 0.4, 0.6)
NOISE = 0.05  # of ROAD's filling, in units of the model's input

LAYERED = (
    "grad-cam",
    "grad-cam++",
    "xgrad-cam",
    "hires-cam",
    "grad-cam-elementwise",
    "layer-cam",
    "finer-cam",
    "eigen-cam",
    "eigen-grad-cam",
    "kpca-cam",
    "shapley-cam",
)
STAGES = ("-1", "-2", "-3")
WHOLE = (
    "refine-cam",
    "input-x-gradient",
    "integrated-gradients",
    "smoothgrad-squared",
    "guided-backprop",
    "feature-ablation",
)
DEAR = ("occlusion", "score-cam", "ablation-cam", "rise")
"""Only with --dear: hundreds of runs a map."""


SURELY = 2.5  # standard errors below the best single map, after which another is out of the race


def maps_of(
    ask: Explainer, image: Any, dear: Sequence[str], among: Collection[str] | None
) -> Iterator[tuple[str, Explanation]]:
    """Yield every candidate map of a photograph with its name; of single ones only those `among` the given."""
    for name, rounds in (("auto", 3), ("auto (rounds=1)", 1), ("auto (rounds=0)", 0)):
        yield name, ask(image, None, "auto", rounds=rounds)
    yield "hires-cam, all stages", ask(image, None, "hires-cam", "all-stages")
    layered = [each for each in LAYERED if among is None or any(name.startswith(f"{each} at ") for name in among)]
    for why in ask.compare(image, layered, list(STAGES)) if layered else ():
        name = f"{why.method} at {why.layers[0]}"
        if among is None or name in among:
            yield name, why
    for name in (*WHOLE, *dear):
        if among is not None and name not in among:
            continue
        try:
            yield name, ask(image, None, name, budget=1000)
        except MethodError as error:
            print(f"{name} is left out: {error}", flush=True)


def in_the_race(results: Sequence[dict[str, Any]]) -> set[str]:
    """Return the single maps that are not surely below the best single one, on one model's photographs; never those that left."""
    names = [name for name in results[-1]["truth"] if _is_single(name)]
    truths = {name: np.array([_t(each, name) for each in results]) for name in names}
    best = truths[max(names, key=lambda name: float(truths[name].mean()))]
    behind = {name: best - values for name, values in truths.items()}
    error = {name: float(gaps.std(ddof=1)) / math.sqrt(len(results)) for name, gaps in behind.items()}
    return {name for name, gaps in behind.items() if gaps.mean() <= SURELY * error[name]}


def _is_single(name: str) -> bool:
    """Return whether a map is one method's, at one layer."""
    return not name.startswith(("auto", "hires-cam, all", "refine"))


def measured(
    ask: Explainer, image: Any, other: Any, dear: Sequence[str] = (), among: Collection[str] | None = None
) -> dict[str, list[float]]:
    """Return each map's T by noise, by interpolation and by another photograph."""
    found = dict(maps_of(ask, image, dear, among))
    recorded, _ = ask.recorded(image)
    [sample] = recorded.samples
    placed = [on_input(why.raw, why.geometry, sample.geometry) for why in found.values()]
    one_of = [_alike(each) for each in placed]  # several methods make one map at some layers: it is measured once
    apart = dict(zip(one_of, placed, strict=True))
    recordings, maps = recorded.recordings, torch.from_numpy(np.stack(list(apart.values())))[None]
    trial = Trial.of(recordings, recordings.questions[0], recorded.chances, maps)
    shown = sample.tensor
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shown.shape, generator=generator)
    patches = elsewhere(ask.recorded(other)[0].samples[0].tensor, generator)
    fills = [_filled(trial, fill) for fill in (noise, patches)]
    values = (fills[0], _interpolated(trial), fills[1])
    rows = {key: row for row, key in enumerate(apart)}
    return {name: [float(each[rows[key]]) for each in values] for name, key in zip(found, one_of, strict=True)}


def _alike(values: npt.NDArray[np.float32]) -> bytes:
    """Return what equal maps have in common: their values as parts of the largest, to one in ten thousand."""
    return np.round(values / max(float(np.abs(values).max()), 1e-30), 4).tobytes()


def _filled(trial: Trial, fill: Tensor) -> Tensor:
    alone, without = (trial.score(Cut(PARTS, keeps, Held(fill))).view(-1, len(PARTS)) for keeps in (True, False))
    return (alone - without).mean(1)


def _interpolated(trial: Trial) -> Tensor:
    without = trial.score(Imputed(PARTS, highest=True, noise=NOISE)).view(-1, len(PARTS))
    rest = tuple(1 - part for part in PARTS)
    alone = trial.score(Imputed(rest, highest=False, noise=NOISE)).view(-1, len(PARTS))
    return (alone - without).mean(1)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the maps of all models with their mean T, highest first, and the difference of `auto` to the best single one.

    In brackets: of the first photographs only, until the map was out of the race.
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    for each in results:
        by_model.setdefault(each["model"], []).append(each)
    told = {model: _means(of_one) for model, of_one in by_model.items()}
    names = [name for name in next(iter(told.values())) if all(name in means for means in told.values())]
    overall = {name: float(np.mean([means[name][0] for means in told.values()])) for name in names}
    lines = ["| map | " + " | ".join(by_model) + " | mean |", "|---|" + "---|" * (len(by_model) + 1)]
    for name in sorted(names, key=lambda each: -overall[each]):
        cells = [f"{means[name][0]:.3f}" if means[name][1] else f"({means[name][0]:.3f})" for means in told.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {overall[name]:.3f} |")
    best = {model: _best(means) for model, means in told.items()}
    lines += [_compared(name, by_model, best) for name in names if name.startswith("auto")]
    lines.append("\nBest single ones: " + "; ".join(f"{model}: {name}" for model, name in best.items()))
    counts = ", ".join(f"{model} {len(of_one)}" for model, of_one in by_model.items())
    return "\n".join([*lines, f"\nPhotographs: {counts}."])


def _means(results: Sequence[dict[str, Any]]) -> dict[str, tuple[float, bool]]:
    """Return one model's mean T of each map, and whether it was measured on every photograph."""
    found = {}
    for name in dict.fromkeys(name for each in results for name in each["truth"]):
        values = [_t(each, name) for each in results if name in each["truth"]]
        found[name] = float(np.mean(values)), len(values) == len(results)
    return found


def _best(means: dict[str, tuple[float, bool]]) -> str:
    """Return the best single map of those that were measured on every photograph."""
    singles = {name: mean for name, (mean, is_whole) in means.items() if is_whole and _is_single(name)}
    return max(singles, key=lambda name: singles[name])


def _compared(name: str, by_model: dict[str, list[dict[str, Any]]], best: dict[str, str]) -> str:
    """Return how far a map is above the best single one of each model, each model counting alike."""
    pairs = {
        model: np.array([(_t(each, name), _t(each, best[model])) for each in results])
        for model, results in by_model.items()
    }
    own, others = np.array([each.mean(0) for each in pairs.values()]).T
    each_model = ", ".join(f"{ratio:+.0%}" for ratio in own / others - 1)
    low, high = interval(np.concatenate([each[:, 0] - each[:, 1] for each in pairs.values()])) or (np.nan, np.nan)
    return (
        f"\n{name}: {own.mean() / others.mean() - 1:+.0%} above the best single one of each model ({each_model}); "
        f"95 %: {low:.3f} to {high:.3f}"
    )


def _t(result: dict[str, Any], name: str) -> float:
    return float(np.mean(result["truth"][name]))


def _photographs(folders: Sequence[Path]) -> list[Path]:
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.casefold() in ENDINGS]
    order: npt.NDArray[np.int64] = np.random.default_rng(0).permutation(len(found))
    return [found[at] for at in order]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not yet in the file of results, and print the table of all that is."""
    asked = argparse.ArgumentParser(prog="python -m bench.truth", description=__doc__)
    asked.add_argument(
        "folders", nargs="*", type=Path, help="folders of photographs; none: print the table of the results"
    )
    asked.add_argument("--model", default="efficientnet_lite0", help="a name that seewhy.load knows")
    asked.add_argument("--weights", type=Path, help="its weights")
    asked.add_argument("--preprocess", type=json.loads, help="as of `seewhy explain`")
    asked.add_argument("--label", help="what to call the model in the table")
    asked.add_argument("--limit", type=int, default=200, help="photographs (200)")
    asked.add_argument("--race", type=int, default=24, help="photographs on which all single maps are measured (24)")
    asked.add_argument("--dear", action="store_true", help=f"also {', '.join(DEAR)}")
    asked.add_argument("--results", type=Path, default=Path("build/truth.jsonl"), help="the file of results")
    given = asked.parse_args(arguments)
    ledger = Ledger(given.results)
    photographs = _photographs(given.folders)[: given.limit]
    if photographs:
        ask = seewhy.Explainer(given.model, weights=given.weights, preprocess=given.preprocess)
        label = given.label or given.model
        done = [each for each in ledger.rows if each["model"] == label]
        names = {each["photograph"] for each in done}
        for at, path in enumerate(photographs):
            if path.name in names:
                continue
            among = in_the_race(done) if len(done) >= given.race else None
            try:
                truth = measured(ask, path, photographs[at - 1], DEAR if given.dear else (), among)
            except SeewhyError as error:
                print(f"{path.name} is left out: {error}", flush=True)
                continue
            done.append({"model": label, "photograph": path.name, "truth": truth})
            ledger.add(done[-1])
    print(table(ledger.rows))


if __name__ == "__main__":
    main()
