"""What a Hugging Face image processor does, read from its configuration."""

from __future__ import annotations

from typing import Any

from PIL import Image

from seewhy.errors import ImageError
from seewhy.images import Preprocess

_KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
_OF_LABELS = ("do_reduce_labels", "do_convert_annotations")  # what becomes of the labels, not of the picture
_OWN_RULES = ("Levit", "Perceiver", "ImageGPT", "EfficientNet", "MobileNetV2")  # the same fields, other arithmetic


def preprocess_of(name: str) -> Preprocess | None:
    """Return the preprocessing that a Hugging Face id or folder says, or None where it says none that we know."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        return from_processor(processor.to_dict())
    except (OSError, ValueError, TypeError, KeyError, ImageError, ImportError):  # none there, or not to be understood
        return None


def tokenizer_of(name: str) -> Any:
    """Return the tokenizer of a Hugging Face id or folder, or None where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ImportError,
    ):  # none there, or not to be understood
        return None


def answers_with_vectors(config: Any) -> bool:
    """Return whether a checkpoint is a body without a classifier (ViTModel, Dinov2Model) or of images and texts (CLIPModel).

    A classifier put on it would be a random one.
    """
    kinds = getattr(config, "architectures", None) or ()
    two_sides = not kinds and hasattr(config, "text_config") and hasattr(config, "vision_config")
    return two_sides or (bool(kinds) and all(kind.endswith("Model") for kind in kinds))


def segments(config: Any) -> str | None:
    """Return the name of the automatic class for a checkpoint that answers place by place, None for others.

    A classifier put on its body would be a random one.
    """
    kinds = getattr(config, "architectures", None) or ()
    names = {"ForSemanticSegmentation": "AutoModelForSemanticSegmentation"}
    names |= dict.fromkeys(("ForUniversalSegmentation", "ForInstanceSegmentation"), "AutoModelForUniversalSegmentation")
    return next((auto for end, auto in names.items() for kind in kinds if kind.endswith(end)), None)


def from_processor(config: dict[str, Any]) -> Preprocess | None:
    """Read a Preprocess off an image processor's configuration; None when it has steps that we do not know."""
    known = (*_KNOWN_STEPS, *_OF_LABELS, *(["do_pad"] if _pads_to_the_largest(config) else []))
    unknown = [step for step, done in config.items() if step.startswith("do_") and done and step not in known]
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
    elif set(size) == {"shortest_edge", "longest_edge"} and crop is None:
        least, most = int(size["shortest_edge"]), int(size["longest_edge"])
        resize, target, fit = (least, most), (least, least), "whole"
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
        multiple=16 if str(config.get("image_processor_type")).startswith("Yolos") else 1,
    )


def _pads_to_the_largest(config: dict[str, Any]) -> bool:
    """Return whether padding is to the batch's largest picture, as in detectors, which leaves one alone as it is."""
    return "do_convert_annotations" in config and not config.get("pad_size")
