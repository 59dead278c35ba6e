"""What the model answers: which tensor is taken, whether it is the same again, in a batch, and for other sizes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from seewhy.checkup.measuring import difference, shape_of
from seewhy.checkup.model import SAME
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.errors import RecordingError
from seewhy.recorder import Returned
from seewhy.targets import tells_two_apart

ALIKE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest difference between a batch and one by one, as a part of the scores' spread; 0.05 in half precision."""

_LOGITS = (
    "Where the model can give scores before softmax, say where with output= (--scores): a probability near 1 has next to no "
    "gradient."
)


def outputs(patient: Patient) -> Iterator[Check]:
    """Tell what came out, what of it is taken, and what that is."""
    returned = patient.returned
    scores = returned.scores
    named = [f"{name} {shape_of(shape)}".strip() for name, shape in returned.shapes.items()]
    what = f"{len(named)} tensors: {'; '.join(named[:6])}" if len(named) > 1 else f"one tensor {''.join(named)}"
    made = "they are read together" if patient.output is None else "what output= gives is taken"
    taken = {None: made, "": "taken as it is"}.get(returned.taken, f"'{returned.taken}' is taken")
    found = f"{what}; {taken}: {_in_words(returned)}"
    wrong = int((~scores.isfinite()).sum())
    if wrong:
        remedy = "Check the weights for NaN, and the input's range (preprocessing); run the model in float32."
        yield Check("outputs", "fails", f"{found}; {wrong} of {scores.numel()} numbers are NaN or infinite", remedy)
    elif patient.chances.ready:
        yield Check("outputs", "note", f"{found}; these are probabilities already", _LOGITS)
    elif len(named) > 1 and patient.output is None:
        remedy = "Where another is meant, say which: output= (--scores)."
        yield Check("outputs", "note", found, remedy)
    else:
        yield Check("outputs", "ok", found)


def _in_words(returned: Returned) -> str:
    scores = returned.scores
    if returned.kind == "classes" and scores.shape[1] == 1:
        return f"one output ({float(scores[0, 0]):.4g}), asked as 'up' or 'down'"
    if returned.kind == "classes":
        return f"{scores.shape[1]} classes, from {float(scores.min()):.3g} to {float(scores.max()):.3g}"
    if returned.kind == "places":
        return f"one score a class and place, {shape_of(tuple(scores.shape[1:]))}"
    if returned.kind == "boxes":
        return f"{scores.shape[1]} boxes before suppression, {scores.shape[2] - 5} classes, asked as 'box:0'"
    if returned.kind == "vector":
        return f"a vector of {scores.shape[1]} numbers, asked with similar_to"
    return f"{shape_of(tuple(scores.shape[1:]))} numbers a picture, which are no scores of classes"


def labels(patient: Patient) -> Iterator[Check]:
    """Tell whether there is a name for each class."""
    names, returned = patient.loaded.labels, patient.returned
    if returned.kind not in ("classes", "places"):
        return
    classes = returned.scores.shape[1]
    if names is None:
        if classes > 1:
            yield Check("labels", "note", f"no names for {classes} classes", "Give labels= (--labels) to ask by name.")
        return
    if len(names) == classes or tells_two_apart(classes, names):
        likeliest = names.name(_likeliest(returned, patient.chances.even))
        yield Check("labels", "ok", f"{len(names)} names; this input: {likeliest}")
    else:
        remedy = "Give labels= (--labels) with one name a class, in the order of the training."
        yield Check("labels", "warning", f"{len(names)} names for {classes} classes", remedy)


def _likeliest(returned: Returned, even: float) -> int:
    scores = returned.scores[0]
    if scores.shape[0] == 1:
        return int(scores.flatten()[0] > even)
    return int(scores.flatten(1).amax(1).argmax()) if scores.ndim > 1 else int(scores.argmax())


def repeats(patient: Patient) -> Iterator[Check]:
    """Tell whether two runs give the same."""
    one, other = patient.examination.scores(patient.images, times=2)
    if not bool(one.isfinite().all()):
        return
    apart = difference(other, one)
    found = f"two runs differ by {apart:.2g} of the scores' spread"
    if apart > SAME:
        remedy = (
            "Something is drawn at random in evaluation mode: give dropout `training=self.training`, or take noise out. Maps "
            "are repeatable by seed=, but each is of one draw."
        )
        yield Check("repeatable", "warning", found, remedy, {"difference": apart})
    else:
        yield Check("repeatable", "ok", "two runs are equal" if apart == 0 else found, numbers={"difference": apart})


def batch(patient: Patient) -> Iterator[Check]:
    """Tell whether two inputs in one run get what each gets alone."""
    alone = torch.cat([patient.examination.scores(image)[0] for image in torch.split(patient.two, 1)])
    if not bool(alone.isfinite().all()):
        return
    try:
        [together] = patient.examination.scores(patient.two)
    except RecordingError as error:
        remedy = (
            "Let the model take any batch (export it with a dynamic batch axis). Until then only methods that run it once at "
            "a time work, with batch_size=1: not occlusion, rise, integrated-gradients and the like."
        )
        yield Check("batch", "warning", f"two inputs at once fail: {error}", remedy)
        return
    apart = _apart(together, alone)
    if apart > ALIKE.get(together.dtype, 0.05):
        remedy = (
            "The model mixes samples (batch normalisation without running statistics, attention over the batch): give "
            "batch_size=1. Methods that run many variants at once (occlusion, rise, smoothing) are not to be trusted."
        )
        yield Check(
            "batch",
            "warning",
            f"two inputs at once differ by {apart:.2g} of the scores' spread from each alone",
            remedy,
        )
    else:
        yield Check("batch", "ok", f"two inputs at once equal each alone (within {apart:.1g} of the scores' spread)")


def _apart(together: Tensor, alone: Tensor) -> float:
    return difference(together, alone) if together.shape == alone.shape else float("inf")


def sizes(patient: Patient) -> Iterator[Check]:
    """Tell whether an input of another size is taken."""
    size = shape_of(tuple(patient.images.shape[2:]))
    wide = torch.cat([patient.images, patient.images.flip(-1)], dim=-1)
    other = shape_of(tuple(wide.shape[2:]))
    patient.examination.scores(patient.images)  # what fails for any size tells nothing about sizes
    try:
        patient.examination.scores(wide)
    except RecordingError as error:
        remedy = "Pictures are scaled to this size by the preprocessing; give tensors of this size only."
        yield Check("sizes", "note", f"fixed at {size}; {other} fails: {_cause(error)}", remedy)
    else:
        yield Check("sizes", "ok", f"not fixed: {size}, and {other} too")


def _cause(error: RecordingError) -> str:
    """Return what the model itself said."""
    own = error.__cause__ or error
    return (str(own).strip().splitlines() or [type(own).__name__])[0][:160]


FIRST = (("outputs", outputs),)
CHECKS = (("labels", labels), ("repeatable", repeats), ("batch", batch), ("sizes", sizes))
