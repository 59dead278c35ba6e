"""The sub-command `sanity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.cli import options as word
from seewhy.cli import say
from seewhy.cli.commands import app
from seewhy.cli.options import DEFAULT_MODEL, make_explainer, method_options, split_commas
from seewhy.cli.results import check_some_exist, made_folder

if TYPE_CHECKING:
    from seewhy.checkup.outcomes import Sanity

MOST = 2
"""Words that stand without an option: the model and the picture."""


@app.command()
def sanity(
    given: Annotated[
        list[str],
        typer.Argument(
            help="A model's name, or your own package.module:factory; and a picture, or an .npy file of an input.",
            metavar="[MODEL] IMAGE",
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="May be repeated, or a,b. Default: grad-cam, layer-cam, attn-lrp."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="May be repeated; a glob or all-stages checks several layers."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="What the maps are about. Default: the predicted class.")
    ] = None,
    other: Annotated[
        str | None,
        typer.Option(
            "--other", help="What they must differ from. Default: up to three other classes, drawn at random."
        ),
    ] = None,
    weights: word.Weights = None,
    random: word.RandomWeights = False,
    labels: word.Labels = None,
    device: word.Device = None,
    preprocess: word.Preprocessed = None,
    scores: word.Scores = None,
    multi_label: word.MultiLabel = None,
    option: word.Options = None,
    smooth: word.Smooth = None,
    reduce: word.Reduce = None,
    budget: word.Budget = None,
    out: word.Out = Path(),
    seed: word.Seed = 0,
    as_json: word.Json = False,
) -> None:
    """Check whether maps can be trusted on a model at all: writes NAME.sanity.png. Exit code 1 when a check fails."""
    if len(given) > MOST:
        raise typer.BadParameter(f"{len(given)} words were given: at most a model and one picture.")
    model, image = (DEFAULT_MODEL, *given)[-MOST:]
    how = {"smooth": smooth, "reduce": reduce, "budget": budget, **method_options(option)}
    check_some_exist([Path(image)])
    out = made_folder(out)
    ask = make_explainer(model, weights, random, labels, device, seed, preprocess, scores, multi_label)
    from seewhy.checkup.sanity import METHODS
    from seewhy.checkup.sanity import sanity as check

    found = check(
        ask,
        image,
        split_commas(method) if method else METHODS,
        target=target,
        other=other,
        layers=layer,
        how={name: value for name, value in how.items() if value is not None},
    )
    path = out / f"{Path(image).stem}.sanity.png"
    if found.is_drawn:
        found.save(path)
    _tell(found, path if found.is_drawn else None, as_json)
    raise typer.Exit(1 if found.verdict == "fails" else 0)


def _tell(found: Sanity, path: Path | None, as_json: bool) -> None:
    if as_json:
        say.as_json({**found.as_dict(), "files": [] if path is None else [str(path)]})
        return
    say.report(found)
    if path is not None:
        say.line(f"wrote {path}")
