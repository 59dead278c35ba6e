"""The sub-commands. Each is a thin word-for-word translation of a call that the library has too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.cli import options as word
from seewhy.cli import say
from seewhy.cli.options import DEFAULT_MODEL, json_object, make_explainer, method_options, split_commas
from seewhy.cli.results import (
    FORMS,
    PICTURES,
    answer_each,
    as_document,
    check_some_exist,
    file_forms,
    made_folder,
    result_names,
    save_all,
    tell_all,
)
from seewhy.errors import LayerError, RecordingError, SeewhyError, did_you_mean

FEW = 4
"""Pictures up to which maps are put to the test without being asked for."""

if TYPE_CHECKING:
    from seewhy.comparison import Comparison

app = typer.Typer(
    name="seewhy",
    help="See why a vision model decided: where it looked, on your picture, without naming a layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> bool:
    """Print the version and end, when it is wanted."""
    if wanted:
        from seewhy import __version__

        say.line(f"seewhy {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See why a vision model decided: where it looked, on your picture, without naming a layer."""


@app.command()
def explain(
    images: Annotated[
        list[Path], typer.Argument(help="One or more pictures, or .npy files of inputs.", metavar="IMAGE...")
    ],
    model: word.Model = DEFAULT_MODEL,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", "-m", help="`seewhy methods` lists them. Default: grad-cam; for boxes and regions hires-cam."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="A name, a glob, last, -2, all-stages; several are fused into one map."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="A class name or index, A-vs-B, top:k, probability:NAME; of detectors box:0, box:NAME; of a segmentation "
            "pixel:Y,X, region:MASK.png; may be repeated. Default: the predicted.",
        ),
    ] = None,
    fuse: Annotated[
        str, typer.Option("--fuse", help="Several layers: mean, max, or none (one picture each).")
    ] = "mean",
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
    verify: word.Verify = None,
    signed: word.Signed = False,
    channels: word.Channels = None,
    out: word.Out = Path(),
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="png, jpg, webp, npz, json, html, pdf, svg, gif (volumes); may be repeated."
        ),
    ] = None,
    seed: word.Seed = 0,
    as_json: word.Json = False,
) -> None:
    """Explain pictures: writes NAME.why.png to the current folder (or --out) and prints what the model says."""
    options: dict[str, Any] = method_options(option)
    forms = file_forms(form or ["png"], FORMS)
    names = result_names(images)
    check_some_exist(images)
    out = made_folder(out)
    ask = make_explainer(model, weights, random, labels, device, seed, preprocess, scores, multi_label)
    how: Any = {"smooth": smooth, "reduce": reduce, "budget": budget, "fuse": fuse}
    how["view"] = "signed" if signed else None
    how["verify"] = ("cheap" if len(images) <= FEW else False) if verify is None else verify

    def answer(paths: list[str], question: str | None) -> Any:
        return ask(paths, question, method, layer, **how, **options)

    documents: list[dict[str, Any]] = []
    failed = False
    for at in range(0, len(images), ask.batch_size):  # each block is written before the next is begun
        block = images[at : at + ask.batch_size]
        answers, some_failed = answer_each(block, target or [None], answer)
        failed |= some_failed
        for path, explanations in answers:
            files = save_all(explanations, names[path], out, forms, channels)
            if as_json:
                documents += [as_document(each, written) for each, written in zip(explanations, files, strict=True)]
            else:
                tell_all(explanations, files)
    if as_json:
        say.as_json(documents)
    raise typer.Exit(1 if failed else 0)


@app.command()
def compare(
    image: Annotated[Path, typer.Argument(help="A picture, or an .npy file of an input.", metavar="IMAGE")],
    model: word.Model = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="May be repeated; all: every method. Default: as for explain."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="May be repeated; a glob or all-stages gives several.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="May be repeated; top:k gives k.")] = None,
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
    verify: word.Verify = False,
    signed: word.Signed = False,
    channels: word.Channels = None,
    out: word.Out = Path(),
    form: Annotated[str, typer.Option("--format", "-f", help="png, jpg, webp, html, pdf or svg.")] = "png",
    seed: word.Seed = 0,
    as_json: word.Json = False,
) -> None:
    """Compare methods, layers and targets on one picture: one grid, NAME.compare.png."""
    options: dict[str, Any] = method_options(option)
    [form] = file_forms([form], PICTURES)
    out = made_folder(out)
    how: Any = {"smooth": smooth, "reduce": reduce, "budget": budget, "view": "signed" if signed else None}
    how["verify"] = bool(verify)
    ask = make_explainer(model, weights, random, labels, device, seed, preprocess, scores, multi_label)
    names = split_commas(method) if method else None
    found, is_whole = _compared(lambda: ask.compare(str(image), names, layer, target or [], **how, **options), image)
    path = out / f"{image.stem}.compare.{form}"
    found.save(path, channels=channels)
    _tell_comparison(found, path, as_json=as_json)
    raise typer.Exit(0 if is_whole else 1)


