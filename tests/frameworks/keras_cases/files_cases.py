"""Models by name and from files: their preprocessing and labels, and nothing of a file is run."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import small_keras
import torch
from keras import layers
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy.cli.commands import app
from seewhy.errors import ModelError
from seewhy.frameworks import shell_of
from seewhy.images import read
from seewhy.models import adopt
from seewhy.models.keras_models import _preprocess

# Keras' own, with numpy 2.4, when it saves and loads.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

MODULES = [
    "resnet",
    "resnet_v2",
    "vgg16",
    "densenet",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3",
    "efficientnet",
    "nasnet",
]
MODULES += ["convnext", "xception", "inception_v3", "efficientnet_v2"]


@pytest.fixture
def photo(tmp_path: Path, chelsea: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(chelsea).save(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    small_keras.cnn(activation="softmax").save(path)
    return path


def explained(*words: object) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["explain", *map(str, words)])
    return ran.exit_code, " ".join(ran.output.split())


@pytest.mark.parametrize("name", MODULES)
def test_the_preprocessing_of_applications_is_theirs(name: str, photo: Path, chelsea: np.ndarray) -> None:
    theirs = importlib.import_module(f"keras.applications.{name}").preprocess_input
    preprocess = _preprocess(theirs, chelsea.shape[:2])
    found, _ = preprocess(read(photo))
    expected = theirs(chelsea.astype("float32"), data_format="channels_last")
    assert np.abs(found.movedim(0, -1).numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.array_equal(preprocess.to_display(found), chelsea)


def test_a_model_of_applications_by_name(photo: Path) -> None:
    loaded = seewhy.load("keras:MobileNetV2", pretrained=False)
    assert loaded.preprocess.size == (224, 224)
    assert loaded.labels is not None
    assert len(loaded.labels) == 1000
    assert loaded.notes == ()
    found = seewhy.explain(loaded, photo, 3, "grad-cam")
    assert found.heatmap.shape == (300, 451)
    assert any("probabilities already" in note for note in found.notes)


def test_unknown_names_and_numbers_of_classes() -> None:
    with pytest.raises(ModelError, match=r"MobileNetV2"):
        seewhy.load("keras:MobileNetv2", pretrained=False)
    with pytest.raises(ModelError, match="1000 classes, not 7"):
        seewhy.load("keras:MobileNetV2", num_classes=7)
    assert seewhy.load("keras:MobileNetV2", pretrained=False, num_classes=7).labels is None


def test_weights_of_a_file(tmp_path: Path) -> None:
    first = seewhy.load("keras:MobileNetV2", pretrained=False)
    first.module.model.save_weights(tmp_path / "mine.weights.h5")
    second = seewhy.load("keras:MobileNetV2", weights=tmp_path / "mine.weights.h5")
    image = torch.rand(1, 3, 224, 224)
    assert torch.equal(first.module(image), second.module(image))
    with pytest.raises(ModelError, match="could not be loaded into"):
        seewhy.load("keras:MobileNet", weights=tmp_path / "mine.weights.h5")
    with pytest.raises(ModelError, match="There is no weights file"):
        seewhy.load("keras:MobileNet", weights=tmp_path / "other.weights.h5")


def test_a_file_at_the_command_line(file: Path, photo: Path, tmp_path: Path) -> None:
    code, told = explained(photo, "--model", file, "--out", tmp_path / "why")
    assert code == 0, told
    assert "probabilities already" in told
    assert "preprocessing assumed" in told
    assert (tmp_path / "why" / "photo.why.png").stat().st_size > 1000


def test_a_file_has_the_maps_of_its_model(file: Path, photo: Path) -> None:
    ours = seewhy.load(str(file))
    assert ours.preprocess.size == (24, 40)
    theirs = seewhy.explain(small_keras.cnn(activation="softmax"), photo, 1)
    assert np.allclose(seewhy.explain(ours, photo, 1).raw, theirs.raw, rtol=1e-5)


def test_a_model_that_scales_pixels_says_its_preprocessing() -> None:
    said = adopt(shell_of(small_keras.nested()))
    assert said.preprocess.size == (24, 40)
    assert said.preprocess.scale == 255
    assert said.preprocess.mean == (0, 0, 0)
    assert said.notes == ()


def test_a_lambda_layer_is_refused_and_not_run(tmp_path: Path, photo: Path) -> None:
    mark = str(tmp_path / "ran")
    runs = layers.Lambda(lambda x: (open(mark, "w").close(), x)[1])  # noqa: PTH123
    inner = keras.Sequential([keras.Input((24, 40, 3)), runs])
    model = keras.Sequential([keras.Input((24, 40, 3)), inner, layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "lambda.keras")
    Path(mark).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has a Lambda layer"):
        seewhy.load(str(tmp_path / "lambda.keras"))
    assert explained(photo, "--model", tmp_path / "lambda.keras")[0] != 0
    assert not Path(mark).exists()


def test_classes_of_ones_own_are_not_looked_up(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), small_keras.Positions(), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = parts["config.json"].replace(b'"small_keras"', b'"nowhere"').replace(b"Positions", b"Elsewhere")
    with zipfile.ZipFile(tmp_path / "own.keras", "w") as archive:
        for name, content in {**parts, "config.json": config}.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="could not be loaded as a Keras model"):
        seewhy.load(str(tmp_path / "own.keras"))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_damaged_files(part: float, file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ModelError, match=r"not a complete \.keras file"):
        seewhy.load(str(file))


def test_numbers_that_were_changed_in_a_file_are_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = len(content) * 2 // 3
    content[at : at + 64] = bytes(64)
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"\.keras file|could not be loaded"):
        seewhy.load(str(file))


def test_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelError, match="is an HDF5 file"):
        seewhy.load(str(tmp_path / "old.h5"))
    with pytest.raises(ModelError, match="There is no model file"):
        seewhy.load(str(tmp_path / "none.keras"))
    monkeypatch.setattr(keras, "__version__", "3.8.0")
    with pytest.raises(ModelError, match=r"from version 3\.15 on"):
        seewhy.load(str(file))
