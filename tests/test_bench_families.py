"""The benchmark of other families: what is trained learns, and what was measured is not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench import families
from tests.planted_marks import drawn


def test_pictures_are_measured_once_by_every_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(families, "FAMILIES", {"residual": (families.residual, 3e-3, 2, ("attention-rollout",))})
    asked = ["--families", "residual", "--kinds", "tag", "--results", str(tmp_path / "found.jsonl")]
    families.main([*asked, "--limit", "1"])
    first = (tmp_path / "found.jsonl").read_text()
    families.main([*asked, "--limit", "2"])
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert json.loads(first) == rows[0]
    assert [(row["model"], row["photograph"]) for row in rows] == [("residual, tag", "0"), ("residual, tag", "1")]
    assert all(len(values) == 3 and all(-1 <= each <= 1 for each in values) for values in rows[1]["truth"].values())
    told = capsys.readouterr().out
    assert "| auto |" in told
    assert "attention-rollout is left out" in told


def test_what_is_trained_learns_its_mark() -> None:
    model = families.trained(families.residual, 3e-3, 60, "tag")
    pictures = drawn("tag", 60, torch.Generator().manual_seed(5))
    with torch.no_grad():
        right = (model(pictures.images).argmax(1) == pictures.classes).float().mean()
    assert right > 0.9
