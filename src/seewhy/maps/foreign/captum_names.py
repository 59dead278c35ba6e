"""Any attribution class of Captum as a method: found by name, its keyword arguments as options."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from seewhy.errors import MethodError, did_you_mean
from seewhy.maps.registry import CAPTUM, CAPTUM_SOURCE, Method
from seewhy.recorder import Needs, Recording

Place = Literal["input", "layer", "neuron"]

_OURS = (
    *("self", "model", "forward_func", "layer", "device_ids", "inputs", "target", "additional_forward_args"),
    *("show_progress", "verbose", "return_input_shape"),
)
"""Arguments that a caller does not give: they are what seewhy itself is asked, or change what is returned."""

_REFUSED = {
    "NoiseTunnel": "it goes around another method: give that method and smooth='noise'",
    "FeaturePermutation": "it swaps features between the images of a batch, and here each image is explained alone: use "
    "captum:FeatureAblation",
    "LayerFeaturePermutation": "it swaps features between the images of a batch, and here each image is explained alone: use "
    "captum:LayerFeatureAblation",
    "DataLoaderAttribution": "it goes around another method, for inputs that come in parts",
    "LimeBase": "its parts must be written by hand: use captum:Lime",
    "LLMAttribution": "it is for language models",
    "LLMGradientAttribution": "it is for language models",
    "RemoteLLMAttribution": "it is for language models",
    "TCAV": "it answers for many images and a concept, not for one image with a map",
}

RENAMED = {"baselines": "baseline", "method": "rule"}
"""Captum's arguments that are called otherwise here, as in seewhy's own methods."""

_DISTRIBUTION = "dataset,mean,blur"
# Where Captum has no default, or one that would give a poor map of an image, never end, or cost more than the map itself.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "DeepLiftShap": {"baselines": _DISTRIBUTION},
    "GradientShap": {"baselines": _DISTRIBUTION, "n_samples": 50, "return_convergence_delta": False},
    "LayerDeepLiftShap": {"baselines": _DISTRIBUTION},
    "LayerGradientShap": {"baselines": _DISTRIBUTION, "n_samples": 50, "return_convergence_delta": False},
    "NeuronDeepLiftShap": {"baselines": _DISTRIBUTION},
    "NeuronGradientShap": {"baselines": _DISTRIBUTION, "n_samples": 50},
    "Lime": {"n_samples": 200},
    "KernelShap": {"n_samples": 200},
    "ShapleyValueSampling": {"n_samples": 10},
    "ShapleyValues": {"segments": 4},
    "Occlusion": {"sliding_window_shapes": None},
}
_EVERYWHERE: dict[str, Any] = {
    "return_convergence_delta": True,
    "perturbations_per_eval": None,
    "internal_batch_size": None,
}
SEGMENTS = 32
"""Regions of which each is one feature, for classes that would take each pixel for one."""

_INFLUENCE = ("Saliency", "GuidedBackprop", "Deconvolution", "NeuronGradient")


@dataclass(frozen=True)
class CaptumClass:
    """One class of Captum.

    Attributes:
        kind: the class.
        place: what it attributes to: the input; a layer; or the input, for a neuron of a layer.
        layered: whether it looks at a layer.
        makes: names of its constructor's arguments that are options.
        asks: names of its attribute()'s arguments that are options.
        options: the options, by seewhy's names, and their defaults.
    """

    kind: Any
    place: Place
    layered: bool
    makes: tuple[str, ...]
    asks: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The class's name."""
        return str(self.kind.__name__)


