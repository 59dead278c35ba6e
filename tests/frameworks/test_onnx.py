"""Models of ONNX: the same maps as the same weights in torch, whatever the graph's layout, batch and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

import seewhy
from onnx_models import Builder, Cnn, Vit
from seewhy.evaluation.settings import differences, settings_of, unidentified
from seewhy.frameworks.onnx import OnnxShell
from seewhy.images.read import read
from seewhy.plan import lacking
from seewhy.recorder import replay

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (32, 48)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(4))


def close(one: seewhy.Explanation, other: seewhy.Explanation, within: float = 1e-4) -> bool:
    return one.raw.shape == other.raw.shape and float(np.abs(one.raw - other.raw).max()) <= within * max(
        1.0, float(np.abs(other.raw).max())
    )


SHARED = [
    entry.name
    for entry in seewhy.methods()
    if not OnnxShell.lacks.keys() & {need.name for need in entry.otherwise or entry.needs}
]


def test_the_methods_that_need_no_derivatives_are_those_that_can_be_had() -> None:
    assert set(SHARED) >= {
        *("occlusion", "rise", "feature-ablation", "eigen-cam", "kpca-cam", "fem", "score-cam", "ss-cam", "is-cam"),
        *("ablation-cam", "cam", "random", "edges"),
    }


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("make", [Cnn, Vit])
def test_every_method_makes_the_map_of_the_same_weights_in_torch(
    name: str, make: Callable[[], nn.Module], images: Tensor
) -> None:
    if name == "cam" and make is Vit:
        pytest.skip("a class token is no mean")
    model = make()
    layer = {Cnn: "layers.1.relu2", Vit: "blocks.1.norm1"}[make]
    ask, plain = seewhy.Explainer(model.build()), seewhy.Explainer(model)
    for target in (1, "0-vs-3"):
        found = ask(list(images), target, name, layer)
        expected = plain(list(images), target, name, layer)
        assert all(close(*each) for each in zip(found, expected, strict=True))


def test_the_default_layer_is_that_of_torch_where_the_class_token_is_read(images: Tensor) -> None:
    """Behind the last attention layer the score depends on no place any more."""
    model = Vit()
    found, expected = seewhy.Explainer(model.build()).layers(images), seewhy.Explainer(model).layers(images)
    assert found.default.name == expected.default.name == "blocks.1.norm1"
    own = {row.name: (row.layout, row.stride) for row in found}
    shared = [row for row in expected if row.name in own]
    assert len(shared) == 8
    assert all(own[row.name] == (row.layout, row.stride) for row in shared)


@pytest.mark.parametrize("dead", [False, True])
def test_the_default_layer_is_the_last_before_pooling_also_beside_branches_that_lead_nowhere(
    dead: bool, images: Tensor
) -> None:
    table = seewhy.Explainer(Cnn().build(dead=dead), output="/head/Gemm_output_0" if dead else None).layers(images)
    assert table.default.name == "layers.1.relu2"
    assert [row.name for row in table.stages] == ["stem", "layers.0.relu2", "layers.1.relu2"]
    assert ("aside" in {row.name for row in table}) == dead
    assert "nowhere" not in {row.name for row in table}


def test_where_no_method_is_named_one_without_derivatives_is_taken_and_told(images: Tensor) -> None:
    ask = seewhy.Explainer(Cnn().build())
    found = ask(images[0])
    assert found.method == "ablation-cam"
    assert any("ablation-cam, as none was named" in note for note in found.notes)
    assert ask.compare(images[0])[0].method == "ablation-cam"
    named = ask(images[0], method="ablation-cam")
    assert not any("as none was named" in note for note in named.notes)
    assert np.array_equal(found.raw, named.raw)
    assert ask(images[0], top=3).options == {"top": 3}


VARIANTS: dict[str, Callable[[Cnn], ModelProto]] = {
    "channels last": lambda model: model.build(last=True),
    "batch of one": lambda model: model.build(batch=1),
    "batch of three": lambda model: model.build(batch=3),
    "any size": lambda model: model.build(size=("height", "width")),
    "flat for one": lambda model: model.build(batch=1, flat=[1, 16]),
    "flat for one, any batch": lambda model: model.build(flat=[1, 16]),
}


@pytest.mark.parametrize("name", ["ablation-cam", "score-cam", "eigen-cam", "rise"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "flat for one, any batch"])
def test_other_layouts_and_batches_give_the_same(variant: str, name: str, images: Tensor) -> None:
    model = Cnn()
    ask, plain = seewhy.Explainer(VARIANTS[variant](model)), seewhy.Explainer(model.build())
    found, expected = (each(list(images), 2, name, "layers.1.conv2") for each in (ask, plain))
    assert all(close(*each) for each in zip(found, expected, strict=True))


def test_a_model_that_takes_one_image_whatever_it_says_is_told(images: Tensor) -> None:
    """The graph says any batch, and its code has the number 1 in it: edits go one by one or not at all."""
    ask = seewhy.Explainer(Cnn().build(flat=[1, 16]))
    with pytest.raises(seewhy.SeewhyError, match="raised"):
        ask(images[0], 2, "rise")


def test_half_precision(images: Tensor) -> None:
    model = Cnn()
    ask, plain = seewhy.Explainer(model.build(precision=np.float16)), seewhy.Explainer(model)
    for name in ("ablation-cam", "eigen-cam", "score-cam", "cam"):
        found, expected = (each(images[0], 2, name, "layers.1.relu2") for each in (ask, plain))
        assert np.corrcoef(found.raw.ravel(), expected.raw.ravel())[0, 1] > 0.99
        assert close(found, expected, 0.05)


def runs(shell: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, tuple[int, ...]]]:
    """Return a list to which the inputs' shapes of every run are added."""
    seen: list[dict[str, tuple[int, ...]]] = []
    run = shell._sessions._run

    def noted(session: object, given: dict[str, np.ndarray], *rest: object) -> object:
        seen.append({name: values.shape for name, values in given.items()})
        return run(session, given, *rest)

    monkeypatch.setattr(shell._sessions, "_run", noted)
    return seen


