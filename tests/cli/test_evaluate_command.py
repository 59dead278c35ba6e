"""`seewhy evaluate`, as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli.values import metric_options
from seewhy.evaluation import running
from seewhy.measures import find_metric

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
        (("-o", "steps=many"), "--option steps=many must be a whole number."),
        (("--metric", "iou", "-o", "threshold=half"), "--option threshold=half must be a number or otsu."),
        (("--metric", "sensitivity-n", "-o", "cells=some"), "--option cells=some must be a whole number or None."),
        (("--metric", "road", "-o", "percentiles=20,x"), "percentiles=20,x must be a number or several with commas"),
        (("--metric", "road", "-o", "noise=nan"), "--option noise=nan must be a number."),
        (("--metric", "infidelity", "-o", "perturbation=cube"), "perturbation=cube must be square or noise."),
        (("-o", "fill=black"), "--option fill=black must be given as --fill black"),
        (("-o", "targets=1"), "None of these methods has an option 'targets'"),
        (("-o", "normalise=perhaps"), "--option normalise=perhaps must be true or false"),
        (("-o", "stepps=3"), "has an option 'stepps'"),
        (("--truth", "nowhere"), "There is no truth at 'nowhere'"),
        (("--truth", "empty"), "No file in 'empty' has the name of a picture"),
        (("--classes", "nowhere.csv"), "'nowhere.csv' cannot be read as labels"),
    ],
)
def test_wrong_words_are_answered(run: Run, pictures: Path, words: tuple[str, ...], told: str) -> None:
    Path("empty").mkdir()
    code, _, err = run("evaluate", "pictures", *MODEL, *words)
    assert code == 1
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ("pictures", "-m", "grad-cow"),
        ("pictures", "-m", "rise", "-o", "mask=3"),
        ("pictures", "--metric", "insertoin"),
        ("pictures", "-o", "steps=many"),
        ("pictures", "--metric", "iou"),
        ("pictures", "--limit", "0"),
        ("pictures", "--smooth", "no"),
        ("pictures", "--truth", "nowhere"),
        ("pictures", "--classes", "nowhere.csv"),
        ("nowhere",),
        ("cat.png",),
    ],
)
def test_what_is_wrong_without_a_model_is_said_before_one_is_loaded(
    run: Run, pictures: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("seewhy.models.load", load)
    code, _, err = run("evaluate", *words)
    assert code == 1
    assert err.startswith("seewhy: ")
    assert not Path("evaluation").exists()


def test_options_are_read_as_the_metrics_say() -> None:
    given = {
        "percentiles": "20, 40", "cells": "none", "threshold": "Otsu", "steps": "7", "normalise": "True", "noise": "1e-2",
        "segments": "9", "towards": "0.5", "masks": "4",
    }  # fmt: skip
    names = ("road", "sensitivity-n", "iou", "insertion", "irof", "average-drop")
    own, others = metric_options(given, [find_metric(name) for name in names])
    assert own == {
        "percentiles": (20, 40), "cells": None, "threshold": "otsu", "steps": 7, "normalise": True, "noise": 0.01,
        "segments": 9, "towards": "0.5",
    }  # fmt: skip
    assert others == {"masks": "4"}
    read = {"20": 20, "20.5": 20.5, "(20, 40.5)": (20, 40.5)}
    for words, value in read.items():
        assert metric_options({"percentiles": words}, [find_metric("morf")])[0] == {"percentiles": value}
    for words, value in {"0.3": 0.3, "1": 1.0}.items():
        assert metric_options({"threshold": words}, [find_metric("iou")])[0] == {"threshold": value}
    assert metric_options({"cells": "5"}, [find_metric("sensitivity-n")])[0] == {"cells": 5}


def test_several_percentiles_are_measured(run: Run, pictures: Path) -> None:
    words = ("--metric", "morf", "-o", "percentiles=20,40", "--limit", "1", "--json")
    code, out, _ = run("evaluate", "pictures", *MODEL[:-2], *words)
    assert code == 0
    assert {row["metric"] for row in json.loads(out)["standings"]} == {"morf"}


@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_a_user_who_stops_is_told_what_is_kept(
    run: Run, pictures: Path, restart: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = running.measure
    calls: list[object] = []

    def once(*args: object, **more: object) -> object:
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return measured(*args, **more)

    monkeypatch.setattr(running, "measure", once)
    code, _, err = run("evaluate", "pictures", *MODEL, *restart)
    words = "the same command without --restart goes on" if restart else "the same command goes on"
    assert (code, err) == (130, f"seewhy: stopped: 1 of 2 pictures kept; {words} from there\n")
    monkeypatch.setattr(running, "measure", measured)
    assert "1 of 2 pictures had been finished before" in run("evaluate", "pictures", *MODEL)[1]


def test_a_label_of_too_many_digits_is_told_with_its_line(run: Run, pictures: Path) -> None:
    Path("labels.csv").write_text(f"ruby/cat.png,0\nruby/dog.png,{'7' * 5000}\n")
    code, _, err = run("evaluate", "pictures", *MODEL, "--classes", "labels.csv")
    assert code == 1
    assert "label '777777777777777777…' ('labels.csv', line 2) is a number of 5,000 digits" in err


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
