"""The table, its figures and its page, of results that are made up: what stands where, and what is said where little is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from matplotlib.container import ErrorbarContainer

from seewhy.evaluation import Evaluation
from seewhy.evaluation.finished import Finished, Judged
from seewhy.evaluation.ranks import LEAST
from seewhy.recorder import Cost
from seewhy.render.report import report_page
from seewhy.render.standings import bars

NONE = math.nan
PIXEL = {"bars.png": b""}


def _evaluation(
    values: Mapping[str, Sequence[float]],
    layers: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    has_truth: bool | None = None,
) -> Evaluation:
    """Return standings of maps' values of insertion, picture by picture; of what is called random those of the control."""
    results = [
        Finished(
            f"{number}.png",
            "",
            None,
            "red",
            0,
            0.5,
            tuple(
                Judged(name, (layers or {}).get(name, ""), name == "random", Cost(), {"insertion": each})
                for name, each in zip(values, own, strict=True)
            ),
            has_truth=has_truth,
        )
        for number, own in enumerate(zip(*values.values(), strict=True))
    ]
    return Evaluation(results, {"model": "made up"}, skipped)


def test_rows_stand_by_rank_where_a_mean_is_of_easier_pictures() -> None:
    easy, hard = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [0.1] * 6
    found = _evaluation({"second": [*easy, *[NONE] * 6], "first": [*(each + 0.01 for each in easy), *hard]})
    assert [(row.name, row.rank, round(row.mean, 4)) for row in found] == [
        ("first", (1, 1), 0.5175),
        ("second", (2, 2), 0.925),
    ]
    assert "By insertion, first (0.517) is the best." in report_page(found, PIXEL)


def test_maps_that_beat_each_other_in_a_circle_are_written_and_none_is_the_best(tmp_path: Path) -> None:
    high, low, none = [0.6] * LEAST, [0.5] * LEAST, [NONE] * LEAST
    found = _evaluation({"a": [*high, *none, *low], "b": [*low, *high, *none], "c": [*none, *low, *high]})
    assert [row.rank for row in found] == [(2, 2)] * 3
    assert found.best("insertion") == ()
    found.save(tmp_path)
    assert "By insertion, none is the best: each is worse than another" in (tmp_path / "report.html").read_text()


def test_what_may_be_the_best_is_not_said_to_be() -> None:
    found = _evaluation({"a": [0.5, 0.6], "b": [0.4, 0.8]})
    assert "By insertion, b (0.600) may be the best, not told apart from a (0.550)." in report_page(found, PIXEL)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"map": [0.5] * (LEAST - 1), "random": [0.1] * (LEAST - 1)}, "too few"),
        ({"map": [*[0.5] * (LEAST - 1), NONE], "random": [0.1] * LEAST}, "too few"),
        ({"map": [0.1, 0.2, 0.3] * 2, "random": [0.3, 0.2, 0.1] * 2}, "not told apart"),
        ({"map": [0.5] * LEAST, "random": [0.1] * LEAST}, "better"),
        ({"map": [0.1] * LEAST, "random": [0.5] * LEAST}, "worse"),
        ({"map": [0.5] * LEAST}, "-"),
    ],
)
def test_a_map_stands_to_random_as_far_as_can_be_told(
    values: dict[str, list[float]], told: str, tmp_path: Path
) -> None:
    found = _evaluation(values)
    column = found.columns()[0].index("than random")
    assert {line[3]: line[column] for line in found.columns()[1]} == {
        "map": told,
        **({"control: random": ""} if "random" in values else {}),
    }
    assert f"<td class=''>{told}</td>" in report_page(found, PIXEL)
    found.save(tmp_path)
    with (tmp_path / "summary.csv").open(newline="") as file:
        written = {row["method"]: row["against_random"] for row in csv.DictReader(file)}
    assert written == {"map": told.strip("-"), **({"random": ""} if "random" in values else {})}


def test_whiskers_are_drawn_of_intervals_only() -> None:
    wide, none = [0.4, 0.5, 0.6, 0.4, 0.5, 0.6], [0.1, *[NONE] * 5]
    [ax] = (drawn := bars(_evaluation({"known": wide, "once": none}))).axes
    assert [each.has_xerr for each in ax.containers if isinstance(each, ErrorbarContainer)] == [True]
    assert "whiskers" in drawn.get_supxlabel()
    [ax] = (drawn := bars(_evaluation({"one": [0.1], "two": [0.2]}))).axes
    assert not [each for each in ax.containers if isinstance(each, ErrorbarContainer)]
    assert drawn.get_supxlabel() == "behind each name its rank"


def test_many_layers_at_once_are_counted_but_in_tables_for_programs(tmp_path: Path) -> None:
    joined = " + ".join(f"blocks.{number}" for number in range(5))
    found = _evaluation({"auto": [0.5], "fused": [0.4]}, {"auto": joined, "fused": "body + head"})
    assert [row.name for row in found] == ["auto (5 layers)", "fused body + head"]
    [ax] = bars(found).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["auto (5 layers)   1-2", "fused body + head   1-2"]
    page = report_page(found, PIXEL)
    assert "<td class=''>5 layers</td>" in page
    assert joined not in page
    found.save(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["layer"] for row in csv.DictReader(file)] == [joined, "body + head"]


def test_truth_is_counted_among_all_pictures_that_were_asked_about() -> None:
    page = report_page(_evaluation({"a": [0.5, 0.6]}, skipped={"2.png": "why"}, has_truth=True), PIXEL)
    assert "Where that is was known for 2 of 3 pictures." in page
    assert "Skipped: 1 picture, listed below." in page
