"""What a user sees who explains: answers worked out by hand, and what is told when something is wrong."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy

INPUT = torch.tensor([[[1.0, 2, 3], [1, 1, 2], [2, 1, 2]]])
FEATURES = np.array([[4, 7], [5, 6]], np.float32)


class HandNet(nn.Module):
    """One kernel and one linear layer, small enough to work out by hand: the scores of INPUT are 13 and 15."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 2, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[[[1.0, 0], [1, 2]]]]))
            self.head.weight.copy_(torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 1]]))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).flatten(1))


class Pooled(nn.Module):
    """A colour filter, global average pooling and a linear layer: class 0 is red, class 1 green, class 2 blue."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


@pytest.fixture
def hand() -> HandNet:
    return HandNet().eval()


PLAIN = {"size": (16, 16), "resize": None, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def colours(*columns: tuple[int, int, int]) -> np.ndarray:
    """Return a 16x16 picture of upright stripes."""
    return np.repeat(np.repeat(np.array([columns], np.uint8), 16 // len(columns), 1), 16, 0)


RED_BLUE = colours((255, 0, 0), (0, 0, 255))


def test_the_prediction_of_the_hand_made_model(hand: HandNet) -> None:
    why = seewhy.explain(hand, INPUT, labels=["cat", "dog"])
    assert [(each.name, each.score) for each in why.prediction] == [("dog", 15), ("cat", 13)]
    np.testing.assert_allclose(
        [each.probability for each in why.prediction], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]
    )
    assert (why.target, why.target_index, why.score) == ("dog", 1, 15)
    assert "the predicted class" in why.notes[0]


@pytest.mark.parametrize(
    ("method", "target", "raw"),
    [
        ("grad-cam", 0, FEATURES * 0.5),
        ("grad-cam", 1, FEATURES * 0.75),
        ("grad-cam", "0-vs-1", FEATURES * -0.25),
        ("grad-cam", lambda output: output[0] * output[1], FEATURES * (15 * 0.5 + 13 * 0.75)),
        ("hires-cam", 0, [[0, 7], [0, 6]]),
        ("HiResCAM", "0-vs-1", [[-4, 7], [-5, 0]]),
        ("layer-cam", "0-vs-1", [[0, 7], [0, 0]]),
        ("gradcam_elementwise", "0-vs-1", [[0, 7], [0, 0]]),
        ("XGradCAM", 0, FEATURES * 13 / 22),
        # One of two classes: the other is all that is similar.
        ("finer-cam", 0, FEATURES * (0.5 - 0.6 * 0.75)),
    ],
)
def test_maps_worked_out_by_hand(hand: HandNet, method: str, target: object, raw: object) -> None:
    why = seewhy.explain(hand, INPUT, target, method)
    np.testing.assert_allclose(why.raw, raw, rtol=1e-5, atol=1e-6)
    assert why.raw.dtype == why.heatmap.dtype == np.float32


def test_raw_is_signed_at_the_layers_size_and_the_heat_map_lies_on_the_input(hand: HandNet) -> None:
    why = seewhy.explain(hand, INPUT, "0-vs-1", "hires-cam")
    np.testing.assert_allclose(why.raw, [[-4, 7], [-5, 0]])
    # Positive part (0 7 / 0 0), enlarged linearly from 2 to 3 cells, its peak 1.
    np.testing.assert_allclose(why.heatmap, [[0, 0.5, 1], [0, 0.25, 0.5], [0, 0, 0]], atol=1e-6)
    assert seewhy.explain(hand, INPUT, "0-vs-1", "hires-cam", view="signed").heatmap.min() == pytest.approx(-5 / 7)


def test_a_map_with_nothing_positive_says_so(hand: HandNet) -> None:
    why = seewhy.explain(hand, INPUT, "0-vs-1")
    assert [finding.code for finding in why.diagnosis] == ["all-negative"]
    assert not why.heatmap.any()


def test_a_saturated_probability_says_so() -> None:
    model = Pooled()
    assert "saturated" not in str(seewhy.explain(model, RED_BLUE, "probability:0", preprocess=PLAIN).diagnosis)
    with torch.no_grad():
        model.conv.weight.mul_(1000)
    why = seewhy.explain(model, colours((255, 0, 0)), "probability:0", preprocess=PLAIN)
    assert "saturated" in str(why.diagnosis)


def test_a_picture_is_explained_where_its_colours_are() -> None:
    for target, side in ((0, slice(0, 8)), (2, slice(8, 16))):
        why = seewhy.explain(Pooled(), RED_BLUE, target, preprocess=PLAIN)
        expected = np.zeros((16, 16), bool)
        expected[:, side] = True
        np.testing.assert_array_equal(why.mask(0.5), expected)


def test_a_list_gives_a_list_and_a_batch_equals_one_by_one() -> None:
    pictures = [RED_BLUE, colours((0, 255, 0), (255, 0, 0))]
    together = seewhy.explain(Pooled(), pictures, [0, 1], preprocess=PLAIN)
    for why, picture, target in zip(together, pictures, [0, 1], strict=True):
        alone = seewhy.explain(Pooled(), picture, target, preprocess=PLAIN)
        np.testing.assert_allclose(why.raw, alone.raw, atol=1e-7)
        assert (why.target, why.score) == (alone.target, pytest.approx(alone.score))


def test_top_k_gives_an_explanation_a_class_in_order(hand: HandNet) -> None:
    assert [why.target_index for why in seewhy.explain(hand, INPUT, "top:2")] == [1, 0]


@pytest.mark.parametrize("given", [[0, 1, 0], torch.tensor([0, 1, 0]), np.array([0, 1, 0])])
def test_each_image_of_several_runs_gets_its_own_target(hand: HandNet, given: object) -> None:
    found = seewhy.explain(hand, INPUT.expand(3, 1, 3, 3), given, batch_size=2)
    assert [why.target_index for why in found] == [0, 1, 0]


def test_each_good_image_gets_its_own_target_when_another_is_bad() -> None:
    with pytest.raises(seewhy.PartialError) as caught:
        seewhy.explain(Pooled(), [RED_BLUE, b"no picture", RED_BLUE], [0, 1, 2], preprocess=PLAIN)
    assert [each and each[0].target_index for each in caught.value.done] == [0, None, 2]
    assert list(caught.value.failures) == [1]


@pytest.mark.parametrize(
    ("given", "batch_size"),
    [
        ([0, 1], 32),
        ([0, 1], 1),
        ([0, 1, 0, 1], 2),
        ([0, 1, 0, 1], 32),
    ],
)
def test_targets_are_counted_before_any_work(hand: HandNet, given: list[int], batch_size: int) -> None:
    with pytest.raises(seewhy.SeewhyError, match=f"{len(given)} targets were given for 3 images"):
        seewhy.explain(hand, INPUT.expand(3, 1, 3, 3), given, batch_size=batch_size)


def test_compare_is_one_recording_in_the_promised_order() -> None:
    maps = seewhy.compare(
        Pooled(), RED_BLUE, methods=["grad-cam", "hires-cam"], targets=[0, "blue"], labels=["red", "green", "blue"],
        preprocess=PLAIN,
    )  # fmt: skip
    assert [(each.method, each.target) for each in maps] == [
        ("grad-cam", "red"), ("grad-cam", "blue"), ("hires-cam", "red"), ("hires-cam", "blue"),
    ]  # fmt: skip
    assert {(each.cost.forwards, each.cost.backwards) for each in maps} == {(1, 1)}  # what each would take alone
    for each in maps:
        alone = seewhy.explain(Pooled(), RED_BLUE, each.target_index, each.method, preprocess=PLAIN)
        np.testing.assert_allclose(each.raw, alone.raw, atol=1e-7)


def test_some_of_a_comparison_is_a_comparison() -> None:
    maps = seewhy.compare(Pooled(), RED_BLUE, targets="top:3", preprocess=PLAIN)
    assert isinstance(maps[1:], seewhy.Comparison)
    assert [each.target_index for each in maps[1:]] == [each.target_index for each in maps][1:]
    assert isinstance(maps[0], seewhy.Explanation)


def test_methods_that_a_model_does_not_allow_are_left_out_of_all_and_told(hand: HandNet) -> None:
    maps = seewhy.compare(hand, INPUT, methods="all")
    assert "global average pooling" in maps.skipped["cam"]
    without_relu = {"guided-backprop", "guided-grad-cam", "deconvnet"}
    attending = {entry.name for entry in seewhy.methods() if entry.needs.attention}
    sure = without_relu | attending | {"cam"}
    assert sure <= maps.skipped.keys() <= sure | {"lrp"}
    assert all("runs no attention" in maps.skipped[name] for name in attending)
    assert all("ReLU" in maps.skipped[name] for name in without_relu)
    assert {each.method for each in maps} == {entry.name for entry in seewhy.methods()} - maps.skipped.keys()
    with pytest.raises(seewhy.MethodError, match="global average pooling"):
        seewhy.compare(hand, INPUT, methods=["cam"])


def test_random_methods_depend_on_the_seed_alone(hand: HandNet) -> None:
    first, again, other = (seewhy.explain(hand, INPUT, 0, "random", seed=seed).raw for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_explainer_asks_the_same_model_again(hand: HandNet) -> None:
    ask = seewhy.Explainer(hand)
    np.testing.assert_allclose(ask(INPUT, 0).raw, FEATURES * 0.5)
    np.testing.assert_allclose(ask(INPUT, 1).raw, FEATURES * 0.75)


def test_the_layers_are_listed_with_their_grid(hand: HandNet) -> None:
    table = seewhy.layers(hand, INPUT)
    assert [(row.name, row.layout.grid, row.default) for row in table] == [("conv", (2, 2), True)]
    assert "conv" in str(table)


def test_the_usual_image_has_the_channels_that_the_model_takes_although_its_head_comes_first() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(8, 4, 1)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(images)).mean((2, 3))

    model = HeadFirst().eval()
    assert list(seewhy.layers(model)) == list(seewhy.layers(model, torch.randn(3, 224, 224)))
    taking_nothing = nn.Sequential(nn.Conv2d(5, 4, 3), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(seewhy.RecordingError, match=r"input of shape \(1, 3, 224, 224\)"):
        seewhy.layers(taking_nothing)


@pytest.mark.parametrize(
    ("arguments", "family", "told"),
    [
        ({"method": "eigenkam"}, seewhy.MethodError, "No method is called 'eigenkam'. Nearest: "),
        ({"method": "grad-cam", "samples": 3}, seewhy.MethodError, "has no option 'samples'. It has: none"),
        ({"target": "cta"}, seewhy.TargetError, "Nearest: 'cat'"),
        ({"target": 2}, seewhy.TargetError, "2 classes, 0 to 1"),
        ({"target": lambda output: output}, seewhy.TargetError, "must return one number"),
        ({"layers": "cnv"}, seewhy.LayerError, "'conv'"),
        ({"batch_size": 0}, seewhy.SeewhyError, "at least 1"),
    ],
)
def test_what_cannot_be_done_is_told_with_what_can(hand, arguments, family, told) -> None:
    with pytest.raises(family) as caught:
        seewhy.explain(hand, INPUT, labels=["cat", "dog"], **arguments)
    assert told in str(caught.value)
    assert isinstance(caught.value, seewhy.SeewhyError)


def test_words_outside_their_list_are_refused() -> None:
    """In a process of its own: here the types of arguments are checked before the code sees them."""
    code = """
