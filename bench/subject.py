"""What is measured on: a model, its layers, and images that are ready for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from bench.peers import Task
from seewhy.inputs import prepare
from seewhy.models import LoadedModel

PHOTOGRAPH = (4000, 3000)
"""Width and height of the photograph, in pixels: 12 megapixels, a telephone's."""

GIVEN = ""
"""The model that the command was given."""

EMBEDDED = "efficientnet_lite0"
"""The model that seewhy brings, with its own trained weights."""

TRANSFORMER = "timm:vit_small_patch16_224"

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class Subject:
    """What all libraries are given alike.

    Attributes:
        loaded: the model in evaluation mode, with its preprocessing.
        images: `(count, channel, height, width)`, the model's inputs; repeated in turn where a batch needs more.
        device: "cpu" or "cuda".
        weights: in words.
    """

    loaded: LoadedModel
    images: Tensor
    device: str = "cpu"
    weights: str = "random, seeded"

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self.loaded.module

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages' last layers, the deepest last."""
        table = seewhy.Explainer(self.loaded).layers(self.images[:1])
        return tuple(row.name for row in table.stages) or (table.default.name,)

    def batch(self, size: int) -> Tensor:
        """Return `(size, channel, height, width)`."""
        return self.images[torch.arange(size) % len(self.images)].contiguous()

    def bare(self, images: Tensor) -> Tensor:
        """Return the outputs of one forward in inference mode: the unit of all ratios."""
        with torch.inference_mode():
            return self.model(images)

    def classes(self, images: Tensor) -> list[int]:
        """Return the predicted class of each image: what every library is asked about."""
        return self.bare(images).argmax(1).tolist()

    def task(self, *layers: str, count: int = 1) -> Task:
        """Return the question about the first images' predicted classes at layers."""
        images = self.images[:count]
        return Task(self.model, layers, images, tuple(self.classes(images)))

    def live_channels(self, layer: str) -> list[int]:
        """Return, for each image, how many channels of a layer are not the same everywhere."""
        kept: list[Tensor] = []
        listen = self.model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output: kept.append(output.flatten(2))
        )
        for image in self.images.split(1):
            self.bare(image)
        listen.remove()
        return [int((each.amax(2) > each.amin(2)).sum()) for each in kept]

    def typical(self, layer: str) -> Subject:
        """Return the same with the image in front that has the median number of live channels at a layer."""
        live = self.live_channels(layer)
        order = sorted(range(len(live)), key=lambda row: live[row])
        return replace(self, images=self.images.roll(-order[len(live) // 2], 0))

    def channels(self, layer: str) -> int:
        """Return how many channels a layer has."""
        table = seewhy.Explainer(self.loaded).layers(self.images[:1])
        return next(row.layout.channels for row in table if row.name == layer)

    @property
    def words(self) -> str:
        """What was measured on, in words."""
        size = " x ".join(map(str, self.images.shape[2:]))
        return f"{self.loaded.name}, weights {self.weights}; input {size}; {self.device}"


def make_subject(
    name: str, *, weights: Path | None = None, folder: Path | None = None, device: str = "cpu", seed: int = 0
) -> Subject:
    """Load a model by a name that seewhy knows and prepare images for it. The embedded model has its own weights.

    Args:
        name: as in :func:`seewhy.load`; a bare name of torchvision is looked for there first.
        weights: a state dict's file; None: random weights from `seed`, but for the embedded model.
        folder: of pictures; None: four photographs that scikit-image carries.
        device: "cpu" or "cuda".
        seed: for the random weights.
    """
    own = name == EMBEDDED and weights is None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loaded = seewhy.load(_full_name(name), weights=weights, pretrained=own)
    loaded.module.eval().to(device)
    sources = _sample_pictures() if folder is None else _pictures_in(folder)
    images = torch.stack([prepare(source, loaded.preprocess).tensor for source in sources])
    words = "its own, trained" if own else "random, seeded" if weights is None else "trained, from a file"
    return Subject(loaded, images.to(device), device, words)


def write_photograph(path: Path, *, size: tuple[int, int] = PHOTOGRAPH, seed: int = 0) -> Path:
    """Write a JPEG of `size` (width, height): a portrait from scikit-image, enlarged, with the noise of a sensor."""
    from skimage import data

    enlarged = Image.fromarray(data.astronaut()).resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
    pixels = np.clip(np.asarray(enlarged, np.float32) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=92)
    return path


def _full_name(name: str) -> str:
    import torchvision

    return f"torchvision:{name}" if name in torchvision.models.list_models() else name


def _sample_pictures() -> Sequence[Any]:
    from skimage import data

    return [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]


def _pictures_in(folder: Path) -> Sequence[Any]:
    found = sorted(path for path in folder.iterdir() if path.suffix.casefold() in _PICTURES)
    if not found:
        raise SystemExit(f"There is no picture ({', '.join(_PICTURES)}) in {folder}.")
    return found
