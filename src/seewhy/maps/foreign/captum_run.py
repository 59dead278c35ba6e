"""Asking a class of Captum about one sample after the other, and reading what it answers as maps."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import MethodError, SeewhyError
from seewhy.images.regions import as_segments, superpixels
from seewhy.kept import seeded
from seewhy.maps.foreign.captum_names import RENAMED, CaptumClass
from seewhy.maps.foreign.guard import as_model_input, lent
from seewhy.maps.held import held
from seewhy.recorder import Cost, Layout, Recording, is_out_of_memory
from seewhy.recorder.listening import only_here
from seewhy.recorder.memory import first_chunk
from seewhy.recorder.tape import first_tensor

MOST_EXACT = 8
"""Most regions of which exact Shapley values are worked out: 8 have 40,320 orders."""

_SEVERAL = ("DeepLiftShap", "GradientShap")
_REWRITES_MODULES = ("DeepLift", "LRP", "Guided", "Deconvolution")
# What Captum warns of each time, and what `lent` sees to.
_KNOWN_WARNINGS = (
    r"Setting forward, backward hooks and attributes on non-linear",
    r"Setting backward hooks on ReLU activations",
)


class Counted(nn.Module):
    """A scorer that counts its runs.

    Args:
        scorer: from images `(number, channel, *space)` to scores `(number,)`.
    """

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer
        self.forwards = 0
        self.backwards = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        self.forwards += len(images)
        scores: Tensor = self.scorer(images.clone())  # a copy: some models write into their input
        self.listen(scores)
        return scores

    def listen(self, output: Tensor) -> None:
        """Count when a derivative goes back from here."""
        if output.requires_grad:
            output.register_hook(self._back)  # type: ignore[no-untyped-call]

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def attributed(wanted: CaptumClass, rec: Recording, options: Mapping[str, Any]) -> Tensor:
    """Return the maps: `(batch, channel, *grid)`, or `(batch, *grid)` where all channels have the same.

    Args:
        wanted: the class.
        rec: what it is asked about.
        options: all of its options.

    Raises:
        MethodError: the class cannot work on this model, or its arguments do not fit.
    """
    begin = time.perf_counter()
    maps: list[Tensor] = []
    gaps: list[Tensor] = []
    forwards = backwards = 0
    for row in range(len(rec.images)):
        with rec.module(row) as scorer, lent(scorer, keep_inputs=True), seeded(rec.seed), _quiet():
            with _told(wanted, scorer):
                asked = _Asked(wanted, rec.row(row), options, Counted(scorer))
                found, gap = asked.answer()
            maps.append(found.detach().to(rec.images))
            gaps += [] if gap is None else [gap.detach().float().cpu().mean()]
            forwards, backwards = forwards + asked.model.forwards, backwards + asked.model.backwards
    batch = len(maps)
    rec.pay(Cost(math.ceil(forwards / batch), math.ceil(backwards / batch), (time.perf_counter() - begin) / batch))
    found = torch.cat(maps)
    if gaps:
        gap = torch.stack(gaps)
        rec.report("score difference", found.flatten(1).sum(1).cpu() - gap)
        rec.report("completeness gap", gap)
    return found


@dataclass
class _Asked:
    """One class of Captum, asked about one sample.

    Attributes:
        wanted: the class.
        sample: a recording of one sample.
        options: all options.
        model: from images to scores.
    """

    wanted: CaptumClass
    sample: Recording
    options: Mapping[str, Any]
    model: Counted

    def __post_init__(self) -> None:
        self._image = as_model_input(self.sample.images, self.model)
        self._alike = False  # whether all channels of the answer are the same

    def answer(self) -> tuple[Tensor, Tensor | None]:
        """Return the map, and the difference between its sum and the score's where Captum tells it."""
        from captum.attr import LRP, PerturbationAttribution

        wanted = self.wanted
        first: list[nn.Module] = [self.model]
        if wanted.layered:
            first.append(self._layer())
        made = wanted.kind(*first, **{name: self.options[name] for name in wanted.makes})
        image = self._image if isinstance(made, PerturbationAttribution) else self._image.requires_grad_()
        returned = made.attribute(image, **self._arguments())
        vars(made).clear()  # Lime and KernelShap hold themselves, and with them tensors
        gap = None
        if self._tells_gap:
            returned, gap = returned
            gap = -gap if isinstance(made, LRP) else gap  # there it is the score minus the sum
        values = first_tensor(returned)
        if values is None:
            raise MethodError(f"captum:{wanted.name} returned a {type(returned).__name__} without a map in it.")
        return (self._of_layer(values) if wanted.place == "layer" else self._of_input(values)), gap

    def _layer(self) -> nn.Module:
        row = self.sample.layer_row
        layer = self.model.get_submodule(f"scorer.model.{row.module}")
        if "GradCam" in self.wanted.name and row.layout.order in ("tokens", "channels-last"):
            raise MethodError(
                f"captum:{self.wanted.name} takes the first axis behind the batch for the channels; the output of layer "
                f"'{row.name}' is {row.layout}. Use 'grad-cam', which reads any layout."
            )
        if self.wanted.place == "neuron" and not self._of_score:
            layer.register_forward_hook(only_here(self._listen))  # `lent` takes it off
        return layer

    @property
    def _tells_gap(self) -> bool:
        """Whether Captum is asked how far the map's sum is from the score's difference; a mere multiplier has no such sum."""
        wanted = self.options.get("return_convergence_delta", False)
        return bool(wanted) and bool(self.options.get("multiply_by_inputs", True))

    @property
    def _of_score(self) -> bool:
        """Whether the score is what is differentiated."""
        return self.wanted.name == "NeuronConductance" or self.wanted.place != "neuron"

    def _listen(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if (found := first_tensor(output)) is not None:
            self.model.listen(found)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of attribute()."""
        options, names = self.options, self.wanted.asks
        found = {name: options[RENAMED.get(name, name)] for name in names if name != "baselines"}
        if "baselines" in names and options["baseline"] is not None:
            found["baselines"] = self._baselines(options["baseline"])
        if "feature_mask" in names:
            found["feature_mask"] = self._mask()
        if "layer_mask" in names and found["layer_mask"] is None:
            found["layer_mask"] = self._places()
        if "sliding_window_shapes" in names:
            found |= self._windows()
        if "neuron_selector" in names:
            found["neuron_selector"] = self._neuron()
        if "return_convergence_delta" in names:
            found["return_convergence_delta"] = self._tells_gap
        for name, backward in (("perturbations_per_eval", False), ("internal_batch_size", True)):
            if name in names and found[name] is None:
                found[name] = max(2, first_chunk(self._image[0], backward=backward))
        return found

    def _baselines(self, given: Any) -> Tensor:
        kinds = held(given)
        if len(kinds) != 1 and not self.wanted.name.endswith(_SEVERAL):
            raise MethodError(f"captum:{self.wanted.name} takes one baseline; {len(kinds)} were given.")
        return torch.cat([self.sample.baseline(kind.value) for kind in kinds]).to(self._image)

    def _mask(self) -> Tensor:
        """Return each input value's region `(1, channel, *space)`, numbered without gaps."""
        image = self._image[0]
        given = self.options["feature_mask"]
        given = self.options["segments"] if given is None else given
        if isinstance(given, int):
            mask, self._alike = superpixels(image, given), True
        elif (shape := tuple(getattr(given, "shape", ())))[-image.ndim :] == tuple(image.shape) and math.prod(
            shape
        ) == image.numel():
            mask = as_segments(given.reshape(-1), (image.numel(),)).reshape(image.shape)
        else:
            mask, self._alike = as_segments(given, image.shape[1:]), True
        regions = int(mask.max()) + 1
        if regions < 2:
            raise MethodError(
                f"captum:{self.wanted.name}: there is one region only, so the map would be flat. Give more segments."
            )
        if self.wanted.name == "ShapleyValues" and regions > MOST_EXACT:
            raise MethodError(
                f"captum:ShapleyValues goes through all {math.factorial(regions):,} orders of {regions} regions. Give "
                f"segments= of at most {MOST_EXACT}, or use captum:ShapleyValueSampling."
            )
        return mask.to(image.device).expand(1, *image.shape).contiguous()

    def _places(self) -> Tensor:
        """Return the number of each place of the layer's output, in the layer's own layout: all channels of one together."""
        self._alike = True
        layout = self.sample.layer_row.layout
        places = math.prod(layout.grid)
        numbers = torch.arange(places, device=self._image.device).view(1, 1, *layout.grid)
        prefix = torch.full((1, *layout.shape), places, device=self._image.device)
        return layout.from_channels_first(numbers.expand(1, layout.channels, *layout.grid), prefix)

    def _windows(self) -> dict[str, Any]:
        """Return what Occlusion slides over the input, and how far each time."""
        channels, *space = self._image.shape[1:]
        shapes, strides = self.options["sliding_window_shapes"], self.options["strides"]
        window, stride = self.options["window"], self.options["stride"]
        side = window or max(1, round(min(space) / 7))
        if shapes is None:
            shapes = (channels, *(min(side, length) for length in space))
        if strides is None and (stride or self.options["sliding_window_shapes"] is None):
            strides = (channels, *[stride or max(1, side // 2)] * len(space))
        self._alike = isinstance(shapes, tuple) and shapes[:1] == (channels,)
        return {"sliding_window_shapes": shapes, "strides": strides}

    def _neuron(self) -> Any:
        """Return the neuron in Captum's words; a single number is a channel, at all places together."""
        given, layout = self.options["neuron_selector"], self.sample.layer_row.layout
        if not isinstance(given, int):
            return tuple(given) if isinstance(given, list) else given
        everywhere = [slice(None)] * len(layout.grid)
        return {
            "channels-first": (given, *everywhere),
            "channels-last": (*everywhere, given),
            "tokens": (slice(layout.prefix, None), given),
            "tokens-last": (given, slice(layout.prefix, None)),
        }[layout.order]

    def _of_input(self, values: Tensor) -> Tensor:
        if values.shape != self._image.shape:
            raise MethodError(
                f"captum:{self.wanted.name} returned a map of shape {tuple(values.shape)} for an input of shape "
                f"{tuple(self._image.shape)}."
            )
        return values[:, 0] if self._alike else values

    def _of_layer(self, values: Tensor) -> Tensor:
        row = self.sample.layer_row
        layout = row.layout
        if tuple(values.shape[1:]) == _of_one_channel(layout).shape:
            layout = _of_one_channel(layout)
        if tuple(values.shape[1:]) != layout.shape:
            raise MethodError(
                f"captum:{self.wanted.name} gave {tuple(values.shape)} at layer '{row.name}', whose output is {layout}. "
                "Leave attribute_to_layer_input out, or choose a layer that takes and gives the same shape."
            )
        found = layout.to_channels_first(values)
        return found[:, 0] if self._alike else found


def _of_one_channel(layout: Layout) -> Layout:
    return replace(layout, channels=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Captum warns of each time, and nothing else."""
    with warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


@contextmanager
def _told(wanted: CaptumClass, scorer: nn.Module) -> Iterator[None]:
    """Tell Captum's errors as ours, with what to do."""
    model = type(scorer.model).__name__
    name = f"captum:{wanted.name}"
    if ("Guided" in name or "Deconvolution" in name) and not any(
        isinstance(part, nn.ReLU) for part in scorer.modules()
    ):
        raise MethodError(
            f"{name} changes modules of type ReLU, and {model} has none: its map would be the plain derivative. Use "
            "'guided-backprop' or 'deconvnet', which find ReLUs that are called as functions, or 'integrated-gradients'."
        )
    try:
        yield
    except SeewhyError:
        raise
    except ModuleNotFoundError as error:
        raise MethodError(f"{name} needs more than Captum itself: pip install {error.name} ({error}).") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        words = " ".join(str(error).split()) or "without a word"
        raise MethodError(
            f"{name} on {model}: Captum raised {type(error).__name__}: {words} {_advice(wanted)}"
        ) from error


def _advice(wanted: CaptumClass) -> str:
    if any(word in wanted.name for word in _REWRITES_MODULES):
        return (
            "This class rewrites the model's modules, so each activation must be a module of its own that runs once, and of a "
            "type that Captum knows. Use 'lrp', 'guided-backprop' or 'integrated-gradients', which need no modules."
        )
    return "Check the options against Captum's page of the class, and the layer if one is looked at."
