"""The functions that a user meets first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seewhy.comparison import Comparison
from seewhy.explainer import Explainer, ModelLike
from seewhy.maps.smoothing import SmoothLike
from seewhy.models.given import WeightsLike
from seewhy.plan import Layers, LayoutLike
from seewhy.reading import Fuse, Reduction, View
from seewhy.recorder import Budget, LayerTable, OutputLike, Wrt
from seewhy.targets import TargetLike
from seewhy.verifying import Verify


def explain(
    model: ModelLike,
    image: Any,
    target: TargetLike | Sequence[TargetLike] = None,
    method: str | None = None,
    layers: Layers = None,
    *,
    fuse: Fuse = "mean",
    layout: LayoutLike = None,
    view: View | None = None,
    smooth: SmoothLike = None,
    reduce: Reduction | None = None,
    budget: Budget | int | str | None = None,
    wrt: Wrt | Sequence[Wrt] | None = None,
    verify: Verify = False,
    weights: WeightsLike = None,
    preprocess: Any = None,
    labels: Any = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    output: OutputLike = None,
    multi_label: bool | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Any:
    """Explain why a model said what it said about an image.

    Args:
        model: a torch module, or a name: "efficientnet_lite0" (built in), "resnet18", "timm:...", "torchvision:...",
            "hf:...", "package.module:factory".
        image: a path, bytes, PIL image or numpy picture, which is prepared for the model; or a float tensor `(C, *space)` or
            `(B, C, *space)`, which is the model's input as it is. Or a list of these. A tuple or dict is what a model with
            several inputs takes, by position or keyword; where the explained one has a batch axis, all tensors have one, and
            lists (of texts, say) hold one entry a sample.
        target: None (the predicted class), a class index, a label name, "A-vs-B", "probability:NAME", "top:k", "up" or
            "down" (a single output higher or lower; "up:NAME" of several); of a model that answers place by place also
            "pixel:Y,X", "region:MASK.png", `seewhy.Region`, and where none is given the places at which the class is
            predicted; for a detector "box:0" (the most confident box), "box:dog", "box:0:position", "box:0:objectness",
            "box:0:cat", or a `seewhy.BoxTarget`; a callable from one sample's output to one number;
            `seewhy.similar_to(...)`, "similar:FILE" (another image), "text:WORDS", "text:WORDS-vs-WORDS" (models of images
            and texts); or a list with one of these for each image.
        method: a name of `seewhy.methods()`. None: grad-cam; for a detector's box and of a model that answers place by place
            hires-cam.
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
        wrt: which of several inputs is explained: a position, a keyword or the name of a parameter of the model's forward; a list
            of these gives a map each. None: the only image among them.
        verify: put the map to the test: hide its brightest places, or all others, and see what the model says then, beside the
            map with its places shuffled. That takes 37 further runs of the model; what it found is `Explanation.evidence`, in a
            word "supported", "weak" or "no better than chance". "cheap": for up to 4 maps of an
            image, where it takes at most 20 seconds an image.
        weights, preprocess, labels, device, batch_size, output, multi_label, seed, progress: see :class:`seewhy.Explainer`.
        options: the method's own, such as `samples=25`.

    Returns:
        An :class:`seewhy.Explanation`; for a list or batch of images a list. "top:k" and fuse="none" give a list an image.

    Raises:
        SeewhyError: with what was asked, what was found and what to do. PartialError when some images of a list fail; the
            others' explanations are in it.
    """
    ask = Explainer(
        model,
        weights=weights,
        preprocess=preprocess,
        labels=labels,
        device=device,
        batch_size=batch_size,
        output=output,
        multi_label=multi_label,
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
        wrt=wrt,
        verify=verify,
        **options,
    )


def compare(
    model: ModelLike,
    image: Any,
    methods: Sequence[str] | str | None = None,
    layers: Layers = None,
    targets: Sequence[TargetLike | Sequence[TargetLike]] | TargetLike = (),
    *,
    layout: LayoutLike = None,
    view: View | None = None,
    smooth: SmoothLike = None,
    reduce: Reduction | None = None,
    budget: Budget | int | str | None = None,
    wrt: Wrt | None = None,
    verify: Verify = False,
    weights: WeightsLike = None,
    preprocess: Any = None,
    labels: Any = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    output: OutputLike = None,
    multi_label: bool | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Comparison | list[Comparison]:
    """Explain one image by several methods, at several layers, for several targets, all from one recording.

    Args:
        model, image: as in :func:`explain`.
        methods: names; "all" is every method; None: the usual one, as in :func:`explain`.
        layers: one map for each layer; a glob or "all-stages" gives several.
        targets: one or several questions, each for all images or a list with one for each image; "top:k" gives k.
        layout, view, smooth, reduce, wrt, weights, preprocess, labels, device, batch_size, output, multi_label, seed,
            progress: as in :func:`explain`.
        budget: as in :func:`explain`; with "all" and None, 200 forwards a map.
        options: given to those of the methods that have them.

    Returns:
        A list of explanations (methods x layers x targets) with `.figure()` and `.save()`; for several images a list of those.

    Raises:
        SeewhyError: as in :func:`explain`.
    """
    ask = Explainer(
        model,
        weights=weights,
        preprocess=preprocess,
        labels=labels,
        device=device,
        batch_size=batch_size,
        output=output,
        multi_label=multi_label,
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
        wrt=wrt,
        verify=verify,
        **options,
    )


def compare_pair(
    model: ModelLike,
    first: Any,
    second: Any,
    method: str | None = None,
    layers: Layers = None,
    *,
    layout: LayoutLike = None,
    view: View | None = None,
    smooth: SmoothLike = None,
    reduce: Reduction | None = None,
    budget: Budget | int | str | None = None,
    wrt: Wrt | None = None,
    weights: WeightsLike = None,
    preprocess: Any = None,
    device: str | torch.device | None = None,
    output: OutputLike = None,
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Explain what in each of two images makes it similar to the other, for models that answer with a vector.

    Args:
        model: as in :func:`explain`.
        first, second: one image each, as in :func:`explain`.
        method, layers, layout, view, smooth, reduce, budget, wrt, weights, preprocess, device, output, seed, progress: as
            in :func:`explain`.
        options: the method's own.

    Returns:
        Two explanations, of the first image by its similarity to the second, and the other way round (both have the same score,
        the cosine of the two vectors); `.figure()` and `.save()` show both, each beside its picture.

    Raises:
        SeewhyError: as in :func:`explain`.
    """
    ask = Explainer(
        model, weights=weights, preprocess=preprocess, device=device, output=output, seed=seed, progress=progress
    )
    how: Any = {"layout": layout, "view": view, "smooth": smooth, "reduce": reduce, "budget": budget, "wrt": wrt}
    return ask.pair(first, second, method, layers, **how, **options)


def layers(
    model: ModelLike,
    image: Any = None,
    *,
    weights: WeightsLike = None,
    preprocess: Any = None,
    output: OutputLike = None,
    wrt: Wrt | None = None,
) -> LayerTable:
    """Return the layers of a model that yield a map: name, type, channels, grid, stride, layout, and which is the default.

    Args:
        model, weights, preprocess, output, wrt: as in :func:`explain`.
        image: the table is made for an input of its size; None: the model's usual size.

    Raises:
        SeewhyError: as in :func:`explain`.
    """
    return Explainer(model, weights=weights, preprocess=preprocess, output=output).layers(image, wrt=wrt)
