"""One small member of every module of timm, randomly initialised, explained without naming a layer or a layout."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import seewhy
from architectures.members import Member
from architectures.planted import check
from architectures.timm_members import EXCEPTIONS, FURTHER, MEMBERS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]


def test_no_module_of_timm_is_forgotten() -> None:
    """A newer timm may have modules that are not here yet: add a small member of each, or an exception with its reason."""
    modules = timm.list_modules()
    assert not set(modules) - set(MEMBERS) - set(EXCEPTIONS)
    assert len(EXCEPTIONS) <= 0.03 * len(modules)
    for module, member in MEMBERS.items():
        assert member.name == module or member.name in timm.list_models(module=module)


@pytest.mark.parametrize("member", [*MEMBERS.values(), *FURTHER], ids=lambda member: member.name)
def test_a_planted_truth_is_seen_where_it_is(member: Member) -> None:
    check(member)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("resnet18", 7), ("inception_v3", 8), ("xception41", 10), ("selecsls42", 4), ("vit_tiny_patch16_224", 14),
        ("vit_small_patch14_reg4_dinov2", 37), ("swin_tiny_patch4_window7_224", 7), ("nest_tiny", 14), ("mobilevit_xxs", 8),
        ("efficientformer_l1", 7), ("eva02_tiny_patch14_224", 16), ("maxvit_tiny_tf_224", 7),
    ],
)  # fmt: skip
def test_a_photograph_of_the_models_own_size(name: str, grid: int, chelsea: np.ndarray) -> None:
    torch.manual_seed(0)
    why = seewhy.explain(timm.create_model(name).eval(), chelsea)
    assert why.raw.shape == (grid, grid)
    assert np.ptp(why.raw) > 1e-6 * np.abs(why.raw).max() > 0
    assert {finding.code for finding in why.diagnosis} <= {"all-negative", "mostly-negative"}
