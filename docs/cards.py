"""`python docs/cards.py [--pictures]`: write one page a method, and an index, from the registry into docs/methods/."""

from __future__ import annotations

import sys
from pathlib import Path

from seewhy.maps import Method, methods
from seewhy.recorder import Needs

FOLDER = Path(__file__).parent / "methods"
SIDE = 256
"""Pixels of a card's picture."""

_NEEDS = {
    Needs.IMAGES: "the input",
    Needs.ACTIVATIONS: "a layer's activations",
    Needs.GRADIENTS: "a layer's activations and the score's derivative by them",
    Needs.CURVATURE: "the score's second derivative by a layer's activations",
    Needs.HEAD: "a linear classifier behind global average pooling",
    Needs.REPLAY: "the score for edited activations of a layer",
    Needs.SCORE: "the score for other inputs (a black box will do)",
    Needs.INPUT_GRADIENTS: "the score's derivative by the input",
    Needs.RELU_RULE: "another rule for the derivative of ReLU",
    Needs.PROPAGATION: "rules for all functions on the way",
    Needs.BIASES: "the score's derivative by every bias",
    Needs.MODULE: "the model itself",
    Needs.ATTENTION: "the weights of attention layers",
    Needs.ATTENTION_GRADIENTS: "the weights of attention layers and the score's derivative by them",
    Needs.ATTENTION_FORMATION: "the derivative, by each attention layer's weights, of the score of that layer's own tokens",
}


def card(entry: Method) -> str:
    """Return one method's page."""
    facts = {
        "Source": entry.source,
        "Needs": "; ".join(words for need, words in _NEEDS.items() if need in entry.needs),
        "Runs of the model": f"{entry.cost} (forwards + backwards, one image, default options)",
        "Depends on the class": "yes" if entry.class_specific else "no, or hardly",
        "Signed": "yes" if entry.signed else "no",
        "Shows": f"{entry.shows} {'for' if entry.shows == 'evidence' else 'on'} the target",
        "Resolution": _resolution(entry),
    }
    if entry.colours:
        facts["Colours"] = f'kept in `.colours`; one map by "{entry.colours}"'
    if entry.layers:
        made = "which make one map" if entry.together else f"as their {entry.fuse}"
        facts["Layers"] = f'"{entry.layers}" where none are named, {made}'
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in facts.items())])
    parts = [f"# {entry.name}", entry.summary]
    if (FOLDER / f"{file_name(entry)}.jpg").exists():
        parts.append(f"![{entry.name} on a photograph of a cat, for the predicted class]({file_name(entry)}.jpg)")
    sections = entry.sections
    if "Formula" in sections:
        parts.append(f"**Formula.** {sections['Formula']}")
    parts.append(table)
    if "Options" in sections:
        defaults = ", ".join(f"`{name}={value!r}`" for name, value in entry.options.items())
        parts.append(f"**Options.** {sections['Options']} Defaults: {defaults}.")
    if "Elsewhere" in sections:
        parts.append(f"**Elsewhere.** {sections['Elsewhere']}")
    parts.append(f"```sh\nseewhy explain cat.jpg --method {entry.name}\n```")
    return "\n\n".join(parts) + "\n"


def _resolution(entry: Method) -> str:
    if entry.needs.attention:
        return "the tokens'"
    return "the layer's" if entry.needs.layer and not (entry.colours or entry.together) else "the input's"


def index() -> str:
    """Return the page that lists all methods."""
    head = "| method | what it does | class | signed | runs | source |\n| --- | --- | --- | --- | --- | --- |"
    rows = [
        f"| [{entry.name}]({file_name(entry)}.md) | {entry.summary} | {'yes' if entry.class_specific else 'no'} "
        f"| {'yes' if entry.signed else 'no'} | {entry.cost} | {entry.source} |"
        for entry in methods()
    ]
    text = "Written by `make docs` from the registry; do not edit. `seewhy methods` prints the short form."
    return "\n".join(["# Methods", "", text, "", head, *rows]) + "\n"


def file_name(entry: Method) -> str:
    """Return a card's file name without its ending."""
    return entry.name.replace("++", "-plus-plus").replace(":", "-")


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {"README.md": index(), **{f"{file_name(entry)}.md": card(entry) for entry in methods()}}


def write_pictures() -> None:
    """Explain the same photograph by every method, with the built-in model and default options."""
    from skimage import data

    import seewhy

    ask = seewhy.Explainer("efficientnet_lite0", progress=True)
    for entry in methods():
        try:
            why = ask(data.chelsea(), method=entry.name)
        except seewhy.MethodError as error:
            print(f"{entry.name}: {error}")
            continue
        why.overlay(max_side=SIDE).save(FOLDER / f"{file_name(entry)}.jpg", quality=85)


def main() -> None:
    """Write the pages; the pictures only when they are asked for, since they take minutes."""
    FOLDER.mkdir(exist_ok=True)
    if "--pictures" in sys.argv[1:]:
        write_pictures()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
