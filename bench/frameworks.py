"""What maps cost in other frameworks, beside a bare forward of the same model there; and in torch, for comparison."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import seewhy
from bench.subject import Subject
from bench.tables import OURS, Row, Table
from bench.timing import Runner, alternate

MAPS = ("grad-cam", "layer-cam", "ablation-cam")


@dataclass(frozen=True)
class Made:
    """One framework's model.

    Attributes:
        title: the framework, with its version.
        model: what seewhy is given.
        bare: one forward without a graph, of the framework alone.
    """

    title: str
    model: Any
    bare: Callable[[], Any]


def _torch(images: Any) -> Made:
    import torch
    import torchvision

    model = torchvision.models.resnet50(weights=None).eval()

    def bare() -> Any:
        with torch.inference_mode():
            return model(images)

    return Made(f"PyTorch {torch.__version__}", model, bare)


def _paddle(images: Any) -> Made:
    import paddle

    paddle.seed(0)
    model = paddle.vision.models.resnet50()
    model.eval()
    given = paddle.to_tensor(images.numpy())

    def bare() -> Any:
        with paddle.no_grad():
            return model(given)

    return Made(f"PaddlePaddle {paddle.__version__}", model, bare)


def _keras(images: Any) -> Made:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras itself takes TensorFlow, which need not be installed
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None)
    given = keras.ops.convert_to_tensor(images.permute(0, 2, 3, 1).contiguous().numpy())
    return Made(f"Keras {keras.__version__} on {keras.backend.backend()}", model, lambda: _without_graph(model, given))


def _without_graph(model: Any, given: Any) -> Any:
    import torch

    with torch.no_grad():  # says nothing to other backends, which keep no graph of themselves
        return model(given, training=False)


MAKERS: dict[str, Callable[[Any], Made]] = {"torch": _torch, "paddle": _paddle, "keras": _keras}


def frameworks(subject: Subject, repeats: int) -> Table:
    """Measure each installed framework's ResNet-50, with random weights, on the subject's first image."""
    image = subject.images[:1].cpu()
    installed = [name for name in MAKERS if importlib.util.find_spec(name)]
    rows = [row for name in installed for row in _measured(MAKERS[name](image), image, repeats)]
    return Table(
        "Other frameworks",
        "ResNet-50 of each framework, one image, default layer: maps beside a bare forward without a graph there. "
        "Ablation-CAM leaves out each of 2048 channels; one full run per channel would take 2048 bare forwards.",
        tuple(rows),
        repeats,
    )


def _measured(made: Made, image: Any, repeats: int) -> Iterator[Row]:
    ask = seewhy.Explainer(made.model)
    runners: Sequence[Runner] = [
        Runner("bare", made.bare),
        *(Runner(name, _asking(ask, image, name), every=5 if name == "ablation-cam" else 1) for name in MAPS),
    ]
    times = alternate(runners, repeats=repeats)
    yield Row(made.title, "bare forward", times["bare"].median, 1.0)
    for name in MAPS:
        over = times[name].over(times["bare"])
        note = f"{2048 / over:.0f} times less than one run per channel" if name == "ablation-cam" else ""
        yield Row(f"{made.title}: {name}", OURS, times[name].median, over, note=note)


def _asking(ask: seewhy.Explainer, image: Any, name: str) -> Callable[[], Any]:
    return lambda: ask(image[0], 0, name)
