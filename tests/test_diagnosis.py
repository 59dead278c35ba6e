"""No map is blank without a word: what is found, and the next thing to try."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import seewhy
from seewhy.diagnosis import Circumstances, diagnose
from small_models import make_small_net

WELL = Circumstances(
    "grad-cam", rectified=True, class_blind=False, gradient_peak=0.5, outputs_finite=True, probability=None
)
MAP = np.array([[1, -2], [3, 0]], np.float32)


def codes(raw: object, **how: object) -> list[str]:
    return [finding.code for finding in diagnose(np.asarray(raw, np.float32), replace(WELL, **how))]


def test_a_good_map_has_no_finding() -> None:
    assert codes(MAP) == []


@pytest.mark.parametrize(
    ("raw", "how", "found"),
    [
        (MAP, {"outputs_finite": False}, ["non-finite"]),
        ([[1, np.nan], [0, 2]], {}, ["non-finite"]),
        ([[1, np.inf], [0, 2]], {"class_blind": True}, ["non-finite"]),
        ([[0, 0], [0, 0]], {"gradient_peak": 0.0}, ["zero-gradient"]),
        ([[0, 0], [0, 0]], {"gradient_peak": 0.0, "probability": 0.99999}, ["zero-gradient"]),
        ([[0, 0], [0, 0]], {}, ["flat"]),
        ([[2, 2], [2, 2 + 1e-7]], {}, ["flat"]),
        ([[5]], {}, ["one-cell"]),
        ([[-1, -2], [-3, 0]], {}, ["all-negative"]),
        ([[-1, -2], [-3, 0]], {"rectified": False}, []),
        ([[-4, -5], [-1, 1]], {}, ["mostly-negative"]),  # 10 of 11 parts
        ([[-4, -4], [-1, 1]], {}, []),  # 9 of 10
        ([[-4, -5], [-1, 1]], {"rectified": False}, []),
        ([[-4, -5], [-1, 1]], {"chance": 0.001}, ["mostly-negative", "unlikely"]),
        (MAP, {"probability": 0.9999}, ["saturated"]),
        (MAP, {"probability": 0.9}, []),
        (MAP, {"class_blind": True}, ["class-blind"]),
        ([[2, 2], [2, 2]], {"class_blind": True}, ["flat", "class-blind"]),
        (MAP, {"gradient_peak": None}, []),
    ],
)
def test_what_is_wrong_is_named(raw: object, how: dict[str, object], found: list[str]) -> None:
    assert codes(raw, **how) == found


@pytest.mark.parametrize(
    ("raw", "how", "words"),
    [
        ([[-1, -2]], {}, "view='signed'"),
        ([[0, 0]], {"gradient_peak": 0.0}, "Choose another layer"),
        ([[0, 0]], {"gradient_peak": 0.0, "probability": 0.99999}, "its score"),
        ([[1, 2]], {"class_blind": True, "method": "eigen-cam"}, "eigen-cam does not depend on the target"),
        ([[7]], {}, "earlier layer"),
        ([[1, 1]], {}, "another layer or method"),
        ([[1, 1]], {"cut_short": True}, "larger budget"),
    ],
)
def test_each_finding_says_what_to_try(raw: object, how: dict[str, object], words: str) -> None:
    [finding] = diagnose(np.asarray(raw, np.float32), replace(WELL, **how))
    assert words in str(finding)


def test_how_much_of_a_map_is_not_seen_is_told() -> None:
    [finding] = diagnose(np.array([[-38, 0], [0, 2]], np.float32), WELL)
    assert "95% speaks against this target" in finding.message
    assert "--signed" in finding.remedy


def test_a_method_that_shows_no_single_class_says_so_also_where_none_was_asked_for() -> None:
    net, image = make_small_net(), torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    blind, seeing = (seewhy.explain(net, image, method=name) for name in ("eigen-cam", "grad-cam"))
    [told] = [note for note in blind.notes if note.startswith("target:")]
    assert "eigen-cam does not depend on one" in told
    assert "target: the predicted class, as none was given" in seeing.notes
    asked = seewhy.explain(net, image, 1, "eigen-cam")
    assert [finding.code for finding in asked.diagnosis] == ["class-blind"]
    assert not [note for note in asked.notes if note.startswith("target:")]
