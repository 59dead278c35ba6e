"""The sub-commands. Each is a thin word-for-word translation of a call that the library has too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.cli import say
from seewhy.errors import LayerError, MethodError, PartialError, RenderError, SeewhyError, did_you_mean

if TYPE_CHECKING:
    from seewhy.explainer import Explainer
    from seewhy.explanation import Explanation

PICTURES = ("png", "jpg", "jpeg", "webp", "html", "pdf", "svg")

app = typer.Typer(
    name="seewhy",
    help="See why a vision model decided: where it looked, on your picture, without naming a layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEFAULT_MODEL = "efficientnet_lite0"

Model = Annotated[
    str, typer.Option("--model", "-M", help="A model's name (`seewhy models`), or your own package.module:factory.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A checkpoint: .safetensors, .pth, .pt, .bin or .ckpt.")
]
RandomWeights = Annotated[bool, typer.Option("--random", help="Random weights: nothing is downloaded.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="Class names: a text file, one a line, or JSON.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps, ... Default: cpu.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="A method's own option, name=value; may be repeated.")
]
Signed = Annotated[bool, typer.Option("--signed", help="Show evidence against the target too, zero in the middle.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Seed = Annotated[int, typer.Option("--seed", help="For everything that is drawn at random.")]


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
    images: Annotated[list[Path], typer.Argument(help="One or more pictures.", metavar="IMAGE...")],
    model: Model = DEFAULT_MODEL,
    method: Annotated[str, typer.Option("--method", "-m", help="`seewhy methods` lists them.")] = "grad-cam",
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="A name, a glob, last, -2, all-stages; several are fused into one map."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="A class name or index, A-vs-B, top:k, probability:NAME. Default: the predicted."
        ),
    ] = None,
    fuse: Annotated[
        str, typer.Option("--fuse", help="Several layers: mean, max, or none (one picture each).")
    ] = "mean",
    weights: Weights = None,
    random: RandomWeights = False,
    labels: Labels = None,
    device: Device = None,
    option: Options = None,
    signed: Signed = False,
    out: Out = Path(),
    form: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help="png, jpg, webp, npz, json, html, pdf, svg; may be repeated."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Explain pictures: writes NAME.why.png beside you and prints what the model says."""
    options: dict[str, Any] = _options(option)
    forms = _forms(form or ["png"], (*PICTURES, "npz", "json"))
    names = _names(images)
    ask = _explainer(model, weights, random, labels, device, seed)
    out = _folder(out)
    style: dict[str, Any] = {"view": "signed" if signed else None, "fuse": fuse}
    answers, failed = _each(images, lambda paths: ask(paths, target, method, layer, **style, **options))
    documents = []
    for path, found in answers:
        explanations = found if isinstance(found, list) else [found]
        files = _save(explanations, names[path], out, forms)
        if as_json:
            documents += [_document(each, written) for each, written in zip(explanations, files, strict=True)]
        else:
            _tell(explanations, files)
    if as_json:
        say.as_json(documents)
    raise typer.Exit(1 if failed else 0)