@pytest.mark.parametrize(
    ("model", "layer"), [(Cnn(), "layers.1.conv2"), (Cnn(), "layers.0.relu2"), (Vit(), "blocks.1.norm1")]
)
def test_the_body_runs_once_for_all_edits(
    model: Cnn | Vit, layer: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = seewhy.Explainer(model.build())
    ask(images[0], 1, "ablation-cam", layer)  # how the model is to be run is found out once
    assert list(replay._broadcasting[ask.model.module].values()) == [True]
    seen = runs(ask.model.module, monkeypatch)
    found = ask(images[1], 1, "ablation-cam", layer)
    body = [each for each in seen if "images" in each]
    tails = [each for each in seen if "images" not in each]
    assert body == [{"images": (1, 3, *SIZE)}]
    assert sum(max(shape[0] for shape in each.values()) for each in tails) == found.cost.replays


def test_what_goes_past_the_layer_is_one_sample_for_all_where_it_is_added(images: Tensor) -> None:
    shell = OnnxShell(Cnn().build())
    cut = shell._graph.cut(["/layers/layers.1/conv2/Conv_output_0"], shell._graph.outputs)
    assert cut.values == ("/layers/layers.1/past/Conv_output_0",)
    assert cut.alone == set(cut.values)
    assert [node.op_type for node in cut.nodes][:3] == ["BatchNormalization", "Add", "Relu"]
    only = shell._graph.cut(["/layers/layers.0/relu2/Relu_output_0"], shell._graph.outputs)
    assert only.values == ()


def joined(width: int = 4) -> ModelProto:
    """A network whose tail joins early features to late ones, and reads the batch size off its input."""
    to = Builder()
    torch.manual_seed(3)
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    early = to.conv("/first", first, "images")
    late = to.node("/act/Relu", [to.conv("/second", second, early)])
    both = to.node("/Concat", [early, late], axis=1)
    size = to.node("/Gather", [to.node("/Shape", ["images"]), to.weight("zero", np.array([0]))], axis=0)
    shape = to.node("/Concat_1", [size, to.weight("rest", np.array([2 * width]))], axis=0)
    pooled = to.node("/Reshape", [to.node("/GlobalAveragePool", [both]), shape])
    scores = to.linear("/head", nn.Linear(2 * width, 3), pooled)
    return to.model({"images": ["batch", 3, "height", "width"]}, [scores])


def test_joined_features_and_shapes_are_repeated_for_the_edits(images: Tensor) -> None:
    ask = seewhy.Explainer(joined())
    found = ask(images[0], 1, "ablation-cam", "act")
    shell = ask.model.module
    assert list(replay._broadcasting[shell].values()) == [True]
    cut = shell._graph.cut(["/act/Relu_output_0"], shell._graph.outputs)
    assert cut.values == ("/first/Conv_output_0",)
    assert cut.shapes == ("/Shape_output_0",)
    whole = float(shell(images[:1])[0, 1])
    activations = edited(shell, images[:1], "act", None)[0]
    lost = [whole - float(edited(shell, images[:1], "act", channel)[1][0, 1]) for channel in range(4)]
    expected = sum(weight / abs(whole) * activations[0, channel].numpy() for channel, weight in enumerate(lost))
    assert np.abs(found.raw - expected).max() < 1e-4


def edited(shell: OnnxShell, images: Tensor, name: str, channel: int | None) -> tuple[Tensor, Tensor]:
    """Return what a layer gave and the scores without one of its channels, by one hook and one image."""
    seen = []

    def edit(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        seen.append(output)
        if channel is None:
            return None
        changed = output.clone()
        changed[:, channel] = 0
        return changed

    hook = shell.get_submodule(name).register_forward_hook(edit)
    scores = shell(images)
    hook.remove()
    return seen[0], scores


def test_a_path_a_file_object_and_a_proto_are_the_same(images: Tensor, tmp_path: Path) -> None:
    model = Cnn().build()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    [first, *others] = [seewhy.explain(each, images[0], 1) for each in (model, path, str(path))]
    assert all(np.array_equal(first.raw, other.raw) for other in others)
    assert others[0].model == "model.onnx"
    onnx.save(Cnn(classes=4).build(), path)  # the file is another one now
    assert len(seewhy.explain(str(path), images[0], 1).prediction) == 4


def test_the_model_given_is_not_changed(images: Tensor) -> None:
    model = Cnn().build()
    before = model.SerializeToString()
    seewhy.explain(model, images[0], 1)
    assert model.SerializeToString() == before


def test_outputs_are_known_by_their_names(images: Tensor) -> None:
    model = Cnn().build(dead=True)
    shell = OnnxShell(model)
    assert shell(images)._fields == ("/head/Gemm_output_0", "/aside/Tanh_output_0")
    assert seewhy.explain(model, images[0]).target_index is not None  # the first is taken


def test_layers_are_chosen_by_the_graphs_own_names_and_by_globs(images: Tensor) -> None:
    model = Cnn().build()
    ask = seewhy.Explainer(model)
    node = next(each for each in model.graph.node if each.name == "/layers/layers.0/relu2/Relu")
    for layer in (node.name, node.output[0], "layers.0.relu2"):
        assert ask(images[0], 1, "fem", layer).layers == ("layers.0.relu2",)
    assert ask(images[0], 1, "fem", "layers.*.conv1").layers == ("layers.0.conv1", "layers.1.conv1")


def test_the_preprocessing_is_that_of_the_models_size_and_is_told(chelsea: np.ndarray) -> None:
    ask = seewhy.Explainer(Cnn().build())
    assert (ask.model.preprocess.size, ask.model.preprocess.resize) == (SIZE, (36, 54))
    assert any("preprocessing assumed" in note for note in ask(chelsea, 1, method="fem").notes)
    grey = seewhy.Explainer(Cnn(channels=1).build(size=(40, 40)))
    assert (grey.model.preprocess.size, grey.model.preprocess.channels) == ((40, 40), 1)
    assert grey(chelsea, 1, method="fem").raw.shape == (5, 5)
    assert seewhy.Explainer(Cnn().build(size=("h", "w"))).model.preprocess.size == (224, 224)


def test_a_model_of_bytes_gets_plain_pixels(chelsea: np.ndarray) -> None:
    model = Cnn()
    to = Builder()
    values = to.node("/Cast", ["pixels"], to=1)
    model_graph = model.build().graph
    nodes = [*to.nodes]
    for node in model_graph.node:
        copied = helper.make_node(
            node.op_type, [values if name == "images" else name for name in node.input], node.output
        )
        copied.attribute.extend(node.attribute)
        nodes.append(copied)
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("pixels", 2, ["batch", 3, *SIZE])],
        list(model_graph.output),
        list(model_graph.initializer),
    )
    ask = seewhy.Explainer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    found = ask(chelsea, 1, "fem")
    prepared, _ = ask.model.preprocess(read(chelsea))
    assert prepared.max() > 100
    with torch.no_grad():
        expected = model(prepared.round()[None])[0, 1]
    assert abs(found.score - float(expected)) < 1e-3 * abs(float(expected))


