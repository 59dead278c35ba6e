"""The command, as it is typed: exit codes, what is printed where, and which files lie there afterwards."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

Run = Callable[..., tuple[int, str, str]]
Made = Callable[[], list[str]]

ZOO_MODEL = ("--model", "zoo:Colours", "--labels", "names.txt")


def test_the_first_command_of_all_works_offline(run: Run, home: Path) -> None:
    Image.fromarray(data.chelsea()).save(home / "chelsea.jpg")
    code, out, err = run("explain", "chelsea.jpg")
    assert (code, err) == (0, "")
    assert "chelsea.jpg: what efficientnet_lite0 says" in out
    assert "tiger cat" in out.splitlines()[4]
    assert out.splitlines()[-1] == "wrote chelsea.why.png"
    with Image.open(home / "chelsea.why.png") as picture:
        assert picture.width == 451


def test_explain_prints_the_likeliest_classes_and_where_the_picture_is(run: Run, home: Path, made: Made) -> None:
    code, out, err = run("explain", "cat.png", *ZOO_MODEL)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if "%" in line and "class" not in line]
    assert [row[1] for row in rows] == ["red", "blue", "green"]
    assert sum(float(row[0].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)
    assert "grad-cam for red at body (1 forward, 1 backward" in out
    assert "note: target: the predicted class, as none was given" in out
    assert made() == ["cat.why.png"]


def test_the_picture_is_where_it_was_asked_to_be(run: Run, home: Path, made: Made) -> None:
    _, out, _ = run("explain", "cat.png", "dog.png", *ZOO_MODEL, "--out", "new/results", "-f", "png", "-f", ".npz")
    expected = [f"new/results/{name}.why.{ending}" for name in ("cat", "dog") for ending in ("npz", "png")]
    assert made() == expected
    assert sorted(line.removeprefix("wrote ") for line in out.splitlines() if line.startswith("wrote")) == expected


def test_options_of_the_method_layers_and_view_reach_the_result(run: Run, home: Path) -> None:
    code, *_ = run(
        "explain", "cat.png", *ZOO_MODEL, "-m", "smooth_gradcam_pp", "-o", "samples=2", "-l", "body", "-t", "ruby",
        "--signed", "-f", "json", "--seed", "3",
    )  # fmt: skip
    found = json.loads((home / "cat.why.json").read_text())
    assert code == 0
    assert (found["method"], found["options"], found["layers"]) == ("smooth-grad-cam++", {"samples": 2}, ["body"])
    assert (found["target"], found["view"]) == ("red", "signed")


def test_one_bad_file_is_told_and_the_others_are_done(run: Run, home: Path, made: Made) -> None:
    (home / "bad.png").write_bytes(b"no picture")
    code, out, err = run("explain", "cat.png", "bad.png", "missing.png", "dog.png", *ZOO_MODEL)
    assert code == 1
    assert made() == ["bad.png", "cat.why.png", "dog.why.png"]
    assert [line.split(":")[:2] for line in err.splitlines()] == [["seewhy", " bad.png"], ["seewhy", " missing.png"]]
    assert "wrote cat.why.png" in out


def test_results_of_pictures_with_one_name_do_not_overwrite_each_other(run: Run, home: Path) -> None:
    for folder, name in (("a", "cat.png"), ("b", "cat.png"), ("b", "cat.bmp"), ("b", "Dog.png")):
        (home / folder).mkdir(exist_ok=True)
        Image.open(home / "cat.png").save(home / folder / name)
    code, out, _ = run(
        "explain", "a/cat.png", "b/cat.png", "b/cat.bmp", "dog.png", "b/Dog.png", *ZOO_MODEL, "--out", "out"
    )
    assert code == 0
    written = [line.removeprefix("wrote out/") for line in out.splitlines() if line.startswith("wrote")]
    assert written[:3] == ["a-cat.png.why.png", "b-cat.png.why.png", "cat.bmp.why.png"]
    assert len({name.casefold() for name in written}) == 5


def test_several_answers_of_one_picture_are_numbered(run: Run, home: Path, made: Made) -> None:
    assert run("explain", "cat.png", *ZOO_MODEL, "-t", "top:2")[0] == 0
    assert made() == ["cat.1-red.why.png", "cat.2-blue.why.png"]


def test_json_is_for_machines(run: Run, home: Path) -> None:
    (home / "bad.png").write_bytes(b"no picture")
    code, out, err = run("explain", "cat.png", "bad.png", *ZOO_MODEL, "--json")
    [document] = json.loads(out)
    assert (code, document["target"], document["files"]) == (1, "red", ["cat.why.png"])
    assert [each["name"] for each in document["prediction"]] == ["red", "blue", "green"]
    assert "bad.png" in err


def test_compare_writes_one_grid_of_every_combination(run: Run, home: Path, made: Made) -> None:
    words = ("compare", "cat.png", *ZOO_MODEL, "-m", "grad-cam", "-m", "hires-cam", "-t", "0", "-t", "blue")
    code, out, _ = run(*words)
    assert code == 0
    assert "4 maps" in out
    assert made() == ["cat.compare.png"]
    _, out, _ = run(*words, "--json", "-f", "html")
    found = json.loads(out)
    assert [(each["method"], each["target"]) for each in found["maps"]] == [
        ("grad-cam", "red"), ("grad-cam", "blue"), ("hires-cam", "red"), ("hires-cam", "blue"),
    ]  # fmt: skip
    assert found["file"] == "cat.compare.html"


def test_lists_are_tables_for_people_and_json_for_machines(run: Run) -> None:
    _, out, _ = run("layers", "zoo:Colours")
    assert [line for line in out.splitlines() if "body" in line and "default" in line and "14x14" in line]
    assert [row["name"] for row in json.loads(run("layers", "zoo:Colours", "--json")[1])] == ["body"]
    _, out, _ = run("methods")
    names = [row["name"] for row in json.loads(run("methods", "--json")[1])]
    assert [name for name in names if f"  {name} " in out] == names
    _, out, _ = run("models", "resnet18*", "--json")
    assert {"source": "torchvision", "name": "resnet18"} in json.loads(out)


def test_nothing_of_a_table_is_lost_on_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = json.loads(run("methods", "--json")[1])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for width in ("40", "100", "160"):
        monkeypatch.setenv("COLUMNS", width)
        out = re.sub("\x1b[^m]*m", "", run("methods")[1])
        assert max(map(len, out.splitlines())) <= int(width)
        for entry in entries:
            # Words may be folded, so only their letters are compared.
            assert entry["name"] in out
            assert entry["source"].split()[-1] in out
    assert all(word in out for entry in entries for word in entry["options"].split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("explain", "missing.png"), "There is no file 'missing.png'"),
        (("explain", "cat.png", *ZOO_MODEL, "-m", "eigenkam"), "No method is called 'eigenkam'. Nearest:"),
        (("explain", "cat.png", *ZOO_MODEL, "-o", "samples=2"), "It has: none"),
        (("explain", "cat.png", *ZOO_MODEL, "-o", "samples"), "must be name=value"),
        (("explain", "cat.png", *ZOO_MODEL, "-t", "gren"), "Nearest: 'green'"),
        (("explain", "cat.png", *ZOO_MODEL, "-l", "bdy"), "Nearest: 'body'"),
        (("explain", "cat.png", "-f", "bmp"), "--format bmp is not known. Known: png, jpg"),
        (("explain", "cat.png", "--out", "cat.png"), "--out cat.png is a file; give a folder"),
        (("explain", "cat.png", "--labels", "none.txt"), "There is no label file 'none.txt'"),
        (("explain", "cat.png", "--model", "resnet1888"), "Nearest: 'resnet18'"),
        (("compare", "cat.png", "-f", "npz"), "--format npz is not known"),
        (("layers", "zoo:Colours", "--only", "bod"), "Nearest: 'body'"),
        (("models", "no-such-model"), "No model's name fits 'no-such-model'"),
    ],
)
def test_an_error_is_one_line_with_the_remedy(
    run: Run, home: Path, made: Made, words: tuple[str, ...], told: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert told in err
    assert err.startswith("seewhy: ")
    told_more = err.splitlines()[1:]
    assert len(told_more) == 1
    assert told_more[0].startswith("  ")
    assert "docs/troubleshooting.md" in told_more[0]
    assert made() == []


@pytest.mark.parametrize(
    "words", [("explain",), ("explain", "cat.png", "--bogus"), ("bogus",), ("explain", "--seed", "x", "a")]
)
def test_wrong_words_are_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert "Usage:" in err


def test_a_names_markup_is_printed_as_it_is(run: Run, home: Path) -> None:
    (home / "names.txt").write_text("[bold]red[/bold]\n[/]\n:smile:\n")
    (home / "cat.png").rename(home / "[red]cat.png")
    code, out, _ = run("explain", "[red]cat.png", *ZOO_MODEL)
    assert code == 0
    for words in ("[bold]red[/bold]", "[/]", ":smile:", "[red]cat.png: what"):
        assert words in out


def test_the_version_is_told(run: Run) -> None:
    import seewhy

    assert run("--version") == (0, f"seewhy {seewhy.__version__}\n", "")


@pytest.mark.parametrize(
    "words", [["--help"], ["explain", "--help"], ["compare", "--help"], ["--version"], ["explain"]]
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"""
import atexit, sys
heavy = {{"torch", "numpy", "matplotlib", "timm", "torchvision", "PIL", "skimage", "seewhy.explainer"}}
atexit.register(lambda: print("imported:", sorted(heavy & set(sys.modules))))
sys.argv = ["seewhy", *{words!r}]
from seewhy.cli import main
main()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == (2 if words == ["explain"] else 0)
    assert found.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("command", ["explain", "compare", "doctor", "layers", "methods", "models"])
