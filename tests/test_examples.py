"""Every example is run as a reader would run it, and its number must hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples"
PAGE = FOLDER.parent / "docs" / "examples" / "README.md"
NAMES = ["detector", "image_text", "signal_1d", "transformer", "two_inputs", "unet", "volume_3d"]
LEAST = dict.fromkeys(NAMES, 0.9)
"""The pointing game's share that `main(folder)` of each example must reach."""


def test_every_example_is_listed_here_and_on_the_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == LEAST.keys()
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in LEAST if f"{name}.py" not in page] == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("name", LEAST)
def test_an_example_runs_and_its_maps_point_at_what_was_planted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    at = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    example = importlib.util.module_from_spec(at)
    at.loader.exec_module(example)
    share = example.main(tmp_path / "out")
    assert share >= LEAST[name]
    assert f"{share:.0%}" in capsys.readouterr().out
    [written] = (tmp_path / "out").iterdir()
    kept = PAGE.parent / written.name
    for path in (written, kept):
        assert path.stat().st_size < 100_000
        with Image.open(path) as picture:
            assert min(picture.size) > 200
