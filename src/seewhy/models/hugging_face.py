"""What a Hugging Face image processor does, read from its configuration."""

from __future__ import annotations

from typing import Any

from PIL import Image

from seewhy.images import Preprocess


def preprocess_of(name: str) -> Preprocess | None:
    """Return the preprocessing that a Hugging Face id or folder says, or None where it says none."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):  # no preprocessor_config.json: the model does not say
        return None
    return from_processor(processor.to_dict())


def from_processor(config: dict[str, Any]) -> Preprocess | None:
    """Read a Preprocess off an image processor's configuration; None when it has steps that we do not know."""
    size = config.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        if "crop_pct" in config and config["crop_pct"] and edge < 384:  # ConvNeXt: scale by the fraction, then crop
            resize, target = (int(edge / config["crop_pct"]),) * 2, (edge, edge)
        elif crop:
            resize, target = (edge, edge), (int(crop["height"]), int(crop["width"]))
        else:
            return None
        fit = "crop"
    elif "height" in size:
        resize = (int(size["height"]), int(size["width"]))
        target = (int(crop["height"]), int(crop["width"])) if crop else resize
        fit = "squash"
    else:
        return None
    normalised = config.get("do_normalize", True)
    return Preprocess(
        size=target,
        resize=resize,
        fit=fit,  # type: ignore[arg-type]
        interpolation=Image.Resampling(int(config.get("resample") or 2)).name.lower(),
        mean=tuple(config["image_mean"]) if normalised else (0.0,) * 3,
        std=tuple(config["image_std"]) if normalised else (1.0,) * 3,
        scale=255 * float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 255.0,
    )