def test_help_names_every_command_and_says_what_it_does(run: Run, command: str) -> None:
    assert f"\n  {command} " in run("--help")[1]
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--json" in out


def test_targets_may_be_repeated_and_a_bad_picture_costs_the_others_nothing(run: Run, home: Path, made: Made) -> None:
    (home / "bad.png").write_bytes(b"no picture")
    code, _, err = run("explain", "cat.png", "bad.png", *ZOO_MODEL, "-t", "red", "-t", "blue")
    assert code == 1
    assert err.count("bad.png") == 2  # once as what it is about, once in the message: told once
    assert made() == ["bad.png", "cat.1-red.why.png", "cat.2-blue.why.png"]


def test_preprocessing_is_changed_on_the_command_line(run: Run, home: Path) -> None:
    """A wide picture: cropped by the assumed preprocessing, whole when squashed."""
    for words, seen in (((), False), (("--preprocess", '{"fit": "squash", "size": [48, 64]}'), True)):
        assert run("explain", "cat.png", *ZOO_MODEL, *words, "-f", "npz")[0] == 0
        assert np.load(home / "cat.why.npz")["seen"].all() == seen
    for given, told in (("{", "not JSON"), ("[1]", "must be a JSON object"), ('{"sise": 3}', "sise")):
        code, _, err = run("explain", "cat.png", *ZOO_MODEL, "--preprocess", given)
        assert code == 1
        assert told in err


