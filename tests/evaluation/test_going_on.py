"""Results that are gone on with: nothing kept is lost, and nothing of other settings, or of a stranger, is taken over."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.conftest import SIDE, Colours
from torch import nn

import seewhy
from seewhy.datasets import Entry
from seewhy.evaluation import ledger
from seewhy.evaluation.asked import Asking
from seewhy.evaluation.ledger import FILE
from seewhy.evaluation.settings import differences, settings_of, unidentified


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"maps": [', '"maps": [7, '),
        ('"control": ', '"control": 1, "x": '),
        ('"probability": ', '"probability": "much", "x": '),
        ('"index": ', '"index": [], "x": '),
        ('"skipped": {}', '"skipped": []'),
        ('"digest"', '"x": ' + "[" * 100_000 + ', "digest"'),
    ],
)
def test_a_strangers_file_of_results_is_refused(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path, old: str, new: str
) -> None:
    how: dict[str, object] = {"methods": "grad-cam", "metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    seewhy.evaluate(ask, folder, **how)
    path = tmp_path / "o" / FILE
    head, *others = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(others).replace(old, new))
    with pytest.raises(seewhy.MetricError, match="is no file of results that can be gone on with"):
        seewhy.evaluate(ask, folder, **how)


def test_a_line_without_an_end_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LONGEST", 100)
    (tmp_path / FILE).write_text('{"settings": {}}\n' + "7" * 101)
    with pytest.raises(seewhy.MetricError, match="a line of over 100 bytes"):
        ledger.Ledger(tmp_path, {})


def test_going_on_never_writes_what_is_there_again(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kills a run that goes on, the lines before are there: the file is only ever cut or added to."""
    how: dict[str, object] = {"methods": "grad-cam", "metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    seewhy.evaluate(ask, folder, **how)
    path = tmp_path / "o" / FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"pic')

    def never(*_: object, **__: object) -> None:
        raise AssertionError("written over")

    monkeypatch.setattr(Path, "write_bytes", never)
    monkeypatch.setattr(Path, "write_text", never)
    assert len(ledger.Ledger(tmp_path / "o", json.loads(whole.splitlines()[0])["settings"]).finished) == 2
    assert path.read_bytes() == whole


def test_a_full_disk_is_told(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    how: dict[str, object] = {"methods": "grad-cam", "metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    with monkeypatch.context() as patched:
        patched.setattr(ledger.os, "fsync", full)
        with pytest.raises(seewhy.MetricError, match="cannot be written any more: No space left"):
            seewhy.evaluate(ask, folder, **how)
    assert len(seewhy.evaluate(ask, folder, **how).results) == 2


class _Resize:
    """As transforms of torchvision are: no dataclass, but it shows its options."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        values = np.asarray(picture.resize((SIDE, SIDE)), np.float32) / 255
        return torch.from_numpy(values).permute(2, 0, 1) * (1 if self.size < 15 else 0.5)

    def __repr__(self) -> str:
        return f"Resize({self.size})"


@pytest.mark.parametrize("what", ["preprocess", "labels", "output"])
def test_another_reading_of_the_same_model_is_another_setting(folder: Path, tmp_path: Path, what: str) -> None:
    model = Colours().eval()
    usual: dict[str, object] = {"preprocess": _Resize(10), "labels": ["red", "green", "blue"], "output": None}
    others: dict[str, object] = {"preprocess": _Resize(20), "labels": ["blue", "green", "red"], "output": halved}
    how: dict[str, object] = {"methods": "grad-cam", "metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    ask = seewhy.Explainer(model, **usual)
    for resumed in (0, 2):  # the second time the transform's geometry has been measured, which is no other setting
        assert seewhy.evaluate(ask, folder, **how).resumed == resumed
    with pytest.raises(seewhy.MetricError, match=rf"other settings \({what}\)"):
        seewhy.evaluate(seewhy.Explainer(model, **{**usual, what: others[what]}), folder, **how)


def halved(output: torch.Tensor) -> torch.Tensor:
    return output / 2


def test_the_class_that_a_label_means_is_part_of_the_digest(ask: seewhy.Explainer, folder: Path) -> None:
    asking = Asking(ask)
    entry = Entry("red/one.png", folder / "red" / "one.png", "red")
    assert asking.digest(entry, 0) == asking.digest(entry, 0) != asking.digest(entry, 1)


def test_what_cannot_be_told_from_others_is_not_gone_on_with(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path
) -> None:
    how: dict[str, object] = {"metrics": "insertion", "steps": 2, "out": tmp_path / "o"}
    boxes: dict[str, object] = {"methods": "grad-cam", "matches": lambda _kind, _name: True}
    seewhy.evaluate(ask, folder, **boxes, **how)
    with pytest.raises(seewhy.MetricError, match="cannot be gone on with: of matches nobody can tell"):
        seewhy.evaluate(ask, folder, **boxes, **how)
    function = seewhy.Explainer(seewhy.function(_scores), labels=["red", "green", "blue"])
    for _ in range(2):
        seewhy.evaluate(function, folder, "rise", how={"masks": 3}, **how, restart=True)
    with pytest.raises(seewhy.MetricError, match="cannot be gone on with: of weights nobody can tell"):
        seewhy.evaluate(function, folder, "rise", how={"masks": 3}, **how)


def _scores(batch: np.ndarray) -> np.ndarray:
    return batch.mean((2, 3))


def test_equal_layers_are_told_apart_by_name(ask: seewhy.Explainer) -> None:
    twins = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    twins[1].load_state_dict(twins[0].state_dict())
    one, other = (settings_of(seewhy.Explainer(twins), layers=[twins[number]]) for number in (0, 1))
    assert differences(one, other) == ["layers"]


def _of_same_weights(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 3, stride=options.get("stride", 1)), options.get("after", nn.ReLU()))


class _Shifted(nn.Module):
    """Adds a buffer that no file keeps."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.register_buffer("shift", torch.full((1,), shift), persistent=False)


class _Calls(nn.Module):
    """Shows a function that it calls."""

    def __init__(self, called: object) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.called = called

    def extra_repr(self) -> str:
        return repr(self.called)


def _exported(module: nn.Module) -> torch.fx.GraphModule:
    return torch.export.export(module, (torch.zeros(1, 3, SIDE, SIDE),)).module()


@pytest.mark.parametrize("other", [{"stride": 2}, {"after": nn.GELU()}], ids=["stride", "activation"])
@pytest.mark.parametrize(
    "kind",
    [lambda module: module, lambda module: torch.jit.trace(module, torch.zeros(1, 3, SIDE, SIDE)), _exported],
    ids=["module", "traced", "exported"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_another_architecture_of_the_same_weights_is_another_setting(other: dict[str, object], kind: object) -> None:
    one, same, changed = (settings_of(seewhy.Explainer(kind(_of_same_weights(**how)))) for how in ({}, {}, other))
    assert differences(one, same) == []
    assert differences(one, changed) == ["architecture"]


def test_buffers_that_no_file_keeps_are_settings() -> None:
    one, other = _Shifted(1.0), _Shifted(2.0)
    other.load_state_dict(one.state_dict())
    assert differences(*(settings_of(seewhy.Explainer(each)) for each in (one, other))) == ["weights"]


def test_a_module_that_shows_an_address_is_told_by_functions_names_only() -> None:
    """A function's name is the same in every process; an object that shows nothing else could be any."""
    by_name = settings_of(seewhy.Explainer(_Calls(halved)))
    assert unidentified(by_name) == []
    assert differences(by_name, settings_of(seewhy.Explainer(_Calls(_scores))))[0] == "architecture"
    for nameless in (object(), lambda given: given):
        assert unidentified(settings_of(seewhy.Explainer(_Calls(nameless)))) == ["architecture"]


def test_lines_of_a_call_that_another_one_overwrote_are_left_out(
    ask: seewhy.Explainer, folder: Path, tmp_path: Path
) -> None:
    """The first call still runs when the second begins the file anew: what it then adds is none of the second's results."""
    how: dict[str, object] = {"metrics": "insertion", "out": tmp_path / "o"}
    first = seewhy.evaluate(ask, folder, "grad-cam", steps=2, **how)
    of_first = ledger.Ledger(tmp_path / "o", first.settings)
    second = seewhy.evaluate(ask, folder, "grad-cam", steps=3, restart=True, limit=1, **how)
    for done in first.results:
        of_first.add(done)
    found = seewhy.evaluate(ask, folder, "grad-cam", steps=3, **how)
    assert (found.resumed, second.notes) == (1, ())
    [note] = found.notes
    assert note.startswith("2 lines are left out of")
    assert f"Note: {note}".replace("'", "&#x27;") in (tmp_path / "o" / "report.html").read_text()
    alone = seewhy.evaluate(ask, folder, "grad-cam", "insertion", steps=3)
    assert [row.mean for row in found] == [row.mean for row in alone]
