"""The peers' methods that run the model many times, each with a batch size of the caller's choice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.peers import Maps, Run, Task, as_numpy, keep_raw
from bench.tuning import Bind

Reshape = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One library's way to a method.

    Attributes:
        who: the library.
        bind: binds it to a task at a batch size.
        option: what it calls the batch size.
        note: where its map is another one by its definition.
        dear: whether one run takes long.
    """

    who: str
    bind: Bind
    option: str = "batch_size"
    note: str = ""
    dear: bool = False


def bind_ablation(
    task: Task, size: int, stack: ExitStack, *, reshape: Reshape | None = None, edit: Callable[[], Any] | None = None
) -> Run:
    """Return a run of pytorch-grad-cam's AblationCAM at the task's one layer.

    Args:
        task: what is asked.
        size: its batch_size.
        stack: takes its hooks off.
        reshape: its reshape_transform.
        edit: makes its ablation_layer; None: its own for convolutional layers.
    """
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.ablation_layer import AblationLayer

    model = copy.deepcopy(task.model)
    layer = [model.get_submodule(task.layers[0])]
    cam = AblationCAM(model, layer, reshape, (edit or AblationLayer)(), size)
    return _grad_cam(stack.enter_context(cam), task)


def bind_grad_cam_score(task: Task, size: int, stack: ExitStack) -> Run:
    """Return a run of pytorch-grad-cam's ScoreCAM; its batch size is an attribute."""
    from pytorch_grad_cam import ScoreCAM

    model = copy.deepcopy(task.model)
    cam = stack.enter_context(ScoreCAM(model, [model.get_submodule(task.layers[0])]))
    cam.batch_size = size
    return _grad_cam(cam, task)


def bind_eigen(task: Task, stack: ExitStack, reshape: Reshape | None = None) -> Run:
    """Return a run of pytorch-grad-cam's EigenCAM."""
    from pytorch_grad_cam import EigenCAM

    model = copy.deepcopy(task.model)
    return _grad_cam(stack.enter_context(EigenCAM(model, [model.get_submodule(task.layers[0])], reshape)), task)


def bind_augmented(task: Task, stack: ExitStack) -> Run:
    """Return a run of pytorch-grad-cam's Grad-CAM with aug_smooth.

    Its answer is the mean of maps that were each scaled to 0..1 first; what is returned here, to be compared, is the mean of
    the same maps before that, put back.
    """
    from pytorch_grad_cam import GradCAM

    model = copy.deepcopy(task.model)
    cam = stack.enter_context(GradCAM(model, [model.get_submodule(task.layers[0])]))
    raw, targets = keep_raw(cam), _targets(task)

    def run() -> list[Maps]:
        raw.clear()
        cam(input_tensor=task.images, targets=targets, aug_smooth=True)
        each = zip(cam.tta_transforms, raw, strict=True)
        back = [change.deaugment_mask(torch.from_numpy(maps)[:, None])[:, 0].numpy() for change, maps in each]
        return [np.mean(back, axis=0)]

    return run


def bind_torchcam_score(task: Task, size: int, stack: ExitStack) -> Run:
    """Return a run of torchcam's ScoreCAM."""
    from torchcam.methods import ScoreCAM

    model = copy.deepcopy(task.model)
    extractor = stack.enter_context(ScoreCAM(model, task.layers[0], size))

    def run() -> list[Maps]:
        with torch.no_grad():
            scores = model(task.images)
        return [as_numpy(each) for each in extractor(task.classes[0], scores, normalized=False)]

    return run


def bind_occlusion(task: Task, size: int, _stack: ExitStack, *, window: int, stride: int) -> Run:
    """Return a run of captum's Occlusion with 0 in the model's units."""
    from captum.attr import Occlusion

    ask, channels = Occlusion(task.model), task.images.shape[1]

    def run() -> list[Maps]:
        found = ask.attribute(
            task.images,
            (channels, window, window),
            strides=(channels, stride, stride),
            baselines=0,
            target=task.classes[0],
            perturbations_per_eval=size,
        )
        return [as_numpy(found[:, 0])]

    return run


def bind_feature_ablation(task: Task, size: int, _stack: ExitStack, *, segments: Tensor) -> Run:
    """Return a run of captum's FeatureAblation with 0 in the model's units."""
    from captum.attr import FeatureAblation

    ask, mask = FeatureAblation(task.model), segments[None, None].to(task.images.device)

    def run() -> list[Maps]:
        found = ask.attribute(
            task.images, baselines=0, target=task.classes[0], feature_mask=mask, perturbations_per_eval=size
        )
        return [as_numpy(found[:, 0])]

    return run


def bind_integrated_gradients(task: Task, size: int, _stack: ExitStack, *, steps: int) -> Run:
    """Return a run of captum's IntegratedGradients from 0 in the model's units; colours are summed."""
    from captum.attr import IntegratedGradients

    ask = IntegratedGradients(task.model, multiply_by_inputs=True)

    def run() -> list[Maps]:
        found = ask.attribute(task.images, baselines=0, target=task.classes[0], n_steps=steps, internal_batch_size=size)
        return [as_numpy(found.sum(1))]

    return run


def zeroed_places(prefix: int) -> Any:
    """Return pytorch-grad-cam's ablation layer for transformers, changed: a channel becomes 0, at the places only.

    Args:
        prefix: the number of tokens in front that are no places.
    """
    from pytorch_grad_cam.ablation_layer import AblationLayerVit

    class ZeroedPlaces(AblationLayerVit):
        def __call__(self, _: Tensor) -> Tensor:
            for row, channel in zip(self.activations, self.indices, strict=False):
                row[prefix:, int(channel)] = 0
            return self.activations

    return ZeroedPlaces()


def _grad_cam(cam: Any, task: Task) -> Run:
    raw, targets = keep_raw(cam), _targets(task)

    def run() -> list[Maps]:
        raw.clear()
        cam(input_tensor=task.images, targets=targets)
        return [raw[-1]]

    return run


def _targets(task: Task) -> list[Any]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(each) for each in task.classes]
