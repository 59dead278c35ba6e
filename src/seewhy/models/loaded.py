"""A model together with what is known about it: its preprocessing and its label names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from seewhy.frameworks import Shell
from seewhy.frameworks.function import FunctionShell
from seewhy.images import Preprocess, Preprocessing, as_preprocessing
from seewhy.models.image_text import ImageTower, check_two_towers, two_towers, usual_preprocess
from seewhy.models.labels import Labels, imagenet
from seewhy.models.tokens import Tokenizer

ASSUMED = (
    "preprocessing assumed: the model does not say its own, so the usual one of ImageNet models was taken; "
    "give preprocess= (--preprocess)"
)

ASSUMED_TOWER = (
    "preprocessing assumed: the model does not say its own, so the usual one of its kind was taken (CLIP's, or SigLIP's), at its "
    "size; give preprocess= (--preprocess)"
)


ASSUMED_UNIT = (
    "preprocessing assumed: a function does not say its own, so values in 0..1 were taken, 224 x 224 pixels from the picture's "
    "centre; give preprocess= (--preprocess)"
)

RANDOM = (
    "the model's weights are random: give some as weights= (--weights), or take the published ones (pretrained=True)"
)

RANDOM_HEAD = (
    "the model's last layer has random weights: the trained ones are for another number of classes; give some as weights= "
    "(--weights)"
)

PLAIN = Preprocess(resize=None, mean=(0.0,), std=(1.0,))
"""Pictures in 0..1, the shorter side scaled to 224 pixels, the centre cropped."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to be asked.

    Attributes:
        module: the module itself, unchanged.
        name: what it was asked for as.
        preprocess: picture to input.
        labels: class names, or None when nobody says them.
        notes: what was assumed of its preprocessing; told with every result.
        remarks: what must be known of its weights; told with every result.
        multi_label: whether several classes may hold at once, each with a probability of its own.
    """

    module: nn.Module
    name: str
    preprocess: Preprocessing
    labels: Labels | None = None
    notes: tuple[str, ...] = ()
    multi_label: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def tower(self) -> ImageTower | None:
        """The image side of a model of images and texts, where it is one."""
        return self.module if isinstance(self.module, ImageTower) else None

    @property
    def independent(self) -> bool:
        """Whether each class's probability is the sigmoid of its own score, rather than a softmax over all."""
        return self.multi_label or (self.tower is not None and self.tower.has_texts and self.tower.independent)

    def with_(self, **changes: Any) -> LoadedModel:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def adopt(module: nn.Module, name: str | None = None) -> LoadedModel:
    """Gather what a plain module says about itself: timm's `pretrained_cfg`, Hugging Face's `config`, or nothing.

    Of a model of images and texts the image side is taken.
    """
    name = name or type(module).__name__
    if isinstance(module, FunctionShell):
        return LoadedModel(module, name, PLAIN, notes=(ASSUMED_UNIT,))
    if isinstance(module, Shell):
        said = module.preprocess
        return LoadedModel(module, name, said or _assumed(module), notes=() if said else (ASSUMED,))
    for part in _and_only_children(module):
        if two_towers(part):
            return _towers(part, name, None)
        if isinstance(getattr(part, "pretrained_cfg", None), dict):
            preprocess, labels = timm_metadata(part)
            return LoadedModel(module, name, preprocess, labels)
        if (prepared := _detector_preprocess(part)) is not None:
            return LoadedModel(module, name, prepared, _own_names(part))
        if hasattr(part, "config") and hasattr(part.config, "id2label"):
            many = getattr(part.config, "problem_type", None) == "multi_label_classification"
            labels = _id2label(part.config)
            return LoadedModel(module, name, _assumed(module), labels, notes=(ASSUMED,), multi_label=many)
    return LoadedModel(module, name, _assumed(module), notes=(ASSUMED,))


def image_text(model: nn.Module, *, tokenizer: Tokenizer | None = None, preprocess: Any = None) -> LoadedModel:
    """Make a model of images and texts, such as CLIP, one that every function takes.

    Its image side is explained; its text side is asked once a text. Without labels it answers with a vector an image, of which
    target='text:a dog', 'text:a dog-vs-a cat' and :func:`seewhy.similar_to` ask; with `labels=` of texts it is a classifier
    whose classes are these texts, with the scores of `logits_per_image`.

    Args:
        model: with `encode_image` and `encode_text` (open_clip), or `get_image_features` and `get_text_features` (Hugging Face's
            CLIPModel, SiglipModel); its `logit_scale` and `logit_bias`, where it has them, make similarities scores.
        tokenizer: a function from a list of texts to token ids `(text, token)` or a dict of such, or a tokenizer of Hugging
            Face. None: only images can be asked about.
        preprocess: as in :class:`seewhy.Explainer`. None: what the model says, else CLIP's (SigLIP's) usual one, which is then
            told.

    Returns:
        A LoadedModel, for `model=` of :func:`seewhy.explain` and its like.

    Raises:
        ModelError: the model has no such two sides.
    """
    parts = _and_only_children(model)
    part = next((part for part in parts if two_towers(part)), model)
    check_two_towers(part)
    found = _towers(part, type(part).__name__, tokenizer)
    if preprocess is None:
        return found
    return found.with_(preprocess=as_preprocessing(preprocess, found.preprocess), notes=())


def _towers(module: nn.Module, name: str, tokenizer: Tokenizer | None) -> LoadedModel:
    check_two_towers(module)
    preprocess, said = usual_preprocess(module)
    return LoadedModel(ImageTower(module, tokenizer), name, preprocess, notes=() if said else (ASSUMED_TOWER,))


def _detector_preprocess(module: nn.Module) -> Preprocess | None:
    """Return how pictures are prepared for a detector that says so; None for other models.

    torchvision's normalise by themselves, and scale what comes in another size than theirs; models of the YOLO family take
    0..1 and say which strides and names they have.
    """
    transform: Any = getattr(module, "transform", None)
    if all(hasattr(transform, field) for field in ("image_mean", "min_size", "max_size", "fixed_size")):
        plain: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        if transform.fixed_size is not None:
            width, height = transform.fixed_size
            return Preprocess((height, width), (height, width), "squash", **plain)
        least = int(transform.min_size[-1])
        return Preprocess((least, least), (least, max(least, int(transform.max_size))), "whole", **plain)
    if isinstance(getattr(module, "names", None), Mapping | list) and hasattr(module, "stride"):
        return Preprocess((640, 640), None, "letterbox", mean=(0.0,) * 3, std=(1.0,) * 3, fill=114)
    return None


def _own_names(module: nn.Module) -> Labels | None:
    """Return the names of classes that a module has as `names`, in order or by number."""
    names: Any = getattr(module, "names", None)
    if isinstance(names, Mapping) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    return Labels(tuple(map(str, names))) if isinstance(names, list) and names else None


def _assumed(module: nn.Module) -> Preprocess:
    """Return the usual preprocessing of ImageNet models; for models of grey pictures, its mean over the colours."""
    if isinstance(module, Shell) and (prepared := module.prepared) is not None:
        return prepared
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    channels = module.channels if isinstance(module, Shell) else None if first is None else first.in_channels
    size: dict[str, Any] = {}
    if isinstance(module, Shell) and module.space is not None and len(module.space) == 2:
        size = {"size": module.space, "resize": None}
    if channels == 1:
        return Preprocess(channels=1, mean=(0.449,), std=(0.226,), **size)
    return Preprocess(**size)


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