def test_methods_that_need_derivatives_are_refused_with_a_way_out(images: Tensor) -> None:
    ask = seewhy.Explainer(Cnn().build())
    for name, instead in (("grad-cam", "ablation-cam"), ("saliency", "rise"), ("attention-rollout", "eigen-cam")):
        with pytest.raises(seewhy.MethodError, match=f"'{name}' cannot be had of this model of ONNX.*'{instead}'"):
            ask(images[0], 1, name)
    shell = ask.model.module
    assert all(lacking(shell, seewhy.maps.find_method(name)) for name in ("fullgrad", "lrp", "integrated-gradients"))
    compared = ask.compare(images[0], "all", budget=20)
    assert {each.method for each in compared} == set(SHARED)


def test_eigen_cams_sign_is_that_of_the_derivatives_for_each_class(images: Tensor) -> None:
    model = Cnn()
    ask, plain = seewhy.Explainer(model.build()), seewhy.Explainer(model)
    targets = list(range(5))
    signs = set()
    for name in ("eigen-cam", "kpca-cam"):
        for target in targets:
            found, expected = (each(images[0], target, name, "layers.1.relu2") for each in (ask, plain))
            assert close(found, expected)
            signs.add(np.sign(found.raw.flat[0]))
    assert signs == {-1.0, 1.0}


