"""Layer-wise relevance propagation by zennit, on whatever model: its rules for layers, ours for what lies between them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.errors import MethodError, SeewhyError, did_you_mean
from seewhy.maps.foreign.guard import as_model_input, lent
from seewhy.maps.foreign.relevance import Relevance
from seewhy.maps.registry import method
from seewhy.recorder import Cost, Needs, Recording, is_out_of_memory
from seewhy.recorder.listening import Listening

Colours = Float[Tensor, "batch image_channel *space"]

COMPOSITES = (
    "epsilon-plus-flat",
    "epsilon-plus",
    "epsilon-alpha2-beta1-flat",
    "epsilon-alpha2-beta1",
    "epsilon-gamma-box",
    "excitation-backprop",
    "epsilon",
)
"""Which rules for which layers; all but the last are zennit's own."""

SAME = 1e-3
"""Largest change of the score, as a part of the largest output, at which merged batch norms count as the same model."""

_INSTEAD = "Use 'integrated-gradients', 'grad-cam' or 'attn-lrp', which work with any layers."


@method(
    "lrp",
    needs=Needs.MODULE,
    class_specific=True,
    signed=True,
    source="Bach et al. 2015, doi:10.1371/journal.pone.0130140; zennit: Anders et al. 2021, arXiv:2106.13200",
    passes="3 + 1",
    colours="sum",
    scaling="percentile",
)
def lrp(
    rec: Recording,
    *,
    composite: str = "epsilon-plus-flat",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    zero_bias: bool = False,
) -> Colours:
    """Hand the score back from layer to layer, to each input in proportion to what it contributed.

    Formula: R_i = sum over j of z_ij / (sum over i of z_ij) R_j, with z_ij = x_i w_ij and its variants; R begins at the score.
    Options: composite, the rules: epsilon-plus-flat, epsilon-plus, epsilon-alpha2-beta1-flat, epsilon-alpha2-beta1,
        epsilon-gamma-box, excitation-backprop, epsilon; epsilon, what is added to the denominators of linear layers; gamma,
        the weight of what speaks for the target in epsilon-gamma-box; zero_bias, whether biases get no share.
    Elsewhere: zennit by itself needs a canonizer for each family of models; without one, sums of branches are counted twice.
    """
    name = _composite_name(composite)
    zennit = _zennit()
    begin = time.perf_counter()
    found = torch.zeros_like(rec.images)
    scores = torch.zeros(len(found))
    for row in range(len(found)):
        sample = rec.row(row)
        with rec.module(row) as scorer, lent(scorer), _told(type(scorer.model).__name__):
            ask = _Question(scorer, as_model_input(sample.images, scorer))
            rules = _rules(zennit, name, epsilon, gamma, zero_bias, sample)
            relevance, scores[row] = ask.relevance(zennit, rules)
            found[row] = relevance[0]
    rec.pay(Cost(2, 1, (time.perf_counter() - begin) / len(found)))
    rec.report("score difference", scores)
    rec.report("relevance kept by biases", scores - found.flatten(1).sum(1).cpu())
    return found


@dataclass
class _Seen:
    """What one run of a model shows of it.

    Attributes:
        scores: `(1, *output)`.
        runs: how often each convolution or linear layer ran, by name, in the order of their first runs.
        first_input: what the first of them was given.
        merges: pairs of a layer and the batch normalisation that is given just what the layer gives.
    """

    scores: Tensor = field(default_factory=lambda: torch.zeros(()))
    runs: Counter[str] = field(default_factory=Counter)
    first_input: Tensor | None = None
    merges: list[tuple[tuple[str], str]] = field(default_factory=list)


