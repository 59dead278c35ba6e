"""All of torchvision's builders: classification, detection, segmentation."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import detection, get_model, list_models, segmentation

from architectures.members import FOUR, Member, Size

SMALL, MEDIUM, WIDE, LARGE = (128, 160), (192, 256), (256, 320), (384, 512)
SHUFFLES = [f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")]
ASLEEP = {"inception_v3", "googlenet", "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large", *SHUFFLES}
"""Drawn so small that deep inside all places are alike to the last bit."""
TOLD: dict[str, dict[str, Any]] = {
    **{name: {"image_size": 128} for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")},
    "vit_h_14": {"image_size": 112},
    "maxvit_t": {"input_size": (224, 224)},
    **{name: {"size": MEDIUM} for name in ("googlenet", "resnet101")},
    **{name: {"size": WIDE} for name in SHUFFLES},
    "inception_v3": {"size": LARGE},
    "lraspp_mobilenet_v3_large": {"size": WIDE},
}
"""What is told to those that take inputs of one size only; `size` where the usual one is too small."""


def member(name: str, size: Size = SMALL, **options: Any) -> Member:
    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # two tell that they will draw other weights one day
            return get_model(name, weights=None, **options)

    return Member(name, make, size, FOUR, asleep=name in ASLEEP)


def classifier(name: str) -> Member:
    options = dict(TOLD.get(name, {}))
    side = options.get("image_size") or options.get("input_size", (0,))[0]
    return member(name, options.pop("size", (side, side) if side else SMALL), **options)


def detector(name: str) -> Member:
    inside = {} if name.startswith("ssd") else {"min_size": MEDIUM[0], "max_size": MEDIUM[1]}
    return member(name, MEDIUM, weights_backbone=None, num_classes=3, **inside)


MEMBERS = [classifier(name) for name in list_models(module=models)]
SEGMENTERS = [
    member(name, TOLD.get(name, {}).get("size", SMALL), weights_backbone=None, num_classes=5)
    for name in list_models(module=segmentation)
]
DETECTORS = [detector(name) for name in list_models(module=detection)]
