"""What the model is: whether it loads, how pictures are prepared for it, in which mode it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from seewhy.checkup.measuring import difference, in_mebibytes, in_millions, shape_of
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.frameworks import Shell
from seewhy.models import ASSUMED, ASSUMED_UNIT

FAR = 6.0
"""From how many times (or a how manieth of) the training's spread an input is said to be another than the model expects."""

OFF = 4.0
"""From how many of the training's standard deviations of shift."""

SAME = 1e-4
"""Largest difference of scores, as a part of their spread, that is taken for rounding."""


def loads(patient: Patient) -> Iterator[Check]:
    """Tell what was loaded, and where it is."""
    facts = patient.examination.facts()
    where = " and ".join(facts.devices) or "no device: it has no parameters"
    found = (
        f"{patient.name} ({patient.loaded.name}), {in_millions(facts.parameters)} parameters, {in_mebibytes(facts.bytes)}, on "
        f"{where}, {' and '.join(facts.precisions) or 'float32'}"
    )
    if isinstance(patient.recorder.module, Shell) and not facts.devices:
        found = f"{patient.name} ({patient.loaded.name}), {patient.recorder.module.words}"
    numbers = {"parameters": facts.parameters, "bytes": facts.bytes}
    if len(facts.devices) > 1:
        yield Check("loads", "warning", found, "Move the whole model to one device: device=, --device.", numbers)
    else:
        yield Check("loads", "ok", found, numbers=numbers)


def given_input(patient: Patient) -> Iterator[Check]:
    """Tell what the model is looked at with."""
    images = patient.images
    whose = "the one given" if patient.given else "a made-up picture"
    found = (
        f"{shape_of(tuple(images.shape))}, {images.min():.2f} to {images.max():.2f}, mean {images.mean():.2f}; {whose}"
    )
    yield Check("input", "ok", found)


def preprocessing(patient: Patient) -> Iterator[Check]:
    """Tell how pictures are prepared, and whether the first batch normalisation gets what it was trained with."""
    assumed = not {ASSUMED, ASSUMED_UNIT}.isdisjoint(patient.loaded.notes)
    whose = "assumed, as the model does not say its own" if assumed else "known"
    found = f"{whose}: {patient.loaded.preprocess}"
    give = "Give your own: preprocess= (--preprocess), with the mean, std and size of the training."
    seen = patient.examination.first_normalisation(patient.images)
    if seen is None or not seen.trained:
        yield Check("preprocessing", "note" if assumed else "ok", found, give if assumed else "")
        return
    numbers = {"shift": seen.shift, "spread": seen.spread}
    found += (
        f"; at '{seen.name}' it spreads {seen.spread:.2f} times as in training, shifted by {seen.shift:.2f} deviations"
    )
    if not 1 / FAR < seen.spread < FAR or seen.shift > OFF:
        remedy = f"The model was trained on inputs of another range, or the picture is nothing like them. {give}"
        yield Check("preprocessing", "warning", found, remedy, numbers)
    else:
        yield Check("preprocessing", "note" if assumed else "ok", found, give if assumed else "", numbers)


def modes(patient: Patient) -> Iterator[Check]:
    """Tell whether the model stands in training mode, and whether it answers otherwise then."""
    facts = patient.examination.facts()
    has = f"{facts.dropouts} dropouts, {facts.normalisations} batch normalisations"
    if not facts.training:
        yield Check("modes", "ok", f"evaluation mode; {has}")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(facts.training).most_common(4))
    now = patient.examination.scores_in_training(patient.two)
    [evaluated] = patient.examination.scores(patient.two)
    apart = 0.0 if now is None else difference(now, evaluated)
    found = f"training mode in {len(facts.training)} parts ({kinds}); {has}; the scores differ by {apart:.2g} of their spread"
    if apart > SAME:
        remedy = "Maps are of evaluation mode; call model.eval() before you compare them with the model's own answers."
        yield Check("modes", "warning", found, remedy, {"difference": apart})
    else:
        yield Check(
            "modes", "note", found, "Call model.eval(), though here nothing depends on it.", {"difference": apart}
        )


FIRST = (("loads", loads), ("input", given_input))
CHECKS = (("preprocessing", preprocessing), ("modes", modes))