import torch, seewhy
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.Flatten(), nn.Linear(32, 2))
image = torch.rand(3, 16, 16)
why = seewhy.explain(model, image)
for wrong in (
    lambda: seewhy.explain(model, image, view="absolute"),
    lambda: why.viewed("absolute"),
    lambda: seewhy.explain(model, image, fuse="median"),
    lambda: why.scaled("most"),
    lambda: why.mask("mean"),
    lambda: seewhy.explain(model, image, 1.0),
):
    try:
        wrong()
    except seewhy.SeewhyError as error:
        print(type(error).__name__, error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    told = [
        "RenderError view='absolute' is not known. Known: positive, signed.",
        "RenderError view='absolute' is not known. Known: positive, signed.",
        "LayerError fuse='median' is not known. Known: mean, max, product, none",
        "RenderError scaling='most' is not known. Known: per-image, percentile, none",
        "RenderError threshold='mean' must be 'otsu' or a value",
        "TargetError target=1.0 is a float; give a class index",
    ]
    assert [line[: len(words)] for line, words in zip(found, told, strict=True)] == told


def test_one_bad_picture_of_several_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(RED_BLUE).save(good)
    with pytest.raises(
        seewhy.PartialError, match=r"1 of 2 images failed; the first is number 0: .*missing\.png"
    ) as caught:
        seewhy.explain(Pooled(), [tmp_path / "missing.png", good], 0, preprocess=PLAIN)
    failed, [done] = caught.value.done
    assert failed is None
    assert (done.name, done.target_index) == ("good.png", 0)


def test_progress_is_shown_when_it_is_asked_for_and_nothing_is_printed_otherwise(hand, capsys) -> None:
    images = INPUT.expand(2, 1, 3, 3)
    seewhy.explain(hand, images, 0, batch_size=1)
    assert capsys.readouterr() == ("", "")
    seewhy.explain(hand, images, 0, batch_size=1, progress=True)
    out, shown = capsys.readouterr()
    assert out == ""
    assert "images" in shown


def test_a_result_saves_itself(hand: HandNet, tmp_path: Path) -> None:
    seewhy.explain(hand, INPUT, 0).save(tmp_path / "cat.why.png")
    with Image.open(io.BytesIO((tmp_path / "cat.why.png").read_bytes())) as picture:
        assert picture.format == "PNG"
