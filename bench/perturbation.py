"""Case: methods that run the model many times, each peer at the batch size that suits it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.peers import Task
from bench.repeated_peers import (
    Peer,
    bind_ablation,
    bind_feature_ablation,
    bind_grad_cam_score,
    bind_integrated_gradients,
    bind_occlusion,
    bind_torchcam_score,
)
from bench.subject import Subject
from bench.tables import BARE, OURS, Row, Table, make_rows, ours
from bench.timing import Runner, Times, alternate
from bench.tuning import best_size, sizes_for
from seewhy.images.regions import superpixels

WINDOW, STRIDE = 32, 16
STEPS = 50
SEGMENTS = 64
MASKS = 1000
NOTHING = "dataset"
"""What stands for "nothing there" in all of it: the data set's mean, which is 0 in the model's units."""


@dataclass(frozen=True)
class Kind:
    """One method, and who has it.

    Attributes:
        method: seewhy's name.
        peers: the others.
        options: seewhy's, so that it does the same.
        layered: whether the map is one of a layer, not of the input.
        how: maps are compared; see :func:`bench.maps.difference`.
        dear: whether seewhy's own run takes long, too.
    """

    method: str
    peers: tuple[Peer, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    layered: bool = False
    how: str = "signed"
    dear: bool = False


def kinds(task: Task) -> tuple[Kind, ...]:
    """Return what is measured."""
    segments = superpixels(task.images[0].cpu(), SEGMENTS)
    held = {"baseline": NOTHING}
    evals, internal = "perturbations_per_eval", "internal_batch_size"
    ablation = Peer("pytorch-grad-cam", bind_ablation, dear=True)
    scores = (
        Peer("torchcam", bind_torchcam_score, note="stretches masks before it resizes them", dear=True),
        Peer("pytorch-grad-cam", bind_grad_cam_score, note="resizes masks with their corners aligned", dear=True),
    )
    occlusion = Peer("captum", partial(bind_occlusion, window=WINDOW, stride=STRIDE), evals)
    features = Peer("captum", partial(bind_feature_ablation, segments=segments), evals)
    gradients = Peer("captum", partial(bind_integrated_gradients, steps=STEPS), internal)
    return (
        Kind("ablation-cam", (ablation,), layered=True, how="positive"),
        Kind("score-cam", scores, held, layered=True, how="positive"),
        Kind("occlusion", (occlusion,), {"window": WINDOW, "stride": STRIDE, **held}),
        Kind("feature-ablation", (features,), {"segments": segments.numpy(), **held}),
        Kind("integrated-gradients", (gradients,), {"steps": STEPS, **held}),
        Kind("rise", options={"masks": MASKS, **held}, dear=True),
    )


def perturb(subject: Subject, repeats: int) -> Table:
    """Measure Ablation-CAM, Score-CAM, occlusion, feature ablation, integrated gradients and RISE on one image."""
    layer = subject.stages[-1]
    subject = subject.typical(layer)
    task = subject.task(layer)
    rounds = max(1, repeats // 5)
    rows: list[Row] = []
    for kind in kinds(task):
        rows += _measured(subject, task, kind, rounds, told=not rows)
    return Table("Perturbation and path methods", _words(subject, task, layer), tuple(rows), rounds)


def _words(subject: Subject, task: Task, layer: str) -> str:
    live = subject.live_channels(layer)
    segments = len(superpixels(task.images[0].cpu(), SEGMENTS).unique())
    return (
        f"One image, the predicted class; Ablation-CAM and Score-CAM at layer `{layer}`, compared there. seewhy leaves out those "
        f"of its {subject.channels(layer)} channels that show nothing: it is the image with the median number of those that show "
        f"something, {live[0]} (between {min(live)} and {max(live)} in the {len(live)} images at hand). The other methods are "
        f"compared at the input's resolution and with their sign. Occlusion hides windows of {WINDOW} pixels, {STRIDE} apart; "
        f"feature ablation {segments} superpixels, the same for both; integrated gradients take {STEPS} steps; RISE {MASKS} "
        "masks. Hidden is 0 in the model's units. Peers have the batch size at which they were fastest on a part of the work, "
        f"of {', '.join(map(str, sizes_for(subject.device)))}; runs that take long are made once, not warmed up. No peer here "
        "has RISE."
    )


def _measured(subject: Subject, task: Task, kind: Kind, rounds: int, *, told: bool) -> list[Row]:
    """Return the rows of one method; dear runs are made in the first round only."""
    own = ours(subject, task if kind.layered else subject.task(), kind.method, **kind.options)
    sizes = {peer.who: best_size(peer.bind, task, subject.device) for peer in kind.peers}
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, task.images)),
            Runner(OURS, own, rounds if kind.dear else 1, warm=not kind.dear),
            *(
                Runner(
                    peer.who, peer.bind(task, sizes[peer.who], stack), rounds if peer.dear else 1, warm=not peer.dear
                )
                for peer in kind.peers
            ),
        ]
        times = alternate(runners, repeats=rounds, warmups=1, limit=120, device=subject.device)
    notes = {peer.who: peer_note(peer, sizes[peer.who], times[peer.who]) for peer in kind.peers}
    return make_rows(times, kind.method, notes=notes, told=told, how=kind.how)


def peer_note(peer: Peer, size: int, measured: Times) -> str:
    """Return a row's note: what differs, the batch size, and how often a dear run was made."""
    runs = len(measured.seconds)
    words = [peer.note, f"{peer.option}={size}", f"{runs} run{'' if runs == 1 else 's'}" if peer.dear else ""]
    return "; ".join(word for word in words if word)