def test_several_inputs_go_in_by_position_or_name(images: Tensor) -> None:
    to = Builder()
    torch.manual_seed(5)
    features = to.node("/act/Relu", [to.conv("/first", nn.Conv2d(3, 4, 3, padding=1), "images")])
    scaled = to.node("/Mul", [features, "scale"])
    pooled = to.node("/Flatten", [to.node("/GlobalAveragePool", [scaled])])
    model = to.model(
        {"images": ["batch", 3, 32, 32], "scale": ["batch", 1, 1, 1]}, [to.linear("/head", nn.Linear(4, 3), pooled)]
    )
    ask = seewhy.Explainer(model)
    image, scale = images[:1, :, :, :32], torch.full((1, 1, 1, 1), 2.0)
    found = ask((image[0], scale[0]), 1, wrt=0)
    assert found.layers == ("act",)
    assert np.array_equal(found.raw, ask({"images": image[0], "scale": scale[0]}, 1, wrt="images").raw)
    with pytest.raises(seewhy.SeewhyError, match=r"takes 2 inputs: 'images'.*'scale'"):
        ask(image[0], 1)


def test_an_input_of_another_size_is_told() -> None:
    with pytest.raises(seewhy.SeewhyError, match=r"takes 'images', float32 \(any, 3, 32, 48\)"):
        seewhy.explain(Cnn().build(), torch.randn(3, 20, 20), 1)


def test_results_are_gone_on_with_where_the_graph_is_the_same() -> None:
    cnn, other = Cnn(), Cnn()
    nn.init.ones_(other.head.bias)
    made = [settings_of(seewhy.Explainer(each.build())) for each in (cnn, cnn, other)]
    assert not unidentified(made[0])
    assert differences(made[0], made[1]) == []
    assert differences(made[0], made[2]) == ["weights"]
