"""How the model can be run: in-place layers, memory order, half precision, replays, folding, rules for ReLU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch

from seewhy.checkup.measuring import difference, likeness, some
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.errors import SeewhyError
from seewhy.recorder import TorchRecorder, is_out_of_memory

LIKE = 0.95
"""Correlation of two maps from which they count as the same picture."""

FEW = 4
"""Pictures in one run from which they go in as channels-last."""


def in_place(patient: Patient) -> Iterator[Check]:
    """Tell whether the model overwrites what a derivative needs."""
    examination = patient.examination
    found = []
    if examination.overwrites(patient.images, [patient.row]):
        found.append(f"by '{patient.row.name}'")
    if examination.cut(patient.images) == "none" and examination.overwrites(patient.images, ()):
        found.append("by the input")
    if found:
        remedy = (
            "It works: copies are kept meanwhile, which is slower. To be faster, write out-of-place where the model adds or "
            "multiplies in place (`x = x + y` instead of `x += y`)."
        )
        yield Check("in-place", "note", f"the model overwrites what a derivative {' and '.join(found)} needs", remedy)
    else:
        yield Check("in-place", "ok", "nothing that a derivative needs is overwritten")


def memory_order(patient: Patient) -> Iterator[Check]:
    """Tell whether the model takes pictures as channels-last."""
    images = patient.images
    if images.ndim != 4 or images.shape[1] < 2:
        return
    if patient.examination.refuses_channels_last(images.expand(FEW, -1, -1, -1)):
        remedy = (
            "It works: batches go in the usual order, which is slower. Write reshape() where the model calls view()."
        )
        yield Check("memory order", "note", "a channels-last input fails at a view()", remedy)
    else:
        yield Check("memory order", "ok", "channels-last inputs are taken")


def precision(patient: Patient, name: str, kind: torch.dtype) -> Iterator[Check]:
    """Tell whether the model runs in half precision, and how much its scores and map differ then."""
    facts = patient.examination.facts()
    if facts.precisions == (name,):
        yield Check(name, "ok", "the model's own precision")
        return
    expected = patient.recordings
    try:
        recorder = TorchRecorder(patient.examination.copied(kind), output=patient.output)
        scores = patient.examined(recorder).scores(patient.images)[0]
        if not bool(scores.isfinite().all()) and bool(expected.outputs.isfinite().all()):
            found = f"{int((~scores.isfinite()).sum())} of {scores.numel()} scores are NaN or infinite in {name}: it overflows"
            other = "float32 or bfloat16" if kind == torch.float16 else "float32"
            yield Check(name, "warning", found, f"Keep the model in {other}.")
            return
        recorded = patient.record(recorder, patient.images)
    except SeewhyError as error:
        yield Check(name, "note", f"does not run: {error}", "Keep the model in float32 on this device.")
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield Check(name, "note", "not tried: there is no memory for a copy", "")
        return
    apart = difference(scores, expected.outputs)
    like = likeness(patient.grad_cam(recorded), patient.grad_cam(expected))
    numbers = {"difference": apart, "likeness": like}
    found = f"scores differ by {apart:.2g} of their spread; Grad-CAM correlates {like:.4f} with that in float32"
    if like < LIKE:
        yield Check(name, "note", found, "Keep the model in float32 for maps.", numbers)
    else:
        yield Check(name, "ok", found, numbers=numbers)


def replay(patient: Patient) -> Iterator[Check]:
    """Tell whether one run of the body serves many edits of the layer."""
    if patient.examination.tail(patient.images, patient.row, 2).broadcasts:
        yield Check("replay", "ok", f"one run up to '{patient.row.name}' serves many edits of it")
    else:
        remedy = "It works: ablation-cam gives the model a copy of the input for each edit, which is slower."
        yield Check(
            "replay", "note", f"what is behind '{patient.row.name}' does not take many edits for one input", remedy
        )


def folding(patient: Patient) -> Iterator[Check]:
    """Tell how many batch normalisations are folded in long work, and what that gains."""
    gain = patient.examination.folding(patient.images)
    normalisations = patient.examination.facts().normalisations
    if not normalisations:
        yield Check("folding", "ok", "no batch normalisation to fold")
        return
    found = f"{gain.pairs} of {normalisations} batch normalisations fold into convolutions"
    found += f"; a run is then {gain.factor:.2f} times as fast" if gain.pairs else ""
    yield Check("folding", "ok", found, numbers={"pairs": gain.pairs, "factor": gain.factor})


def relu_rules(patient: Patient) -> Iterator[Check]:
    """Tell which activation functions the model uses, and whether the rules for ReLU mean anything for it."""
    tally, refused = patient.examination.activation_functions(patient.images)
    counts = Counter({"relu": tally.relus}) + tally.others + tally.gates
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none seen"
    numbers = {"activations": dict(counts)}
    if refused:
        remedy = "guided-backprop, deconvnet and guided-grad-cam refuse: take saliency, smoothgrad or grad-cam."
        yield Check("activations", "note", f"{found}; no ReLU", remedy, numbers)
    elif tally.others:
        kept = some(sorted(tally.others))
        remedy = "guided-backprop and deconvnet change the ReLUs only: their maps are mixed."
        yield Check("activations", "note", f"{found}; {kept} keep their own derivative", remedy, numbers)
    else:
        yield Check("activations", "ok", f"{found}; guided backpropagation and DeconvNet work", numbers=numbers)


CHECKS = (
    ("in-place", in_place),
    ("memory order", memory_order),
    ("bfloat16", partial(precision, name="bfloat16", kind=torch.bfloat16)),
    ("float16", partial(precision, name="float16", kind=torch.float16)),
    ("replay", replay),
    ("folding", folding),
    ("activations", relu_rules),
)