@app.command()
def compare(
    image: Annotated[Path, typer.Argument(help="A picture.", metavar="IMAGE")],
    model: Model = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="May be repeated; all: every method.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="May be repeated; a glob or all-stages gives several.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="May be repeated; top:k gives k.")] = None,
    weights: Weights = None,
    random: RandomWeights = False,
    labels: Labels = None,
    device: Device = None,
    option: Options = None,
    signed: Signed = False,
    out: Out = Path(),
    form: Annotated[str, typer.Option("--format", "-f", help="png, jpg, webp, html, pdf or svg.")] = "png",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare methods, layers and targets on one picture: one grid, NAME.compare.png."""
    options: dict[str, Any] = _options(option)
    [form] = _forms([form], PICTURES)
    view: Any = "signed" if signed else None
    ask = _explainer(model, weights, random, labels, device, seed)
    found: Any = ask.compare(image, method or ["grad-cam"], layer, target or [], view=view, **options)
    path = _folder(out) / f"{image.stem}.compare.{form}"
    found.save(path)
    if as_json:
        say.as_json({"file": str(path), "skipped": found.skipped, "maps": [_document(each, None) for each in found]})
        return
    say.answer(found[0])
    for name, why in found.skipped.items():
        say.line(f"left out: {name}: {why}")
    flagged = sum(bool(each.diagnosis) for each in found)
    say.line(
        f"{len(found)} maps, {found[0].cost}" + (f"; {flagged} of them with a warning, see the grid" if flagged else "")
    )
    say.line(f"wrote {path}")


@app.command()
def layers(
    model: Annotated[
        str, typer.Argument(help="A model's name, or your own package.module:factory.", metavar="MODEL")
    ] = DEFAULT_MODEL,
    pattern: Annotated[str, typer.Option("--only", help="Only layers whose name fits this glob.")] = "*",
    weights: Weights = None,
    random: RandomWeights = False,
    image: Annotated[Path | None, typer.Option("--image", help="For an input of this picture's size.")] = None,
    as_json: Json = False,
) -> None:
    """List the layers that yield a map, with grid and stride, and which is the default."""
    from fnmatch import fnmatchcase

    table = _explainer(model, weights, random, None, None, 0).layers(image)
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
def methods(as_json: Json = False) -> None:
    """List the methods: what each does, what it costs, and where it comes from."""
    from seewhy.maps import methods as all_methods

    head, body = all_methods().columns()
    if as_json:
        say.as_json([dict(zip(head, row, strict=True)) for row in body])
    else:
        say.table(head, body)


@app.command()
def models(
    pattern: Annotated[
        str, typer.Argument(help="A part of a name, or a glob such as '*swin*'.", metavar="[PATTERN]")
    ] = "*",
    as_json: Json = False,
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


def _explainer(
    model: str, weights: Path | None, random: bool, labels: Path | None, device: str | None, seed: int
) -> Explainer:
    from seewhy.explainer import Explainer
    from seewhy.models import load

    loaded = load(model, weights=weights, pretrained=not random)
    return Explainer(loaded, labels=labels, device=device, seed=seed)


def _options(given: list[str] | None) -> dict[str, str]:
    """Return name=value pairs as a dict; the method checks and converts them."""
    pairs = [each.partition("=") for each in given or []]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise MethodError(
                f"--option {name} must be name=value, such as samples=25. `seewhy methods` lists options."
            )
    return {name.replace("-", "_"): value for name, _, value in pairs}


def _names(images: list[Path]) -> dict[Path, str]:
    """Return what each picture's results are called: its stem, or more of its path where others are called the same."""
    different = set(images)
    names = {}
    for path in different:
        # Case is folded because two names that differ in it alone are one file on some systems.
        taken = [[way.casefold() for way in _ways_to_call(other)] for other in different if other != path]
        ways = _ways_to_call(path)
        alone = (way for number, way in enumerate(ways) if all(way.casefold() != other[number] for other in taken))
        names[path] = next(alone, ways[-1])
    return names


def _ways_to_call(path: Path) -> list[str]:
    """Return names for a picture, the shortest first: cat, cat.jpg, pets-cat.jpg, home-pets-cat.jpg, ..."""
    parts = path.absolute().parts
    return [path.stem, *("-".join(parts[-count:]) for count in range(1, 10))]


def _forms(forms: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return file endings without their dots, checked before any work is done."""
    found = list(dict.fromkeys(form.casefold().lstrip(".") for form in forms))
    for form in found:
        if form not in known:
            raise RenderError(f"--format {form} is not known. Known: {', '.join(known)}.")
    return found


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeewhyError(f"--out {out} cannot be made or is no folder: {error.strerror}.") from error
    return out


def _each(images: list[Path], ask: Any) -> tuple[list[tuple[Path, Any]], bool]:
    """Return each good picture with its answer; bad ones are told and left out."""
    try:
        return list(zip(images, ask([str(path) for path in images]), strict=True)), False
    except PartialError as partial:
        for number, error in partial.failures.items():
            say.complain(error, str(images[number]))
        return [(path, done) for path, done in zip(images, partial.done, strict=True) if done is not None], True


def _save(explanations: list[Explanation], name: str, out: Path, forms: list[str]) -> list[list[Path]]:
    """Write each explanation in each form; several of one picture get the target's index or the layer in their names."""
    written = []
    for number, explanation in enumerate(explanations, start=1):
        mark = "" if len(explanations) == 1 else f".{number}"
        paths = [out / f"{name}{mark}.why.{form}" for form in forms]
        for path in paths:
            explanation.save(path)
        written.append(paths)
    return written


def _tell(explanations: list[Explanation], files: list[list[Path]]) -> None:
    say.answer(explanations[0])
    for explanation, paths in zip(explanations, files, strict=True):
        where = " + ".join(explanation.layers) or "the input"
        say.line(f"{explanation.method} for {explanation.target} at {where} ({explanation.cost})")
        say.about(explanation)
        for path in paths:
            say.line(f"wrote {path}")


def _document(explanation: Explanation, files: list[Path] | None) -> dict[str, Any]:
    from seewhy.render.files import as_json

    content = as_json(explanation)
    content.pop("raw")
    return content if files is None else {**content, "files": [str(path) for path in files]}
