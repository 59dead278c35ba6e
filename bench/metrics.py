"""Case: metrics of maps that are made already, for one map and for many of one image, beside the peers that have them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import seewhy
from bench.subject import Subject
from bench.tables import BARE, OURS, Row, Table, make_row
from bench.timing import Runner, alternate
from seewhy.measures import Trial
from seewhy.measures.controls import random_maps
from seewhy.measures.curves import deletion, insertion
from seewhy.measures.road import PERCENTILES, road

MANY = 20
STEPS = 24  # Quantus wants steps that divide the places of one channel: 8 for each of three
CONTROLLED = f"{OURS}: measure"
"""The public call, which measures maps that know nothing beside the given ones."""
MEASURED = f"{OURS}: measure, controls=False"

Run = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Judged:
    """What is judged.

    Attributes:
        subject: the model.
        maps: `(map, *space)` of its first image, at the input's resolution.
        target: the class that they are about.
    """

    subject: Subject
    maps: Tensor
    target: int

    @property
    def image(self) -> Tensor:
        """The input, `(1, channel, *space)`."""
        return self.subject.images[:1]

    def trial(self) -> Trial:
        """Return a new trial, which has asked nothing yet."""
        recorded, _ = seewhy.Explainer(self.subject.loaded).recorded(self.image[0], self.target)
        recordings = recorded.recordings
        return Trial.of(recordings, recordings.questions[0], recorded.chances, self.maps[None])


class _Softmax:
    """The peer's targets are given one output."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[self.index]


def metrics(subject: Subject, repeats: int) -> Table:
    """Measure ROAD, and insertion and deletion, of one map and of many of one image."""
    rounds = max(1, repeats // 5)
    target = subject.classes(subject.images[:1])[0]
    maps = random_maps(MANY, tuple(subject.images.shape[2:]), torch.Generator().manual_seed(0))
    one, many = Judged(subject, maps[:1], target), Judged(subject, maps, target)
    rows = [
        *_rows("road, 1 map", one, {OURS: _ours(one, road), **_measured(one, "road")}, _grad_cam(one), rounds),
        *_rows(
            f"road, {MANY} maps", many, {OURS: _ours(many, road), **_measured(many, "road")}, _grad_cam(many), rounds
        ),
        *_rows(f"deletion, {MANY} maps", many, {OURS: _ours(many, _deletion)}, _quantus(many), rounds),
        *_rows(f"insertion and deletion, {MANY} maps", many, {OURS: _ours(many, _both)}, {}, rounds),
    ]
    return Table(
        "Metrics",
        "Maps of one image, smooth noise as large as the input, and the predicted class. ROAD: the probability without the "
        f"highest and without the lowest {', '.join(map(str, PERCENTILES))} per cent of all places, filled from around; deletion "
        f"and pixel flipping in {STEPS} steps, filled with zeros. `measure` is the public call, which measures four maps that "
        "know nothing beside the given ones.",
        tuple(rows),
        rounds,
    )


def _rows(what: str, judged: Judged, own: dict[str, Run], peers: dict[str, Run], rounds: int) -> Sequence[Row]:
    """Return one metric's rows; peers run in every third round."""
    runners = [
        Runner(BARE, partial(judged.subject.bare, judged.image)),
        *(Runner(who, run) for who, run in own.items()),
        *(Runner(who, run, every=3, warm=False) for who, run in peers.items()),
    ]
    times = alternate(runners, repeats=rounds, warmups=1, limit=240, device=judged.subject.device)
    return [make_row(what, who, times) for who in times if who != BARE]


def _ours(judged: Judged, metric: Callable[[Trial], Any]) -> Run:
    return lambda: metric(judged.trial())


def _measured(judged: Judged, name: str) -> dict[str, Run]:
    ask = seewhy.Explainer(judged.subject.loaded)
    maps = {str(number): each.numpy() for number, each in enumerate(judged.maps)}
    call = partial(seewhy.measure, ask, judged.image[0], maps, name, target=judged.target)
    return {CONTROLLED: call, MEASURED: partial(call, controls=False)}


def _deletion(trial: Trial) -> Tensor:
    return deletion(trial, steps=STEPS, fill="dataset")


def _both(trial: Trial) -> tuple[Tensor, Tensor]:
    return _deletion(trial), insertion(trial, steps=STEPS, fill="dataset")


def _grad_cam(judged: Judged) -> dict[str, Run]:
    """Return pytorch-grad-cam's ROAD, which takes an input a map."""
    from pytorch_grad_cam.metrics.road import ROADCombined

    count = len(judged.maps)
    images = judged.image.expand(count, -1, -1, -1).contiguous()
    metric = ROADCombined(list(PERCENTILES))
    targets = [_Softmax(judged.target)] * count

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return metric(images, judged.maps.numpy(), targets, judged.subject.model)

    return {"pytorch-grad-cam": run}


def _quantus(judged: Judged) -> dict[str, Run]:
    """Return Quantus' pixel flipping, where it is installed; it takes an input a map, and flips values channel by channel."""
    if importlib.util.find_spec("quantus") is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus
    count = len(judged.maps)
    images = judged.image.expand(count, -1, -1, -1).contiguous().cpu().numpy()
    metric = quantus.PixelFlipping(
        features_in_step=images[0].size // STEPS,
        perturb_baseline=0.0,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return metric(
                model=judged.subject.model,
                x_batch=images,
                y_batch=np.full(count, judged.target),
                a_batch=judged.maps[:, None].numpy(),
                device=judged.subject.device,
                softmax=True,
            )

    return {"Quantus": run}
