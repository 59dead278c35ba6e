"""Reading layouts off shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import seewhy
from seewhy.recorder import Layout
from seewhy.recorder.layout import Evidence, infer

ANY = nn.Identity()


@pytest.mark.parametrize(
    ("shape", "space", "expected"),
    [
        ((1, 512, 7, 7), (224, 224), Layout("channels-first", (7, 7), 512)),
        ((1, 7, 7, 512), (224, 224), Layout("channels-last", (7, 7), 512)),
        ((1, 96, 56, 80), (224, 320), Layout("channels-first", (56, 80), 96)),
        ((1, 56, 80, 96), (224, 320), Layout("channels-last", (56, 80), 96)),
        ((1, 2048, 8, 8), (299, 299), Layout("channels-first", (8, 8), 2048)),  # borders lost by convolutions
        ((1, 64, 5, 8), (224, 320), Layout("channels-first", (5, 8), 64)),
        ((1, 197, 192), (224, 224), Layout("tokens", (14, 14), 192, 1)),
        ((1, 198, 192), (224, 224), Layout("tokens", (14, 14), 192, 2)),
        ((1, 201, 384), (224, 224), Layout("tokens", (14, 14), 384, 5)),
        ((1, 196, 512), (224, 224), Layout("tokens", (14, 14), 512, 0)),
        ((1, 61, 192), (96, 160), Layout("tokens", (6, 10), 192, 1)),
        ((1, 192, 196), (224, 224), Layout("tokens-last", (14, 14), 192, 0)),
        ((1, 16, 50), (100,), Layout("channels-first", (50,), 16)),
        ((1, 8, 4, 8, 8), (16, 32, 32), Layout("channels-first", (4, 8, 8), 8)),
        ((1, 4, 8, 8, 24), (16, 32, 32), Layout("channels-last", (4, 8, 8), 24)),
        ((1, 1000), (224, 224), None),
        ((1, 3, 197, 7), (224, 224), None),
        ((1, 77, 512), (224, 224), None),  # 77 text tokens are no grid
    ],
)
def test_shapes_are_read_by_the_inputs_proportions(shape: tuple, space: tuple, expected: Layout | None) -> None:
    assert infer(shape, space, ANY, Evidence([], set())) == expected


@pytest.mark.parametrize(
    ("module", "order"),
    [(nn.Conv2d(1, 1, 1), "channels-first"), (nn.LayerNorm(64), "channels-last"), (nn.Linear(1, 1), "channels-last")],
)
def test_where_both_fit_the_layers_type_decides(module: nn.Module, order: str) -> None:
    assert infer((1, 64, 64, 64), (256, 256), module, Evidence([], set())).order == order


def test_where_both_fit_a_grid_that_was_seen_before_decides() -> None:
    """Proportions 1:2 and nearly 1:2; the patch embedding has shown which axis pair is the grid."""
    evidence = Evidence([(8, 16)], set())
    assert infer((1, 8, 16, 32), (128, 256), ANY, evidence).order == "channels-last"
    assert infer((1, 8, 16, 32), (128, 256), ANY, Evidence([(16, 32)], set())).order == "channels-first"


def test_many_prefix_tokens_are_found_when_the_grid_is_known() -> None:
    assert infer((1, 196 + 16, 64), (224, 224), ANY, Evidence([(14, 14)], set())) == Layout("tokens", (14, 14), 64, 16)


def test_attention_weights_are_no_map() -> None:
    evidence = Evidence([], {197, 49})
    assert infer((1, 3, 197, 197), (224, 224), ANY, evidence) is None
    assert infer((1, 3, 49, 49), (224, 224), ANY, evidence, in_attention=True) is None


@pytest.mark.parametrize(
    "layout",
    [
        Layout("channels-first", (2, 3), 4),
        Layout("channels-last", (2, 3), 4),
        Layout("tokens", (2, 3), 4, 2),
        Layout("tokens-last", (2, 3), 4, 1),
        Layout("channels-last", (2, 3, 5), 4),
    ],
)
def test_every_layout_finds_the_same_numbers(layout: Layout) -> None:
    truth = torch.arange(2.0 * 4 * torch.tensor(layout.grid).prod()).reshape(2, 4, *layout.grid)
    stored = {
        "channels-first": lambda: truth,
        "channels-last": lambda: truth.movedim(1, -1),
        "tokens": lambda: torch.cat([torch.full((2, layout.prefix, 4), -1.0), truth.flatten(2).transpose(1, 2)], 1),
        "tokens-last": lambda: torch.cat([torch.full((2, 4, layout.prefix), -1.0), truth.flatten(2)], 2),
    }[layout.order]()
    assert tuple(stored.shape)[1:] == layout.shape
    assert torch.equal(layout.to_channels_first(stored), truth)


def test_a_tensor_of_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(seewhy.LayerError, match=r"'x' gave a tensor of shape \(1, 10, 4\).*grid 2x3.*\(batch, 8, 4\)"):
        Layout("tokens", (2, 3), 4, 2).check((1, 10, 4), "x")


LINE = [
    # (shape, module, what is expected), in the order in which a model's layers finish
    ("patches as tokens", [
        ((1, 16, 8), nn.Conv1d(1, 1, 1), Layout("channels-first", (8,), 16)),
        ((1, 9, 16), ANY, Layout("tokens", (8,), 16, 1)),
        ((1, 9, 16), nn.LayerNorm(16), Layout("tokens", (8,), 16, 1)),
        ((1, 9, 48), nn.Linear(16, 48), Layout("tokens", (8,), 48, 1)),
    ]),
    ("tokens without a class token", [
        ((1, 64, 50), nn.Conv1d(1, 1, 1), Layout("channels-first", (50,), 64)),
        ((1, 50, 64), nn.LayerNorm(64), Layout("channels-last", (50,), 64)),
        ((1, 50, 64), ANY, Layout("channels-last", (50,), 64)),
    ]),
    ("convolutions and poolings", [
        ((1, 32, 61), nn.Conv1d(1, 1, 1), Layout("channels-first", (61,), 32)),
        ((1, 64, 30), ANY, Layout("channels-first", (30,), 64)),  # 64 is not 61 places behind 3 tokens
        ((1, 64, 15), nn.MaxPool1d(2), Layout("channels-first", (15,), 64)),
    ]),
    ("mixing the places of a line", [
        ((1, 50, 64), nn.Linear(1, 1), Layout("channels-last", (50,), 64)),
        ((1, 64, 200), nn.Linear(50, 200), None),
        ((1, 64, 50), nn.Linear(200, 50), Layout("channels-first", (50,), 64)),
    ]),
    ("as many places as channels", [
        ((1, 16, 16), nn.Conv1d(1, 1, 1), Layout("channels-first", (16,), 16)),
        ((1, 16, 16), nn.LayerNorm(16), Layout("channels-last", (16,), 16)),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("_name", "layers"), LINE, ids=[name for name, _ in LINE])
def test_a_line_is_read_by_what_the_layers_before_have_shown(_name: str, layers: list) -> None:
    evidence = Evidence([], set())
    for shape, module, expected in layers:
        assert infer(shape, (400,), module, evidence) == expected


def test_a_table_of_positions_is_no_grid_of_as_many_tokens_and_a_dozen_before_them() -> None:
    """Swin v2's table of relative positions is 7 by 7 for windows of 4, and its last stage has 64 places."""
    assert infer((1, 64, 32), (128, 128), ANY, Evidence([(7, 7)], set())) == Layout("tokens", (8, 8), 32, 0)
    assert infer((1, 49 + 5, 32), (128, 128), ANY, Evidence([(7, 7)], set())) == Layout("tokens", (7, 7), 32, 5)
    assert infer((1, 49 + 14, 32), (128, 128), ANY, Evidence([(7, 7)], set())) == Layout("tokens", (7, 7), 32, 14)
