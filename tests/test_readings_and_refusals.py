"""Odd models, labels, targets and methods: read as they are meant, or refused with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.maps import registry
from seewhy.plan import choose_layers
from seewhy.recorder import LayerRow, LayerTable, Layout
from small_models import SmallNet


def test_labels_of_the_wrong_length_are_refused(small_net: SmallNet, batch: Tensor) -> None:
    with pytest.raises(seewhy.ModelError, match=r"labels= has 2 names, and the model has 5 classes"):
        seewhy.explain(small_net, batch[0], labels=["a", "b"])


def test_a_class_that_the_model_hardly_considers_is_shown_with_a_word(
    embedded: seewhy.Explainer, chelsea: np.ndarray
) -> None:
    asked = embedded(chelsea, "pug")
    assert asked.about.name == "pug"
    assert asked.probability == asked.about.probability < 0.01
    assert [finding.code for finding in asked.diagnosis] == ["unlikely"]
    assert not embedded(chelsea).diagnosis
    assert len(asked.prediction) == 5


class Regressor(SmallNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, 0]


def test_a_regressor_with_one_number_an_image_is_explained_by_a_function(batch: Tensor) -> None:
    torch.manual_seed(0)
    model = Regressor().eval()
    found = seewhy.explain(model, batch, lambda value: value, layers="second")
    whole = SmallNet().eval()
    whole.load_state_dict(model.state_dict())
    for why, other in zip(found, seewhy.explain(whole, batch, 0, layers="second"), strict=True):
        np.testing.assert_allclose(why.raw, other.raw, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (lambda scores: scores[:, 0], r"raised IndexError.*shape \(5,\)"),
        (lambda scores: scores.argmax(), "no derivative"),
        (lambda scores: scores, "must return one number"),
    ],
)
def test_a_function_that_cannot_be_a_target_is_told_why(
    target: Callable, told: str, small_net: SmallNet, batch: Tensor
) -> None:
    with pytest.raises(seewhy.TargetError, match=told):
        seewhy.explain(small_net, batch[0], target)


@pytest.fixture
def added() -> Iterator[Callable]:
    """Return a function that registers a method for the length of a test."""

    def add(function: Callable) -> None:
        seewhy.method("odd", needs=seewhy.Needs.ACTIVATIONS, class_specific=False, signed=True, source="here")(function)

    yield add
    registry._ENTRIES.pop("odd", None)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda rec: rec.activations[None], r"must return a tensor \(batch, \*grid\)"),
        (lambda rec: rec.activations[0, 0], r"must return a tensor \(batch, \*grid\)"),
        (lambda rec: rec.gradients, r"declare needs=Needs.GRADIENTS"),
        (lambda rec: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_method_that_is_wrong_is_told_how(
    function: Callable, told: str, added: Callable, small_net: SmallNet, batch: Tensor
) -> None:
    added(function)
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(small_net, batch[0], method="odd")


def test_a_list_of_batches_of_one_is_a_list_of_images(small_net: SmallNet, batch: Tensor) -> None:
    found = seewhy.explain(small_net, [batch[:1], batch[1:2]], 1)
    for why, image in zip(found, batch, strict=False):
        np.testing.assert_allclose(why.raw, seewhy.explain(small_net, image, 1).raw, atol=1e-6)


def test_a_layer_in_which_no_map_was_found_is_read_as_the_caller_says() -> None:
    usual = LayerRow("a", "Conv2d", Layout("channels-first", (3, 2), 4), (8.0, 8.0), 1, default=True)
    table = LayerTable((usual,), {"odd": (1, 4, 7)})
    told = {"order": "tokens-last", "grid": (3, 2), "channels": 4, "prefix": 1}
    [row] = choose_layers("odd", table, nn.Identity(), told)
    assert row.name == "odd"
    assert row.layout == Layout("tokens-last", (3, 2), 4, 1)
    for layout in (None, "channels-last", {"grid": (3, 2)}):
        with pytest.raises(seewhy.LayerError, match=r"'odd' gives \(1, 4, 7\).*layout="):
            choose_layers("odd", table, nn.Identity(), layout)
