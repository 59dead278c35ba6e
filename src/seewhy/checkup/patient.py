"""The model that is looked at, the input it is looked at with, and what several checks want to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seewhy.errors import ImageError
from seewhy.images import Preprocess
from seewhy.inputs import Sample, prepare, split
from seewhy.maps import find_method
from seewhy.models import Convolutions, LoadedModel
from seewhy.plan import choose_layers
from seewhy.recorder import (
    Examination,
    LayerLike,
    LayerRow,
    LayerTable,
    Needs,
    OutputLike,
    Recordings,
    Returned,
    TorchRecorder,
    Wrt,
)
from seewhy.targets import Chances, ClassTarget, Kind, Question, SurestTarget, Target


class Patient:
    """One model with one input. What is asked of it more than once is kept.

    Args:
        loaded: the model.
        recorder: runs it.
        image: what the caller gave; None: a picture is made up.
        layer: the layer that is meant; None: the default one.
        output: where the scores are.
        wrt: which of several inputs is looked at.
        seed: for what is made up.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        recorder: TorchRecorder,
        image: Any = None,
        layer: LayerLike | None = None,
        output: OutputLike = None,
        wrt: Wrt | None = None,
        seed: int = 0,
    ) -> None:
        self.loaded = loaded
        self.recorder = recorder
        self.given = image is not None
        self.output = output
        self._image = image
        self._wrt = wrt
        self._layer = layer
        self._seed = seed

    @property
    def examination(self) -> Examination:
        """Ways to find out how the model behaves."""
        return self.recorder.examination(self._sample.call)

    def examined(self, recorder: TorchRecorder) -> Examination:
        """Return ways to find out how a copy of the model behaves."""
        return recorder.examination(self._sample.call)

    @property
    def name(self) -> str:
        """The class of the model."""
        return type(self.recorder.module).__name__

    @cached_property
    def images(self) -> Tensor:
        """The input `(1, channel, *space)`."""
        return self._sample.tensor[None]

    @cached_property
    def _sample(self) -> Sample:
        module = self.recorder.module
        convolutions = Convolutions.of(module)
        image = self._made_up(convolutions.axes[0]) if self._image is None else self._image
        return prepare(split(image, module, self._wrt)[0][0], self.loaded.preprocess, convolutions=convolutions)

    @cached_property
    def two(self) -> Tensor:
        """The input and another one, mirrored and paler, `(2, channel, *space)`."""
        return torch.cat([self.images, self.images.flip(-1) * 0.6])

    def _made_up(self, axes: int) -> Any:
        preprocess = self.loaded.preprocess
        if axes != 2:
            raise ImageError(
                f"The model's input has {axes} spatial axes, and its size is not known. Give an input: a float tensor "
                "(C, *space)."
            )
        if isinstance(preprocess, Preprocess) and preprocess.channels not in (1, 3):
            generator = torch.Generator().manual_seed(self._seed)
            return torch.randn((preprocess.channels, *preprocess.size), generator=generator)
        return cloudy_picture(256, self._seed)

    @cached_property
    def returned(self) -> Returned:
        """What the model gives for the input."""
        return self.examination.returned(self.images)

    @cached_property
    def chances(self) -> Chances:
        """How its scores become probabilities."""
        scores, kind = self.returned.scores, self.returned.kind
        independent, call = self.loaded.independent, self._sample.call
        return self.recorder.chances(self.images, scores, kind, independent=independent, inputs=call)

    @cached_property
    def table(self) -> LayerTable:
        """The layers that yield a map."""
        return self.recorder.table(self.images, self._sample.call)

    @cached_property
    def row(self) -> LayerRow:
        """The layer that is looked at."""
        return choose_layers(self._layer, self.table, self.recorder.module, None)[0]

    @property
    def target(self) -> Target:
        """The predicted class; where the model gives no classes, its highest score."""
        kind, scores = self.returned.kind, self.returned.scores[0]
        return ClassTarget(int(scores.argmax())) if kind == "classes" else SurestTarget(kind)

    @cached_property
    def recordings(self) -> Recordings:
        """What the layer does about the target."""
        return self.record(self.recorder, self.images)

    def record(self, recorder: TorchRecorder, images: Tensor) -> Recordings:
        """Return what the layer does about the target in this model or a copy of it."""
        target = self.target

        def ask(outputs: Tensor, _kind: Kind) -> Sequence[Question]:
            return [(target,) * len(outputs)]

        return recorder.record(images, [self.row], ask, needs=Needs.GRADIENTS, inputs=self._sample.call)

    def grad_cam(self, recordings: Recordings) -> Tensor:
        """Return the Grad-CAM `(*grid)` of the first sample."""
        made = find_method("grad-cam").function(recordings.at(self.row.name, 0)).float()
        return made[0].sum(0) if made.ndim == recordings.images.ndim else made[0]


def cloudy_picture(side: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return a picture `(side, side, 3)` whose details are as strong as those of photographs: 1/f noise, partly coloured."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = np.inf
    grey, *colours = (
        np.fft.irfft2(np.fft.rfft2(draw.standard_normal((side, side))) / frequency, s=(side, side)) for _ in range(4)
    )
    layers = np.stack([grey + 0.4 * colour for colour in colours], axis=-1)
    scaled = layers / layers.std() * 0.25 + 0.45
    picture: npt.NDArray[np.uint8] = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return picture
