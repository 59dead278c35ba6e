"""The layers: which yield a map, which run often, and whether the score's derivative gets to them and to the input."""

from __future__ import annotations

from collections.abc import Iterator

from seewhy.checkup.measuring import shape_of, some
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.recorder.engine import asked


def layers(patient: Patient) -> Iterator[Check]:
    """Tell which layers yield a map, and which is taken."""
    table, row = patient.table, patient.row
    stride = "x".join(f"{length:.4g}" for length in row.stride)
    found = (
        f"{len(table)} yield a map; '{row.name}' ({row.kind}) is taken: {row.layout}, {stride} pixels a cell; "
        f"{len(table.stages)} stages: {some([stage.name for stage in table.stages], 8)}"
    )
    if max(row.layout.grid) == 1:
        remedy = "A map of one cell shows no place: choose an earlier layer (layers=, --layer) or give a larger input."
        yield Check("layers", "fails", found, remedy)
    elif max(row.layout.grid) < 4:
        remedy = "A map of so few cells is coarse: choose an earlier layer (layers=, --layer) or give a larger input."
        yield Check("layers", "note", found, remedy)
    else:
        yield Check("layers", "ok", found)


def repeated(patient: Patient) -> Iterator[Check]:
    """Tell which layers run several times in one forward."""
    calls = patient.examination.calls(patient.images)
    often = list(dict.fromkeys(row.module for row in patient.table if calls[row.module] > 1))
    own, which = calls[patient.row.module], patient.row.call
    if own > 1:
        taken = f"run {which}" if which else "the last"
        found = f"'{patient.row.module}' runs {own} times in one forward; the map is of {taken}"
        remedy = "Where another is meant, choose it by its number (layers=, --layer): NAME#1 is the first."
        yield Check("repeated layers", "note", found, remedy)
    elif often:
        yield Check("repeated layers", "ok", f"{len(often)} run several times, not the one taken: {some(often)}")
    else:
        yield Check("repeated layers", "ok", "none")


def gradient(patient: Patient) -> Iterator[Check]:
    """Tell whether the score has a derivative at the layer, and where it gets to."""
    row, rows = patient.row, list(patient.table)
    peaks = patient.examination.gradient_peaks(patient.images, rows)
    cut = [name for name, peak in peaks.items() if peak is None]
    live = [name for name, peak in peaks.items() if peak]
    numbers = {"peak": peaks[row.name], "cut": cut}
    where = f"it gets to {some(live[::-1])}" if live else "it gets to no layer"
    peak = peaks[row.name]
    if peak is None:
        remedy = (
            "The model detaches behind it (`.detach()`, `.data`, `torch.inference_mode`, rounding, numpy), or the layer is "
            "beside the way to the output: choose a later layer, or a method without gradients (occlusion, rise)."
        )
        yield Check("gradient", "fails", f"the score has no derivative at '{row.name}'; {where}", remedy, numbers)
    elif peak == 0:
        remedy = (
            "Choose one of those layers."
            if live
            else "The classifier's weights are zero, or its input is: the model is untrained, or its units are dead."
        )
        yield Check(
            "gradient", "fails", f"the derivative is zero at every place of '{row.name}'; {where}", remedy, numbers
        )
    elif peak != peak or peak == float("inf"):
        remedy = "Check the weights for NaN, and the input's range (preprocessing); run the model in float32."
        yield Check("gradient", "fails", f"the derivative at '{row.name}' is not finite", remedy, numbers)
    else:
        length = float(next(iter(patient.recordings.gradients.values())).norm())
        numbers["norm"] = length
        found = f"norm {length:.3g} at '{row.name}', largest {peak:.3g}"
        if cut:
            remedy = "For maps of those layers take a method without gradients (score-cam, ablation-cam)."
            yield Check("gradient", "note", f"{found}; none at {len(cut)} layers: {some(cut[::-1])}", remedy, numbers)
        else:
            yield Check("gradient", "ok", found, numbers=numbers)


def input_gradient(patient: Patient) -> Iterator[Check]:
    """Tell whether the score has a derivative by the input."""
    cut = patient.examination.cut(patient.images)
    if cut == "detach":
        remedy = (
            "The model cuts its graph on the way (`.detach()`, `.data`, rounding, numpy). Methods that need a gradient of the "
            "input (saliency, integrated-gradients, lrp) refuse; class activation maps behind the cut, occlusion and rise work."
        )
        yield Check("input gradient", "warning", "the score cannot be differentiated down to the input", remedy)
        return
    target = patient.target
    found = patient.examination.input_gradients(patient.images, lambda outputs: asked([target] * len(outputs), outputs))
    length, numbers = float(found.norm()), {"norm": float(found.norm())}
    told = f"norm {length:.3g} over {shape_of(tuple(found.shape[1:]))}"
    if not bool(found.isfinite().all()):
        remedy = "Check the weights for NaN, and the input's range (preprocessing); run the model in float32."
        yield Check("input gradient", "warning", "the derivative by the input is not finite", remedy)
    elif length == 0:
        remedy = "No pixel changes the score a little: take occlusion or rise, which change much."
        yield Check("input gradient", "warning", "the derivative by the input is zero everywhere", remedy, numbers)
    elif cut == "no_grad":
        remedy = "Nothing to do: the graph is switched on again meanwhile."
        yield Check("input gradient", "note", f"{told}; the model's own `no_grad` is in the way", remedy, numbers)
    else:
        yield Check("input gradient", "ok", told, numbers=numbers)


CHECKS = (
    ("layers", layers),
    ("repeated layers", repeated),
    ("gradient", gradient),
    ("input gradient", input_gradient),
)
