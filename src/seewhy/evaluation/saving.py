"""An evaluation as files: tables for programs, figures and a page for people."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seewhy.errors import MetricError, RenderError
from seewhy.evaluation.standings import Evaluation
from seewhy.render.page import figure_bytes
from seewhy.render.report import report_page
from seewhy.render.standings import bars, curves

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, str | int | float | bool | None]


def save(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write all files and return their paths; see :meth:`Evaluation.save`."""
    results = result_rows(evaluation)
    figures = {"bars.png": figure_bytes(bars(evaluation))}
    if (drawn := curves(evaluation)) is not None:
        figures["curves.png"] = figure_bytes(drawn)
    contents = {
        "results.csv": _csv(results),
        "summary.csv": _csv(summary_rows(evaluation)),
        **({"results.parquet": parquet_bytes(results)} if has_parquet() else {}),
        **figures,
        "report.html": _bytes(report_page(evaluation, figures)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise RenderError(f"'{folder}' cannot be written: {error.strerror}. Check the folder.") from error
    return [folder / name for name in contents]


def result_rows(evaluation: Evaluation) -> list[Row]:
    """Return one row for each picture, map and metric."""
    return [
        {
            "picture": each.picture,
            "label": each.label,
            "target": each.target,
            "index": each.index,
            "probability": each.probability,
            "method": judged.method,
            "layer": judged.layer,
            "control": judged.control,
            "metric": metric,
            "value": value,
            "forwards": judged.cost.forwards,
            "backwards": judged.cost.backwards,
            "replays": judged.cost.replays,
            "seconds": judged.cost.seconds,
        }
        for each in evaluation.results
        for judged in each.maps
        for metric, value in judged.values.items()
    ]


def summary_rows(evaluation: Evaluation) -> list[Row]:
    """Return one row for each metric and map."""
    return [
        {
            "metric": row.metric,
            "better": row.better,
            "method": row.method,
            "layer": row.layer,
            "control": row.control,
            "mean": row.mean,
            "low": None if row.interval is None else row.interval[0],
            "high": None if row.interval is None else row.interval[1],
            "pictures": row.pictures,
            "rank_first": row.rank[0],
            "rank_last": row.rank[1],
            "of": row.of,
            "against_random": row.against_random,
            "forwards": row.forwards,
            "backwards": row.backwards,
            "replays": row.replays,
            "seconds": row.seconds,
        }
        for row in evaluation.rows
    ]


def has_parquet() -> bool:
    """Return whether Parquet can be written."""
    return find_spec("pyarrow") is not None


def check_parquet() -> None:
    """Fail before any work is done where Parquet cannot be written.

    Raises:
        MetricError: pyarrow is not installed.
    """
    if not has_parquet():
        raise MetricError(
            "Parquet needs the `parquet` extra, which is not installed: pip install 'seewhy[parquet]'. Tables are written as "
            "CSV without."
        )


def parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    said = [
        {name: _bytes(value).decode() if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(said), buffer)
    return buffer.getvalue()


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _cell(value) for name, value in row.items()} for row in rows])
    return _bytes(text.getvalue())


def _cell(value: Any) -> Any:
    """Return what stands in a cell: nothing where there is no number, and no text that spreadsheets would run as a formula."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULAS) else value
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _bytes(text: str) -> bytes:
    """Return a text as UTF-8; file names may hold bytes that are none, which are written in words."""
    return text.encode("utf-8", "backslashreplace")
