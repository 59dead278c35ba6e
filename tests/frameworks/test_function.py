"""Any function from a batch to scores: what it gets, what it may return, what is told where it fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.kept import seeded
from seewhy.recorder import Needs
from small_models import SmallNet, make_small_net

UNIT, FEW = {"mean": (0.0,), "std": (1.0,)}, {"masks": 24, "count": 6, "window": 8}
BLACK_BOX = [entry for entry in seewhy.methods() if not entry.needs & ~(Needs.SCORE | Needs.IMAGES)]
Array = npt.NDArray[Any]


@pytest.fixture
def net() -> SmallNet:
    return make_small_net().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(2))


def wrapped(net: SmallNet) -> Callable[[Array], Array]:
    def predict(images: Array) -> Array:
        assert isinstance(images, np.ndarray)
        assert images.dtype == np.float32
        return net(torch.from_numpy(images)).detach().numpy()

    return predict


def few(entry: Any) -> dict[str, int]:
    return {name: value for name, value in FEW.items() if name in entry.options}


@pytest.mark.parametrize("entry", BLACK_BOX, ids=lambda entry: entry.name)
def test_a_function_has_the_maps_of_the_module_in_it(entry: Any, net: SmallNet, image: Tensor) -> None:
    batch = torch.stack([image, image.flip(-1)])
    found = seewhy.explain(wrapped(net), batch, [1, 4], entry.name, preprocess=UNIT, **few(entry))
    expected = seewhy.explain(net, batch, [1, 4], entry.name, preprocess=UNIT, **few(entry))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-5)
        assert one.score == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize("smooth", ["aug", "noise"])
def test_smoothing_works_around_a_function(smooth: str, net: SmallNet, image: Tensor) -> None:
    how: dict[str, Any] = {"method": "rise", "smooth": smooth, "masks": 6, "preprocess": UNIT}
    found, expected = seewhy.explain(wrapped(net), image, **how), seewhy.explain(net, image, **how)
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-5)


def test_there_are_such_methods() -> None:
    assert {"rise", "occlusion", "feature-ablation"} <= {entry.name for entry in BLACK_BOX}


def test_rise_is_taken_where_no_method_is_named_and_its_options_are_known(net: SmallNet, image: Tensor) -> None:
    why = seewhy.explain(wrapped(net), image, masks=5)
    assert (why.method, why.layers) == ("rise", ())
    assert why.cost.forwards == 6
    assert any(note.startswith("method: rise, as none was named") for note in why.notes)
    [alone] = seewhy.compare(wrapped(net), image, masks=5)
    assert alone.method == "rise"


def test_a_picture_is_prepared_in_0_to_1_and_that_is_told(net: SmallNet, chelsea: Array) -> None:
    seen = []

    def predict(images: Array) -> Array:
        seen.append(images)
        return np.zeros((len(images), 2))

    why = seewhy.explain(predict, chelsea, 0, masks=2)
    assert seen[0].shape == (1, 3, 224, 224)
    assert 0 <= seen[0].min() < 0.2
    assert 0.8 < seen[0].max() <= 1
    assert any(note.startswith("preprocessing assumed: a function") for note in why.notes)
    own = seewhy.explain(predict, chelsea, 0, masks=2, preprocess={"size": (32, 48)})
    assert not any("assumed" in note for note in own.notes)


@pytest.mark.parametrize(
    ("how", "kind", "shape"),
    [
        ({}, np.float32, (1, 3, 32, 48)),
        ({"layout": "channels-last"}, np.float32, (1, 32, 48, 3)),
        ({"takes": "torch"}, torch.float32, (1, 3, 32, 48)),
        ({"takes": "torch", "layout": "channels-last"}, torch.float32, (1, 32, 48, 3)),
        ({"takes": "pictures"}, np.uint8, (1, 32, 48, 3)),
        ({"takes": "pictures", "layout": "channels-first"}, np.uint8, (1, 3, 32, 48)),
    ],
)
def test_what_it_gets(how: dict[str, Any], kind: Any, shape: tuple[int, ...], chelsea: Array) -> None:
    seen: list[Any] = []

    def predict(images: Any) -> list[list[float]]:
        seen.append(images)
        return [[0.0, 1.0]] * len(images)

    model = seewhy.function(predict, preprocess={"size": (32, 48)}, labels=["cat", "dog"], **how)
    why = seewhy.explain(model, chelsea, masks=2)
    assert (seen[0].dtype, tuple(seen[0].shape)) == (kind, shape)
    assert (why.target, why.model) == ("dog", "predict")


def test_pictures_are_the_pixels_themselves(chelsea: Array) -> None:
    seen = []

    def predict(images: Array) -> Array:
        seen.append(images)
        return np.zeros((len(images), 2))

    square = chelsea[:224, :224]
    seewhy.explain(seewhy.function(predict, "pictures"), square, 0, masks=2)
    np.testing.assert_array_equal(seen[0][0], square)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_it_is_never_given_more_than_it_takes(batch: int, net: SmallNet, image: Tensor) -> None:
    lengths = []

    def predict(images: Array) -> Array:
        lengths.append(len(images))
        return net(torch.from_numpy(images)).detach().numpy()

    images = torch.stack([image] * 5)
    why = seewhy.explain(seewhy.function(predict, batch=batch), images, 1, masks=20, batch_size=5)
    assert max(lengths) == min(batch, 24) or max(lengths) <= batch
    assert sum(lengths) == 5 * 21
    np.testing.assert_allclose(why[4].raw, seewhy.explain(wrapped(net), image, 1, masks=20).raw, atol=1e-5)


RETURNS: dict[str, Callable[[Array], Any]] = {
    "numpy": lambda scores: scores,
    "float64": lambda scores: scores.astype(np.float64),
    "lists": lambda scores: scores.tolist(),
    "rows": list,
    "torch": torch.from_numpy,
    "torch rows": lambda scores: list(torch.from_numpy(scores)),
    "a mapping": lambda scores: {"logits": scores.tolist(), "model": "v2"},
    "a tuple": lambda scores: (scores, np.zeros((len(scores), 2, 2))),
}


@pytest.mark.parametrize("form", RETURNS)
def test_what_it_may_return(form: str, net: SmallNet, image: Tensor) -> None:
    expected = seewhy.explain(wrapped(net), image, 1, masks=8)
    inner = wrapped(net)
    found = seewhy.explain(lambda images: RETURNS[form](inner(images)), image, 1, masks=8)
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)


@pytest.mark.parametrize("library", ["jax.numpy", "paddle"])
def test_arrays_of_other_libraries_are_taken(library: str, net: SmallNet, image: Tensor) -> None:
    other = pytest.importorskip(library)
    make = other.asarray if library == "jax.numpy" else other.to_tensor
    expected = seewhy.explain(wrapped(net), image, 1, masks=8)
    inner = wrapped(net)
    found = seewhy.explain(lambda images: make(inner(images)), image, 1, masks=8)
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)


def test_whole_numbers_and_one_number_an_image_are_scores(image: Tensor) -> None:
    votes = seewhy.explain(lambda images: np.ones((len(images), 3), np.int64), image, 1, masks=4)
    assert votes.score == 1
    alone = seewhy.explain(lambda images: images.mean((1, 2, 3)), image, masks=4)
    assert alone.score == pytest.approx(float(image.mean()), abs=1e-5)


BAD: dict[str, tuple[Callable[[Array], Any], str]] = {
    "batch lost": (lambda images: np.zeros(5), r"array of shape \(5,\) for 1 image; .* \(1, classes\)"),
    "more rows": (lambda images: np.zeros((len(images) + 1, 5)), r"array of shape \(2, 5\) for 1 image"),
    "an object": (lambda images: object(), r"not an array of real numbers: object"),
    "none": (lambda images: None, r"not an array of real numbers: NoneType"),
    "words": (lambda images: [["cat"]] * len(images), r"not an array of real numbers: list"),
    "ragged": (lambda images: [[1, 2], [3]], r"not an array of real numbers: list"),
    "complex": (lambda images: np.zeros((1, 2), complex), r"not an array of real numbers: ndarray of complex128"),
    "raises": (lambda images: 1 / 0, r"raised ZeroDivisionError at call 1, .*\(1, 3, 24, 40\): division by zero"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_it_may_not_do(what: str, image: Tensor) -> None:
    call, told = BAD[what]
    with pytest.raises(seewhy.RecordingError, match=told):
        seewhy.explain(call, image)


def test_three_axes_are_asked_about(image: Tensor) -> None:
    with pytest.raises(seewhy.TargetError, match=r"shape \(5, 2\)\. Give target= a callable"):
        seewhy.explain(lambda images: np.zeros((len(images), 5, 2)), image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_counted_and_placed(value: float, image: Tensor) -> None:
    def predict(images: Array) -> Array:
        scores = np.zeros((len(images), 5))
        if len(images) > 1:
            scores[[1, 3], :2] = value
        return scores

    with pytest.raises(
        seewhy.RecordingError, match=r"4 scores that are NaN or infinite, for inputs 1, 3 of \d+ \(call 2\)"
    ):
        seewhy.explain(predict, image, masks=30)


def test_other_classes_than_before_are_refused(net: SmallNet, image: Tensor) -> None:
    calls = []

    def predict(images: Array) -> Array:
        calls.append(1)
        return np.zeros((len(images), 5 if len(calls) < 3 else 4))

    with pytest.raises(seewhy.RecordingError, match=r"\(number, 5\) before and \(number, 4\) at call 3"):
        seewhy.explain(predict, image, masks=100)


class Breaks:
    """Answers so many times, then no more."""

    def __init__(self, net: SmallNet, calls: int) -> None:
        self.left, self._inner = calls, wrapped(net)

    def __call__(self, images: Array) -> Array:
        self.left -= 1
        if self.left < 0:
            raise TimeoutError("no answer")
        return self._inner(images)


def test_what_was_done_before_it_failed_is_kept(net: SmallNet, image: Tensor) -> None:
    model = seewhy.function(Breaks(net, 39), batch=1, preprocess=UNIT)
    with pytest.raises(
        seewhy.RecordingError, match=r"Breaks raised TimeoutError at call 40.*no answer.*`\.partial`"
    ) as told:
        seewhy.explain(model, image, 1, masks=100)
    [partial] = told.value.partial
    expected = seewhy.explain(wrapped(net), image, 1, masks=100, budget=38, preprocess=UNIT)
    assert partial.cut_short == expected.cut_short == (38, 100)
    np.testing.assert_allclose(partial.raw, expected.raw, atol=1e-6)
    assert "the model failed after 38 of 100 runs" in partial.notes
    assert isinstance(told.value.__cause__, TimeoutError)


def test_it_is_not_asked_again_by_other_methods(net: SmallNet, image: Tensor) -> None:
    breaks = Breaks(net, 39)
    with pytest.raises(seewhy.RecordingError) as told:
        seewhy.compare(seewhy.function(breaks, batch=1), image, ["occlusion", "rise"])
    assert [each.method for each in told.value.partial] == ["occlusion"]
    assert breaks.left == -1


def test_images_before_the_failure_are_whole(net: SmallNet, image: Tensor) -> None:
    with pytest.raises(seewhy.PartialError) as told:
        seewhy.explain(seewhy.function(Breaks(net, 27), batch=1), [image] * 3, 1, masks=10)
    assert [each is not None for each in told.value.done] == [True, True, False]
    assert told.value.failures[2].partial[0].cut_short == (4, 10)


def test_a_module_that_fails_on_the_way_leaves_its_part_too(net: SmallNet, image: Tensor) -> None:
    runs = []

    def fail(*_: object) -> None:
        runs.append(1)
        if len(runs) > 6:
            raise ValueError("broke")

    net.second.register_forward_hook(fail)
    with pytest.raises(seewhy.RecordingError, match="ValueError") as told:
        seewhy.explain(net, image, 1, "rise")
    assert told.value.partial[0].cut_short[1] == 1000


@pytest.mark.parametrize("name", ["grad-cam", "saliency", "attention", "lrp", "ablation-cam", "guided-backprop"])
def test_what_needs_more_than_scores_is_refused(name: str, net: SmallNet, image: Tensor) -> None:
    with pytest.raises(seewhy.MethodError, match=rf"'{name}' cannot be had of the function predict: .*Use 'rise'"):
        seewhy.explain(wrapped(net), image, method=name)


def test_of_all_methods_the_others_are_left_out(net: SmallNet, image: Tensor) -> None:
    found = seewhy.compare(wrapped(net), image, "all", budget=5)
    assert {each.method for each in found} == {entry.name for entry in BLACK_BOX}
    assert len(found.skipped) == len(seewhy.methods()) - len(BLACK_BOX)


def test_layers_are_refused(net: SmallNet, image: Tensor) -> None:
    with pytest.raises(seewhy.LayerError, match="Of the function predict no layer can be seen"):
        seewhy.layers(wrapped(net))
    with pytest.raises(seewhy.LayerError, match="no layer can be seen"):
        seewhy.explain(wrapped(net), image, method="rise", layers="first")


def test_a_normalised_input_is_no_picture(image: Tensor) -> None:
    model = seewhy.function(lambda images: np.zeros((len(images), 2)), "pictures")
    with pytest.raises(seewhy.RecordingError, match=r"takes pictures, whose input is prepared as 0\.\.1; values from"):
        seewhy.explain(model, (image - 0.5) / 0.2)
    with pytest.raises(seewhy.ModelError, match="has a mean, std or scale"):
        seewhy.function(lambda images: images, "pictures", preprocess={"mean": (0.5,)})
    with pytest.raises(seewhy.RecordingError, match="of 1 or 3 channels; an input of 4 came"):
        seewhy.explain(model, torch.rand(4, 8, 8))


def test_wrong_words_are_told(unchecked: None) -> None:
    with pytest.raises(seewhy.ModelError, match=r"takes='jax' is not known\. Known: numpy, torch, pictures"):
        seewhy.function(len, "jax")
    with pytest.raises(seewhy.ModelError, match=r"layout='NHWC' is not known for a function\. Known: channels-first"):
        seewhy.function(len, layout="NHWC")
    with pytest.raises(seewhy.ModelError, match="batch=0 must be a whole number"):
        seewhy.function(len, batch=0)
    with pytest.raises(seewhy.ModelError, match="takes a function, not a int"):
        seewhy.function(3)
    with pytest.raises(seewhy.ModelError, match="a function from a batch of images to scores"):
        seewhy.explain(3, torch.rand(3, 8, 8))


def test_a_function_that_draws_is_repeatable_and_leaves_the_random_states(image: Tensor) -> None:
    def predict(images: Array) -> Array:
        noise = np.random.rand(len(images), 2) + random.random()  # noqa: NPY002, S311
        return noise + torch.rand(len(images), 2).numpy()

    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, other = (seewhy.explain(predict, image, 0, masks=20) for _ in range(2))
    np.testing.assert_array_equal(one.raw, other.raw)
    assert np.abs(one.raw).max() > 0
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    state = random.getstate()  # the tests' type checker draws from it, so that it is looked at where nothing is checked
    with seeded(5):
        random.random()  # noqa: S311
    assert random.getstate() == state


def test_writing_into_its_input_changes_nothing(net: SmallNet, image: Tensor) -> None:
    inner = wrapped(net)

    def predict(images: Array) -> Array:
        scores = inner(images)
        images[:] = 0
        return scores

    given = image.clone()
    found = seewhy.explain(predict, image, 1, masks=20)
    np.testing.assert_allclose(found.raw, seewhy.explain(inner, image, 1, masks=20).raw, atol=1e-6)
    assert torch.equal(image, given)


def test_signals_are_taken() -> None:
    signal = torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    found = seewhy.explain(lambda images: images[:, :, :10].sum((1, 2))[:, None], signal, method="occlusion", window=5)
    assert found.raw.shape == (50,)
    assert np.abs(found.raw[14:]).max() < 1e-5 < np.abs(found.raw[:8]).min()


def test_the_doctor_tells_what_works_and_how_long_it_takes(net: SmallNet, image: Tensor) -> None:
    report = seewhy.doctor(wrapped(net), torch.rand(3, 48, 48))
    assert report.verdict == "note"
    kinds = report.check("kinds of methods").found
    assert "in the function predict work occlusion" in kinds
    assert kinds.index("; not") < kinds.index("saliency")
    assert report.check("time").numbers["runs"] == {"occlusion": 170, "rise": 1001, "feature-ablation": 65}


MINE = """
import numpy as np
import seewhy

def predict(images):
    return np.stack([images.mean((1, 2, 3)), images.max((1, 2, 3))], 1)

model = seewhy.function(lambda pictures: predict(pictures / 255), "pictures", labels=["dull", "bright"])

def made():
    return predict
"""


@pytest.mark.parametrize("name", ["predict", "model", "made"])
def test_the_command_finds_functions(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, chelsea: Array) -> None:
    (tmp_path / "my_functions.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = seewhy.load(f"my_functions:{name}")
    why = seewhy.explain(loaded, chelsea, masks=3)
    assert why.method == "rise"
    assert why.prediction[0].name == ("bright" if name == "model" else "class 1")
