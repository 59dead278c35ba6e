"""ONNX files that are not whole, not what they say, or a stranger's, and the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import seewhy
from onnx_models import Builder, Cnn
from seewhy.cli.commands import app
from seewhy.frameworks.onnx.names import layer_names

OPSET = helper.make_opsetid("", 17)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(Cnn().build(), path)
    return path


def refused(path: object, words: str) -> None:
    with pytest.raises(seewhy.SeewhyError, match=words) as found:
        seewhy.Explainer(path)
    assert type(found.value) is seewhy.ModelError


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_file(file: Path, part: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    refused(file, r"'model\.onnx' is not an ONNX model, or not a whole one")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", bytes(range(256)), b"PK\x03\x04" * 50])
def test_a_file_that_is_something_else(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused(file, "is not an ONNX model")


def test_a_pointer_a_folder_and_nothing(file: Path) -> None:
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    refused(file, "pointer of Git LFS")
    refused(file.parent / "other.onnx", "cannot be read: No such file")
    (file.parent / "folder.onnx").mkdir()
    refused(file.parent / "folder.onnx", "cannot be read")


def outside(file: Path) -> ModelProto:
    """Save the model's weights in a file beside it; return the model that says so."""
    onnx.save(
        Cnn().build(),
        file,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    return onnx.load(file, load_external_data=False)


def moved(file: Path, location: str) -> None:
    model = outside(file)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(model.SerializeToString())


def test_weights_beside_the_model_are_read(file: Path) -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    expected = seewhy.explain(str(file), image, 1)
    outside(file)
    assert np.array_equal(seewhy.explain(str(file), image, 1).raw, expected.raw)


def test_weights_that_are_missing_or_cut_short(file: Path) -> None:
    model = outside(file)
    beside = file.parent / "weights.bin"
    beside.write_bytes(beside.read_bytes()[:100])
    refused(file, "'weights.bin', which has 100: the file with the weights is not a whole one")
    beside.unlink()
    refused(file, "keeps its weights in 'weights.bin', which is not there")
    refused(model, "The ModelProto keeps weights")


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "C:\\secret.bin", "\\\\host\\share", "a/../../x", ""]
)
def test_weights_outside_the_models_folder_are_not_read(file: Path, location: str) -> None:
    (file.parent.parent / "secret.bin").write_bytes(bytes(100_000))
    moved(file, location)
    refused(file, "outside its own folder. Such a file is not opened")


def test_a_link_out_of_the_folder_is_not_followed(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.bin"
    secret.write_bytes(bytes(100_000))
    moved(file, "link.bin")
    os.symlink(secret, file.parent / "link.bin")  # noqa: PTH211
    refused(file, "outside its own folder")


def test_weights_outside_that_hide_in_a_constant_of_an_inner_graph(file: Path) -> None:
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["inner"], value=hidden)
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([constant], "branch", [], [output])
    choice = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    model = Cnn().build()
    model.graph.node.append(choice)
    file.write_bytes(model.SerializeToString())
    refused(file, "keeps weights in '/etc/passwd', outside its own folder")


def test_bytes_that_are_asked_for_again_and_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(file, "model.onnx")
    refused(file, "'model.onnx' keeps weights in itself")
    outside(file)
    size = (file.parent / "weights.bin").stat().st_size
    monkeypatch.setattr("seewhy.frameworks.onnx.file._MOST", file.stat().st_size + size // 2)
    refused(file, "asks for 0.0 GiB of weights and more")


def test_functions_that_multiply_when_they_are_written_out(file: Path) -> None:
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [OPSET])]
    for number in range(1, 40):
        twice = [
            helper.make_node(f"f{number - 1}", [given], [gave], domain="own")
            for given, gave in (("a", "m"), ("m", "b"))
        ]
        own = helper.make_opsetid("own", 1)
        functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], twice, [OPSET, own]))
    model = Cnn().build()
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.extend(functions)
    model.graph.node.append(helper.make_node("f39", [model.graph.output[0].name], ["more"], domain="own"))
    refused(model, "40 functions that, written out, are 5.5e\\+11 operations")


def test_a_segmenter_with_its_channels_last_answers_class_by_class() -> None:
    to = Builder()
    weight = np.zeros((4, 3, 1, 1), np.float32)
    weight[2] = 1
    features = to.node("/Conv", [to.node("/Transpose", ["images"], perm=[0, 3, 1, 2]), to.weight("w", weight)])
    scores = to.node("/Transpose_1", [features], perm=[0, 2, 3, 1])
    model = to.model({"images": ["batch", 32, 48, 3]}, [scores])
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    why = seewhy.explain(model, image, method="occlusion", window=16, stride=16)
    assert why.target_index == 2
    with pytest.raises(seewhy.TargetError, match="4"):
        seewhy.explain(model, image, 20, method="occlusion")


def test_the_prefix_may_be_written(file: Path) -> None:
    assert seewhy.load(f"onnx:{file}").name == "model.onnx"