class _Question:
    """One model, one target, one image.

    Args:
        scorer: model and target, as :meth:`Recording.module` gives them.
        image: `(1, channel, *space)`, as the model takes it.
    """

    def __init__(self, scorer: Any, image: Tensor) -> None:
        self._model: nn.Module = scorer.model
        self._target = scorer.target
        self._outputs = scorer.outputs
        self._image = image

    def relevance(self, zennit: ModuleType, rules: Any) -> tuple[Tensor, Tensor]:
        """Return the relevance `(1, channel, *space)` of the input and the score.

        Raises:
            MethodError: the model has layers or functions that LRP has no rule for.
        """
        seen = self._look(zennit)
        self._check(zennit, rules, seen)
        merges = seen.merges
        while True:
            composite = _composite(zennit, rules, seen, merges)
            with composite.context(self._model):
                for _, name in merges:  # zennit leaves the square root of 1 + eps in the way: 2% in fifty layers
                    norm: Any = self._model.get_submodule(name)
                    norm.running_var.data = norm.running_var.data - norm.eps
                leaf, outputs = self._run(self._weights(zennit))
                changed = float((outputs.detach() - seen.scores).abs().max())
                if merges and not changed <= SAME * float(seen.scores.abs().max()):
                    merges = []  # something else reads what lies between a layer and its batch norm
                    continue
                score, start = self._start(outputs)
                [found] = torch.autograd.grad(outputs, [leaf], start, allow_unused=True)
            if found is None:
                raise MethodError(f"No relevance reaches the input: the model cuts its graph on the way. {_INSTEAD}")
            return found, score

    def _look(self, zennit: ModuleType) -> _Seen:
        """Run the model once and note its layers."""
        seen = _Seen()
        given: dict[int, tuple[str, Tensor, int]] = {}  # the tensors are kept, so that no other gets their id

        def before(name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.runs[name] += 1
            if seen.first_input is None:
                seen.first_input = inputs[0].detach().clone()

        def after(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
            given[id(output)] = (name, output, output._version)

        def norm(name: str, module: Any, inputs: tuple[Any, ...]) -> None:
            linear, output, version = given.get(id(inputs[0]), ("", None, 0))
            has_all = module.running_mean is not None and module.weight is not None
            if output is inputs[0] and output._version == version and has_all:
                seen.merges.append(((linear,), name))

        with Listening() as listening, torch.no_grad():
            for name, module in self._model.named_modules():
                if isinstance(module, zennit.types.Linear):
                    listening.before(module, partial(before, name))
                    listening.after(module, partial(after, name))
                elif isinstance(module, zennit.types.BatchNorm):
                    listening.before(module, partial(norm, name))
            seen.scores = self._outputs(self._image.clone())
        return seen

    def _check(self, zennit: ModuleType, rules: Any, seen: _Seen) -> None:
        if not seen.runs:
            raise MethodError(f"lrp needs convolutions or linear layers as modules, and none ran. {_INSTEAD}")
        if several := [name for name, runs in seen.runs.items() if runs > 1]:
            raise MethodError(
                f"lrp cannot explain this model: its layer '{several[0]}' runs {seen.runs[several[0]]} times in one forward, "
                f"and zennit keeps what a layer was given only once. {_INSTEAD}"
            )
        if isinstance(rules, zennit.composites.EpsilonGammaBox) and (
            seen.first_input is None
            or seen.first_input.shape != self._image.shape
            or not torch.equal(seen.first_input, self._image)
        ):
            raise MethodError(
                "composite='epsilon-gamma-box' needs a first layer that is given the model's input itself, within black and "
                "white; this model changes it before. Use composite='epsilon-plus-flat'."
            )

    def _weights(self, zennit: ModuleType) -> list[Tensor]:
        layers = [module for module in self._model.modules() if isinstance(module, zennit.types.Linear)]
        return [weight for layer in layers if (weight := layer._parameters.get("weight")) is not None]

    def _run(self, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the input as a leaf and the outputs `(1, *output)`, with the graph that relevance goes back through."""
        leaf = self._image.clone().requires_grad_()
        with Relevance(weights) as between:
            outputs = self._outputs(leaf.clone())
        if between.refused:
            listed = ", ".join(f"{name} ({count} calls)" for name, count in between.refused.most_common())
            raise MethodError(
                f"lrp has no rules for {type(self._model).__name__}: it calls {listed}. The rules of zennit are for "
                f"convolutions, linear layers, sums, poolings and pointwise activations. {_INSTEAD}"
            )
        if not outputs.requires_grad:
            raise MethodError(f"No relevance reaches the input: the model cuts its graph on the way. {_INSTEAD}")
        return leaf, outputs

    def _start(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score and the relevance of the outputs: each one's share of the score, to first order."""
        leaf = outputs.detach().clone().requires_grad_()
        score = self._target(leaf[0])
        [slope] = torch.autograd.grad(score, leaf)
        return score.detach().float(), slope * leaf.detach()


def _composite(zennit: ModuleType, rules: Any, seen: _Seen, merges: list[tuple[tuple[str], str]]) -> Any:
    """Return zennit's composite with the rule for the first layer at the layer that runs first, and the batch norms merged."""
    first = next(iter(seen.runs))

    def hook(_context: Any, name: str, module: nn.Module) -> Any:
        # A pooling may run several times, which zennit does not allow for; `Relevance` has the same rule for it.
        if isinstance(module, zennit.types.AvgPool):
            return None
        return rules.mapping({"first_layer_visited": name != first}, name, module)

    return zennit.core.Composite(hook, [zennit.canonizers.NamedMergeBatchNorm(merges)])


def _rules(zennit: ModuleType, name: str, epsilon: float, gamma: float, zero_bias: bool, sample: Recording) -> Any:
    """Return zennit's composite of this name."""
    zero = ["bias"] if zero_bias else None
    if name == "epsilon":
        base = zennit.composites.layer_map_base()
        layers = [*base, (zennit.types.Linear, zennit.rules.Epsilon(epsilon, zero_params=zero))]
        return zennit.composites.LayerMapComposite(layers)
    made: Callable[..., Any] = zennit.composites.COMPOSITES[name.replace("-", "_")]
    if name == "excitation-backprop":
        return made(zero_params=zero)
    if name == "epsilon-gamma-box":
        low, high = sample.baseline("black"), sample.baseline("white")
        return made(torch.minimum(low, high), torch.maximum(low, high), epsilon=epsilon, gamma=gamma, zero_params=zero)
    return made(epsilon=epsilon, zero_params=zero)


def _composite_name(given: str) -> str:
    name = given.strip().casefold().replace("_", "-")
    if name not in COMPOSITES:
        raise MethodError(
            f"lrp: composite='{given}' is not known.{did_you_mean(name, COMPOSITES)} Known: {', '.join(COMPOSITES)}."
        )
    return name


def _zennit() -> ModuleType:
    try:
        import zennit
        import zennit.canonizers
        import zennit.composites
        import zennit.core
        import zennit.rules
        import zennit.types
    except ImportError as error:
        raise MethodError(f"lrp needs zennit: pip install 'seewhy[lrp]' ({error}).") from error
    return zennit  # type: ignore[no-any-return]


@contextmanager
def _told(model: str) -> Iterator[None]:
    """Tell zennit's own errors as ours."""
    try:
        yield
    except SeewhyError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MethodError(f"lrp: {model} under zennit raised {type(error).__name__}: {error} {_INSTEAD}") from error
