"""`seewhy evaluate`, as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]

MODEL = ("--model", "zoo:Colours", "--labels", "names.txt", "-m", "grad-cam,layer-cam", "-o", "steps=2")
FILES = ["results.csv", "summary.csv", "results.parquet", "bars.png", "curves.png", "report.html"]


@pytest.fixture
def pictures(home: Path) -> Path:
    """A picture in a folder of its class."""
    for name in ("cat", "dog"):
        (home / "pictures" / "ruby").mkdir(parents=True, exist_ok=True)
        Image.open(home / f"{name}.png").save(home / "pictures" / "ruby" / f"{name}.png")
    return home / "pictures"


def test_a_folder_is_evaluated_and_gone_on_with(run: Run, pictures: Path, home: Path) -> None:
    code, out, err = run("evaluate", "pictures", *MODEL, "--limit", "1")
    assert (code, err) == (0, "")
    assert "insertion: higher is better" in out
    assert [line.split()[1:3] for line in out.splitlines() if "grad-cam" in line] == [["grad-cam", "body"]] * 2
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [
        f"wrote evaluation/{name}" for name in FILES if (home / "evaluation" / name).is_file()
    ]
    (pictures / "ruby" / "bad.png").write_bytes(b"no picture")
    code, out, err = run("evaluate", "pictures", *MODEL)
    assert code == 1
    assert "1 of 2 pictures had been finished before" in out
    assert "skipped 1 picture: ruby/bad.png" in out
    assert err.startswith("seewhy: ruby/bad.png: 'bad.png' is not a picture")
    code, _, err = run("evaluate", "pictures", *MODEL, "-o", "steps=3")
    assert code == 1
    assert "holds results of other settings (options)" in err
    (pictures / "ruby" / "bad.png").unlink()
    assert run("evaluate", "pictures", *MODEL, "-o", "steps=3", "--restart", "--classes", "predicted")[0] == 0
    code, _, err = run("evaluate", "pictures", *MODEL, "-o", "normalise=true", "--out", "other")
    assert (
        "Not one of the metrics (insertion, deletion) has a value" in err
    )  # a blurred mean is the mean: nothing to scale by


def test_json_and_options_of_methods(run: Run, pictures: Path) -> None:
    code, out, _ = run(
        "evaluate", "pictures", "--model", "zoo:Colours", "--labels", "names.txt", "-m", "rise", "-o", "masks=3",
        "--metric", "deletion", "-o", "steps=2", "--json", "--out", "new/folder",
    )  # fmt: skip
    found = json.loads(out)
    [rise] = [row for row in found["standings"] if not row["control"]]
    assert code == 0
    assert (rise["metric"], rise["pictures"], rise["forwards"]) == ("deletion", 2, 4.0)
    assert found["folder"] == str(Path("new/folder"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "steps=many"), "--option steps=many must be a whole number"),
        (("-o", "normalise=perhaps"), "--option normalise=perhaps must be true or false"),
        (("-o", "stepps=3"), "has an option 'stepps'"),
        (("--truth", "nowhere"), "'nowhere' is no truth"),
        (("--classes", "nowhere.csv"), "'nowhere.csv' cannot be read as labels"),
    ],
)
def test_wrong_words_are_answered(run: Run, pictures: Path, words: tuple[str, ...], told: str) -> None:
    code, _, err = run("evaluate", "pictures", *MODEL, *words)
    assert code == 1
    assert told in err


def test_parquet_without_pyarrow_tells_how_to_get_it(run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.evaluation.saving.has_parquet", lambda: False)
    code, _, err = run("evaluate", "pictures", *MODEL, "--out", "new/table.parquet")
    assert code == 1
    assert "pip install 'seewhy[parquet]'" in err
    assert not Path("new").exists()


def test_a_terminal_is_not_steered_by_names(run: Run, pictures: Path) -> None:
    (pictures / "ruby" / "bad\x1b[31m.png").write_bytes(np.zeros(9, np.uint8).tobytes())
    _, out, err = run("evaluate", "pictures", *MODEL)
    assert "\x1b[31m" not in out + err
    assert "ruby/bad?[31m.png" in out


def test_truth_is_counted_among_all_pictures(run: Run, pictures: Path) -> None:
    Path("marks").mkdir()
    Path("marks/cat.txt").write_text("0 0.25 0.5 0.5 1\n")
    code, out, _ = run("evaluate", "pictures", *MODEL[:-2], "--metric", "relevance-mass-accuracy", "--truth", "marks")
    assert code == 1
    assert "where the thing is was known for 1 of 2 pictures" in out
    assert "skipped 1 picture: ruby/dog.png" in out