def test_scores_say_where_they_are_in_what_the_model_returns(run: Run, home: Path) -> None:
    model = ("--model", "zoo:Two", "--labels", "names.txt")
    assert "red at body" in run("explain", "cat.png", *model, "--scores", "colours")[1]
    assert "blue at body" in run("explain", "cat.png", *model)[1]
    code, _, told = run("explain", "cat.png", *model, "--scores", "colors")
    assert code == 1
    assert "Nearest: 'colours'" in told


@pytest.mark.parametrize("words", [("explain", "cat.png", "dog.png"), ("compare", "cat.png", "-m", "grad-cam,cam")])
def test_a_folder_is_not_made_of_a_pictures_name(words: tuple[str, ...], run: Run, home: Path, made: Made) -> None:
    code, out, err = run(*words, *ZOO_MODEL, "--out", "two.png")
    assert (code, out, made()) == (1, "", [])
    assert "--out two.png is the name of a file, and --out is a folder" in err
    assert not (home / "two.png").exists()
    (home / "two.png").mkdir()
    assert run(*words, *ZOO_MODEL, "--out", "two.png")[0] == 0
    assert made()[0].startswith("two.png/")


def test_an_unknown_layer_says_which_command_lists_them(run: Run) -> None:
    code, _, err = run("explain", "cat.png", *ZOO_MODEL, "-l", "boddy")
    assert code == 1
    assert "Nearest: 'body'" in err
    assert "`seewhy layers MODEL`, lists all." in err


def test_python_runs_the_command_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "seewhy", "--version"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.split()[0]) == (0, "seewhy")


def test_a_folder_is_no_picture_and_what_takes_one_is_told(run: Run, home: Path) -> None:
    (home / "pets").mkdir()
    code, _, err = run("explain", "pets", *ZOO_MODEL)
    assert code == 1
    assert "'pets' is a folder. Name the pictures in it, as pets/*.jpg; or measure methods on all of them" in err
    assert "seewhy evaluate pets" in err