def test_operators_of_its_own_and_opsets_that_are_too_new(file: Path) -> None:
    model = Cnn().build()
    model.graph.node[0].domain = "somebody.else"
    model.opset_import.append(helper.make_opsetid("somebody.else", 1))
    refused(model, "It has operators of its own, whose code is not in the file")
    newer = Cnn().build()
    newer.opset_import[0].version = 999
    refused(newer, "opset ai.onnx 999.*Update onnxruntime, or export the model with an older opset")
    newest = Cnn().build()
    newest.ir_version = 999
    refused(newest, "Update onnxruntime")


def test_a_session_is_refused_with_what_to_give(file: Path) -> None:
    refused(onnxruntime.InferenceSession(str(file)), "does not tell its graph. Give the path")


def test_inputs_that_are_no_numbers() -> None:
    to = Builder()
    shape = to.node("/Shape", ["words"])
    model = to.model({"words": ["batch", 3]}, [to.node("/Cast", [shape], to=1)], kind=TensorProto.STRING)
    refused(model, "takes 'words' as STRING")
    to = Builder()
    constant = to.node("/Relu", [to.weight("values", np.ones((1, 3), np.float32))])
    refused(to.model({}, [constant]), "takes no input")


def test_weights_and_random_ones_are_refused(file: Path) -> None:
    for how in ({"pretrained": False}, {"weights": "other.pth"}, {"num_classes": 3}):
        with pytest.raises(seewhy.ModelError, match="has its own weights and classes in it"):
            seewhy.load(str(file), **how)


def test_names_of_nodes_become_names_of_layers() -> None:
    def node(name: str, kind: str = "Relu", output: str = "", scopes: str = "") -> object:
        made = helper.make_node(kind, ["x"], [output or f"{name}_output_0"], name=name)
        if scopes:
            made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        return made

    nodes = [
        node("/conv1/Conv"),
        node("/layer4/layer4.1/relu/Relu"),
        node("/layer4/layer4.1/relu_1/Relu"),
        node("/layer4/layer4.1/Add"),
        node("/0/0.1/Conv"),
        node("/blocks/blocks.0/norm/ReduceMean"),
        node("/blocks/blocks.0/norm/Sub"),
        node("", "Conv", "495"),
        node("", "Conv", "resnet/stage_1/conv:0"),
        node("Conv_0"),
        node("Conv_0"),
        node("node_relu", scopes="['', 'layer1', 'layer1.0', 'layer1.0.relu', 'relu_1']"),
        node("node_flatten", scopes="['', 'flatten']"),
        node("node_bad", scopes="['"),
        node("/model/forward/Relu[0]*"),
    ]
    assert layer_names(nodes) == [
        "conv1",
        "layer4.1.relu",
        "layer4.1.relu_1",
        "layer4.1.Add",
        "0.1",
        "blocks.0.norm.ReduceMean",
        "blocks.0.norm.Sub",
        "Conv_495",
        "resnet.stage_1",
        "Conv_0",
        "Conv_0_1",
        "layer1.0.relu",
        "flatten",
        "node_bad",
        "model.forward",
    ]


def test_levels_that_are_called_as_what_every_module_has() -> None:
    """A wrapped model exports as "/model/...", and a layer may be called "forward"."""
    model = Cnn().build()
    for node in model.graph.node:
        node.name = f"/model/forward{node.name}"
    ask = seewhy.Explainer(model)
    image = np.zeros((32, 48, 3), np.uint8)
    assert ask(image, 1).layers == ("model.forward.layers.1.relu2",)
    assert ask(image, 1, layers="model.forward.stem").layers == ("model.forward.stem",)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A folder with a model and a picture, and the command as it is typed there."""
    monkeypatch.chdir(tmp_path)
    onnx.save(Cnn().build(), "model.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save("photo.png")

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_the_command_explains_a_photo(command: Callable[..., str], tmp_path: Path) -> None:
    said = command("explain", "photo.png", "--model", "model.onnx")
    assert "ablation-cam" in said
    assert (tmp_path / "photo.why.png").stat().st_size > 1000
    assert "layers.1.relu2" in command("layers", "model.onnx")
    assert "default" in command("layers", "model.onnx")
    command("compare", "photo.png", "--model", "model.onnx", "-m", "rise", "-m", "grad-cam", "--budget", "20")


def test_the_command_says_why_not(command: Callable[..., str]) -> None:
    for words, why in (
        (["none.onnx"], "cannot be read"),
        (["model.onnx", "-m", "grad-cam"], "cannot be had of this model"),
    ):
        said = CliRunner().invoke(app, ["explain", "photo.png", "--model", *words])
        assert said.exit_code == 1
        assert why in str(said.exception)


def test_the_doctor_says_what_works(command: Callable[..., str]) -> None:
    found = seewhy.doctor("model.onnx", "photo.png")
    assert found.verdict == "note"
    assert found.check("gradient").found == "this model of ONNX gives no derivatives"
    assert "serves many edits" in found.check("replay").found