def _compared(run: Callable[[], Any], image: Path) -> tuple[Comparison, bool]:
    """Return what was compared, and whether all of it could be; of a model that fails on the way what was made before."""
    try:
        return run(), True
    except RecordingError as error:
        if not error.partial:
            raise
        from seewhy.comparison import Comparison

        say.complain(error, str(image))
        return Comparison(error.partial), False


def _tell_comparison(found: Comparison, path: Path, *, as_json: bool) -> None:
    if as_json:
        say.as_json({"file": str(path), "skipped": found.skipped, "maps": [as_document(each, None) for each in found]})
        return
    say.answer(found[0])
    for name, why in found.skipped.items():
        say.line(f"left out: {name}: {why}")
    flagged = sum(any(finding.code != "class-blind" for finding in each.diagnosis) for each in found)
    warned = f"; {flagged} of them with a warning, see the grid" if flagged else ""
    say.line(f"{len(found)} maps{warned}")
    say.line(f"wrote {path}")


@app.command()
def doctor(
    model: Annotated[
        str, typer.Argument(help="A model's name, or your own package.module:factory.", metavar="MODEL")
    ] = DEFAULT_MODEL,
    image: Annotated[
        Path | None, typer.Argument(help="A picture to look with; else one is made up.", metavar="[IMAGE]")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="The layer to look at; else the default one.")
    ] = None,
    weights: word.Weights = None,
    random: word.RandomWeights = False,
    labels: word.Labels = None,
    device: word.Device = None,
    preprocess: word.Preprocessed = None,
    scores: word.Scores = None,
    seed: word.Seed = 0,
    as_json: word.Json = False,
) -> None:
    """Look at a model from all sides: what works, what does not, what to do. Exit code 1 when something fails."""
    if image is not None:
        check_some_exist([image])
    changes = json_object(preprocess)
    from seewhy.checkup.doctor import doctor as look

    report = look(
        model,
        None if image is None else str(image),
        layer=layer,
        weights=weights,
        pretrained=not random,
        preprocess=changes,
        labels=labels,
        device=device,
        output=scores,
        seed=seed,
    )
    if as_json:
        say.as_json(report.as_dict())
    else:
        say.report(report)
    raise typer.Exit(1 if report.verdict == "fails" else 0)


@app.command()
def layers(
    model: Annotated[
        str, typer.Argument(help="A model's name, or your own package.module:factory.", metavar="MODEL")
    ] = DEFAULT_MODEL,
    pattern: Annotated[str, typer.Option("--only", help="Only layers whose name fits this glob.")] = "*",
    weights: word.Weights = None,
    random: word.RandomWeights = False,
    image: Annotated[Path | None, typer.Option("--image", help="For an input of this picture's size.")] = None,
    as_json: word.Json = False,
) -> None:
    """List the layers that yield a map, with grid and stride, and which is the default."""
    from fnmatch import fnmatchcase

    table = make_explainer(model, weights, random, None, None, 0, None).layers(image)
    head, body = table.columns()
    body = [row for row in body if fnmatchcase(row[0], pattern)]
    if not body:
        names = [row.name for row in table]
        raise LayerError(f"No layer that yields a map fits --only '{pattern}'.{did_you_mean(pattern, names)}")
    if as_json:
        say.as_json([dict(zip((*head[:-1], "default"), row, strict=True)) for row in body])
    else:
        say.table(head, body)


@app.command()
def methods(as_json: word.Json = False) -> None:
    """List the methods: what each does, what it costs, and where it comes from."""
    from seewhy.maps import methods as all_methods

    say.rows(all_methods(), machine=as_json)


@app.command()
def metrics(as_json: word.Json = False) -> None:
    """List the metrics: what each tells of a map, what it costs, and where it comes from."""
    from seewhy.measures import metrics as all_metrics

    say.rows(all_metrics(), machine=as_json)


@app.command()
def models(
    pattern: Annotated[
        str, typer.Argument(help="A part of a name, or a glob such as '*swin*'.", metavar="[PATTERN]")
    ] = "*",
    as_json: word.Json = False,
) -> None:
    """List the models that can be named."""
    from seewhy.models import find_names

    found = find_names(pattern)
    if as_json:
        say.as_json([{"source": source, "name": name} for source, name in found])
    elif not found:
        raise SeewhyError(
            f"No model's name fits '{pattern}'. `seewhy models` lists all; hf:owner/name works without a list."
        )
    else:
        say.table(("source", "name"), found)
