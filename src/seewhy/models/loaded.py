"""A model together with what is known about it: its preprocessing and its label names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from seewhy.images import Preprocess, Preprocessing
from seewhy.models.labels import Labels, imagenet

ASSUMED = (
    "preprocessing assumed: the model does not say its own, so the usual one of ImageNet models was taken; "
    "give preprocess= (--preprocess)"
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to be asked.

    Attributes:
        module: the module itself, unchanged.
        name: what it was asked for as.
        preprocess: picture to input.
        labels: class names, or None when nobody says them.
        notes: what was assumed; told with every result.
    """

    module: nn.Module
    name: str
    preprocess: Preprocessing
    labels: Labels | None = None
    notes: tuple[str, ...] = ()

    def with_(self, **changes: Any) -> LoadedModel:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def adopt(module: nn.Module, name: str | None = None) -> LoadedModel:
    """Gather what a plain module says about itself: timm's `pretrained_cfg`, Hugging Face's `config`, or nothing."""
    name = name or type(module).__name__
    for part in _and_only_children(module):
        if isinstance(getattr(part, "pretrained_cfg", None), dict):
            preprocess, labels = timm_metadata(part)
            return LoadedModel(module, name, preprocess, labels)
        if hasattr(part, "config") and hasattr(part.config, "id2label"):
            return LoadedModel(module, name, _assumed(module), _id2label(part.config), notes=(ASSUMED,))
    return LoadedModel(module, name, _assumed(module), notes=(ASSUMED,))


def _assumed(module: nn.Module) -> Preprocess:
    """Return the usual preprocessing of ImageNet models; for models of grey pictures, its mean over the colours."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1:
        return Preprocess(channels=1, mean=(0.449,), std=(0.226,))
    return Preprocess()


def timm_metadata(module: nn.Module) -> tuple[Preprocess, Labels | None]:
    """Return a timm model's own evaluation preprocessing, and ImageNet's names when that is what it was trained on."""
    from timm.data import resolve_data_config

    from seewhy.images.preprocess import from_fraction

    # By its settings: timm asks whether the model is "true", and one that was compiled cannot say.
    config = resolve_data_config({}, pretrained_cfg=module.pretrained_cfg)
    channels, height, width = config["input_size"]
    channels = 1 if _takes_grey(module) else channels  # timm's own settings ignore in_chans, and img_size
    height, width = getattr(getattr(module, "patch_embed", None), "img_size", None) or (height, width)
    preprocess = from_fraction(
        (height, width),
        float(config["crop_pct"]),
        str(config["crop_mode"]),
        interpolation=str(config["interpolation"]).replace("random", "bilinear"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        channels=channels,
    )
    trained_on = str(getattr(module, "pretrained_cfg", {}).get("tag") or "in1k")
    is_imagenet = getattr(module, "num_classes", None) == 1000 and ("in1k" in trained_on or "in" not in trained_on)
    return preprocess, imagenet() if is_imagenet else None


def _takes_grey(module: nn.Module) -> bool:
    """Return whether a timm model was built with `in_chans=1`."""
    first = getattr(module, "pretrained_cfg", {}).get("first_conv")
    parts = dict(module.named_modules())
    return isinstance(first, str) and getattr(parts.get(first), "in_channels", None) == 1


def _id2label(config: Any) -> Labels | None:
    """Return a Hugging Face configuration's names, unless they are only placeholders."""
    table = config.id2label
    if not isinstance(table, Mapping) or not table or set(table) != set(range(len(table))):
        return None  # names that leave out a class would shift all that follow
    names = tuple(str(table[index]) for index in range(len(table)))
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else Labels(names)


def _and_only_children(module: nn.Module) -> list[nn.Module]:
    """Return the module and, while it merely wraps one other, what it wraps."""
    chain = [module]
    while len(children := list(chain[-1].children())) == 1:
        chain.append(children[0])
    return chain
