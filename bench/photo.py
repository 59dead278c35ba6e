"""Case: from a photograph's file to the overlay's file."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import seewhy
from bench.subject import PHOTOGRAPH, Subject, write_photograph
from bench.tables import BARE, Row, Table
from bench.timing import Runner, Times, alternate
from seewhy.render.files import PICTURE_SIDE


def photo(subject: Subject, repeats: int, size: tuple[int, int] = PHOTOGRAPH) -> Table:
    """Measure the way from a photograph's file to the overlay's file, and the steps of it."""
    ask, layer = seewhy.Explainer(subject.loaded), subject.stages[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = write_photograph(Path(folder) / "photograph.jpg", size=size)
        given = seewhy.inputs.prepare(path, subject.loaded.preprocess)
        images = given.tensor[None].to(subject.device)
        made = ask(path, layers=layer)
        out = Path(folder) / "why.png"
        whole = "file to overlay, beyond the bare forward"
        runners = [
            Runner(BARE, partial(subject.bare, images)),
            Runner("whole", lambda: ask(path, layers=layer).save(out)),
            Runner("reading: file to pixels", lambda: seewhy.images.read(path)),
            Runner("reading and preprocessing", lambda: seewhy.inputs.prepare(path, subject.loaded.preprocess)),
            Runner("explaining the prepared input", lambda: ask(images[0], layers=layer)),
            Runner("saving the overlay (.png)", lambda: made.save(out)),
        ]
        times = alternate(runners, repeats=repeats, limit=45, device=subject.device)
    bare, total = times[BARE], times["whole"]
    beyond = Times({turn: seconds - bare.seconds[turn] for turn, seconds in total.seconds.items()})
    steps = [(f"of which {name}", each) for name, each in list(times.items())[2:]]
    told = [(BARE, bare), ("seewhy: file to overlay", total), (whole, beyond), *steps]
    rows = [Row("", who, each.median, each.over(bare)) for who, each in told]
    text = (
        f"A JPEG photograph of {size[0]} x {size[1]} pixels: read, preprocessed, explained (Grad-CAM at `{layer}`) and "
        f"saved as a PNG overlay with its legend (at most {PICTURE_SIDE} pixels wide). The steps are measured apart."
    )
    return Table("A photograph, from file to file", text, tuple(rows), len(bare.seconds))
