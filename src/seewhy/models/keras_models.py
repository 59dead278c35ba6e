"""Keras models by name (keras.applications) and from `.keras` files, without running code of the file."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import ModelError, did_you_mean
from seewhy.frameworks import FRAMEWORKS
from seewhy.images import Preprocess
from seewhy.models.labels import imagenet
from seewhy.models.loaded import LoadedModel, adopt

SAFE_SINCE = (3, 15)
"""The first version of Keras known here to let no file run code, read other files or unpack without limit."""

_CONFIG = 64 * 2**20  # bytes; a model's description takes some hundred thousand


def of_applications(name: str, pretrained: bool, num_classes: int | None) -> LoadedModel:
    """Build a model of keras.applications, with its own preprocessing and ImageNet's labels.

    Raises:
        ModelError: Keras is not installed, or there is no such model.
    """
    shell = _ready()
    from keras import applications

    builders = {key: value for key, value in vars(applications).items() if inspect.isfunction(value)}
    if name not in builders:
        raise ModelError(f"keras.applications has no model '{name}'.{did_you_mean(name, builders)}")
    if pretrained and num_classes not in (None, 1000):
        raise ModelError(
            f"'keras:{name}' has trained weights for 1000 classes, not {num_classes}. Give pretrained=False (--random), "
            "or weights=."
        )
    made = builders[name](weights="imagenet" if pretrained else None, classes=num_classes or 1000)
    module = shell(made)
    prepare = getattr(sys.modules[builders[name].__module__], "preprocess_input")  # noqa: B009 - each has its own
    labels = imagenet() if num_classes in (None, 1000) else None
    return LoadedModel(module, f"keras:{name}", _preprocess(prepare, module.space or (224, 224)), labels)


def _preprocess(prepare: Any, size: tuple[int, ...]) -> Preprocess:
    """Return what a `preprocess_input` does, read off what it makes of black and of each full colour.

    All of keras.applications scale and shift each channel, and some turn the order of channels round. Pictures are stretched to
    the size, as Keras' own examples do.
    """
    colours = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(4, 1, 1, 3).astype("float32")
    black, *full = np.asarray(prepare(colours.copy(), data_format="channels_last"), dtype="float64").reshape(4, 3)
    steps = np.stack(full) - black  # (colour, channel)
    turned = bool(np.argmax(steps[0]))
    factors = steps.max(0) / 255  # of pixel values 0..255
    return Preprocess(
        (size[0], size[1]),
        None,
        "squash",
        mean=tuple(float(mean) for mean in np.round(-black / factors, 4)),
        std=tuple(float(std) for std in np.round(1 / factors, 4)),
        scale=255.0,
        colours="bgr" if turned else "rgb",
    )


def from_file(path: str) -> LoadedModel:
    """Load a `.keras` file: layers of Keras and weights, never code or classes from the file.

    Raises:
        ModelError: there is no such file, it is damaged, it holds a Lambda layer or another class than Keras' own, or it is of
            another format.
    """
    shown = os.path.basename(path)  # noqa: PTH119 - it may be too long for a path
    if not os.path.isfile(path):  # noqa: PTH113
        raise ModelError(f"There is no model file '{path}'. Check the path.")
    if not path.lower().endswith(".keras"):
        raise ModelError(
            f"'{shown}' is an HDF5 file, whose models can hold code that Keras runs in some versions: it was refused. Where "
            "you trust it, load it in Python and save it as '.keras'; of weights alone, name the model as well (--weights)."
        )
    shell = _ready()
    import keras

    if tuple(map(int, keras.__version__.split(".")[:2])) < SAFE_SINCE:
        raise ModelError(
            f"Keras {keras.__version__} can be made to run code, or read other files, by a model file; files are loaded from "
            f"version {'.'.join(map(str, SAFE_SINCE))} on: pip install -U keras. Or load it where you trust it, and give the "
            "model."
        )
    _check(path, shown)
    try:
        model = keras.saving.load_model(path, custom_objects=None, compile=False, safe_mode=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"'{shown}' could not be loaded as a Keras model: {first[:300]} A model with classes of your own is built in "
            "Python: give the model object, or a factory 'package.module:function'."
        ) from error
    return adopt(shell(model), shown)


def _ready() -> Any:
    """Import Keras; where the backend that is configured is not installed, and none is asked for, on PyTorch, which is."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ:
        try:
            settings = (Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json").read_text("utf-8")
            wanted = str(json.loads(settings)["backend"])
        except (OSError, ValueError, KeyError, TypeError):
            wanted = "tensorflow"  # as Keras itself does
        if importlib.util.find_spec(wanted) is None:
            os.environ["KERAS_BACKEND"] = "torch"
    return FRAMEWORKS["keras"].ready()


def _check(path: str, shown: str) -> None:
    """Raise ModelError for a file that is damaged, or that would have to run code to be a model."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo("config.json").file_size
            config = json.loads(archive.read("config.json")) if size <= _CONFIG else None
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes reach many corners of the reader
        raise ModelError(
            f"'{shown}' is not a complete .keras file: {type(error).__name__}: {error}. Copy or save it again."
        ) from error
    if config is None or damaged is not None:
        raise ModelError(
            f"'{shown}' is not a complete .keras file: {damaged or 'config.json'} is damaged. Copy it again."
        )
    kinds = set(_kinds(config))
    if kinds & {"Lambda", "__lambda__"}:
        raise ModelError(
            f"'{shown}' has a Lambda layer, which is Python code within the file, and loading it would run that: it was refused. "
            "Use a layer of Keras, or a registered class, in its place; or load it in Python where you trust it."
        )


def _kinds(config: Any) -> Iterator[str]:
    """Yield the names of all classes that a description names, however deep."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
            if isinstance(kind := part.get("class_name"), str):
                yield kind
        elif isinstance(part, list):
            waiting.extend(part)
