"""All checks of one model, each by itself: what one meets does not keep the others from being made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from seewhy.checkup import cost, layers, model, outputs, running
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check, Report
from seewhy.checkup.sealed import WHOLE, file_note
from seewhy.errors import SeewhyError
from seewhy.explainer import Explainer, ModelLike
from seewhy.frameworks import Shell
from seewhy.models import load
from seewhy.models.given import WeightsLike
from seewhy.recorder import LayerLike, OutputLike, TorchRecorder, Wrt, is_out_of_memory

Look = Callable[[Patient], Iterator[Check]]

ROUNDS: tuple[tuple[str, Look], ...] = (
    *model.FIRST,
    *outputs.FIRST,
    *model.CHECKS,
    *outputs.CHECKS,
    *layers.CHECKS,
    *running.CHECKS,
    *cost.CHECKS,
)
"""Every check, in the order in which they are made."""

_BY_DERIVATIVES = ("gradient", "input gradient", "memory", "time")
"""Those that are not made of a model that gives no derivatives."""

_OF_TORCH = ("modes", "in-place", "memory order", "bfloat16", "float16", "folding", "activations")
"""Those that look into modules and parameters of torch, of which a model of another framework has none."""

WITHOUT_LAYERS: tuple[tuple[str, Look], ...] = (
    *model.FIRST,
    *outputs.FIRST,
    WHOLE[0],
    model.CHECKS[0],
    *outputs.CHECKS,
    WHOLE[1],
)
"""The checks of a model of which only the whole can be run."""


def doctor(
    model: ModelLike,
    image: Any = None,
    *,
    layer: LayerLike | None = None,
    weights: WeightsLike = None,
    pretrained: bool = True,
    preprocess: Any = None,
    labels: Any = None,
    device: str | torch.device | None = None,
    output: OutputLike = None,
    wrt: Wrt | None = None,
    seed: int = 0,
) -> Report:
    """Look at a model from all sides and tell what works, what does not, and what to do.

    The model is run some dozens of times, and a copy of it in half precision; it is given back as it was.

    Args:
        model: as in :func:`seewhy.explain`; of a function or a TorchScript module it is told what works on it.
        image: what to look with, as in :func:`seewhy.explain`; None: a made-up picture.
        layer: the layer to look at; None: the one that is taken by default.
        weights, pretrained: of a model that is given by its name, as in :func:`seewhy.load`.
        preprocess, labels, device, output, wrt, seed: as in :func:`seewhy.explain`.

    Returns:
        A table of checks, each with `.name`, `.verdict` ("ok", "note", "warning", "fails"), `.found`, `.remedy` and
        `.numbers`; it prints well. `.verdict` is the gravest, `.check(name)` is one of them. What goes wrong is in the table,
        nothing is raised.
    """
    name = getattr(model, "name", None) or (model if isinstance(model, str) else type(model).__name__)
    if (note := file_note(model)) is not None:
        return Report([note], os.path.basename(str(model)))  # noqa: PTH119 - a name is text
    rows: list[Check] = []
    try:
        if isinstance(model, str):
            model, weights = load(model, weights=weights, pretrained=pretrained), None
        how: Any = {"preprocess": preprocess, "labels": labels, "device": device, "output": output, "seed": seed}
        loaded = Explainer(model, weights=weights, **how).model
        patient = Patient(loaded, TorchRecorder(loaded.module, device, output), image, layer, output, wrt, seed)
    except SeewhyError as error:
        return Report([Check("loads", "fails", str(error), "")], str(name))
    module = patient.recorder.module
    whole = isinstance(module, Shell) and not module.has_layers
    rounds = WITHOUT_LAYERS if whole else ROUNDS
    if isinstance(module, Shell) and not whole and not any(True for _ in module.parameters()):
        rounds = tuple(each for each in rounds if each[0] not in _OF_TORCH)
    if isinstance(module, Shell) and not whole and not module.differentiable:
        told = f"{module.words} gives no derivatives"
        rows.append(Check("gradient", "note", told, module.lacks["GRADIENTS"]))
        rounds = tuple(each for each in rounds if each[0] not in _BY_DERIVATIVES)
    for check, look in rounds:
        rows += _looked(check, look, patient, rows)
    return Report(rows, str(name))


def _looked(name: str, look: Look, patient: Patient, before: list[Check]) -> list[Check]:
    """Return what one check found, or what it met; what another met before it is told in short."""
    try:
        return list(look(patient))
    except SeewhyError as error:
        found, remedy = str(error), ""
    except Exception as error:  # noqa: BLE001 - the model's own code runs here and may fail in its own way
        if is_out_of_memory(error):
            remedy = "Give a smaller image, or another device."
            found = f"memory ran out: {_first_line(error)}"
        else:
            remedy = "Check that the model runs, and can be differentiated, when called by itself."
            found = f"the model raised {type(error).__name__}: {_first_line(error)}"
    earlier = next((check.name for check in before if check.verdict == "fails" and check.found == found), None)
    if earlier is not None:
        return [Check(name, "note", f"not looked at: it fails as '{earlier}' does")]
    return [Check(name, "fails", found, remedy)]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
