"""Figures: legible labels, one colour bar that fits its maps, and matplotlib's global state left alone."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from seewhy.comparison import Comparison
from seewhy.diagnosis import Finding
from seewhy.errors import RenderError
from seewhy.explanation import Prediction
from seewhy.render import figure

RAW = np.arange(4.0).reshape(2, 2)


def cells(drawn: Figure) -> list:
    return [ax for ax in drawn.axes if ax.get_images()]


def titles(drawn: Figure) -> list[str]:
    return [ax.get_title() for ax in cells(drawn)]


def bars(drawn: Figure) -> list:
    return [ax for ax in drawn.axes if ax.get_label() == "<colorbar>"]


def test_one_explanation_shows_picture_overlay_and_map(make) -> None:
    why = make(RAW, size=(20, 30))
    drawn = figure([why])
    assert titles(drawn) == ["picture", "overlay", "map"]
    picture, overlaid, alone = (ax.get_images()[0].get_array() for ax in cells(drawn))
    assert (picture == 100).all()
    np.testing.assert_array_equal(overlaid, np.asarray(why.overlay()))
    assert alone[0, 0].tolist() == [0, 0, 0]  # no evidence on black paper
    assert "evidence for tabby" in drawn.get_suptitle()
    assert "grad-cam at body of net" in drawn.get_suptitle()


@pytest.mark.parametrize(
    ("view", "ends", "words"),
    [("positive", (0, 1), ["no evidence", "most evidence"]), ("signed", (-1, 1), ["against", "0", "for"])],
)
def test_the_colour_bar_says_what_its_ends_mean_and_is_centred_at_zero(make, view, ends, words) -> None:
    for explanations in ([make(RAW, view=view)], [make(RAW, view=view), make(-RAW, view=view, method="cam")]):
        [bar] = bars(figure(explanations))
        limits = bar.get_xlim() if len(explanations) > 1 else bar.get_ylim()
        assert limits == ends
        labels = bar.get_xticklabels() if len(explanations) > 1 else bar.get_yticklabels()
        assert [label.get_text() for label in labels] == words


def test_a_grid_of_both_views_has_both_bars(make) -> None:
    assert len(bars(figure([make(RAW), make(RAW, view="signed")]))) == 2


def grid(make, methods: int, targets: int) -> Comparison:
    return Comparison(
        make(RAW, size=(20, 30), method=f"method {row}", target=f"class {column}")
        for row in range(methods)
        for column in range(targets)
    )


def test_a_grid_names_what_differs_over_each_map_and_what_does_not_once(make) -> None:
    drawn = grid(make, 2, 1).figure()
    assert titles(drawn) == ["the model's answer:\ntabby 70%", "method 0", "method 1"]
    assert drawn.get_suptitle() == "net: evidence for class 0 at body"


@pytest.mark.parametrize(("methods", "targets"), [(11, 2), (3, 3), (2, 5), (7, 4)])
def test_the_maps_of_one_method_stand_side_by_side(make, methods: int, targets: int) -> None:
    drawn = grid(make, methods, targets).figure()
    place = {ax.get_title(): ax.get_subplotspec() for ax in cells(drawn)}
    for row in range(methods):
        own = [place[f"method {row}\nclass {column}"] for column in range(targets)]
        assert len({spec.rowspan.start for spec in own}) == 1
        assert np.diff([spec.colspan.start for spec in own]).tolist() == [1] * (targets - 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 22])
def test_every_explanation_is_in_the_grid_once(make, count: int) -> None:
    drawn = grid(make, count, 1).figure()
    assert len(cells(drawn)) == (3 if count == 1 else count + 1)


def test_the_number_of_columns_may_be_given(make) -> None:
    drawn = grid(make, 3, 2).figure(columns=2)
    assert max(ax.get_subplotspec().colspan.start for ax in cells(drawn)) == 1
    with pytest.raises(RenderError, match="at least 1"):
        grid(make, 3, 2).figure(columns=0)


def test_a_long_label_keeps_both_its_ends(make) -> None:
    names = ["features.denseblock4.denselayer16.relu." + "x" * 60 + ".conv1", "short"]
    drawn = figure([make(RAW, layers=(name,)) for name in names])
    found = titles(drawn)[1].replace("\n", "")
    assert found.startswith("features.denseblock4")
    assert found.endswith(".conv1")


LONG = "a class whose name goes on and on, as those of plants and birds may do"


@pytest.mark.parametrize("size", [(60, 60), (30, 600), (600, 30)])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_no_text_is_cut_off_or_lies_on_another(make, size: tuple[int, int], count: int) -> None:
    flagged = (Finding("flat", "The map is the same everywhere (0).", "Choose another layer or method."),)
    more = {"prediction": (Prediction(1, LONG, 3.0, 0.7),), "diagnosis": flagged}
    drawn = figure([make(RAW, size=size, target=f"{LONG} {number}", **more) for number in range(count)])
    drawn.draw_without_rendering()
    page = drawn.bbox
    texts = [text for ax in cells(drawn) for text in [ax.title]] + ([drawn._suptitle] if drawn.get_suptitle() else [])
    boxes = [text.get_window_extent() for text in texts]
    for box in boxes:
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y1 <= page.y1 + 1
    pictures = [ax.get_window_extent() for ax in cells(drawn)]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in [*boxes[:number], *pictures])


def test_what_is_wrong_with_a_map_is_flagged_in_the_grid(make) -> None:
    flagged = make(RAW, method="random", diagnosis=(Finding("class-blind", "…", "…"),))
    assert titles(figure([make(RAW), flagged]))[1:] == ["grad-cam", "random\n[class-blind]"]


def test_names_are_never_read_as_formulas(make) -> None:
    # "$x_$" is no valid formula: read as one it would raise.
    drawn = figure([make(RAW, target="$x_$", prediction=(Prediction(0, "$y_$", 1.0, 1.0),)), make(RAW, target="$z^$")])
    drawn.draw_without_rendering()
    assert titles(drawn)[1:] == ["$x_$", "$z^$"]
    figure([make(RAW, target="$x_$")]).draw_without_rendering()


@pytest.mark.parametrize("explanations", [[], [{"raw": np.ones(4)}, {"raw": np.ones((2, 2))}]])
def test_what_cannot_be_drawn_is_refused(make, explanations: list[dict[str, object]]) -> None:
    with pytest.raises(RenderError, match=r"no explanation|1 and 2 axes"):
        figure([make(**each, image=None) for each in explanations])


def test_a_notebook_shows_a_figure_without_pyplot(make) -> None:
    assert figure([make(RAW)])._repr_png_().startswith(b"\x89PNG")
    assert grid(make, 2, 2)._repr_png_().startswith(b"\x89PNG")


def test_matplotlibs_settings_are_left_alone(make) -> None:
    before = dict(mpl.rcParams)
    figure([make(RAW), make(RAW, view="signed")]).draw_without_rendering()
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported() -> None:
    code = """
import sys, numpy as np, torch, seewhy
model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 4, stride=4), torch.nn.Flatten(), torch.nn.Linear(32, 2))
maps = seewhy.compare(model, torch.rand(3, 16, 16), targets="top:2")
maps.figure(); maps[0].figure(); maps[0]._repr_html_()
print("matplotlib.pyplot" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
