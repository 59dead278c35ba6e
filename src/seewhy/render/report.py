"""An evaluation as one page that stands by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seewhy.datasets import counted
from seewhy.render.files import image_tag

if TYPE_CHECKING:
    from seewhy.evaluation.standings import Evaluation, Standing

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}p{margin:.4rem 0;max-width:46rem}
table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid #e6e6e6}
th{font-weight:600;border-bottom:2px solid #bbb}td.n{text-align:right;font-variant-numeric:tabular-nums}th.n{text-align:right}
tr.control td{color:#767676}tr.first td{font-weight:600}img{max-width:100%;height:auto}
.told{color:#555;font-size:.9rem}pre{white-space:pre-wrap;background:#f6f6f6;padding:.7rem;font-size:.8rem}
.scroll{overflow-x:auto}
"""

_READ = (
    "A rank such as 1-3 says that a map may stand on any of these: what lies between it and its neighbours is within noise. "
    "Two maps are told apart where the differences between them on the same pictures are larger than chance makes them (a "
    "studentised bootstrap; all pairs of a metric together, by Holm, at 5 %). Intervals are of the mean over the pictures, 95 %, "
    "by bootstrap; those of two maps may overlap though the maps are told apart. Controls know nothing of the model: a map that "
    "is not better than random tells nothing by this metric; 'too few' stands for fewer than six pictures, which tell nothing "
    "apart, '-' for a metric that random maps have no value of."
)


def report_page(evaluation: Evaluation, figures: Mapping[str, bytes]) -> str:
    """Return the page; names of files and classes are escaped, and pictures lie in it.

    Args:
        evaluation: what is told.
        figures: PNGs, by their files' names.
    """
    title = f"{evaluation.settings.get('model', 'model')}: maps of {counted(len(evaluation.results))}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class='told'>{_text(_about(evaluation))}</p>",
        *(f"<p>{_text(_best(evaluation, metric))}</p>" for metric in evaluation.metrics),
        "<h2>Means</h2>" + image_tag(figures["bars.png"], "means with 95 % intervals; behind each name its rank"),
        f"<p class='told'>{_text(_READ)}</p>",
    ]
    if "curves.png" in figures:
        parts.append("<h2>Curves</h2>" + image_tag(figures["curves.png"], "mean curves"))
    parts += [_table(metric, evaluation.of(metric)) for metric in evaluation.metrics]
    parts.append(
        "<p class='told'>Runs and seconds are of one map; the recording that a picture's maps share is counted in each.</p>"
    )
    parts += _listed("Pictures that were skipped", evaluation.skipped)
    parts += _listed("Methods that were left out", evaluation.left_out)
    settings = "\n".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in evaluation.settings.items()
    )
    parts.append(f"<h2>Settings</h2><pre>{_text(settings)}</pre>")
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{_text(title)}</title>"
    return f"<!doctype html><html lang='en'><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"


def _about(evaluation: Evaluation) -> str:
    results = evaluation.results
    said = sum(each.label is not None for each in results)
    asked = "the pictures' own labels" if said == len(results) else "the classes that the model predicts"
    told = [f"Maps explain {asked}."]
    if evaluation.with_truth is not None:
        asked = counted(len(results) + len(evaluation.skipped))
        told.append(f"Where that is was known for {evaluation.with_truth} of {asked}.")
    if evaluation.valueless:
        told.append(f"Without a value for any map: {', '.join(evaluation.valueless)}.")
    told += [f"Note: {note}" for note in evaluation.notes]
    if evaluation.skipped:
        told.append(f"Skipped: {counted(len(evaluation.skipped))}, listed below.")
    return " ".join(told)


def _best(evaluation: Evaluation, metric: str) -> str:
    rows = evaluation.best(metric)
    if not rows:
        return f"By {metric}, none is the best: each is worse than another on the pictures that both have a value for."
    first, *others = rows
    told = f"By {metric}, {first.name} ({first.mean:.3f})"
    if not others:
        return f"{told} {'is' if first.rank == (1, 1) else 'may be'} the best."
    same = [f"{row.name} ({row.mean:.3f})" for row in others]
    several = ", ".join(same[:6]) + (f" and {len(same) - 6} more" if len(same) > 6 else "")
    return f"{told} may be the best, not told apart from {several}."


def _table(metric: str, rows: Sequence[Standing]) -> str:
    head = [
        ("rank", ""),
        ("map", ""),
        ("layer", ""),
        ("mean", "n"),
        ("95 %", "n"),
        ("pictures", "n"),
        ("than random", ""),
    ]
    head += [("runs", "n"), ("seconds", "n")]
    cells = "".join(f"<th class='{kind}'>{word}</th>" for word, kind in head)
    body = "".join(_line(row) for row in rows)
    words = f"{metric}: {rows[0].better} is better"
    return f"<h2>{_text(words)}</h2><div class='scroll'><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def _line(row: Standing) -> str:
    name = f"control: {row.method}" if row.control else row.method
    cells = [
        (row.rank_words, ""),
        (name, ""),
        (row.layer_words, ""),
        (f"{row.mean:.3f}", "n"),
        (row.interval_words, "n"),
        (str(row.pictures), "n"),
    ]
    cells += [(row.against_words, ""), *((words, "n") for words in row.cost_words)]
    kind = "control" if row.control else "first" if row.rank[0] == 1 else ""
    return f"<tr class='{kind}'>" + "".join(f"<td class='{how}'>{_text(cell)}</td>" for cell, how in cells) + "</tr>"


def _listed(title: str, reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(why)}</td></tr>" for name, why in reasons.items())
    return [f"<h2>{title}</h2><table><tbody>{rows}</tbody></table>"]


def _text(words: str) -> str:
    return html.escape(words, quote=True)
