"""A caller's own transform: what it does to the place of things is measured, not assumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from seewhy.images import ASSUMED_WHOLE, CallablePreprocess, Preprocess, read
from seewhy.inputs import prepare

NORMALISE = transforms.Normalize((0.48, 0.45, 0.4), (0.27, 0.26, 0.28))
SHAPES = [(300, 451), (120, 90), (64, 640), (1200, 800)]


def opaque(steps: list) -> CallablePreprocess:
    """Hide torchvision's steps in a plain function, as CLIP and many projects do."""
    chain = transforms.Compose([*steps, transforms.ToTensor(), NORMALISE])
    return CallablePreprocess(lambda image: chain(image.convert("RGB")))


def picture(shape: tuple[int, int]):
    return read(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("steps", "known"),
    [
        ([transforms.Resize(64), transforms.CenterCrop(56)], Preprocess((56, 56), (64, 64))),
        ([transforms.Resize((48, 80))], Preprocess((48, 80), None, fit="squash")),
    ],
)
def test_the_measured_geometry_is_that_of_the_known_one(steps: list, known: Preprocess, shape: tuple[int, int]) -> None:
    tensor, measured = opaque(steps)(picture(shape))
    expected = known(picture(shape))[1]
    assert tensor.shape[1:] == expected.input_shape
    for found, true in zip(measured.axes, expected.axes, strict=True):
        assert (found.original, found.input) == (true.original, true.input)
        ends = np.array([0, found.original])
        error = np.abs((ends * found.scale + found.offset) - (ends * true.scale + true.offset))
        seen = true.input / true.scale / true.original  # the part of the axis that was looked at sets the precision
        assert error.max() < 1.0 / min(1.0, seen) ** 2


def test_padding_is_measured() -> None:
    def letterbox(image: Image.Image) -> torch.Tensor:
        small = image.resize((80, 40))
        canvas = Image.new("RGB", (80, 80), (114, 114, 114))
        canvas.paste(small, (0, 20))
        return transforms.functional.to_tensor(canvas)

    _, geometry = CallablePreprocess(letterbox)(picture((200, 400)))
    rows, columns = geometry.axes
    assert (rows.scale, rows.offset) == pytest.approx((0.2, 20), abs=0.4)
    assert (columns.scale, columns.offset) == pytest.approx((0.2, 0), abs=0.4)


def test_a_flip_is_undone() -> None:
    """A dot at the left of the picture, which the transform puts to the right, comes back to the left."""
    mirrored = transforms.Lambda(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    _, geometry = opaque([transforms.Resize((60, 100)), mirrored])(picture((300, 500)))
    values = np.zeros((6, 10), np.float32)
    values[2, 9] = 1
    back = geometry.to_original(values)
    assert back[125, 25] > 0.95
    assert back[:, 100:].max() == 0
    assert back[:70].max() == back[180:].max() == 0


@pytest.mark.parametrize(
    "transform",
    [
        opaque([transforms.Resize((64, 64)), transforms.Lambda(lambda image: image.rotate(30))]),
        opaque([transforms.RandomResizedCrop(64)]),
        CallablePreprocess(lambda image: torch.zeros(3, 32, 32)),
    ],
    ids=["rotation", "random", "constant"],
)
def test_what_cannot_be_measured_is_said(transform: CallablePreprocess) -> None:
    torch.manual_seed(0)
    sample = prepare(picture((120, 160)).pixels, transform)
    assert ASSUMED_WHOLE in sample.notes
    assert sample.geometry.seen().all()


def test_measuring_is_done_once_for_each_size() -> None:
    calls = []

    def count(image: Image.Image) -> torch.Tensor:
        calls.append(image.size)
        return transforms.functional.to_tensor(image.resize((32, 32)))

    preprocess = CallablePreprocess(count)
    for _ in range(3):
        sample = prepare(picture((50, 70)).pixels, preprocess)
    assert len(calls) == 3 + 5
    assert ASSUMED_WHOLE not in sample.notes
