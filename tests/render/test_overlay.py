"""The map over the picture: right colours in the right places, and a legend that can be read."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from seewhy.diagnosis import Finding
from seewhy.errors import RenderError
from seewhy.explanation import Prediction
from seewhy.images import Geometry
from seewhy.render import heat, overlay
from seewhy.render.colour import DEFAULTS, colours
from seewhy.render.overlay import _font, _wrapped, caption


def colour(name: str, value: float) -> np.ndarray:
    return np.asarray(mpl.colormaps[name](value, bytes=True)[:3], int)


def test_opacity_follows_the_map(make) -> None:
    raw = np.array([[1, 0.25], [0, 0]], np.float32)
    drawn = np.asarray(overlay(make(raw), opacity=0.8), int)
    assert (drawn[1] == 100).all()  # no evidence: the picture itself
    for column, (value, cover) in enumerate([(1.0, 0.8), (0.25, 0.8 * 0.25**1.5)]):
        expected = (1 - cover) * 100 + cover * colour("inferno", value)
        np.testing.assert_allclose(drawn[0, column], expected, atol=1.5)


def test_opacity_zero_is_the_picture_and_red_stays_red(make) -> None:
    why = make()
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    picture = make(image=red)
    np.testing.assert_array_equal(np.asarray(overlay(picture, opacity=0.0)), red)
    # inferno's top is yellow, its middle red: were channels swapped it would be cyan, or blue.
    assert heat(why)[0, 0, 0] > heat(why)[0, 0, 2]


def test_signed_maps_are_centred_at_zero_and_cover_in_both_directions(make) -> None:
    drawn = np.asarray(overlay(make([[8, -4], [0, 2]], view="signed"), opacity=1.0), int)
    assert drawn[1, 0].tolist() == [100, 100, 100]
    np.testing.assert_allclose(drawn[0, 0], colour("RdBu_r", 1.0), atol=1)
    assert drawn[0, 1, 2] > drawn[0, 1, 0]  # against: bluer than red
    np.testing.assert_array_equal(colours(np.float32([0, 1, -1]), "signed", "RdBu_r"), [
        colour("RdBu_r", 128), colour("RdBu_r", 255), colour("RdBu_r", 0)
    ])  # fmt: skip


def test_the_default_colours_keep_their_order_for_every_eye() -> None:
    # Lightness alone tells the order, so colour-blind readers and grey printers see it too.
    rise = np.diff(rgb2lab(colours(np.linspace(0, 1, 64, dtype=np.float32), "positive", DEFAULTS["positive"]))[:, 0])
    assert (rise > 0).all()
    signed = rgb2lab(colours(np.linspace(-1, 1, 65, dtype=np.float32), "signed", DEFAULTS["signed"]))
    assert (np.diff(signed[:33, 0]) > -1e-9).all()
    assert (np.diff(signed[32:, 0]) < 1e-9).all()
    # Blue against red, the pair that red-green blindness leaves apart: the b* axis has opposite signs.
    assert signed[8, 2] < -20
    assert signed[-9, 2] > 10


def test_what_the_model_did_not_see_is_grey_dark_and_hatched(make) -> None:
    geometry = Geometry.identity((40, 80)).cropped((0, 20), (40, 40))
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[..., 1] = 200
    why = make(np.ones((2, 2)), geometry=geometry, image=picture)
    drawn = np.asarray(overlay(why, opacity=0.0), int)
    outside = drawn[:, np.r_[:20, 60:80]]
    assert (outside.max(-1) == outside.min(-1)).all()
    assert len(np.unique(outside)) == 2  # ground and stripes
    assert (drawn[:, 20:60] == picture[:, 20:60]).all()
    assert caption(why)[-1] == "grey, hatched: cropped away, never seen by the model"
    assert len(caption(make())) == 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "evidence for tabby, the model's answer (70.0%)"),
        ({"target": "tench", "target_index": 0}, "evidence for tench (20.0%; the model's answer: tabby, 70.0%)"),
        ({"target": "dog", "target_index": 9}, "evidence for dog (the model's answer: tabby, 70.0%)"),
        # A contrast is about a class, but that class's chance is not the contrast's.
        ({"target": "tabby vs tench"}, "evidence for tabby vs tench (the model's answer: tabby, 70.0%)"),
        ({"prediction": ()}, "evidence for tabby (score 3)"),
        ({"prediction": (Prediction(0, "age", 3.0, float("nan")),)}, "evidence for tabby (score 3)"),
        ({"view": "signed"}, "evidence for and against tabby, the model's answer (70.0%)"),
    ],
)
def test_the_caption_says_what_is_asked_and_what_the_model_answers(make, more, told) -> None:
    assert caption(make(**more))[0] == told


def test_the_caption_says_how_the_map_was_made(make) -> None:
    assert caption(make())[1] == "grad-cam at body of net"
    assert caption(make(layers=("a", "b")))[1] == "grad-cam at a + b of net"
    assert caption(make(layers=("a", "b", "c", "d")))[1] == "grad-cam at 4 layers of net"
    assert caption(make(layers=()))[1] == "grad-cam at the input of net"


@pytest.mark.parametrize("text", ["a few words that need several lines", "one" * 60, "", "ümläut 漢字 " * 9])
@pytest.mark.parametrize("room", [60, 200])
def test_no_line_of_the_legend_is_cut_off_and_no_word_is_lost(text: str, room: int) -> None:
    font = _font(14)
    lines = _wrapped(text, font, room)
    assert all(font.getlength(line) <= room for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def written(strip: np.ndarray) -> np.ndarray:
    """Return where the legend is not paper."""
    return (strip < 250).any(-1)


@pytest.mark.parametrize("size", [(40, 60), (300, 400), (60, 900), (900, 60), (1, 1)])
@pytest.mark.parametrize("view", ["positive", "signed"])
def test_the_legend_keeps_clear_of_the_edges_and_its_bar_shows_the_colours(make, size, view) -> None:
    flagged = (Finding("flat", "The map is the same everywhere.", "Choose another layer or method, " * 5),)
    why = make(
        np.arange(4.0).reshape(2, 2), size=size, target="a class of a very long name " * 4, diagnosis=flagged, view=view
    )
    drawn = np.asarray(overlay(why, legend=True))
    factor = max(1, 320 // max(size))
    strip = drawn[size[0] * factor :]
    ink = written(strip)
    assert not ink[:, :4].any()
    assert not ink[:, -4:].any()
    assert not ink[-3:].any()
    row = strip[np.flatnonzero(ink.any(1))[3]].astype(int)
    bar = row[written(row[None])[0]] if view == "positive" else row[8:-8]
    name = {"positive": "inferno", "signed": "RdBu_r"}[view]
    np.testing.assert_allclose(bar[0], colour(name, 0.0), atol=8)
    np.testing.assert_allclose(bar[len(bar) // 2], colour(name, 0.5), atol=8)


def test_a_tiny_picture_is_enlarged_by_a_whole_factor_and_the_map_with_it(make) -> None:
    why = make([[1, 0], [0, 0]], size=(32, 32), image=np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    large = np.asarray(overlay(why, opacity=0.0, legend=True))[:320, :320]
    np.testing.assert_array_equal(large[::10, ::10], why.image)
    np.testing.assert_array_equal(large[9::10, 9::10], why.image)
    # At a fifth of the way there is a whole cell's value; the enlarged map is interpolated, not blocky.
    shown = np.asarray(overlay(make([[1, 0], [0, 0]], size=(32, 32)), legend=True))
    assert len(np.unique(shown[40, :320], axis=0)) > 32


@pytest.mark.parametrize(("max_side", "size"), [(None, (100, 50)), (50, (50, 25)), (400, (100, 50)), (1, (1, 1))])
def test_the_size_is_the_originals_or_what_is_asked(make, max_side: int | None, size: tuple[int, int]) -> None:
    assert overlay(make(size=(50, 100)), max_side=max_side).size == size


def test_a_reduced_overlay_is_the_reduction_of_the_full_one(make) -> None:
    raw = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    why = make(raw, size=(200, 280))
    small = np.asarray(overlay(why, max_side=70), int)
    reference = np.asarray(overlay(why).resize((70, 50), Image.Resampling.BOX), int)
    assert np.abs(small - reference).mean() < 1.5


@pytest.mark.parametrize(
    ("style", "told"),
    [
        ({"opacity": 1.1}, "0 to 1"),
        ({"max_side": 0}, "at least 1"),
        ({"colormap": "infernoo"}, "Nearest: 'inferno'"),
        ({"scaling": -1.0}, "per-image"),
    ],
)
def test_a_style_that_is_not_known_is_refused(make, style: dict[str, object], told: str) -> None:
    with pytest.raises(RenderError, match=told):
        overlay(make(), **style)


def test_a_map_of_other_than_two_axes_has_no_overlay(make) -> None:
    with pytest.raises(RenderError, match="two axes; this one has 3"):
        overlay(make(np.ones((2, 2, 2)), image=None))


def test_another_colour_map_is_used(make) -> None:
    assert heat(make(), colormap="viridis")[0, 0].tolist() == colour("viridis", 1.0).tolist()


def test_the_part_asked_about_has_a_line_around_it(make) -> None:
    part = np.zeros((60, 90), bool)
    part[20:40, 30:70] = True
    drawn = np.asarray(overlay(make(np.zeros((2, 2)), size=(60, 90), outline=part)))
    line = (drawn == 255).all(2)
    assert line[21, 31:69].all() and line[38, 31:69].all() and line[21:39, 31].all() and line[21:39, 68].all()
    assert (drawn[22:38, 32:68][2:-2, 2:-2] == 100).all()  # its inside is left as it is
    assert (drawn[~part] == 100).all()
