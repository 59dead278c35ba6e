"""What is asked of scores a class and place: which places, which class, which number, in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.images import Geometry
from seewhy.models.labels import Labels
from seewhy.targets import Chances, Cover, Kind, PlacesTarget, Subject, ask

LABELS = Labels(("background", "cat", "dog", "cow: brown"))


def planted(
    shares: list[tuple[tuple[slice, slice], int]], classes: int = 4, shape: tuple[int, int] = (8, 12)
) -> torch.Tensor:
    """Return random scores `(class, *shape)` of which in each part one class's are the largest."""
    scores = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    for part, index in shares:
        scores[(index, *part)] += 5
    return scores


ALL, LEFT, CORNER = slice(None), slice(0, 4), slice(0, 2)
SCORES = planted([((ALL, slice(4, 12)), 0), ((ALL, LEFT), 1), ((CORNER, slice(8, 10)), 2)])
SCORES[0, CORNER, slice(8, 10)] = 0  # 60 cells of background, 32 of cat, 4 of dog


def one(
    wanted: object, scores: torch.Tensor = SCORES, labels: Labels | None = LABELS, **more: Geometry | Chances
) -> PlacesTarget:
    [[target]] = ask(wanted, [Subject(scores, "places", labels, **more)])
    assert isinstance(target, PlacesTarget)
    return target


def test_the_default_is_what_covers_most_beside_the_background() -> None:
    target = one(None)
    assert (target.index, target.predicted, target.absent) == (1, True, False)
    assert target.describe(LABELS) == "cat where it is predicted"
    assert float(target(SCORES)) == pytest.approx(float(SCORES[1, :, :4].mean()), rel=1e-6)
    expected = np.zeros((8, 12), bool)
    expected[:, :4] = True
    np.testing.assert_array_equal(target.outline(Geometry.identity((8, 12))), expected)
    [note] = target.notes
    assert "cat (33.3% of the picture)" in note
    assert "background (62.5%) was taken for the background" in note


def test_a_class_0_with_another_name_is_no_background() -> None:
    assert one(None, labels=Labels(("road", "cat", "dog", "cow"))).index == 0
    assert one(None, labels=None).index == 1
    assert one(None, labels=Labels(("cat", "dog", "cow", "void")), scores=SCORES.roll(-1, 0)).index == 0


def test_what_covers_less_than_a_hundredth_is_not_asked_about_before_the_background() -> None:
    scores = torch.zeros(2, 10, 20)
    scores[1, 0, 0] = 1
    assert one(None, scores, None).index == 0  # 1 of 200
    scores[1, 0, 1] = 1
    assert one(None, scores, None).index == 1


@pytest.mark.parametrize("words", [2, "2", "dog", "pixels:dog", "Pixels: 2", np.int64(2)])
def test_a_class_is_asked_where_it_is_predicted(words: object) -> None:
    target = one(words)
    assert (target.index, target.predicted, target.notes) == (2, False, ())
    assert float(target(SCORES)) == pytest.approx(float(SCORES[2, :2, 8:10].mean()), rel=1e-6)
    changed = SCORES.roll(4, 2)  # other scores, the same places
    assert float(target(changed)) == pytest.approx(float(changed[2, :2, 8:10].mean()), rel=1e-6)


def test_a_class_that_is_predicted_nowhere_is_asked_everywhere() -> None:
    target = one("cow: brown")
    assert target.absent
    assert target.outline(Geometry.identity((8, 12))) is None
    assert target.describe(LABELS) == "cow: brown over the whole picture"
    assert float(target(SCORES)) == pytest.approx(float(SCORES[3].mean()), rel=1e-6)


def test_contrasts_and_probabilities_over_the_places_of_the_first() -> None:
    contrast = one("dog-vs-cat")
    part = SCORES[:, :2, 8:10]
    assert float(contrast(SCORES)) == pytest.approx(float((part[2] - part[1]).mean()), rel=1e-6)
    assert contrast.describe(LABELS) == "dog vs cat where dog is predicted"
    chance = one("probability:dog")
    assert float(chance(SCORES)) == pytest.approx(float(part.softmax(0)[2].mean()), rel=1e-6)
    ready = one("probability:dog", SCORES.softmax(0), chances=Chances(ready=True))
    assert float(ready(SCORES.softmax(0))) == pytest.approx(float(part.softmax(0)[2].mean()), rel=1e-5)
    assert one("probability").index == 1


