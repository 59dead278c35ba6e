"""The peers behind one interface: a method, a layer, images and classes in; raw maps `(batch, height, width)` out.

Every peer is used as its own documentation shows, bound once outside the clock. Each gets a copy of the model, because
the hooks of two of them stay on the model between calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Maps = npt.NDArray[np.float32]

SAMPLES, SPREAD = 4, 0.3
"""Noisy copies in Smooth Grad-CAM++, and the noise's standard deviation in units of the model's input: torchcam's defaults."""

STRENGTH, REFERENCES = 0.6, 3
"""Finer-CAM: the weight of the similar classes, and how many of them."""

GRAD_CAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "hires-cam": "HiResCAM",
    "grad-cam-elementwise": "GradCAMElementWise",
    "layer-cam": "LayerCAM",
    "finer-cam": "FinerCAM",
}
TORCHCAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMpp",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "smooth-grad-cam++": "SmoothGradCAMpp",
}
CAPTUM = {"grad-cam": "LayerGradCam"}

NOTES = {
    ("grad-cam++", "torchcam"): "its division by the denominator is a no-op (done on a copy): not the paper's map",
    ("grad-cam++", "pytorch-grad-cam"): "adds 1e-6 to the denominator, which dominates it where gradients are small",
    ("smooth-grad-cam++", "torchcam"): "takes the gradient and activations of the last noisy copy only; the same noise",
    ("finer-cam", "pytorch-grad-cam"): "weights the similar classes by probability, and differentiates these weights",
}
"""Where a peer's code does something else than the paper, by method and peer."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a library is asked.

    Attributes:
        model: in evaluation mode.
        layers: names; one map for each.
        images: `(batch, channel, height, width)`.
        classes: one for each image.
    """

    model: nn.Module
    layers: tuple[str, ...]
    images: Tensor
    classes: tuple[int, ...]


Run = Callable[[], list[Maps]]
"""Makes the maps of a task: one array `(batch, height, width)` a layer, at the layer's resolution."""


def bind_peers(method: str, task: Task, stack: ExitStack) -> dict[str, Run]:
    """Return the peers that have this method, bound to the task; closing the stack takes their hooks off."""
    found: dict[str, Run] = {}
    if method in TORCHCAM:
        found["torchcam"] = bind_torchcam(TORCHCAM[method], task, stack)
    if method in GRAD_CAM:
        found["pytorch-grad-cam"] = bind_grad_cam(GRAD_CAM[method], task, stack)
    if method in CAPTUM:
        found["captum"] = bind_captum(task)
    return found


def bind_grad_cam(kind: str, task: Task, stack: ExitStack) -> Run:
    """Return a run of pytorch-grad-cam on the task's layers, one object and one call each."""
    makers = [_grad_cam_of(kind, task, layer, stack) for layer in task.layers]
    return lambda: [make() for make in makers]


def run_grad_cam_each(kinds: Sequence[str], task: Task) -> list[Maps]:
    """Make the maps of several of pytorch-grad-cam's methods, methods x layers: its hooks are on the model only meanwhile."""
    found = []
    for kind in kinds:
        for layer in task.layers:
            with ExitStack() as stack:
                found.append(_grad_cam_of(kind, task, layer, stack, copied=False)())
    return found


def bind_torchcam(kind: str, task: Task, stack: ExitStack) -> Run:
    """Return a run of torchcam on the task's layers, which it handles in one call."""
    from torchcam import methods

    model = copy.deepcopy(task.model)
    options = {"num_samples": SAMPLES, "std": SPREAD} if kind == "SmoothGradCAMpp" else {}
    extractor = stack.enter_context(getattr(methods, kind)(model, list(task.layers), **options))
    classes = list(task.classes) if len(task.classes) > 1 else task.classes[0]

    def run() -> list[Maps]:
        scores = model(task.images)
        return [as_numpy(each) for each in extractor(classes, scores, normalized=False)]

    return run


def bind_captum(task: Task) -> Run:
    """Return a run of captum's LayerGradCam on the task's layers, one call each."""
    from captum.attr import LayerGradCam

    attributions = [LayerGradCam(task.model, task.model.get_submodule(layer)) for layer in task.layers]
    target = torch.tensor(task.classes, device=task.images.device)
    return lambda: [as_numpy(each.attribute(task.images, target=target)[:, 0]) for each in attributions]


def _grad_cam_of(kind: str, task: Task, layer: str, stack: ExitStack, *, copied: bool = True) -> Callable[[], Maps]:
    """Return a run of pytorch-grad-cam on one layer."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = copy.deepcopy(task.model) if copied else task.model
    cam = stack.enter_context(getattr(pytorch_grad_cam, kind)(model, [model.get_submodule(layer)]))
    raw = keep_raw(cam)
    if kind == "FinerCAM":
        options: dict[str, Any] = {"alpha": STRENGTH, "comparison_categories": list(range(1, REFERENCES + 1))}
        options |= {"targets": None, "target_idx": task.classes[0]}
    else:
        options = {"targets": [ClassifierOutputTarget(each) for each in task.classes]}

    def run() -> Maps:
        raw.clear()
        cam(input_tensor=task.images, **options)  # returns maps resized to the input and scaled to 0..1
        return raw[-1]

    return run


def keep_raw(cam: Any) -> list[Maps]:
    """Return a list that receives pytorch-grad-cam's maps before it resizes and scales them."""
    base = getattr(cam, "base_cam", cam)
    make, kept = base.get_cam_image, []

    def keep(*args: Any, **options: Any) -> Maps:
        kept.append(make(*args, **options))
        return kept[-1]

    base.get_cam_image = keep
    return kept


def as_numpy(maps: Tensor) -> Maps:
    """Return maps as an array on the CPU."""
    return maps.detach().float().cpu().numpy()
