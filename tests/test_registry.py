"""The registry: names as people spell them, options, and a method added in a few lines with nothing else edited."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.cli import main
from seewhy.maps import find_method
from seewhy.maps.registry import _ENTRIES


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("GradCAM", "grad-cam"),
        ("grad_cam", "grad-cam"),
        ("Grad-CAM", "grad-cam"),
        ("gradcam_pp", "grad-cam++"),
        ("GradCAMpp", "grad-cam++"),
        ("Grad-CAM++", "grad-cam++"),
        ("GradCAMPlusPlus", "grad-cam++"),
        ("LayerCAM", "layer-cam"),
        ("HiResCAM", "hires-cam"),
        ("XGradCAM", "xgrad-cam"),
        ("smooth_gradcam_pp", "smooth-grad-cam++"),
        ("SmoothGradCAMpp", "smooth-grad-cam++"),
        ("GradCAMElementWise", "grad-cam-elementwise"),
        ("FinerCAM", "finer-cam"),
        ("CAM", "cam"),
    ],
)
def test_common_spellings_are_understood(spelled: str, name: str) -> None:
    assert find_method(spelled).name == name


@pytest.mark.parametrize("name", [entry.name for entry in seewhy.methods()])
def test_every_entry_tells_what_it_does_where_it_is_from_and_its_options(name: str) -> None:
    entry = find_method(name)
    assert entry.name == name == name.lower()
    assert entry.summary.endswith(".")
    assert any(mark in entry.source for mark in ("arXiv", "doi", "control", "github.com", "docs/", '"'))
    # A default keeps its own type, also when it is given as text on the command line.
    as_text = {option: str(default) for option, default in entry.options.items()}
    assert entry.check_options(as_text) == entry.options


@pytest.mark.parametrize(
    ("wanted", "near"), [("eigenkam", "'eigen-cam'"), ("grad-cm", "'grad-cam'"), ("layercm", "'layer-cam'")]
)
def test_an_unknown_method_is_answered_with_the_nearest(wanted: str, near: str) -> None:
    with pytest.raises(seewhy.MethodError) as caught:
        find_method(wanted)
    assert near in str(caught.value)
    assert "`seewhy methods` lists them" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("smooth-grad-cam++", {"sample": 3}, "Nearest: 'samples', 'spread'. It has: samples=16, spread=0.3"),
        ("smooth-grad-cam++", {"samples": "many"}, "samples='many' is not a whole number"),
        ("smooth-grad-cam++", {"samples": 2.5}, "must be a whole number, like its default 16"),
        ("smooth-grad-cam++", {"samples": True}, "must be a whole number"),
        ("grad-cam", {"samples": 3}, "It has: none"),
    ],
)
def test_a_wrong_option_is_refused_with_those_that_exist(method: str, given: dict[str, object], told: str) -> None:
    with pytest.raises(seewhy.MethodError) as caught:
        find_method(method).check_options(given)
    assert told in str(caught.value)


def test_text_becomes_the_type_of_the_default_and_a_whole_number_may_be_a_fraction() -> None:
    found = find_method("smooth-grad-cam++").check_options({"samples": "3", "spread": 1})
    assert found == {"samples": 3, "spread": 1}


def test_the_table_lists_all_with_controls_last_and_escapes_its_html() -> None:
    table = seewhy.methods()
    assert [entry.name for entry in table if entry.source.startswith("control")] == [each.name for each in table][-2:]
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines[1 : len(table) + 1]] == [entry.name for entry in table]
    column = lines[0].index("class")
    assert {line[column : column + 4].strip() for line in lines[1 : len(table) + 1]} == {
        "yes",
        "no",
    }  # under each other
    assert table._repr_html_().count("<tr>") == len(table) + 2  # the head, and a row for Captum's classes


@pytest.fixture
def added() -> Iterator[str]:
    """A method as a user writes one: this is all there is to it."""

    @seewhy.method("mean-<b>", needs=seewhy.Needs.ACTIVATIONS, class_specific=False, signed=True, source="this test")
    def mean_activation(rec: seewhy.Recording, *, factor: float = 1.0) -> torch.Tensor:
        """Average the channels."""
        return rec.activations.mean(1) * factor

    yield "mean-<b>"
    del _ENTRIES["mean-<b>"]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def test_a_method_added_in_one_place_is_everywhere(added: str, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    images = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    model = small_model()
    why = seewhy.explain(model, images, method=added, factor=2.0)
    with torch.no_grad():
        expected = model[:2](images[None])[0].mean(0) * 2
    np.testing.assert_allclose(why.raw, expected, rtol=1e-6)

    assert added in {each.method for each in seewhy.compare(model, images, methods="all")}
    assert "Average the channels." in str(seewhy.methods())
    assert "mean-&lt;b&gt;" in seewhy.methods()._repr_html_()
    monkeypatch.setattr("sys.argv", ["seewhy", "methods"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if added in line]
    assert "factor=1.0" in line


def test_two_methods_cannot_have_one_name(added: str) -> None:
    with pytest.raises(seewhy.MethodError, match="called 'grad-cam' already"):
        seewhy.method("grad-cam", needs=seewhy.Needs.ACTIVATIONS, class_specific=False, signed=True, source="")(
            small_model
        )
