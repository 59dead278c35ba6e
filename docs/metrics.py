"""`python docs/metrics.py`: write what the registry says of metrics into docs/metrics.md, below the how-to."""

from __future__ import annotations

from pathlib import Path

from seewhy.measures import Metric, Wants, metrics

PAGE = Path(__file__).parent / "metrics.md"
MARK = "<!-- From here on written by `make docs` from the registry; do not edit. -->"

_WANTS = {
    Wants.SCORE: "the score for other inputs (a black box will do)",
    Wants.TRUTH: "where the thing is: `truth=`",
    Wants.PROBABILITY: "a target that has a probability",
    Wants.REMADE: "methods given by name, whose maps are made again",
}


def table() -> str:
    """Return all metrics in a line each."""
    head = (
        "| metric | what it tells | better | range | a map that knows nothing | runs a map | source |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    rows = [
        f"| [{entry.name}](#{entry.name}) | {entry.summary} | {entry.better} | {entry.range[0]:g} to {entry.range[1]:g} "
        f"| {entry.baseline} | {entry.cost} | {entry.source} |"
        for entry in metrics()
    ]
    return "\n".join([head, *rows])


def section(entry: Metric) -> str:
    """Return one metric's section."""
    wants = "; ".join(words for need, words in _WANTS.items() if need in entry.wants) or "the map alone"
    parts = [f"### {entry.name}", entry.summary, f"**Formula.** {entry.sections['Formula']}"]
    if entry.options:
        defaults = ", ".join(f"`{name}={value!r}`" for name, value in entry.options.items())
        parts.append(f"**Options.** {entry.sections['Options']} Defaults: {defaults}.")
    if "Elsewhere" in entry.sections:
        parts.append(f"**Elsewhere.** {entry.sections['Elsewhere']}")
    parts.append(f"**Needs** {wants}. **Source** {entry.source}.")
    return "\n\n".join(parts)


def page() -> str:
    """Return the page: what is above the mark as it is, then what the registry says."""
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return text + "\n\n".join([MARK, "## All metrics", table(), *map(section, metrics())]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
