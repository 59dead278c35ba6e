"""`python -m bench.truth FOLDER...`: which method, at which layer, tells most truly what a model looks at.

The truth T of a map is the mean, over 5, 20, 40 and 60 % of the places, of the class's probability with the highest part of the
input alone, minus that without it. What is hidden is filled by what no map is made with: noise, linear interpolation from around
(ROAD), shuffled patches of another photograph. One line a photograph is written to --results as it is measured; another call
goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import seewhy
from seewhy.errors import MethodError, SeewhyError
from seewhy.explainer import Explainer, Recorded
from seewhy.explanation import Explanation
from seewhy.maps.held import Held
from seewhy.measures import Trial
from seewhy.measures.cut import Cut
from seewhy.measures.placing import on_input
from seewhy.measures.road import Imputed
from seewhy.measures.statistics import interval
from seewhy.targets import likelihood

PARTS = (0.05, 0.2, 0.4, 0.6)
NOISE = 0.05  # of ROAD's filling, in units of the model's input
TILES = 8  # along each side, of another photograph

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

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def maps_of(ask: Explainer, image: Path, dear: Sequence[str]) -> Iterator[tuple[str, Explanation]]:
    """Yield every candidate map of a photograph with its name."""
    for name, rounds in (("auto", 4), ("auto (rounds=2)", 2), ("auto (rounds=0)", 0)):
        yield name, ask(image, None, "auto", rounds=rounds)
    yield "hires-cam, all stages", ask(image, None, "hires-cam", "all-stages")
    for why in ask.compare(image, LAYERED, list(STAGES)):
        yield f"{why.method} at {why.layers[0]}", why
    for name in (*WHOLE, *dear):
        try:
            yield name, ask(image, None, name, budget=1000)
        except MethodError as error:
            print(f"{name} is left out: {error}", flush=True)


def measured(ask: Explainer, image: Path, other: Path, dear: Sequence[str]) -> dict[str, list[float]]:
    """Return each map's T by noise, by interpolation and by another photograph."""
    found = dict(maps_of(ask, image, dear))
    recorded, _ = ask.recorded(image)
    [sample] = recorded.samples
    placed = [on_input(why.raw, why.geometry, sample.geometry) for why in found.values()]
    trial = _trial(recorded, torch.from_numpy(np.stack(placed))[None])
    shown = sample.tensor
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shown.shape, generator=generator)
    elsewhere = _shuffled(ask.recorded(other)[0].samples[0].tensor, generator)
    fills = [_filled(trial, fill) for fill in (noise, elsewhere)]
    values = (fills[0], _interpolated(trial), fills[1])
    return {name: [float(each[row]) for each in values] for row, name in enumerate(found)}


def _trial(recorded: Recorded, maps: Tensor) -> Trial:
    recordings = recorded.recordings
    question = recordings.questions[0]
    likely = tuple(likelihood(t, o, recorded.chances) for t, o in zip(question, recordings.outputs, strict=True))
    return Trial(recordings.engine, recordings.images, (question, likely), maps, recordings.conditions)


def _filled(trial: Trial, fill: Tensor) -> Tensor:
    alone, without = (trial.score(Cut(PARTS, keeps, Held(fill))).view(-1, len(PARTS)) for keeps in (True, False))
    return (alone - without).mean(1)


def _interpolated(trial: Trial) -> Tensor:
    without = trial.score(Imputed(PARTS, highest=True, noise=NOISE)).view(-1, len(PARTS))
    rest = tuple(1 - part for part in PARTS)
    alone = trial.score(Imputed(rest, highest=False, noise=NOISE)).view(-1, len(PARTS))
    return (alone - without).mean(1)


def _shuffled(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Return a picture `(channel, height, width)` whose tiles lie elsewhere; what does not fill a tile stays."""
    down, across = (side // TILES for side in picture.shape[1:])
    inner = picture[:, : down * TILES, : across * TILES]
    tiles = inner.unflatten(1, (TILES, down)).unflatten(3, (TILES, across)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    moved = tiles[torch.randperm(len(tiles), generator=generator)].unflatten(0, (TILES, TILES))
    found = picture.clone()
    found[:, : down * TILES, : across * TILES] = moved.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the maps of all models with their mean T, highest first, and the difference of `auto` to the best single one."""
    models = list(dict.fromkeys(each["model"] for each in results))
    names = [name for name in results[0]["truth"] if all(name in each["truth"] for each in results)]
    means = {name: [_mean(results, model, name) for model in models] for name in names}
    lines = ["| map | " + " | ".join(models) + " | mean |", "|---|" + "---|" * (len(models) + 1)]
    for name in sorted(names, key=lambda each: -float(np.mean(means[each]))):
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" for v in means[name]) + f" | {np.mean(means[name]):.3f} |")
    singles = [name for name in names if not name.startswith(("auto", "hires-cam, all", "refine"))]
    best = {model: max(singles, key=lambda name, at=at: means[name][at]) for at, model in enumerate(models)}
    for name in (each for each in names if each.startswith("auto")):
        gaps = np.array([_t(each, name) - _t(each, best[each["model"]]) for each in results])
        own = np.mean(means[name]) / np.mean([means[best[model]][at] for at, model in enumerate(models)]) - 1
        each_model = ", ".join(
            f"{means[name][at] / means[best[model]][at] - 1:+.0%}" for at, model in enumerate(models)
        )
        low, high = interval(gaps) or (np.nan, np.nan)
        lines.append(
            f"\n{name}: {own:+.0%} above the best single one of each model ({each_model}); 95 %: {low:.3f} to {high:.3f}"
        )
    lines.append("\nBest single ones: " + "; ".join(f"{model}: {name}" for model, name in best.items()))
    counts = ", ".join(f"{model} {sum(each['model'] == model for each in results)}" for model in models)
    return "\n".join([*lines, f"\nPhotographs: {counts}."])


def _t(result: dict[str, Any], name: str) -> float:
    return float(np.mean(result["truth"][name]))


def _mean(results: Sequence[dict[str, Any]], model: str, name: str) -> float:
    return float(np.mean([_t(each, name) for each in results if each["model"] == model]))


def _photographs(folders: Sequence[Path]) -> list[Path]:
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.casefold() in PICTURES]
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
    asked.add_argument("--dear", action="store_true", help=f"also {', '.join(DEAR)}")
    asked.add_argument("--results", type=Path, default=Path("build/truth.jsonl"), help="the file of results")
    given = asked.parse_args(arguments)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    lines = given.results.read_text(encoding="utf-8").splitlines() if given.results.exists() else []
    results = [json.loads(line) for line in lines]
    photographs = _photographs(given.folders)[: given.limit]
    if photographs:
        ask = seewhy.Explainer(given.model, weights=given.weights, preprocess=given.preprocess)
        label = given.label or given.model
        done = {each["photograph"] for each in results if each["model"] == label}
        with given.results.open("a", encoding="utf-8") as file:
            for at, path in enumerate(photographs):
                if path.name in done:
                    continue
                try:
                    truth = measured(ask, path, photographs[at - 1], DEAR if given.dear else ())
                except SeewhyError as error:
                    print(f"{path.name} is left out: {error}", flush=True)
                    continue
                results.append({"model": label, "photograph": path.name, "truth": truth})
                file.write(json.dumps(results[-1]) + "\n")
                file.flush()
    print(table(results))


if __name__ == "__main__":
    main()
