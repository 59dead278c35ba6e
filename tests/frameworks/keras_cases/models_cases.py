"""Which models are understood, and that they are given back as they were."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import small_keras
import torch
from keras import layers
from torch import Tensor

import seewhy
from seewhy.errors import LayerError, ModelError, RecordingError
from seewhy.evaluation.settings import differences, settings_of, unidentified

BACKEND = keras.backend.backend()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(3))


def numbers(value: object) -> np.ndarray:
    value = getattr(value, "value", value)
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.array(value)


def snapshot(model: keras.Model) -> dict[str, object]:
    own = list(model._flatten_layers())
    return {
        "variables": [(id(each), numbers(each), each.trainable) for each in model.variables],
        "draws": [numbers(draw.state) for layer in own for draw in layer._seed_generators],
        "flags": [layer.trainable for layer in own],
        "calls": [("call" in vars(layer), "__call__" in vars(layer), id(type(layer))) for layer in own],
        "losses": [len(layer._losses) for layer in own],
        "random": torch.get_rng_state(),
        "modes": [layer.training for layer in own] if BACKEND == "torch" else [],
        "wanted": [each.value.requires_grad for each in model.variables] if BACKEND == "torch" else [],
        "gradients": [each.value.grad for each in model.variables] if BACKEND == "torch" else [],
    }


def assert_same(before: object, after: object) -> None:
    if isinstance(before, dict):
        for key, value in before.items():
            assert_same(value, after[key])
    elif isinstance(before, list | tuple):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    elif isinstance(before, np.ndarray | Tensor):
        assert bool((before == after).all())
    else:
        assert before == after


class Draws(layers.Layer):
    """Draws also when it is not trained, counts its runs, and adds a loss."""

    def __init__(self, **more: object) -> None:
        super().__init__(**more)
        self.drop = layers.Dropout(0.5, seed=3)
        self.runs = self.add_weight(shape=(), initializer="zeros", trainable=False, name="runs")

    def call(self, values: object) -> object:
        self.runs.assign_add(1.0)
        self.add_loss(keras.ops.mean(values))
        return self.drop(values, training=True)


def drawing() -> keras.Model:
    keras.utils.set_random_seed(0)
    images = keras.Input((24, 40, 3))
    x = layers.Conv2D(4, 3, name="conv", activity_regularizer="l2")(images)
    x = layers.GlobalAveragePooling2D()(Draws(name="draws")(x))
    return keras.Model(images, layers.Dense(3)(x))


@pytest.mark.parametrize(
    "method", ["grad-cam", "saliency", "score-cam", "ablation-cam", "occlusion", "cam", "smoothgrad"]
)
@pytest.mark.parametrize("make", [small_keras.cnn, drawing])
def test_the_model_is_given_back_as_it_was(make: object, method: str, image: Tensor) -> None:
    model = make()
    model.get_layer(index=1).trainable = False
    before = snapshot(model)
    try:
        first = seewhy.explain(model, image, 0, method)
    except seewhy.errors.MethodError:
        assert method == "cam"
        assert make is drawing
        return
    assert np.array_equal(first.raw, seewhy.explain(model, image, 0, method).raw)  # also where it draws
    assert_same(before, snapshot(model))


class Fails(layers.Layer):
    def call(self, values: object) -> object:
        raise ValueError("no more")

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


def test_also_after_an_exception(image: Tensor) -> None:
    model = small_keras.cnn()
    head = model.get_layer("head")
    outputs = head(Fails()(layers.GlobalAveragePooling2D()(Draws()(model.get_layer("relu2").output))))
    failing = keras.Model(model.input, outputs)
    before = snapshot(failing)
    with pytest.raises(RecordingError, match="no more"):
        seewhy.explain(failing, image, 0, "grad-cam")
    assert_same(before, snapshot(failing))

    def raises(_output: Tensor) -> Tensor:
        raise RuntimeError("asked too much")

    before = snapshot(model)
    with pytest.raises(seewhy.SeewhyError):
        seewhy.explain(model, image, raises, "grad-cam")
    assert_same(before, snapshot(model))


def test_layers_of_models_within_models_have_dotted_names(image: Tensor) -> None:
    model = small_keras.nested()
    table = seewhy.layers(model, image)
    assert {"body", "body.first", "body.norm", "body.relu2"} <= {row.name for row in table}
    inner = model.get_layer("body").get_layer("relu2")
    by_object, by_name = (
        seewhy.explain(model, image, 1, layers=inner),
        seewhy.explain(model, image, 1, layers="body.relu2"),
    )
    assert by_object.layers == by_name.layers == ("body.relu2",)
    assert np.array_equal(by_object.raw, by_name.raw)
    with pytest.raises(LayerError, match="relu2"):
        seewhy.explain(model, image, 1, layers="body.relu3")


def test_grad_cam_within_a_nested_model_has_its_closed_form(image: Tensor) -> None:
    """Behind the layer are a mean and a linear layer: each channel's weight is the class's by the number of places."""
    model = small_keras.nested()
    found = seewhy.explain(model, image, 1, "grad-cam", "body.relu2")
    features = model.get_layer("body")(model.get_layer(index=1)(numbers_in(image)))
    kernel = numbers(model.get_layer("head").kernel)[:, 1]
    maps = numbers(features)[0]
    expected = (maps @ kernel) / (maps.shape[0] * maps.shape[1])
    assert np.abs(found.raw - expected).max() <= 1e-5 * np.abs(expected).max()


def numbers_in(image: Tensor) -> object:
    return keras.ops.convert_to_tensor(image.movedim(0, -1)[None].contiguous().numpy())


def test_layers_of_subclassed_models_are_called_as_they_are_kept(image: Tensor) -> None:
    model = small_keras.blocks()
    names = [row.name for row in seewhy.layers(model, image[:, :16, :24])]
    assert names[:4] == ["stem", "blocks.0", "blocks.1", "features"]
    found = seewhy.explain(model, image[:, :16, :24], 2, "grad-cam", "blocks.1")
    assert found.raw.shape == (16, 24)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_a_model_that_is_not_built_is_refused(image: Tensor) -> None:
    with pytest.raises(ModelError, match="not built"):
        seewhy.explain(keras.Sequential([layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2)]), image)


def test_signals_and_volumes() -> None:
    keras.utils.set_random_seed(0)
    line = keras.Sequential(
        [
            keras.Input((64, 2)),
            layers.Conv1D(5, 3, padding="same", activation="relu", name="conv"),
            layers.LSTM(4),
            layers.Dense(2),
        ]
    )
    found = seewhy.explain(line, torch.randn(2, 64), 1, "grad-cam", "conv")
    assert found.raw.shape == (64,)
    body = [layers.Conv3D(4, 3, padding="same", activation="relu", name="conv"), layers.GlobalAveragePooling3D()]
    volume = keras.Sequential([keras.Input((8, 12, 10, 1)), *body, layers.Dense(2)])
    found = seewhy.explain(volume, torch.randn(1, 8, 12, 10), 1, "saliency")
    assert found.raw.shape == (8, 12, 10)
    assert seewhy.explain(volume, torch.randn(1, 8, 12, 10), 1, "grad-cam").raw.shape == (8, 12, 10)


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_inputs(as_dict: bool, image: Tensor) -> None:
    keras.utils.set_random_seed(0)
    picture, facts = keras.Input((24, 40, 3), name="picture"), keras.Input((4,), name="facts")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv", activation="relu")(picture))
    out = layers.Dense(2)(layers.Concatenate()([x, facts]))
    model = keras.Model({"picture": picture, "facts": facts} if as_dict else [picture, facts], out)
    given = {"facts": torch.ones(4), "picture": image}
    found = seewhy.explain(model, given, 1, "grad-cam", "conv", wrt="picture")
    assert found.raw.shape == (22, 38)
    other = seewhy.explain(model, {**given, "facts": torch.zeros(4)}, 1, "grad-cam", "conv", wrt="picture")
    kernel = numbers(model.layers[-1].kernel)
    assert found.score - other.score == pytest.approx(kernel[-4:, 1].sum(), abs=1e-4)


def test_a_segmenter_answers_place_by_place(image: Tensor) -> None:
    keras.utils.set_random_seed(0)
    images = keras.Input((24, 40, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="down")(images)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="deep")(x)
    out = layers.Conv2D(3, 1)(layers.UpSampling2D(4, interpolation="bilinear")(x))
    model = keras.Model(images, out)
    found = seewhy.explain(model, image, 1, "grad-cam")
    assert found.layers == ("deep",)
    expected = numbers(model(numbers_in(image)))[0, ..., 1]
    here = seewhy.explain(model, image, "pixel:5,7:1", "grad-cam")
    assert here.score == pytest.approx(float(expected[5, 7]), abs=1e-5)


def test_probabilities_are_told(image: Tensor) -> None:
    found = seewhy.explain(small_keras.cnn(activation="softmax"), image, 1)
    assert any("probabilities already" in note for note in found.notes)


@pytest.mark.skipif(BACKEND != "torch", reason="convolutions of the other backends take channels last on a CPU")
def test_channels_first(image: Tensor) -> None:
    keras.utils.set_random_seed(0)
    first, last = (
        keras.Sequential(
            [
                keras.Input(shape),
                layers.Conv2D(5, 3, padding="same", name="conv", data_format=order),
                layers.BatchNormalization(axis=1 if order == "channels_first" else -1, name="norm"),
                layers.ReLU(name="relu"),
                layers.GlobalAveragePooling2D(data_format=order),
                layers.Dense(2),
            ]
        )
        for shape, order in (((3, 24, 40), "channels_first"), ((24, 40, 3), "channels_last"))
    )
    last.set_weights([numbers(each) for each in first.weights])
    table = seewhy.layers(first, image)
    assert {row.layout.order for row in table} == {"channels-first"}
    for method in ("grad-cam", "saliency", "ablation-cam"):
        one, other = (seewhy.explain(model, image, 1, method) for model in (first, last))
        assert np.abs(one.raw - other.raw).max() <= 1e-5 * np.abs(other.raw).max()


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_no_warnings_and_no_leaks_of_tracers(image: Tensor) -> None:
    import jax

    model = small_keras.cnn()
    with warnings.catch_warnings(), jax.checking_leaks():
        warnings.simplefilter("error")
        seewhy.explain(model, image, 1, "grad-cam")


def test_mixed_precision(image: Tensor) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_keras.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    rough, exact = (seewhy.explain(each, image, 1, "grad-cam", "relu2") for each in (model, small_keras.cnn()))
    assert np.abs(rough.raw - exact.raw).max() <= 0.1 * np.abs(exact.raw).max()


def test_other_threads_hear_nothing(image: Tensor) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = small_keras.cnn()
    alone = seewhy.explain(model, image, 1, "ablation-cam", "relu2").raw
    plain = numbers(model(numbers_in(image), training=False))
    with ThreadPoolExecutor(2) as pool:
        explained = [pool.submit(seewhy.explain, model, image, 1, "ablation-cam", "relu2") for _ in range(3)]
        answers = [pool.submit(lambda: numbers(model(numbers_in(image), training=False))) for _ in range(20)]
        assert all(np.allclose(each.result(), plain, atol=1e-6) for each in answers)
        assert all(np.array_equal(each.result().raw, alone) for each in explained)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_results_are_gone_on_with_where_the_weights_are_the_same() -> None:
    model = small_keras.cnn()
    first, again = (settings_of(seewhy.Explainer(model)) for _ in range(2))
    assert not unidentified(first)
    assert differences(first, again) == []
    model.set_weights([numbers(each) + 1 for each in model.weights])
    assert differences(first, settings_of(seewhy.Explainer(model))) == ["weights"]
