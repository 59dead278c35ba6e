"""What maps of this model cost: memory and seconds measured, and from these an estimate for every method."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from seewhy.checkup.measuring import in_mebibytes, in_seconds
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.frameworks import Shell
from seewhy.maps import Method, methods
from seewhy.plan import lacking
from seewhy.recorder import Needs, peak_bytes, seconds
from seewhy.recorder.engine import asked


@dataclass(frozen=True)
class Runs:
    """How often a method runs the model for one map.

    Attributes:
        forwards, backwards: of the whole model.
        tails: of what is behind the layer.
    """

    forwards: int
    backwards: int
    tails: int = 0


@dataclass(frozen=True)
class Pace:
    """Seconds of one run of each kind.

    Attributes:
        forward: of the whole model.
        to_layer, to_input: backwards from the score to the layer, and to the input.
        tail: of what is behind the layer, for one edit.
        channels: of the layer.
    """

    forward: float
    to_layer: float
    to_input: float
    tail: float
    channels: int


def memory(patient: Patient) -> Iterator[Check]:
    """Tell what one forward and one Grad-CAM need at most."""
    _ = patient.row, patient.target  # found before anything is measured
    forward = peak_bytes(lambda: patient.examination.scores(patient.images))
    map_ = peak_bytes(lambda: patient.record(patient.recorder, patient.images))
    found = (
        f"one forward holds at most {in_mebibytes(forward)} in tensors, one Grad-CAM {in_mebibytes(map_)}, beside the "
        "parameters and what kernels need for themselves"
    )
    yield Check("memory", "ok", found, numbers={"forward": forward, "grad-cam": map_})


def time(patient: Patient) -> Iterator[Check]:
    """Tell how long one run takes, and estimate every method from its number of runs."""
    pace = _pace(patient)
    found = (
        f"forward {in_seconds(pace.forward)}, Grad-CAM {in_seconds(pace.forward + pace.to_layer)}, forward and backward to the "
        f"input {in_seconds(pace.forward + pace.to_input)}"
    )
    numbers = {"forward": pace.forward, "to layer": pace.to_layer, "to input": pace.to_input, "tail": pace.tail}
    yield Check("time", "ok", found, numbers=numbers)
    module = patient.recorder.module
    possible = [entry for entry in methods() if not (isinstance(module, Shell) and lacking(module, entry))]
    estimates = {entry.name: estimate(entry, pace) for entry in possible}
    known = {name: found for name, found in estimates.items() if found is not None}
    same: dict[str, list[str]] = {}
    for name, length in sorted(known.items(), key=lambda each: each[1]):
        same.setdefault(in_seconds(float(f"{length:.1g}")), []).append(name)
    told = "; ".join(f"{length}: {', '.join(names)}" for length, names in same.items())
    yield Check(
        "methods", "ok", f"one map by default options takes about (estimated, one by one) {told}", numbers=known
    )


def _pace(patient: Patient) -> Pace:
    row, target, examination = patient.row, patient.target, patient.examination
    forward = seconds(lambda: examination.scores(patient.images))
    recorded = seconds(lambda: patient.record(patient.recorder, patient.images))
    to_input = 0.0
    if examination.cut(patient.images) != "detach":
        to_input = seconds(
            lambda: examination.input_gradients(patient.images, lambda outputs: asked([target] * len(outputs), outputs))
        )
    tail = examination.tail(patient.images, row)
    return Pace(
        forward=forward,
        to_layer=max(0.0, recorded - forward),
        to_input=max(0.0, to_input - forward),
        tail=seconds(tail.run) / tail.edits,
        channels=row.layout.channels,
    )


def estimate(entry: Method, pace: Pace) -> float | None:
    """Return the seconds of one map by a method's default options, or None where its runs are not told in numbers."""
    runs = count_runs(entry.cost, pace.channels)
    if runs is None:
        return None
    backward = pace.to_input if Needs.INPUT_GRADIENTS in entry.needs or Needs.MODULE in entry.needs else pace.to_layer
    return runs.forwards * pace.forward + runs.backwards * backward + runs.tails * pace.tail


def count_runs(passes: str, channels: int) -> Runs | None:
    """Read a method's runs, such as "2 + 50 x (1 + 1)" or "1 + 0; a forward for each channel ..."; None if it is not read."""
    main, _, more = passes.partition(";")
    both = re.fullmatch(r"(\d+) \+ (\d+(?: x \d+)*) x \(1 \+ 1\)", main.strip())
    plain = re.fullmatch(r"(\d+) \+ (\d+)", main.strip())
    if both:
        times = 1
        for factor in both[2].split(" x "):
            times *= int(factor)
        runs = Runs(int(both[1]) + times, times)
    elif plain:
        runs = Runs(int(plain[1]), int(plain[2]))
    else:
        return None
    extra = _further(more.strip(), channels)
    return None if extra is None else Runs(runs.forwards + extra.forwards, runs.backwards, extra.tails)


def _further(words: str, channels: int) -> Runs | None:
    """Read what a method runs beyond its recording."""
    if not words:
        return Runs(0, 0)
    if words.startswith("the model's tail for each channel"):
        return Runs(0, 0, channels)
    if found := re.match(r"(a|\d+) forwards? for each channel", words):
        return Runs(channels * (1 if found[1] == "a" else int(found[1])), 0)
    if found := re.fullmatch(r"(\d+) forwards|a forward a \w+, (?:about )?(\d+)(?: at 224 pixels)?", words):
        return Runs(int(found[1] or found[2]), 0)
    return None


CHECKS = (("memory", memory), ("time", time))
