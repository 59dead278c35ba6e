"""Hugging Face's image models, randomly initialised, explained without naming a layer or a layout."""

from __future__ import annotations

import pytest

import seewhy
from architectures.hugging_face_members import MEMBERS
from architectures.members import FOUR, Member
from architectures.planted import check, misplaced
from two_towers import make_clip, make_siglip, tokenize_with_mask

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_planted_truth_is_seen_where_it_is(member: Member) -> None:
    check(member)


@pytest.mark.parametrize("make", [make_clip, make_siglip])
def test_a_planted_change_is_seen_by_a_model_of_images_and_texts(make) -> None:
    ready = seewhy.image_text(make(), tokenizer=tokenize_with_mask)
    assert misplaced(ready, (64, 64), FOUR, "text:a dog") == []
