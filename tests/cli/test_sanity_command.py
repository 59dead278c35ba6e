"""The sanity checks on the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Run = Callable[..., tuple[int, str, str]]
Made = Callable[[], list[str]]
HOW = ("--labels", "names.txt", "--preprocess", '{"size": [64, 64]}')


def test_rows_a_picture_and_an_exit_code(run: Run, made: Made, home: Path) -> None:
    code, out, _ = run("sanity", "zoo:Colours", "cat.png", "-m", "edges,grad-cam", "--other", "blue", *HOW)
    assert code == 1
    assert re.search(r"^fails +class +edges +1\.00, fails above 0\.71: .* by nature", out, re.MULTILINE)
    assert re.search(
        r"^passes +class +grad-cam +-1\.00, fails above 0\.71: The map of 'red' is another", out, re.MULTILINE
    )
    assert re.search(r"^zoo:Colours, red: 8 checks: \d+ failed, 2 could not be asked, \d+ passed$", out, re.MULTILINE)
    assert made() == ["cat.sanity.png"]
    with Image.open(home / "cat.sanity.png") as drawn:
        assert drawn.width > 900  # five cells
        assert drawn.height > 600  # the pictures, and two methods


def test_json_of_what_passes(run: Run, made: Made) -> None:
    words = (
        "sanity",
        "zoo:Colours",
        "cat.png",
        "-m",
        "occlusion",
        "-o",
        "window=16",
        "-o",
        "stride=16",
        "--target",
        "red",
    )
    code, out, _ = run(*words, "--json", "--out", "checked", *HOW)
    document = json.loads(out)
    assert document["verdict"] == ("fails" if code else "passes")
    assert [each["check"] for each in document["checks"]] == ["class", "weights", "input", "agreement"]
    assert document["checks"][0]["value"] < 0
    assert document["checks"][3]["value"] is None
    assert document["files"] == made() == ["checked/cat.sanity.png"]


def test_the_model_may_be_left_out_and_no_more_than_one_picture_given(run: Run, made: Made) -> None:
    code, out, _ = run("sanity", "cat.png", "--random", "-m", "edges")
    assert code == 1
    assert "efficientnet_lite0, " in out
    code, _, err = run("sanity", "zoo:Colours", "cat.png", "dog.png")
    assert code == 2
    assert "at most a model and one picture" in err
    code, _, err = run("sanity", "zoo:Colours", "no.png")
    assert (code, "There is no file 'no.png'" in err) == (1, True)
    assert made() == ["cat.sanity.png"]
