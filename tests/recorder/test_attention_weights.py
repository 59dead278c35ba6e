"""The weights that are recomputed from queries and keys are those that fused attention uses and does not give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from seewhy.recorder.attention import attention_weights


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BOOLEAN = normal(2, 1, 5, 7, seed=3) > -0.5


@pytest.mark.parametrize(
    ("heads", "more"),
    [
        (4, {}),
        (4, {"scale": 0.3}),
        (4, {"attn_mask": BOOLEAN}),
        (4, {"attn_mask": normal(5, 7, seed=4)}),
        (4, {"is_causal": True}),
        (2, {"enable_gqa": True}),
        (1, {"enable_gqa": True, "scale": 2.0, "attn_mask": BOOLEAN}),
    ],
)
def test_weights_are_those_of_fused_attention(heads: int, more: dict[str, Any]) -> None:
    query, key, value = normal(2, 4, 5, 3), normal(2, heads, 7, 3, seed=1), normal(2, heads, 7, 6, seed=2)
    weights = attention_weights(query, key, **more)
    each = value.repeat_interleave(4 // heads, 1)
    torch.testing.assert_close(weights @ each, F.scaled_dot_product_attention(query, key, value, **more))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5, dtype=torch.float64))


def test_a_query_that_may_see_nothing_has_no_weights_and_no_infinite_derivative() -> None:
    query, key, value = normal(1, 1, 3, 4), normal(1, 1, 5, 4, seed=1), normal(1, 1, 5, 4, seed=2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    query.requires_grad_()
    weights = attention_weights(query, key, mask)
    assert weights[0, 0, 1].tolist() == [0.0] * 5
    torch.testing.assert_close(weights @ value, F.scaled_dot_product_attention(query, key, value, mask))
    assert torch.autograd.grad((weights @ value).sum(), query)[0].isfinite().all()
