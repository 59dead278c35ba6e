"""What a Hugging Face image processor does, read from its configuration."""

from __future__ import annotations

from typing import Any

from PIL import Image

from seewhy.errors import ImageError
from seewhy.images import Preprocess

_KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
_OWN_RULES = ("Levit", "Perceiver", "ImageGPT", "EfficientNet", "MobileNetV2")  # the same fields, other arithmetic


def preprocess_of(name: str) -> Preprocess | None:
    """Return the preprocessing that a Hugging Face id or folder says, or None where it says none that we know."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        return from_processor(processor.to_dict())
    except (OSError, ValueError, TypeError, KeyError, ImageError, ImportError):  # none there, or not to be understood
        return None


def from_processor(config: dict[str, Any]) -> Preprocess | None:
    """Read a Preprocess off an image processor's configuration; None when it has steps that we do not know."""
    unknown = [step for step, done in config.items() if step.startswith("do_") and done and step not in _KNOWN_STEPS]
    if unknown or not config.get("do_resize", True) or str(config.get("image_processor_type")).startswith(_OWN_RULES):
        return None
    given = config.get("size") or {}
    size = (
        {"shortest_edge": given}
        if isinstance(given, int)
        else {key: value for key, value in dict(given).items() if value}
    )
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    target = (int(crop["height"]), int(crop["width"])) if crop else None
    if set(size) == {"shortest_edge"}:
        edge = int(size["shortest_edge"])
        fraction = config.get("crop_pct")
        if fraction and edge < 384:  # ConvNeXt: scale by the fraction, then crop
            resize, target, fit = (int(edge / fraction),) * 2, (edge, edge), "crop"
        elif fraction:  # ConvNeXt at 384 and above: no crop
            resize, target, fit = (edge, edge), (edge, edge), "squash"
        else:
            resize, fit = (edge, edge), "crop"
    elif set(size) == {"height", "width"}:
        resize, fit = (int(size["height"]), int(size["width"])), "squash"
        target = target or resize
    else:
        return None
    if target is None:
        return None
    normalised = config.get("do_normalize", True)
    resample = config.get("resample")
    return Preprocess(
        size=target,
        resize=resize,
        fit=fit,  # type: ignore[arg-type]
        interpolation=Image.Resampling(2 if resample is None else int(resample)).name.lower(),
        mean=tuple(config["image_mean"]) if normalised else (0.0,) * 3,
        std=tuple(config["image_std"]) if normalised else (1.0,) * 3,
        scale=255 * float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 255.0,
        rounding="down",
    )