@dataclass(frozen=True)
class CaptumMethod(Method):
    """A method made of a class of Captum."""

    def check_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options, with text read as numbers, tuples or truth values where Captum takes those.

        Raises:
            MethodError: the class has no such argument, the value does not fit, or one is missing that it needs.
        """
        known = self.options
        if "baseline" in known and {"baseline", "baselines"} <= set(given):
            raise MethodError(f"{self.name}: baseline and baselines are the same option. Give one of them.")
        named = {RENAMED[name] if RENAMED.get(name) in known else name: value for name, value in given.items()}
        free = {name for name in named if name in known and (known[name] is None or name in ("segments", "baseline"))}
        found = super().check_options({name: value for name, value in named.items() if name not in free})
        found |= {name: named[name] if name == "baseline" else _read(named[name]) for name in free}
        if "neuron_selector" in known and found.get("neuron_selector") is None:
            raise MethodError(
                f"{self.name} needs neuron_selector: a channel's number, or the place of one neuron in the layer's output "
                "without the batch axis, such as neuron_selector=(3, 5, 5)."
            )
        return found


def captum_method(name: str) -> Method:
    """Return the method of a name such as "captum:DeepLift" or "captum:kernel-shap".

    Raises:
        MethodError: Captum is not installed; it has no such class, or one that gives no map of one image.
    """
    asked = name.partition(":")[2].strip()
    attr = _captum()
    usable = {_key(known): known for known in _names(attr)}
    if (found := usable.get(_key(asked))) is not None:
        return _made(found)
    for refused, why in _REFUSED.items():
        if _key(refused) == _key(asked):
            raise MethodError(f"{CAPTUM}{refused} cannot be a method here: {why}.")
    raise MethodError(
        f"No attribution of Captum is called '{asked}'.{did_you_mean(asked, usable.values())} "
        f"Known: {', '.join(sorted(usable.values()))}."
    )


def _captum() -> ModuleType:
    try:
        import captum.attr
    except ImportError as error:
        raise MethodError(f"Methods of Captum need it: pip install 'seewhy[captum]' ({error}).") from error
    return captum.attr  # type: ignore[no-any-return]


def _names(attr: ModuleType) -> list[str]:
    """Return the names of the classes that attribute; their abstract bases have no `attribute`."""
    return [
        name
        for name in dir(attr)
        if isinstance(kind := getattr(attr, name), type)
        and issubclass(kind, attr.Attribution)
        and callable(getattr(kind, "attribute", None))
        and name not in _REFUSED
    ]


@cache
def _made(name: str) -> Method:
    attr = _captum()
    wanted = _wanted(attr, getattr(attr, name))

    def run(rec: Recording, **options: Any) -> Tensor:
        from seewhy.maps.foreign.captum_run import attributed

        return attributed(wanted, rec, {**wanted.options, **options})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("rec", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [inspect.Parameter(option, keyword, default=value) for option, value in wanted.options.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__doc__ = f"Run {name} of Captum."
    regions = "segments" in wanted.options or name == "Occlusion"
    return CaptumMethod(
        name=CAPTUM + name,
        function=run,
        needs=Needs.MODULE | Needs.ACTIVATIONS if wanted.layered else Needs.MODULE,
        class_specific="target" in inspect.signature(wanted.kind.attribute).parameters,
        signed=name != "Saliency",
        rectified=True,
        source=CAPTUM_SOURCE,
        passes="by its options",
        colours=None if wanted.place == "layer" else "sum",
        shows="influence" if name.endswith(_INFLUENCE) else "evidence",
        scaling="per-image" if regions or wanted.place == "layer" else "percentile",
    )


def _wanted(attr: ModuleType, kind: Any) -> CaptumClass:
    makes, asks = (_arguments(function) for function in (kind.__init__, kind.attribute))
    defaults = {**makes, **asks}
    defaults |= {name: value for name, value in _EVERYWHERE.items() if name in defaults}
    own = _DEFAULTS.get(kind.__name__, {})
    defaults |= own
    if "feature_mask" in asks:
        defaults["segments"] = own.get("segments", SEGMENTS)
    if kind is attr.Occlusion:
        defaults |= {"window": 0, "stride": 0}
    place: Place = "input"
    if issubclass(kind, attr.LayerAttribution):
        place = "layer"
    elif issubclass(kind, attr.NeuronAttribution):
        place = "neuron"
    return CaptumClass(
        kind=kind,
        place=place,
        layered="layer" in inspect.signature(kind.__init__).parameters,
        makes=tuple(makes),
        asks=tuple(asks),
        options={RENAMED.get(name, name): value for name, value in defaults.items()},
    )


def _arguments(function: Any) -> dict[str, Any]:
    """Return the arguments of a function that are options, and their defaults; None where it has none."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: None if each.default is inspect.Parameter.empty else each.default
        for name, each in inspect.signature(function).parameters.items()
        if each.kind in named and name not in _OURS and not name.startswith("_")
    }


def _read(value: Any) -> Any:
    """Return text as the number, tuple or truth value that it says, other text and other values as they are."""
    if not isinstance(value, str):
        return value
    word = value.strip()
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(word.casefold(), word))
    except (ValueError, SyntaxError):
        return value


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
