"""A function as a model: what it takes, and how pictures are prepared for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seewhy.errors import ModelError
from seewhy.frameworks.function import FunctionShell, Order, Takes
from seewhy.images import Preprocess, as_preprocessing
from seewhy.models.labels import as_labels
from seewhy.models.loaded import ASSUMED_UNIT, PLAIN, LoadedModel


def function(
    call: Callable[..., Any],
    takes: Takes = "numpy",
    *,
    layout: Order | None = None,
    batch: int | None = None,
    preprocess: Any = None,
    labels: Any = None,
) -> LoadedModel:
    """Make any function from a batch of images to scores a model, and say what it takes.

    Args:
        call: gets one batch, and returns scores `(number, classes)`: an array or tensor of any library, or lists. It is only
            called: methods that need layers or gradients refuse.
        takes: "numpy" (float32 arrays of the prepared input), "torch" (tensors), or "pictures" (arrays of whole numbers 0..255
            `(number, height, width, 3)`, as services and pipelines take them).
        layout: "channels-first" or "channels-last"; None: first, of pictures last.
        batch: the most images that it is given at once; None: as many as are quick for a model of torch.
        preprocess: as in :class:`seewhy.Explainer`. None: values in 0..1, 224 x 224 pixels from the picture's centre, which is
            then told. A dict changes this: `{"size": (96, 96), "fit": "squash"}`.
        labels: as in :class:`seewhy.Explainer`.

    Returns:
        A LoadedModel, for `model=` of :func:`seewhy.explain` and its like.

    Raises:
        ModelError: it cannot be called, or `takes`, `layout` or `batch` is not known.
    """
    if not callable(call) or isinstance(call, type):
        raise ModelError(
            f"seewhy.function takes a function, not a {type(call).__name__}. Give what is called with images."
        )
    shell = FunctionShell(call, takes, layout, batch)
    prepared = PLAIN if preprocess is None else as_preprocessing(preprocess, PLAIN)
    if takes == "pictures" and isinstance(prepared, Preprocess) and not _is_unit(prepared):
        raise ModelError(
            "preprocess= has a mean, std or scale, and the function takes pictures of whole numbers 0..255. Leave them out, or "
            "give takes='numpy'."
        )
    return LoadedModel(
        shell,
        shell.called,
        prepared,
        None if labels is None else as_labels(labels),
        () if preprocess is not None else (ASSUMED_UNIT,),
    )


def _is_unit(preprocess: Preprocess) -> bool:
    """Return whether black becomes 0 and white 1."""
    return set(preprocess.mean) == {0.0} and set(preprocess.std) == {1.0} and preprocess.scale == 1
