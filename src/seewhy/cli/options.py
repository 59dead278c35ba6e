"""What can be written after a command: the words that several commands share, and what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seewhy.errors import ImageError, MethodError

if TYPE_CHECKING:
    from seewhy.explainer import Explainer

DEFAULT_MODEL = "efficientnet_lite0"
_EXAMPLE = """'{"size": [64, 64], "fit": "squash"}'"""

Model = Annotated[
    str,
    typer.Option("--model", "-M", help="A name (`seewhy models`), an .onnx or .keras file, or package.module:factory."),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="A checkpoint: .safetensors, .pth, .pt, .bin, .ckpt, .pdparams, .weights.h5."),
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
Scores = Annotated[
    str | None,
    typer.Option("--scores", help="Where the scores are in what the model returns: a key, field or position."),
]
MultiLabel = Annotated[
    bool | None,
    typer.Option("--multi-label/--one-label", help="Several classes may hold at once (sigmoid), or one (softmax)."),
]
Signed = Annotated[bool, typer.Option("--signed", help="Show evidence against the target too, zero in the middle.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Seed = Annotated[int, typer.Option("--seed", help="For everything that is drawn at random.")]
Smooth = Annotated[
    str | None,
    typer.Option(
        "--smooth", help="aug (flipped and dimmed inputs), eigen (first component), noise; several as aug,eigen."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", help="The most a map may cost: forwards (500) or seconds (30s); what is known then is shown."
    ),
]
Reduce = Annotated[
    str | None,
    typer.Option("--reduce", help="Colour channels as sum, mean, max-abs, sum-abs or norm, where a method keeps them."),
]


Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        help="Which channels of an input that is no RGB picture are shown: one in grey, three as 3,2,1; of a signal any.",
    ),
]

Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Put each map to the test on the model: 37 further runs. Default: for up to 4 pictures of up to 4 "
        "maps, where that takes at most 20 seconds a picture.",
    ),
]


def make_explainer(
    model: str,
    weights: Path | None,
    random: bool,
    labels: str | None,
    device: str | None,
    seed: int,
    preprocess: str | None,
    scores: str | None = None,
    multi_label: bool | None = None,
) -> Explainer:
    """Return a model, loaded and bound, from what was written.

    Raises:
        SeewhyError: it cannot be had.
    """
    changes = json_object(preprocess)
    from seewhy.explainer import Explainer
    from seewhy.models import load

    loaded = load(model, weights=weights, pretrained=not random)
    how: dict[str, Any] = {"device": device, "output": scores, "multi_label": multi_label, "seed": seed}
    return Explainer(loaded, preprocess=changes, labels=labels, **how)


def json_object(given: str | None) -> dict[str, Any] | None:
    """Return what --preprocess says; None where it is not given.

    Raises:
        ImageError: it is no JSON object.
    """
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


def split_commas(names: list[str]) -> list[str]:
    """Return names that may stand together, as a,b."""
    return [name for given in names for name in given.split(",") if name]


def method_options(given: list[str] | None) -> dict[str, str]:
    """Return name=value pairs as a dict; the method checks and converts them."""
    pairs = [each.partition("=") for each in given or []]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise MethodError(
                f"--option {name} must be name=value, such as samples=25. `seewhy methods` lists options."
            )
    return {name.replace("-", "_"): value for name, _, value in pairs}
