"""All of torchvision's builders, randomly initialised, explained without naming a layer or a layout."""

from __future__ import annotations

import pytest

import seewhy
from architectures.members import Member
from architectures.planted import check, misplaced
from architectures.torchvision_members import DETECTORS, MEMBERS, SEGMENTERS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]


@pytest.mark.parametrize("member", [*MEMBERS, *SEGMENTERS], ids=lambda member: member.name)
def test_a_planted_truth_is_seen_where_it_is(member: Member) -> None:
    check(member)


@pytest.mark.parametrize("member", DETECTORS, ids=lambda member: member.name)
def test_a_detector_sees_a_planted_change_where_it_is(member: Member) -> None:
    box = seewhy.BoxTarget((60, 50, 150, 140), of=1)  # untrained, some find nothing that could be asked about
    assert misplaced(member.build(), member.size, member.tiles, box) == []
