"""The sub-command `evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewhy.cli import options as word
from seewhy.cli import say
from seewhy.cli.commands import app
from seewhy.cli.options import DEFAULT_MODEL, make_explainer, method_options, split_commas
from seewhy.cli.results import made_folder
from seewhy.cli.values import metric_options
from seewhy.errors import MetricError

if TYPE_CHECKING:
    from seewhy.evaluation import Evaluation
    from seewhy.explainer import Explainer

PARQUET = ".parquet"


@app.command()
def evaluate(
    pictures: Annotated[
        Path, typer.Argument(help="A folder of pictures, with sub-folders or without.", metavar="FOLDER")
    ],
    model: word.Model = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", "-m", help="May be repeated, or a,b; all: every method. Default: four class activation maps."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="May be repeated, or a,b. Default: insertion, deletion; with --truth also localisation."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="May be repeated; a glob or all-stages compares several layers."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="What the pictures show: folders (their sub-folders' names), predicted (what the model says), or a CSV of "
            "file,label. Default: folders where there are some.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Where it is: a folder of YOLO .txt, Pascal VOC .xml or masks, a file of each picture's name; or a COCO .json. "
            "Boxes count whose class is called as the label, and those without names.",
        ),
    ] = None,
    fill: Annotated[
        str, typer.Option("--fill", help="What removed places are filled with; several as blur,mean.")
    ] = "blur,mean",
    limit: Annotated[int | None, typer.Option("--limit", help="So many pictures, drawn at random.")] = None,
    weights: word.Weights = None,
    random: word.RandomWeights = False,
    labels: word.Labels = None,
    device: word.Device = None,
    preprocess: word.Preprocessed = None,
    scores: word.Scores = None,
    multi_label: word.MultiLabel = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", help="An option of a metric or a method, name=value, such as steps=10; may be repeated."
        ),
    ] = None,
    smooth: word.Smooth = None,
    reduce: word.Reduce = None,
    budget: word.Budget = None,
    out: Annotated[
        Path,
        typer.Option("--out", help="The folder to write to, where a second call goes on; or FOLDER/NAME.parquet."),
    ] = Path("evaluation"),
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, over results of other settings.")] = False,
    seed: word.Seed = 0,
    as_json: word.Json = False,
) -> None:
    """Measure methods on a folder of pictures: a table with ranks, a report and figures; goes on where it stopped."""
    given = method_options(option)
    table = out if out.suffix.casefold() == PARQUET else None
    if table is not None:
        from seewhy.evaluation.saving import check_parquet

        check_parquet()
        out = table.parent
    from seewhy.datasets import counted
    from seewhy.evaluation import evaluate as run
    from seewhy.evaluation.running import Later, Stopped, metric_names
    from seewhy.measures import find_metric

    metrics = metric_names(split_commas(metric) if metric else None, told=truth is not None)
    for_metrics, for_methods = metric_options(given, [find_metric(name) for name in metrics])
    how = {"smooth": smooth, "reduce": reduce, "budget": budget, **for_methods}

    def make() -> Explainer:
        made_folder(out)
        return make_explainer(model, weights, random, labels, device, seed, preprocess, scores, multi_label)

    try:
        found = run(
            Later(make),
            pictures,
            split_commas(method) if method else None,
            metrics,
            out=out,
            classes=classes,
            truth=truth,
            layers=layer,
            fill=split_commas([fill]),
            how={name: value for name, value in how.items() if value is not None},
            limit=limit,
            restart=restart,
            **for_metrics,
        )
    except KeyboardInterrupt as stop:
        kept = f"{stop.kept} of {counted(stop.of)} kept" if isinstance(stop, Stopped) else "what was finished is kept"
        say.aside(
            f"seewhy: stopped: {kept}; the same command{' without --restart' if restart else ''} goes on from there"
        )
        raise typer.Exit(130) from None
    if table is not None and table.name != "results.parquet":
        (out / "results.parquet").replace(table)
    _tell(found, out, table, as_json)
    raise typer.Exit(1 if found.skipped else 0)


def _tell(found: Evaluation, out: Path, table: Path | None, as_json: bool) -> None:
    """Print the standings, what was skipped, and where the files are."""
    from seewhy.datasets import counted

    for name, why in found.skipped.items():
        say.complain(MetricError(why), name)
    if as_json:
        say.as_json({"standings": [asdict(row) for row in found], "skipped": found.skipped, "folder": str(out)})
        return
    if found.resumed:
        say.line(f"{found.resumed} of {counted(len(found.results))} had been finished before")
    head, body = found.columns()
    for name in found.metrics:
        rows = [line[2:] for line in body if line[0] == name]
        say.line(f"{name}: {found.of(name)[0].better} is better")
        say.table(head[2:], rows)
    for note in found.notes:
        say.line(f"note: {note}")
    for name in found.valueless:
        say.line(f"{name}: no value for any map")
    for name, why in found.left_out.items():
        say.line(f"left out: {name}: {why}")
    if found.with_truth is not None:
        asked = counted(len(found.results) + len(found.skipped))
        say.line(f"where the thing is was known for {found.with_truth} of {asked}")
    if found.skipped:
        say.line(f"skipped {counted(len(found.skipped))}: {', '.join(found.skipped)}")
    for path in found.files:
        say.line(f"wrote {table if table is not None and path.suffix == PARQUET else path}")
