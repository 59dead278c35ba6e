"""The doctor on the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Made = Callable[[], list[str]]


def test_the_doctor_prints_a_row_a_check_and_fails_where_something_fails(run: Run, made: Made) -> None:
    code, out, _ = run(
        "doctor", "zoo:Colours", "cat.png", "--labels", "names.txt", "--preprocess", '{"size": [64, 64]}'
    )
    assert code == 0
    assert re.search(r"^ok +loads +Colours \(zoo:Colours\), 2,313 parameters", out, re.MULTILINE)
    assert re.search(r"^ok +labels +3 names; this input: red$", out, re.MULTILINE)
    assert re.search(r"^zoo:Colours: \d+ checks: ", out, re.MULTILINE)
    assert made() == []
    code, out, _ = run("doctor", "zoo:Two", "--scores", "colors", "--layer", "body")
    assert code == 1
    assert re.search(r"^fails +outputs +.*Nearest: 'colours'", out, re.MULTILINE)


def test_the_doctor_speaks_json(run: Run, home: Path) -> None:
    code, out, _ = run("doctor", "zoo:Two", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["model"] == "zoo:Two"
    assert document["verdict"] in ("ok", "note", "warning")
    by_name = {each["check"]: each for each in document["checks"]}
    assert "'logits' is taken" in by_name["outputs"]["found"]
    assert by_name["time"]["numbers"]["forward"] > 0
    code, out, _ = run("doctor", "no-such-model", "--json")
    assert (code, json.loads(out)["verdict"]) == (1, "fails")
