"""Questions about a changed input: what is put back lies where it was drawn, and what cannot be is left out and told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import seewhy
from seewhy.maps.smoothing import Augment, Transform, both, flip, times
from seewhy.targets import Predictions, put_back

TURN = Transform("a quarter", lambda images: images.rot90(1, (-2, -1)), lambda maps: maps.rot90(-1, (-2, -1)))
ROLL = Transform("roll", lambda images: images.roll(3, -1), lambda maps: maps.roll(-3, -1))
HIDE = Transform("hide", lambda images: images, lambda maps: functional.pad(maps[..., 1:], (1, 0)))


def drawn(box: tuple[int, int, int, int], side: int = 20) -> Tensor:
    left, top, right, bottom = box
    image = torch.zeros(1, 1, side, side)
    image[..., top:bottom, left:right] = 1
    return image


def bounds(image: Tensor) -> list[float]:
    rows, columns = (np.flatnonzero(image[0, 0].numpy().any(axis)) for axis in (1, 0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


@pytest.mark.parametrize(
    "transform",
    [flip(-1), flip(-2), times(0.9), TURN, both(flip(-1), flip(-2)), both(TURN, flip(-1))],
    ids=lambda transform: transform.name,
)
def test_a_box_of_a_transformed_picture_is_put_back_where_it_was_drawn(transform: Transform) -> None:
    box = (2, 5, 9, 8)
    row = torch.tensor([[*bounds(transform.apply(drawn(box))), 0.5, 0.25, 0.5]])
    back = put_back(transform.undo, "boxes", (20, 20))
    assert back is not None
    np.testing.assert_allclose(back(row), [[*box, 0.5, 0.25, 0.5]], atol=1e-5)


def test_boxes_of_large_and_oblong_inputs_are_put_back() -> None:
    back = put_back(flip(-1).undo, "boxes", (600, 4000))
    assert back is not None
    np.testing.assert_allclose(back(torch.tensor([[3900.0, 10, 3990, 20, 1]])), [[10, 10, 100, 20, 1]], atol=1e-2)


@pytest.mark.parametrize("transform", [ROLL, HIDE, both(ROLL, flip(-1))], ids=lambda transform: transform.name)
def test_where_boxes_lie_is_not_guessed(transform: Transform) -> None:
    assert put_back(transform.undo, "boxes", (20, 20)) is None
    assert put_back(transform.undo, "places", (20, 20)) is transform.undo


class Cells(nn.Module):
    """Finds an object in each cell of 4 x 4 pixels, as surely as it is bright; knows neither left nor right."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.AvgPool2d(4))
        nn.init.constant_(self.body[0].weight, 0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bright = self.body(images).mean(1)
        rows, columns = torch.meshgrid(*(4.0 * torch.arange(side) for side in bright.shape[1:]), indexing="ij")
        boxes = torch.stack([columns, rows, columns + 4, rows + 4], -1).flatten(0, 1)
        sure = (2 * bright - 1).sigmoid().flatten(1)
        return boxes.expand(len(images), -1, -1), torch.stack([sure, 0 * sure], -1)


@pytest.fixture
def picture() -> Tensor:
    """Return a picture with a bright object in the left half and a paler one where its mirror image would be."""
    image = torch.zeros(3, 24, 32)
    image[:, 8:12, 4:8], image[:, 8:12, 24:28] = 1.0, 0.9
    return image


def surest(output: Tensor) -> Tensor:
    """Ask about the prediction whose middle is left of the middle of the picture, and which is the surest there."""
    found = Predictions.of(output)
    return found.classes[found.boxes[:, 2] < 16, 0].max()


@pytest.mark.parametrize("target", ["box:0", "box:1", seewhy.BoxTarget((4, 8, 8, 12), of=0), surest])
def test_flipped_inputs_are_asked_about_the_object_where_it_is_then(target: object, picture: Tensor) -> None:
    plain, smooth = (
        seewhy.explain(Cells(), picture, target, "hires-cam", output=tuple, smooth=each)
        for each in (None, [Augment([flip(-1), flip(-2), times(1.0)])])
    )
    assert np.count_nonzero(plain.raw) == 16  # one object
    np.testing.assert_allclose(smooth.raw, plain.raw, rtol=1e-5)


def test_a_transform_that_moves_boxes_one_does_not_know_where_is_left_out_and_told(picture: Tensor) -> None:
    found, expected = (
        seewhy.explain(Cells(), picture, "box:0", "hires-cam", output=tuple, smooth=[Augment(each)])
        for each in ([flip(-1), ROLL], [flip(-1)])
    )
    np.testing.assert_array_equal(found.raw, expected.raw)
    assert any("'roll' left out" in note for note in found.notes)
    assert not any("left out" in note for note in expected.notes)
    with pytest.raises(seewhy.MethodError, match="cannot be asked of variant 0 of the input"):
        seewhy.explain(Cells(), picture, "box:0", "hires-cam", output=tuple, smooth=[Augment([ROLL])])
