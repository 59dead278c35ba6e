"""The sub-commands. Each is a thin word-for-word translation of a call that the library has too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.cli import say
from seewhy.errors import ImageError, LayerError, MethodError, PartialError, RenderError, SeewhyError, did_you_mean

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
_EXAMPLE = """'{"size": [64, 64], "fit": "squash"}'"""

Model = Annotated[
    str, typer.Option("--model", "-M", help="A model's name (`seewhy models`), or your own package.module:factory.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A checkpoint: .safetensors, .pth, .pt, .bin or .ckpt.")
]
RandomWeights = Annotated[bool, typer.Option("--random", help="Random weights: nothing is downloaded.")]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Class names: a text file, one a line; JSON; or the word imagenet.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps, ... Default: cpu.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="A method's own option, name=value; may be repeated.")
]
Preprocessed = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        help='Changes to how pictures are prepared, as JSON: {"size": [64, 64], "fit": "squash", "mean": [0, 0, 0], '
        '"std": [1, 1, 1]}. fit: crop, squash, letterbox.',
    ),
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
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="A class name or index, A-vs-B, top:k, probability:NAME; may be repeated. Default: the predicted.",
        ),
    ] = None,
    fuse: Annotated[
        str, typer.Option("--fuse", help="Several layers: mean, max, or none (one picture each).")
    ] = "mean",
    weights: Weights = None,
    random: RandomWeights = False,
    labels: Labels = None,
    device: Device = None,
    preprocess: Preprocessed = None,
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
    """Explain pictures: writes NAME.why.png to the current folder (or --out) and prints what the model says."""
    options: dict[str, Any] = _options(option)
    forms = _forms(form or ["png"], (*PICTURES, "npz", "json"))
    names = _names(images)
    _some_exist(images)
    out = _folder(out)
    ask = _explainer(model, weights, random, labels, device, seed, preprocess)
    style: dict[str, Any] = {"view": "signed" if signed else None, "fuse": fuse}

    def answer(paths: list[str], question: str | None) -> Any:
        return ask(paths, question, method, layer, **style, **options)

    documents: list[dict[str, Any]] = []
    failed = False
    for at in range(0, len(images), ask.batch_size):  # each block is written before the next is begun
        block = images[at : at + ask.batch_size]
        answers, some_failed = _each(block, target or [None], answer)
        failed |= some_failed
        for path, explanations in answers:
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
    preprocess: Preprocessed = None,
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
    ask = _explainer(model, weights, random, labels, device, seed, preprocess)
    found: Any = ask.compare(
        str(image), _split_commas(method or ["grad-cam"]), layer, target or [], view=view, **options
    )
    path = _folder(out) / f"{image.stem}.compare.{form}"
    found.save(path)
    if as_json:
        say.as_json({"file": str(path), "skipped": found.skipped, "maps": [_document(each, None) for each in found]})
        return
    say.answer(found[0])
    for name, why in found.skipped.items():
        say.line(f"left out: {name}: {why}")
    flagged = sum(any(finding.code != "class-blind" for finding in each.diagnosis) for each in found)
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

    table = _explainer(model, weights, random, None, None, 0, None).layers(image)
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
    model: str,
    weights: Path | None,
    random: bool,
    labels: str | None,
    device: str | None,
    seed: int,
    preprocess: str | None,
) -> Explainer:
    changes = _json_object(preprocess)
    from seewhy.explainer import Explainer
    from seewhy.models import load

    loaded = load(model, weights=weights, pretrained=not random)
    return Explainer(loaded, preprocess=changes, labels=labels, device=device, seed=seed)


def _json_object(given: str | None) -> dict[str, Any] | None:
    if given is None:
        return None
    try:
        content = json.loads(given)
    except ValueError as error:
        raise ImageError(
            f'--preprocess is not JSON: {error}. Write it like \'{{"size": [64, 64], "fit": "squash"}}\'.'
        ) from error
    if not isinstance(content, dict):
        raise ImageError(f'--preprocess must be a JSON object, such as \'{{"fit": "squash"}}\'; it is {given}.')
    return content


def _some_exist(images: list[Path]) -> None:
    """Fail before anything heavy is loaded when none of the pictures is there; single ones are told as they come."""
    if not any(path.is_file() for path in images):
        raise ImageError(f"There is no file '{images[0]}'. Check the path; it is taken from the folder you are in.")


def _split_commas(names: list[str]) -> list[str]:
    return [name for given in names for name in given.split(",") if name]


def _as_list(found: Any) -> list[Explanation]:
    return found if isinstance(found, list) else [found]


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
    names: dict[Path, str] = {}
    for path in sorted(different):
        # Case is folded because two names that differ in it alone are one file on some systems.
        taken = [[way.casefold() for way in _ways_to_call(other)] for other in different if other != path]
        ways = _ways_to_call(path)
        alone = (way for number, way in enumerate(ways) if all(way.casefold() != other[number] for other in taken))
        name = next(alone, ways[-1])
        same = sum(other.casefold() == name.casefold() for other in names.values())
        names[path] = f"{name}-{same + 1}" if same else name
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
        told = "is a file; give a folder" if out.is_file() else f"cannot be made: {error.strerror}"
        raise SeewhyError(f"--out {out} {told}.") from error
    return out


def _each(
    images: list[Path], targets: Sequence[str | None], answer: Callable[[list[str], str | None], Any]
) -> tuple[list[tuple[Path, list[Explanation]]], bool]:
    """Return each good picture with its answers to all targets, and whether there were bad ones; those are told."""
    found: dict[int, list[Explanation]] = {number: [] for number in range(len(images))}
    failures: dict[int, SeewhyError] = {}
    for target in targets:
        try:
            results = answer([str(path) for path in images], target)
        except PartialError as partial:
            failures.update(partial.failures)
            results = partial.done
        except ImageError as error:
            if len(images) > 1:
                raise
            failures[0], results = error, [None]
        for number, result in enumerate(results):
            found[number] += [] if result is None else _as_list(result)
    for number, failure in sorted(failures.items()):
        say.complain(failure, str(images[number]))
    return [(images[number], each) for number, each in found.items() if number not in failures], bool(failures)


def _save(explanations: list[Explanation], name: str, out: Path, forms: list[str]) -> list[list[Path]]:
    """Write each explanation in each form; several of one picture get a number and the target in their names."""
    written = []
    for number, explanation in enumerate(explanations, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", explanation.target.casefold()).strip("-")[:40]
        mark = "" if len(explanations) == 1 else f".{number}-{slug}"
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
