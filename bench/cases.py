"""The cases by name: what is measured, and on which model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.components import eigen, smooth
from bench.frameworks import frameworks
from bench.gradients import batch, multi, single
from bench.memory import large_image, score_cam_memory
from bench.metrics import metrics
from bench.perturbation import perturb
from bench.photo import photo
from bench.subject import EMBEDDED, GIVEN, TRANSFORMER, Subject
from bench.tables import Table
from bench.throughput import throughput
from bench.transformer import vit


@dataclass(frozen=True)
class Part:
    """One table of a case.

    Attributes:
        run: measures, given a subject and the number of rounds of a cheap case.
        model: a name; GIVEN: the model that the command was given.
    """

    run: Callable[[Subject, int], Table]
    model: str = GIVEN


CASES: dict[str, tuple[Part, ...]] = {
    "single": (Part(single),),
    "multi": (Part(multi),),
    "batch": (Part(batch),),
    "photo": (Part(photo),),
    "perturb": (Part(perturb, EMBEDDED),),
    "vit": (Part(vit, TRANSFORMER),),
    "eigen": (Part(eigen),),
    "smooth": (Part(smooth),),
    "memory": (Part(score_cam_memory), Part(large_image, EMBEDDED)),
    "metrics": (Part(metrics), Part(metrics, EMBEDDED)),
    "frameworks": (Part(frameworks),),
    "throughput": (Part(throughput), Part(throughput, EMBEDDED)),
}