def test_probabilities_that_do_not_exclude_each_other_over_the_places() -> None:
    chance = one("probability:dog", chances=Chances(independent=True))
    part = SCORES[2, :2, 8:10]
    assert float(chance(SCORES)) == pytest.approx(float((1 / (1 + (-part).exp())).mean()), rel=1e-5)
    ready = one("probability:dog", SCORES / 10, chances=Chances(independent=True, ready=True))
    assert float(ready(SCORES / 10)) == pytest.approx(float(part.mean()) / 10, rel=1e-5)
    region = one(seewhy.Region((0, 0, 4, 8), "probability:cat"), chances=Chances(independent=True))
    assert float(region(SCORES)) == pytest.approx(float(SCORES[1, :, :4].sigmoid().mean()), rel=1e-5)


def test_the_expected_class_is_that_of_the_whole_picture() -> None:
    expected = one("expected")
    assert (expected.index, expected.absent, expected.outline(Geometry.identity((8, 12)))) == (None, False, None)
    assert expected.describe(LABELS) == "a higher expected class over the whole picture"
    shares = SCORES.softmax(0)
    assert float(expected(SCORES)) == pytest.approx(float((shares[1] + 2 * shares[2] + 3 * shares[3]).mean()), rel=1e-5)
    steps = one("expected", chances=Chances(independent=True))
    assert float(steps(SCORES)) == pytest.approx(float(SCORES.sigmoid().sum(0).mean()), rel=1e-5)
    box = one("region:0,0,4,8:expected")
    assert float(box(SCORES)) == pytest.approx(
        float((shares[1] + 2 * shares[2] + 3 * shares[3])[:, :4].mean()), rel=1e-5
    )


def test_the_classes_that_cover_most_then_those_that_score_most() -> None:
    questions = ask("top:4", [Subject(SCORES, "places", LABELS)])
    assert [target.index for [target] in questions] == [0, 1, 2, 3]
    with pytest.raises(seewhy.TargetError, match="1 to 4 classes"):
        ask("top:5", [Subject(SCORES, "places", LABELS)])


@pytest.mark.parametrize(("words", "index", "told"), [("pixel:1,9", 2, True), ("pixel:1,9:cat", 1, False)])
def test_one_pixel(words: str, index: int, told: bool) -> None:
    target = one(words)
    assert (target.index, target.predicted) == (index, told)
    assert float(target(SCORES)) == pytest.approx(float(SCORES[index, 1, 9]), rel=1e-6)
    assert target.describe(LABELS) == f"{LABELS.name(index)} at (1, 9)"
    shown = target.outline(Geometry.identity((8, 12)))
    assert shown is not None
    assert shown[1, 9]
    assert shown.sum() == 12  # a disc of 13 pixels, one of them above the upper edge


