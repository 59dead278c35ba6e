"""Models of which only the whole can be run, and files that are no models: what they are, what works, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seewhy.checkup.cost import count_runs
from seewhy.checkup.measuring import in_seconds
from seewhy.checkup.patient import Patient
from seewhy.checkup.report import Check
from seewhy.errors import SeewhyError
from seewhy.explainer import Explainer
from seewhy.frameworks import Shell
from seewhy.maps import methods
from seewhy.models.sources import program_in
from seewhy.plan import lacking
from seewhy.recorder import Needs, seconds
from seewhy.recorder.engine import asked

_TRIED = {
    "occlusion": "scores of other inputs",
    "saliency": "gradients by the input",
    "guided-backprop": "rules for ReLU",
    "grad-cam": "layers",
}


def what_works(patient: Patient) -> Iterator[Check]:
    """Tell which kinds of methods work, by trying one of each."""
    ask = Explainer(patient.loaded, output=patient.output)
    image, target = patient.images[0], patient.target
    question = target.index if target.index is not None else target
    works, fails = [], {}
    for method, what in _TRIED.items():
        try:
            ask(image, question, method, budget=2)
        except SeewhyError as error:
            fails[f"{method} ({what})"] = str(error)
        else:
            works.append(f"{method} ({what})")
    found = f"in {_words(patient)} work {', '.join(works) or 'none'}; not {', '.join(fails) or 'any other'}"
    remedy = "Take methods of the kinds that work, or give the module that it was made from, where there is one."
    yield Check("kinds of methods", "note", found, remedy, {"fails": fails})


def times(patient: Patient) -> Iterator[Check]:
    """Tell how long one image takes, and estimate the methods that work from how often they run the model."""
    shell, target, examination = patient.recorder.module, patient.target, patient.examination
    forward = seconds(lambda: examination.scores(patient.images))
    both = forward
    if isinstance(shell, Shell) and "INPUT_GRADIENTS" not in shell.lacks:
        score = lambda outputs: asked([target] * len(outputs), outputs)  # noqa: E731
        both = seconds(lambda: examination.input_gradients(patient.images, score))
    known = {}
    for entry in methods():
        runs = None if isinstance(shell, Shell) and lacking(shell, entry) else count_runs(entry.cost, 0)
        if runs is not None and not entry.needs.layer and entry.needs != Needs.IMAGES:
            known[entry.name] = (
                runs.forwards + runs.backwards,
                runs.forwards * forward + runs.backwards * (both - forward),
            )
    told = "; ".join(f"{name}: {runs:,} runs, {in_seconds(took)}" for name, (runs, took) in known.items())
    found = f"one image {in_seconds(forward)}; one map by default options takes about (estimated) {told}"
    numbers = {"forward": forward, "runs": {name: runs for name, (runs, _) in known.items()}}
    yield Check("time", "ok", found, "budget=200 (--budget 200) makes a map of so many runs.", numbers)


def _words(patient: Patient) -> str:
    module = patient.recorder.module
    return module.words if isinstance(module, Shell) else "it"


def file_note(name: Any) -> Check | None:
    """Return what is to be said where a file is given instead of a model; None where there is no such file. Nothing is run."""
    path = Path(name) if isinstance(name, str) and len(name) < 4096 else None
    if path is None or not path.is_file() or path.suffix.casefold() in (".onnx", ".keras"):
        return None
    if (prefix := program_in(str(path))) is not None:
        kind = "a TorchScript archive" if prefix == "torchscript" else "an exported program"
        remedy = f"Reading it can run the code in it. Where you trust it: '{prefix}:{path}'."
        return Check("loads", "fails", f"the file '{path.name}' is {kind}", remedy)
    remedy = "Name the architecture, and give the file as weights: weights=, `seewhy doctor MODEL --weights FILE`."
    return Check("loads", "fails", f"'{path.name}' is a file of weights, not a model", remedy)


WHOLE = (("kinds of methods", what_works), ("time", times))
"""What is looked at instead of layers."""
