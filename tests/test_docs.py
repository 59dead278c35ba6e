"""What the README and the docs show is run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from onnx_models import Cnn
from seewhy.cli.commands import app
from seewhy.maps import registry
from seewhy.measures import Metric, find_metric

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(
        page for folder in ("", "how-to", "examples", "frameworks") for page in (ROOT / "docs" / folder).glob("*.md")
    ),
]
BLOCKS = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "import seewhy" in block
]
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("seewhy ")
]


at = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
assert at is not None
messages = importlib.util.module_from_spec(at)
sys.modules["messages"] = messages  # dataclasses look their module up
at.loader.exec_module(messages)


@pytest.fixture
def folder(tmp_path: Path, chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that the pages speak of; methods that a page adds are taken away again."""
    for name in ("cat.jpg", "x.png"):
        Image.fromarray(chelsea).save(tmp_path / name)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(chelsea).save(tmp_path / "pictures" / "cat.jpg")
    weights = seewhy.load("timm:resnet18", pretrained=False, num_classes=2).module.state_dict()
    torch.save(weights, tmp_path / "mine.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    onnx.save(Cnn().build(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    known = dict(registry._ENTRIES)
    yield tmp_path
    registry._ENTRIES.clear()
    registry._ENTRIES.update(known)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_python_blocks_run(page: str, block: str, folder: Path) -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(block, page, "exec"), names)  # noqa: S102 - our own pages
    for written in re.findall(r'save\("([^"]+)"\)', block):
        assert (folder / written).stat().st_size > 1000
    if "squared_cam" in names:
        assert seewhy.explain("efficientnet_lite0", "cat.jpg", method="SquaredCAM").method == "squared-cam"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path) -> None:
    if any(f"--model {name}" in command for name in ("resnet50", "deit_tiny_patch16_224")):
        command += " --random"  # the page's command downloads; no test does
    words = shlex.split(command.replace("*.jpg", "cat.jpg"))[1:]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for written in re.findall(r"wrote (\S+\.png)", result.output):
        with Image.open(folder / written) as picture:
            assert min(picture.size) > 200
    assert ("wrote" in result.output) == (words[0] in ("explain", "compare", "evaluate", "sanity"))


def test_the_pages_were_found() -> None:
    assert len(BLOCKS) >= 3
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_method_cards_are_what_the_registry_says() -> None:
    """Where this fails: `make docs`."""
    at = importlib.util.spec_from_file_location("cards", ROOT / "docs" / "cards.py")
    assert at is not None
    cards = importlib.util.module_from_spec(at)
    at.loader.exec_module(cards)
    pages = cards.pages()
    assert {page.name for page in cards.FOLDER.glob("*.md")} == pages.keys()
    for name, text in pages.items():
        assert (cards.FOLDER / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("entry", seewhy.methods(), ids=lambda entry: entry.name)
def test_every_card_has_a_formula_and_tells_every_option(entry: registry.Method) -> None:
    sections = entry.sections
    assert sections.get("Formula", "").endswith(".")
    told = sections.get("Options", "")
    assert [option for option in entry.options if not re.search(rf"\b{option}\b", told)] == []


def test_the_page_of_metrics_is_what_the_registry_says() -> None:
    """Where this fails: `python docs/metrics.py`."""
    at = importlib.util.spec_from_file_location("metrics_page", ROOT / "docs" / "metrics.py")
    assert at is not None
    made = importlib.util.module_from_spec(at)
    at.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page()


@pytest.mark.parametrize("entry", seewhy.metrics(), ids=lambda entry: entry.name)
def test_every_metric_has_a_formula_and_tells_every_option(entry: Metric) -> None:
    assert entry.sections.get("Formula", "").endswith(".")
    told = entry.sections.get("Options", "")
    shared = re.search(r"as (?:of|in) ([a-z-]+)", told)  # the options of a metric that is named
    told += find_metric(shared[1]).sections["Options"] if shared else ""
    assert [option for option in entry.options if not re.search(rf"\b{option}\b", told)] == []
    assert entry.summary.endswith(".")
    assert entry.range[0] < entry.range[1]
    assert re.search(r"\b(19|20)\d\d\b", entry.source)


def test_every_error_message_has_a_section_in_troubleshooting() -> None:
    """Where this fails: `python docs/messages.py` prints the headings that are to be added, ready to paste."""
    lacking = "\n".join(f"### `{each.beginning}`   ({each.file}:{each.line})" for each in messages.missing())
    assert not lacking, f"docs/troubleshooting.md needs sections (`python docs/messages.py` prints them):\n{lacking}"


def test_no_section_of_troubleshooting_is_for_a_message_that_is_gone() -> None:
    known = [each.text for each in messages.messages()[0]]
    dead = [heading for heading in messages.headings() if not any(messages.begins(text, heading) for text in known)]
    assert dead == [], "no message in src/ begins like these headings of docs/troubleshooting.md: change or drop them"


def test_every_message_can_be_read_off_the_source() -> None:
    """Write the message where the error is made; else name it in ELSEWHERE of docs/messages.py, with the reason."""
    found, unread = messages.messages()
    assert unread == []
    assert len(found) > 200
    errors = {name for name in dir(seewhy) if name.endswith("Error")} - {"PartialError"}
    assert set(messages.FAMILY) == errors


def test_sections_are_not_empty_and_none_is_twice() -> None:
    headings = messages.headings()
    assert len(set(headings)) == len(headings)
    text = messages.PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^### `.*$", text, flags=re.MULTILINE)[1:]
    assert len(sections) == len(headings)
    assert [heading for heading, body in zip(headings, sections, strict=True) if len(body.split()) < 3] == []


@pytest.mark.parametrize(
    ("message", "heading", "fits"),
    [
        ("There is no file '…'. Check the path.", "There is no file '…'", True),
        ("There is no weights file '…'.", "There is no file '…'", False),
        ("view='…' is not known. Known: positive.", "…='…' is not known", True),
        ("A model. Its fit='…' is not known.", "…='…' is not known", False),
        ("'…' is empty (0 bytes).", "'…' is empty (0 bytes)", True),
    ],
)
def test_a_heading_is_the_beginning_of_a_message(message: str, heading: str, fits: bool) -> None:
    assert messages.begins(message, heading) == fits
