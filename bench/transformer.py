"""Case: Ablation-CAM and Eigen-CAM on a vision transformer."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from torch import Tensor

import seewhy
from bench.perturbation import peer_note
from bench.repeated_peers import Peer, bind_ablation, bind_eigen, zeroed_places
from bench.subject import Subject
from bench.tables import BARE, OURS, Table, make_rows, ours
from bench.timing import Runner, alternate
from bench.tuning import best_size
from seewhy.recorder import Layout

GRAD_CAM = "pytorch-grad-cam"
CHANGED = f"{GRAD_CAM}, changed"


def vit(subject: Subject, repeats: int) -> Table:
    """Measure Ablation-CAM and Eigen-CAM at the layer that seewhy chooses."""
    row = seewhy.Explainer(subject.loaded).layers(subject.images[:1]).default
    task, reshape = subject.task(row.name), partial(places, row.layout)
    rounds = max(1, repeats // 5)
    peers = ablation_peers(row.layout)
    sizes = {peer.who: best_size(peer.bind, task, subject.device) for peer in peers[:1]}
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, task.images)),
            Runner(OURS, ours(subject, task, "ablation-cam")),
            *(Runner(peer.who, peer.bind(task, sizes[GRAD_CAM], stack), every=rounds, warm=False) for peer in peers),
        ]
        times = alternate(runners, repeats=rounds, warmups=1, limit=60, device=subject.device)
    notes = {peer.who: peer_note(peer, sizes[GRAD_CAM], times[peer.who]) for peer in peers}
    rows = make_rows(times, "ablation-cam", notes=notes)
    with ExitStack() as stack:
        runners = [
            Runner(BARE, partial(subject.bare, task.images)),
            Runner(OURS, ours(subject, task, "eigen-cam")),
            Runner(GRAD_CAM, bind_eigen(task, stack, reshape)),
        ]
        times = alternate(runners, repeats=repeats, limit=20, device=subject.device)
    rows += make_rows(times, "eigen-cam", told=False, how="either sign")
    text = (
        f"One image, layer `{row.name}` (seewhy's choice; {row.layout.channels} channels), the predicted class. pytorch-grad-cam "
        "is given a reshape_transform. Its ablation layer for transformers puts the smallest activation minus 10,000,000 in "
        "the place of a channel, in the class token too; *changed* is its code with one method of that layer replaced, so that "
        "the channel becomes 0 at the places that the map shows, as in seewhy. Eigen-CAM's maps are compared up to their sign."
    )
    return Table("A vision transformer", text, tuple(rows), rounds)


def ablation_peers(layout: Layout) -> tuple[Peer, Peer]:
    """Return pytorch-grad-cam as it is, and with the layer's edit that seewhy makes."""
    from pytorch_grad_cam.ablation_layer import AblationLayerVit

    reshape = partial(places, layout)
    as_it_is = partial(bind_ablation, reshape=reshape, edit=AblationLayerVit)
    changed = partial(bind_ablation, reshape=reshape, edit=partial(zeroed_places, layout.prefix))
    return (
        Peer(GRAD_CAM, as_it_is, note="another map by its definition", dear=True),
        Peer(CHANGED, changed, dear=True),
    )


def places(layout: Layout, tokens: Tensor) -> Tensor:
    """Return `(batch, channel, height, width)` of `(batch, token, channel)`: a reshape_transform."""
    return tokens[:, layout.prefix :].mT.unflatten(2, layout.grid)