def test_a_pixel_of_the_original_is_found_through_crop_and_resize() -> None:
    """An original of 100 x 60 is scaled to 50 x 30, of which the middle 30 x 30 go in; the output has 10 x 10 places."""
    geometry = Geometry.identity((100, 60)).resized((50, 30)).cropped((10, 0), (30, 30))
    scores = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(1))
    for row, column in ((20, 0), (41, 33), (79, 59)):
        place = (row // 2 - 10) // 3, (column // 2) // 3
        target = one(f"pixel:{row},{column}:dog", scores, geometry=geometry)
        assert float(target(scores)) == pytest.approx(float(scores[(2, *place)]), rel=1e-5)
    for row in (0, 19, 80, 99):
        with pytest.raises(seewhy.TargetError, match=r"cropped away .*squash"):
            one(f"pixel:{row},5", scores, geometry=geometry)


def brute_force(mask: np.ndarray, geometry: Geometry, grid: tuple[int, int], fine: int) -> np.ndarray:
    """Return which part of each cell a mask covers: each input pixel cut into `fine` x `fine`, looked up one by one."""
    covered = np.zeros(grid)
    height, width = geometry.input_shape
    vertical, horizontal = geometry.axes
    for row in range(height * fine):
        for column in range(width * fine):
            y, x = (row + 0.5) / fine, (column + 0.5) / fine
            at = int((y - vertical.offset) // vertical.scale), int((x - horizontal.offset) // horizontal.scale)
            if all(0 <= place < length for place, length in zip(at, mask.shape, strict=True)) and mask[at]:
                covered[int(y * grid[0] / height), int(x * grid[1] / width)] += 1
    return covered / (height * width * fine**2 / np.prod(grid))


GEOMETRIES = {
    "squash": Geometry.identity((10, 14)).resized((8, 8)),
    "crop": Geometry.identity((10, 14)).resized((10, 14)).cropped((1, 3), (8, 8)),
    "resized crop": Geometry.identity((20, 28)).resized((10, 14)).cropped((1, 3), (8, 8)),
    "letterbox": Geometry.identity((10, 14)).resized((5, 7)).cropped((-1, 0), (8, 8)),
    "enlarged": Geometry.identity((5, 7)).resized((10, 14)).cropped((1, 3), (8, 8)),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("grid", [(8, 8), (4, 2), (16, 16)])
def test_a_region_is_the_mean_over_the_part_of_the_output_that_it_covers(geometry: Geometry, grid: tuple) -> None:
    mask = np.random.default_rng(0).random(geometry.original_shape) > 0.5
    exact = 70 if geometry is GEOMETRIES["squash"] else 4  # pieces of which no original pixel or cell cuts one
    np.testing.assert_allclose(geometry.to_grid(mask, grid), brute_force(mask, geometry, grid, exact), atol=1e-5)
    scores = torch.rand(4, *grid, generator=torch.Generator().manual_seed(2))
    weights = geometry.to_grid(mask, grid)
    target = one(seewhy.Region(mask, "cat"), scores, geometry=geometry)
    assert float(target(scores)) == pytest.approx(float((scores[1].numpy() * weights).sum() / weights.sum()), rel=1e-5)


def test_an_added_border_counts_for_nothing() -> None:
    """A wide picture with a border above and below, where the model predicts dog: it covers nothing of the picture."""
    geometry = Geometry.identity((20, 40)).resized((10, 20)).cropped((-5, 0), (20, 20))
    scores = planted([((slice(0, 5), ALL), 2), ((slice(15, 20), ALL), 2), ((slice(5, 15), ALL), 1)], shape=(20, 20))
    cover = Cover(scores, LABELS, geometry)
    np.testing.assert_allclose(cover.shares, [0, 1, 0, 0])
    assert one("dog", scores, geometry=geometry).absent
    target = one("cat", scores, geometry=geometry)
    assert float(target(scores)) == pytest.approx(float(scores[1, 5:15].mean()), rel=1e-5)
    outline = target.outline(geometry)
    assert outline is not None
    assert outline.all()


def test_a_border_that_ends_within_a_cell_is_left_out_in_part() -> None:
    geometry = Geometry.identity((20, 40)).resized((10, 20)).cropped((-5, 0), (20, 20))
    scores = torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(Cover(scores, LABELS, geometry).picture, 0.5, rtol=1e-6)


def test_regions_as_mask_box_tensor_and_file(tmp_path: Path) -> None:
    mask = np.zeros((8, 12), bool)
    mask[2:5, 3:9] = True
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(tmp_path / "mask.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "faint.png")
    expected = float(SCORES[2, 2:5, 3:9].mean())
    same: list[object] = [
        seewhy.Region(mask, "dog"),
        seewhy.Region(torch.from_numpy(mask), 2),
        seewhy.Region(mask.astype(np.uint8) * 7, "2"),
        seewhy.Region((3, 2, 9, 5), "dog"),
        seewhy.Region(tmp_path / "mask.png", "dog"),
        f"region:{tmp_path / 'mask.png'}:dog",
        f"region:{tmp_path / 'faint.png'}:2",
        "region:3,2,9,5:dog",
    ]
    for wanted in same:
        target = one(wanted)
        assert float(target(SCORES)) == pytest.approx(expected, rel=1e-6)
        np.testing.assert_array_equal(target.outline(Geometry.identity((8, 12))), mask)
    chosen = one(f"region:{tmp_path / 'mask.png'}")
    assert (chosen.index, chosen.predicted) == (0, True)  # 15 of its 18 cells
    assert "background, which the model predicts at 83% of the places asked about" in chosen.notes[0]
    contrast = one("region:3,2,9,5:dog-vs-cat")
    part = SCORES[:, 2:5, 3:9]
    assert float(contrast(SCORES)) == pytest.approx(float((part[2] - part[1]).mean()), rel=1e-5)
    assert contrast.describe(LABELS) == "dog vs cat in the box"


def _labels() -> np.ndarray:
    values = np.zeros((8, 12), np.uint8)
    values[2:5, 3:9], values[6:8, 3:9] = 2, 1
    return values


def _palette() -> Image.Image:
    image = Image.fromarray(_labels()).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 255, 0])
    return image


def _with_void() -> np.ndarray:
    return np.where(_labels() == 1, 255, _labels() * 9).astype(np.uint8)


@pytest.mark.parametrize(
    "written",
    [
        lambda: Image.fromarray(_labels()),
        _palette,
        lambda: Image.fromarray(_labels().astype(np.uint16) * 300),
        lambda: Image.fromarray(_with_void()),
        lambda: Image.fromarray(np.eye(3, dtype=np.uint8)[_labels()] * np.uint8(255)),
    ],
    ids=["numbers", "palette", "wide", "void", "colours"],
)
def test_a_file_of_labels_is_no_region(tmp_path: Path, written: Callable[[], Image.Image]) -> None:
    written().save(tmp_path / "labels.png")
    with pytest.raises(seewhy.TargetError, match=r"labels\.png' holds labels of several things"):
        one(f"region:{tmp_path / 'labels.png'}:dog")


def test_soft_edges_and_jpegs_are_a_region(tmp_path: Path) -> None:
    hard = np.zeros((8, 12), np.uint8)
    hard[2:5, 3:9] = 255
    soft = hard.copy()
    soft[1, 3:9], soft[5, 3:9] = 60, 200
    Image.fromarray(soft).save(tmp_path / "soft.png")
    target = one(f"region:{tmp_path / 'soft.png'}:dog")
    np.testing.assert_array_equal(target.outline(Geometry.identity((8, 12))), soft >= 128)
    Image.fromarray(hard).save(tmp_path / "mask.jpg", quality=95)
    target = one(f"region:{tmp_path / 'mask.jpg'}:dog")
    np.testing.assert_array_equal(target.outline(Geometry.identity((8, 12))), hard > 0)


def test_a_region_that_was_cropped_in_part_says_so() -> None:
    geometry = Geometry.identity((10, 14)).cropped((1, 3), (8, 8))
    scores = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    target = one(seewhy.Region((0, 1, 6, 9), "cat"), scores, geometry=geometry)
    assert target.notes == (
        "50% of the region was cropped away before the model saw anything; the rest is asked about",
    )
    assert float(target(scores)) == pytest.approx(float(scores[1, :, :3].mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("pixel:8,0", r"outside of the picture, which is 8 x 12 .*0 to 7, 11"),
        ("pixel:-1,0", "outside of the picture"),
        ("pixel:3", "must be 'pixel:Y,X'"),
        ("pixel:a,b", "must be 'pixel:Y,X'"),
        ("pixel:1,2:zebra", "No class is called 'zebra'"),
        ("pixels:zebra", "No class is called 'zebra'"),
        ("zebra", "No class is called 'zebra'"),
        (4, "class 4; this model has 4 classes"),
        (seewhy.Region(np.zeros((8, 12), bool)), "mask is empty.*Mark the pixels"),
        (seewhy.Region(np.ones((12, 8), bool)), "mask is 8 x 12 pixels, and the picture 12 x 8"),
        (seewhy.Region(np.arange(96).reshape(8, 12)), "boolean array.*labels == 3"),
        (seewhy.Region("none.png"), "mask cannot be read: There is no file"),
        (seewhy.Region(object()), "boolean array"),
        ("region:none.png:cat", "mask cannot be read: There is no file 'none.png'"),
        ("region:1,2,3", "cannot be read: a box is"),
        ("region:5,5,5,8", "holds no pixel"),
        ("region:20,0,30,8", "holds no pixel of the picture, which is 12 wide and 8 high"),
        ("up", "one output; this one has 4"),
        ("top:x", "whole number"),
    ],
)
def test_errors_say_what_to_do(wanted: object, told: str) -> None:
    with pytest.raises(seewhy.TargetError, match=told):
        one(wanted)


def test_a_region_that_was_cropped_away_is_refused() -> None:
    geometry = Geometry.identity((10, 14)).cropped((1, 3), (8, 8))
    with pytest.raises(seewhy.TargetError, match=r"in the box, was cropped away .*crop to 8x8"):
        one(seewhy.Region((0, 0, 3, 10)), torch.zeros(4, 8, 8), geometry=geometry)


@pytest.mark.parametrize("kind", ["classes", "other"])
def test_a_region_needs_scores_a_place(kind: Kind) -> None:
    with pytest.raises(seewhy.TargetError, match="a Region' needs one score a class and place"):
        ask(seewhy.Region(np.ones((2, 2), bool)), [Subject(torch.zeros(3), kind)])


FOREGROUND = torch.full((1, 6, 8), -1.0)
FOREGROUND[0, 2:4, 2:6] = torch.arange(1.0, 9).view(2, 4)


@pytest.mark.parametrize("labels", [None, Labels(("healthy", "tumour"))])
def test_one_score_a_place_is_asked_where_it_is_above_zero(labels: Labels | None) -> None:
    usual, up, down = (one(words, FOREGROUND, labels) for words in (None, "up", "down"))
    assert (float(usual(FOREGROUND)), float(up(FOREGROUND)), float(down(FOREGROUND))) == (4.5, 4.5, -4.5)
    assert usual.predicted
    name = "tumour" if labels else "foreground"
    assert f"target: {name} (16.7% of the picture)" in usual.notes[0]
    assert usual.describe(labels) == (
        "tumour where it is predicted" if labels else "a higher output where foreground is predicted"
    )
    scores = FOREGROUND.sigmoid() * 0.65  # probabilities: above a half, not above zero
    ready = one(None, scores, labels, chances=Chances(ready=True))
    assert int((ready.weights > 0).sum()) == 7  # sigmoid(1) * 0.65 is below
    assert int((one(None, scores, labels).weights > 0).sum()) == 48  # logits between 0 and 1


def test_the_probability_of_one_score_a_place_is_its_sigmoid() -> None:
    labels, own = Labels(("healthy", "tumour")), Chances(independent=True)
    inside = float(FOREGROUND[0, 2:4, 2:6].sigmoid().mean())
    for words, name, number in (
        ("probability", "tumour", inside),
        ("probability:tumour", "tumour", inside),
        ("probability:healthy", "healthy", 1 - inside),
    ):
        target = one(words, FOREGROUND, labels, chances=own)
        assert float(target(FOREGROUND)) == pytest.approx(number, rel=1e-5)
        assert target.describe(labels) == f"probability of {name} where tumour is predicted"
    pixel = one("pixel:0,0:probability", FOREGROUND, labels, chances=own)
    assert pixel.what.describe(labels) == "probability of healthy"
    assert float(pixel(FOREGROUND)) == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-5)
    assert float(one("probability", FOREGROUND, None, chances=own)(FOREGROUND)) == pytest.approx(inside, rel=1e-5)


def test_one_score_a_place_below_its_threshold_speaks_for_the_background() -> None:
    labels = Labels(("healthy", "tumour"))
    inside, outside = (one(words, FOREGROUND, labels) for words in ("pixel:3,5", "pixel:0,0"))
    assert (inside.what.describe(labels), float(inside(FOREGROUND))) == ("tumour", 8)
    assert (outside.what.describe(labels), float(outside(FOREGROUND))) == ("healthy", 1)
    absent = one("tumour", FOREGROUND - 20, labels)
    assert absent.absent
    assert float(absent(FOREGROUND)) == pytest.approx(float(FOREGROUND.mean()))


def test_a_voxel_and_a_volume() -> None:
    scores = torch.rand(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    target = one("pixel:1,5,7:2", scores, None)
    assert float(target(scores)) == pytest.approx(float(scores[2, 1, 5, 7]))
    with pytest.raises(seewhy.TargetError, match="Z,Y,X"):
        one("pixel:1,5", scores, None)
    mask = np.zeros((4, 6, 8), bool)
    mask[1:3, 2:, :4] = True
    region = one(seewhy.Region(mask, 1), scores, None)
    assert float(region(scores)) == pytest.approx(float(scores[1, 1:3, 2:, :4].mean()), rel=1e-5)
