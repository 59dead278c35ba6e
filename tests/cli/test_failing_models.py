"""The command with a model that fails on the way: what was done before is written, and the failure is told."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import seewhy

Run = Callable[..., tuple[int, str, str]]
Made = Callable[[], list[str]]

FAILING = '''
import numpy as np

calls = 0

def scores(images):
    return np.stack([images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))], 1)

def predict(images):
    """Answer {most} times, a batch of any size each, then no more."""
    global calls
    calls += 1
    if calls > {most}:
        raise TimeoutError("no answer")
    return scores(images)
'''
SMALL = ("--preprocess", '{"size": [32, 32], "resize": null, "fit": "squash"}')


@pytest.fixture
def failing(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[str, ...]]:
    """Return a function that writes a model which answers so many times, and gives the words that name it."""

    def write(most: int) -> tuple[str, ...]:
        monkeypatch.delitem(sys.modules, f"f{most}", raising=False)
        (home / f"f{most}.py").write_text(FAILING.replace("{most}", str(most)))
        return ("--model", f"f{most}:predict", *SMALL)

    return write


def test_the_map_of_what_was_done_is_written_and_the_exit_code_says_failure(
    run: Run, home: Path, made: Made, failing: Callable[[int], tuple[str, ...]]
) -> None:
    model = failing(4)
    code, out, err = run("explain", "cat.png", *model, "-t", "0", "-o", "masks=400", "-f", "npz", "-f", "png")
    assert code == 1
    assert "seewhy: cat.png: The function f4:predict raised TimeoutError at call 5" in err
    assert "What is written is made of what was done before." in err
    assert ".partial" not in err
    assert [each for each in made() if each.startswith("cat")] == ["cat.why.npz", "cat.why.png"]
    [told] = [line for line in out.splitlines() if "the model failed after" in line]
    done = int(told.split()[5])
    assert 0 < done < 400
    how = {"size": [32, 32], "resize": None, "fit": "squash"}
    import f4

    whole = seewhy.explain(f4.scores, home / "cat.png", 0, preprocess=how, masks=400, budget=done)
    with np.load(home / "cat.why.npz") as written:
        np.testing.assert_allclose(written["raw"], whole.raw, atol=1e-6)


def test_a_model_that_fails_at_once_writes_nothing(
    run: Run, made: Made, failing: Callable[[int], tuple[str, ...]]
) -> None:
    code, out, err = run("explain", "cat.png", *failing(0))
    assert (code, out) == (1, "")
    assert "f0:predict raised TimeoutError at call 1" in err
    assert not [each for each in made() if each.startswith("cat")]


def test_a_target_that_was_done_is_written_though_the_next_one_failed(
    run: Run, made: Made, failing: Callable[[int], tuple[str, ...]]
) -> None:
    model = failing(3)  # the picture itself and one batch of masks, and then the next question's picture
    code, out, err = run("explain", "cat.png", *model, "-t", "0", "-t", "1", "-o", "masks=8")
    assert code == 1
    assert "raised TimeoutError" in err
    assert "rise for class 0 at the input" in " ".join(out.split())
    assert [each for each in made() if each.startswith("cat")] == ["cat.why.png"]


def test_a_comparison_shows_the_methods_that_were_done(
    run: Run, made: Made, failing: Callable[[int], tuple[str, ...]]
) -> None:
    code, out, err = run("compare", "cat.png", *failing(4), "-m", "rise,occlusion", "-o", "masks=400")
    assert code == 1
    assert "What is written is made of what was done before." in err
    assert "1 maps" in out
    assert "cat.compare.png" in made()
