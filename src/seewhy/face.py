"""The functions that a user meets first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seewhy.comparison import Comparison
from seewhy.explainer import Explainer, ModelLike
from seewhy.maps.smoothing import SmoothLike
from seewhy.plan import Layers, LayoutLike
from seewhy.reading import Fuse, Reduction, View
from seewhy.recorder import Budget, LayerTable, OutputLike
from seewhy.targets import TargetLike


def explain(
    model: ModelLike,
    image: Any,
    target: TargetLike | Sequence[TargetLike] = None,
    method: str = "grad-cam",
    layers: Layers = None,
    *,
    fuse: Fuse = "mean",
    layout: LayoutLike = None,
    view: View | None = None,
    smooth: SmoothLike = None,
    reduce: Reduction | None = None,
    budget: Budget | int | str | None = None,
    preprocess: Any = None,
    labels: Any = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    output: OutputLike = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Any:
    """Explain why a model said what it said about an image.

    Args:
        model: a torch module, or a name: "efficientnet_lite0" (built in), "resnet18", "timm:...", "torchvision:...",
            "hf:...", "package.module:factory".
        image: a path, bytes, PIL image or numpy picture, which is prepared for the model; or a float tensor `(C, *space)` or
            `(B, C, *space)`, which is the model's input as it is. Or a list of these.
        target: None (the predicted class), a class index, a label name, "A-vs-B", "probability:NAME", "top:k", "up" or
            "down" (a single output higher or lower; "up:NAME" of several), a callable
            from one sample's output to one number; or a list with one of these for each image.
        method: a name of `seewhy.methods()`.
        layers: a module, a name, a glob, "last", -2, "all-stages", or a list of these; in a glob * stays within one level of
            the names ("blocks.*"), ** does not. None: the last layer that yields a
            map and has a gradient.
        fuse: several layers as the "mean" or "max" of their maps (each divided by its largest absolute value), or the "product"
            of their positive parts (RefineCAM); or "none": one explanation each.
        layout: how to read the layers' output, when what is inferred is wrong: "channels-first", "channels-last", a
            `seewhy.Layout`, or a dict of its fields.
        view: "positive" (heat map 0..1) or "signed" (-1..1). None: as the method's paper has it.
        smooth: "aug" (mean over flipped and dimmed inputs), "eigen" (first principal component of a layer's channels instead of
            their sum), "noise" (mean over noisy inputs), several as "aug,eigen"; or `seewhy.Augment`, `seewhy.Noise`.
        reduce: colour channels as "sum", "mean", "max-abs", "sum-abs" or "norm", for methods that keep them.
        budget: the most that one map of one image may cost beyond its recording: forwards (500) or seconds ("30s"). The map is
            then made of what is known so far, and its notes say so.
        preprocess, labels, device, batch_size, output, seed, progress: see :class:`seewhy.Explainer`.
        options: the method's own, such as `samples=25`.

    Returns:
        An :class:`seewhy.Explanation`; for a list or batch of images a list. "top:k" and fuse="none" give a list an image.

    Raises:
        SeewhyError: with what was asked, what was found and what to do. PartialError when some images of a list fail; the
            others' explanations are in it.
    """
    ask = Explainer(
        model,
        preprocess=preprocess,
        labels=labels,
        device=device,
        batch_size=batch_size,
        output=output,
        seed=seed,
        progress=progress,
    )
    return ask(
        image,
        target,
        method,
        layers,
        fuse=fuse,
        layout=layout,
        view=view,
        smooth=smooth,
        reduce=reduce,
        budget=budget,
        **options,
    )


def compare(
    model: ModelLike,
    image: Any,
    methods: Sequence[str] | str = ("grad-cam",),
    layers: Layers = None,
    targets: Sequence[TargetLike] | TargetLike = (),
    *,
    layout: LayoutLike = None,
    view: View | None = None,
    smooth: SmoothLike = None,
    reduce: Reduction | None = None,
    budget: Budget | int | str | None = None,
    preprocess: Any = None,
    labels: Any = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    output: OutputLike = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Comparison | list[Comparison]:
    """Explain one image by several methods, at several layers, for several targets, all from one recording.

    Args:
        model, image: as in :func:`explain`.
        methods: names; "all" is every method.
        layers: one map for each layer; a glob or "all-stages" gives several.
        targets: one or several questions; "top:k" gives k.
        layout, view, smooth, reduce, preprocess, labels, device, batch_size, output, seed, progress: as in :func:`explain`.
        budget: as in :func:`explain`; with "all" and None, 200 forwards a map.
        options: given to those of the methods that have them.

    Returns:
        A list of explanations (methods x layers x targets) with `.figure()` and `.save()`; for several images a list of those.

    Raises:
        SeewhyError: as in :func:`explain`.
    """
    ask = Explainer(
        model,
        preprocess=preprocess,
        labels=labels,
        device=device,
        batch_size=batch_size,
        output=output,
        seed=seed,
        progress=progress,
    )
    return ask.compare(
        image,
        methods,
        layers,
        targets,
        layout=layout,
        view=view,
        smooth=smooth,
        reduce=reduce,
        budget=budget,
        **options,
    )


def layers(model: ModelLike, image: Any = None, *, preprocess: Any = None, output: OutputLike = None) -> LayerTable:
    """Return the layers of a model that yield a map: name, type, channels, grid, stride, layout, and which is the default.

    Args:
        model, preprocess, output: as in :func:`explain`.
        image: the table is made for an input of its size; None: the model's usual size.

    Raises:
        SeewhyError: as in :func:`explain`.
    """
    return Explainer(model, preprocess=preprocess, output=output).layers(image)
