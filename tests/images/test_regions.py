"""Regions cover an input once, follow its edges, and are numbered without gaps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import label
from skimage.morphology import dilation, disk
from skimage.segmentation import felzenszwalb
from skimage.transform import resize
from torch import Tensor

from seewhy import ImageError
from seewhy.images.regions import as_segments, multiscale_segments, superpixels

SPACES = [(30,), (5,), (24, 40), (7, 7), (1, 20), (8, 9, 10)]


def random_image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def photograph(chelsea: np.ndarray) -> np.ndarray:
    """The cat at 224 x 224, 0..1."""
    return resize(chelsea, (224, 224))


@pytest.fixture
def cat(photograph: np.ndarray) -> Tensor:
    """The cat as a normalised input."""
    return torch.from_numpy(photograph).permute(2, 0, 1).float() * 4 - 2


def assert_numbered(labels: Tensor, space: tuple[int, ...]) -> int:
    assert labels.dtype == torch.int64
    assert labels.shape == space
    numbers = labels.unique().tolist()
    assert numbers == list(range(len(numbers)))
    return len(numbers)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("space", SPACES)
def test_any_input_has_superpixels(space: tuple[int, ...], channels: int) -> None:
    pixels = int(np.prod(space))
    for image in (random_image(channels, *space), torch.full((channels, *space), 3.0)):
        found = assert_numbered(superpixels(image, 12), space)
        assert min(pixels, 6) <= found <= 24  # noise too is cut into pieces, not left as one
        assert assert_numbered(superpixels(image, 10**6), space) <= pixels
        assert assert_numbered(superpixels(image, 1), space) == 1


def test_superpixels_are_connected_alike_in_size_and_the_same_each_time(cat: Tensor) -> None:
    labels = superpixels(cat)
    count = assert_numbered(labels, (224, 224))
    assert 32 < count <= 96
    assert torch.equal(superpixels(cat), labels)
    for number in range(count):
        assert label((labels == number).numpy(), connectivity=1).max() == 1
    assert int(labels.flatten().bincount().max()) < 8 * 224 * 224 / count


def test_superpixels_do_not_depend_on_the_inputs_units(cat: Tensor) -> None:
    same = superpixels((cat.double() * 37 + 12), 30) == superpixels(cat.double(), 30)
    assert float(same.double().mean()) > 0.999


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_follow_edges(channels: int) -> None:
    image = torch.zeros(channels, 40, 60)
    image[:, :, 23:] = 1.0  # not where a regular grid would cut
    labels = superpixels(image, 12)
    for number in labels.unique():
        assert len(image[0][labels == number].unique()) == 1


def test_superpixels_of_a_volume_follow_edges() -> None:
    image = torch.zeros(1, 12, 14, 16)
    image[:, 5:] = 1.0
    labels = superpixels(image, 20)
    for number in labels.unique():
        assert len(image[0][labels == number].unique()) == 1


def test_a_line_is_cut_into_equal_pieces() -> None:
    labels = superpixels(random_image(2, 103), 10)
    assert torch.equal(labels, labels.sort().values)
    assert sorted(labels.bincount().tolist()) == [10] * 7 + [11] * 3


@pytest.mark.parametrize("count", [0, -3, 2.5, True, "many"])
def test_a_bad_count_is_named(count: object, unchecked: None) -> None:
    with pytest.raises(ImageError, match=f"count={count!r}"):
        superpixels(random_image(3, 8, 8), count)


@pytest.mark.parametrize("cut", [superpixels, multiscale_segments])
def test_what_is_no_input_is_refused(cut: object, unchecked: None) -> None:
    with pytest.raises(ImageError, match=r"\(2, 3, 4, 5, 6\) cannot be cut"):
        cut(torch.zeros(2, 3, 4, 5, 6))
    with pytest.raises(ImageError, match=r"\(3, 0, 5\) cannot be cut"):
        cut(torch.zeros(3, 0, 5))
    with pytest.raises(ImageError, match="NaN"):
        cut(torch.full((3, 5, 5), float("nan")))


def test_segments_are_those_of_felzenszwalb_widened_by_a_disk(photograph: np.ndarray, cat: Tensor) -> None:
    unit = (photograph - photograph.min()) / (photograph.max() - photograph.min()) * 2 - 1
    expected = []
    for scale in (500, 1200):
        labels = felzenszwalb(unit, scale=scale, sigma=0.8, min_size=150)
        for number in range(labels.max() + 1):
            expected.append(dilation(labels == number, disk(5)).astype(bool))
    found = multiscale_segments(cat, (500, 1200))
    assert len(found) == len(expected) > 20
    ious = [
        (mask.numpy() & true).sum() / (mask.numpy() | true).sum() for mask, true in zip(found, expected, strict=True)
    ]
    assert min(ious) > 0.99  # the input is float32


@pytest.mark.parametrize(
    ("channels", "space"), [(3, (30,)), (1, (24, 40)), (2, (7, 7)), (5, (1, 20)), (4, (1, 1)), (2, (8, 9, 10))]
)
def test_any_input_has_segments_that_cover_it_at_each_scale(channels: int, space: tuple[int, ...]) -> None:
    for image in (random_image(channels, *space), torch.ones(channels, *space)):
        masks = multiscale_segments(image, (100, 1000))
        assert len(masks) >= 2
        assert all(mask.dtype == torch.bool and mask.shape == space for mask in masks)
        assert all(bool(mask.any()) for mask in masks)
        assert int(torch.stack(masks).sum(0).min()) >= 2


def test_larger_scales_give_fewer_and_larger_segments_of_images_of_any_size(chelsea: np.ndarray) -> None:
    image = torch.from_numpy(chelsea[:128, 100:260] / 255).permute(2, 0, 1)
    counts = [len(multiscale_segments(image, (scale,))) for scale in (50, 250, 1200)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[2] > 2


def test_segments_of_small_images_are_cut_along_their_edges_and_widened_in_proportion() -> None:
    image = torch.zeros(3, 45, 45)
    image[:, :, 20:] = 1.0
    masks = multiscale_segments(image, (1200,))
    assert all(torch.equal(mask, mask[:1].expand(45, 45)) for mask in masks)  # upright strips; no frame
    strips = sorted(mask[0].nonzero().flatten().tolist() for mask in masks)
    assert (strips[0][0], strips[-1][-1]) == (0, 44)
    for left, right in pairwise(strips):
        assert set(left) & set(right) == {right[0], right[0] + 1}  # 1 pixel each: 5 of 224 is 1 of 45


def test_many_channels_are_cut_where_their_colours_differ_most() -> None:
    image = random_image(7, 60, 60) * 0.01
    image[3:5, :, 37:] += 1.0
    for mask in multiscale_segments(image, (1200,)):
        columns = mask.any(0).nonzero().flatten()
        assert int(columns.max()) < 40 or int(columns.min()) > 33


@pytest.mark.parametrize("scales", [(), (0,), (50, -1), (float("nan"),)])
def test_bad_scales_are_named(scales: tuple[float, ...]) -> None:
    with pytest.raises(ImageError, match="scales="):
        multiscale_segments(random_image(3, 8, 8), scales)


LABELS = np.array([[7, 7, -2, 900], [7, 40, 40, 900], [40, 40, 900, 900]])
EXPECTED = [[1, 1, 0, 3], [1, 2, 2, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, ">i4"])
def test_labels_are_renumbered_in_their_order(dtype: object) -> None:
    given = LABELS.astype(dtype)
    before = given.copy()
    labels = as_segments(given, (3, 4))
    assert_numbered(labels, (3, 4))
    assert labels.tolist() == EXPECTED
    assert (given == before).all()
    if dtype != ">i4":
        assert as_segments(torch.from_numpy(given), (3, 4)).tolist() == EXPECTED


def test_masks_lines_and_volumes_are_segments_too() -> None:
    assert as_segments(LABELS > 10, (3, 4)).tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert as_segments(torch.tensor([True, False]), (2,)).tolist() == [1, 0]
    assert as_segments(np.full((2, 3, 4), 9, np.uint64), (2, 3, 4)).tolist() == np.zeros((2, 3, 4)).tolist()


def stored(kind: str) -> Image.Image:
    positive = LABELS + 2
    if kind == "grey":
        return Image.fromarray((positive % 255).astype(np.uint8))  # 902 becomes 137, still the largest
    if kind == "wide grey":
        return Image.fromarray(positive.astype(np.uint16))
    if kind == "palette":
        image = Image.fromarray(np.array(EXPECTED, np.uint8))
        image = image.convert("P")
        image.putpalette([9, 9, 9] * 256)  # all look the same: the numbers count
        return image
    colours = np.array([[0, 0, 5], [0, 3, 0], [0, 3, 1], [2, 0, 0]], np.uint8)
    return Image.fromarray(colours[np.array(EXPECTED)])


@pytest.mark.parametrize("kind", ["grey", "wide grey", "palette", "colour"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_label_image_is_read_exactly(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"labels.{suffix}"
    stored(kind).save(path)
    for given in (path, str(path)):
        assert as_segments(given, (3, 4)).tolist() == EXPECTED


def test_a_label_image_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    lossy = tmp_path / "labels.jpg"
    stored("grey").save(lossy)
    with pytest.raises(ImageError, match=r"'labels\.jpg' may not keep labels exactly\. Save segments as PNG"):
        as_segments(lossy, (3, 4))
    with pytest.raises(ImageError, match="no file"):
        as_segments(tmp_path / "missing.png", (3, 4))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="not a picture"):
        as_segments(broken, (3, 4))


def test_segments_of_another_shape_or_type_are_named(unchecked: None) -> None:
    with pytest.raises(ImageError, match=r"\(3, 4\) do not fit the model's input, which is \(4, 3\)"):
        as_segments(LABELS, (4, 3))
    with pytest.raises(ImageError, match=r"\(1, 3, 4\) do not fit"):
        as_segments(LABELS[None], (3, 4))
    for given in (LABELS.astype(float), torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bfloat16)):
        with pytest.raises(ImageError, match="whole numbers, one label a pixel; these are float"):
            as_segments(given, (3, 4))
    with pytest.raises(ImageError, match="A list is not a segmentation"):
        as_segments(LABELS.tolist(), (3, 4))
