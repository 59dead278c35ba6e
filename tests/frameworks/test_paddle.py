"""Models of PaddlePaddle give the maps that the same models give in PyTorch, and are given back as they were."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

paddle = pytest.importorskip("paddle")

from paddle_twins import PaddleNet, PaddleViT, TorchNet, TorchViT, drawn, with_weights_of  # noqa: E402

import seewhy  # noqa: E402
from seewhy.frameworks import shell_of  # noqa: E402
from seewhy.maps import methods  # noqa: E402
from seewhy.plan import lacking  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_core")

Twins = tuple[nn.Module, Any]
FEW: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"masks": 24},
    "integrated-gradients": {"steps": 6},
    "smoothgrad": {"samples": 4},
    "auto": {"rounds": 0},
}
NONE_IN_PADDLE = {
    "attention", "attention-rollout", "attn-lrp", "fullgrad", "generic-attention", "gradient-rollout", "legrad", "lrp",
    "shapley-cam", "transition-attention",
}  # fmt: skip


@pytest.fixture(scope="module")
def cnn() -> Twins:
    model = drawn(TorchNet())
    return model, with_weights_of(model, PaddleNet())


@pytest.fixture(scope="module")
def vit() -> Twins:
    model = drawn(TorchViT())
    return model, with_weights_of(model, PaddleViT())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def close(found: seewhy.Explanation, expected: seewhy.Explanation, tolerance: float = 1e-4) -> None:
    assert found.raw.shape == expected.raw.shape
    scale = np.abs(expected.raw).max()
    assert scale > 0
    np.testing.assert_allclose(found.raw / scale, expected.raw / scale, atol=tolerance)
    assert found.score == pytest.approx(expected.score, rel=1e-4, abs=1e-5)


def test_what_cannot_be_had_is_known(cnn: Twins) -> None:
    shell = shell_of(cnn[1])
    assert shell is not None
    assert {each.name for each in methods() if lacking(shell, each)} == NONE_IN_PADDLE


@pytest.mark.parametrize("name", [each.name for each in methods() if each.name not in NONE_IN_PADDLE])
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_maps_are_those_of_the_same_model_in_torch(
    name: str, kind: str, request: pytest.FixtureRequest, images: Tensor
) -> None:
    model, twin = request.getfixturevalue(kind)
    options = FEW.get(name, {})
    refused: list[str] = []
    found: list[Any] = []
    for each in (model, twin):
        try:
            found.append(seewhy.explain(each, images[0], 2, name, **options))
        except seewhy.MethodError as error:
            refused.append(str(error).split(" and ")[0].replace(type(each).__name__, ""))
    if refused:  # such as CAM behind a class token: for both, and for the same reason
        assert not found
        assert refused[0] == refused[1]
        return
    close(found[1], found[0])
    assert found[0].layers == found[1].layers


def test_auto_tries_grad_cam_where_relevance_cannot_be_had(cnn: Twins, images: Tensor) -> None:
    model, twin = (seewhy.explain(each, images[0], 2, "auto", rounds=1) for each in cnn)
    own, theirs = (
        {name.rpartition("parts of ")[2]: value for name, value in each.reported.items()} for each in (twin, model)
    )
    assert set(own) == {"contributions under masks", "contributions", "grad-cam"}
    for name in ("contributions under masks", "contributions"):
        assert own[name] == pytest.approx(theirs[name], abs=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_layers_are_those_of_the_same_model_in_torch(kind: str, request: pytest.FixtureRequest, images: Tensor) -> None:
    model, twin = request.getfixturevalue(kind)
    tables = [seewhy.layers(each, images[0]) for each in (model, twin)]
    rows = [{row.name: (row.layout, row.stage, row.default) for row in table.rows} for table in tables]
    assert rows[0] == rows[1]


def test_several_layers_questions_and_images_in_one_run(cnn: Twins, images: Tensor) -> None:
    model, twin = cnn
    for each, expected in zip(
        seewhy.compare(twin, images, ["layer-cam", "hires-cam"], ["stem", "relu2", "last"], [0, "1-vs-3"]),
        seewhy.compare(model, images, ["layer-cam", "hires-cam"], ["stem", "relu2", "last"], [0, "1-vs-3"]),
        strict=True,
    ):
        assert len(each) == len(expected) == 12
        for one, other in zip(each, expected, strict=True):
            close(one, other)
    own = twin.relu2
    assert seewhy.explain(twin, images[0], layers=own).layers == ("relu2",)


def test_gradient_times_activation_as_paddle_users_write_it_is_hires_cam(cnn: Twins, images: Tensor) -> None:
    """The recipe: mean over channels of gradient x activation, ReLU, divided by the maximum."""
    _, twin = cnn
    kept = {}
    hook = twin.relu3.register_forward_post_hook(lambda _layer, _given, gave: kept.update(features=gave))
    twin.eval()
    score = twin(paddle.to_tensor(images[:1].numpy()))[0, 2]
    hook.remove()
    twin.train()
    [gradient] = paddle.grad(score, kept["features"])
    recipe = paddle.nn.functional.relu((gradient * kept["features"]).mean(1))[0]
    recipe = (recipe / recipe.max()).numpy()
    why = seewhy.explain(twin, images[0], 2, "hires-cam", "relu3")
    np.testing.assert_allclose(np.maximum(why.raw, 0) / why.raw.max(), recipe, atol=1e-6)


def state_of(model: Any) -> tuple[Any, ...]:
    layers = dict(model.named_sublayers(include_self=True))
    return (
        {name: values.numpy().copy() for name, values in model.state_dict().items()},
        {name: layer.training for name, layer in layers.items()},
        {name: parameter.stop_gradient for name, parameter in model.named_parameters()},
        {name: parameter.grad is None for name, parameter in model.named_parameters()},
        {name: len(layer._forward_post_hooks) + len(layer._forward_pre_hooks) for name, layer in layers.items()},
        {name: id(layer) for name, layer in layers.items()},
        paddle.is_grad_enabled(),
        [state.current_seed() for state in paddle.get_rng_state()],
    )


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    for name, values in one[0].items():
        np.testing.assert_array_equal(values, other[0][name])
    assert one[1:] == other[1:]


@pytest.mark.parametrize("name", ["grad-cam", "ablation-cam", "guided-backprop", "integrated-gradients", "occlusion"])
def test_the_model_is_given_back_as_it_was(name: str, images: Tensor) -> None:
    model = with_weights_of(drawn(TorchNet()), PaddleNet())
    model.block.eval()
    model.stem.weight.stop_gradient = True
    paddle.seed(7)
    before, given = state_of(model), images.clone()
    seewhy.explain(model, images, 1, name, **FEW.get(name, {}))
    same(before, state_of(model))
    assert torch.equal(images, given)
    with paddle.no_grad():
        seewhy.explain(model, images, 1, name, **FEW.get(name, {}))
    same(before, state_of(model))


def test_the_model_is_given_back_as_it_was_also_after_an_exception(images: Tensor) -> None:
    class Fails(PaddleNet):
        calls = 0

        def forward(self, images: Any) -> Any:
            found = super().forward(images)
            Fails.calls += 1
            if Fails.calls > 1:
                raise OSError("the disk is gone")
            return found

    model = with_weights_of(drawn(TorchNet()), Fails())
    paddle.seed(7)
    before = state_of(model)
    with pytest.raises(seewhy.RecordingError, match=r"Fails raised OSError .*the disk is gone"):
        seewhy.explain(model, images[0], 1, "occlusion", window=8, stride=8)
    same(before, state_of(model))


def test_resnet18_of_paddle_vision_is_that_of_torchvision() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=6).double().eval()
    twin = with_weights_of(model, paddle.vision.models.resnet18(num_classes=6))
    image = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for name in (
        "grad-cam",
        "cam",
        "layer-cam",
        "eigen-cam",
        "ablation-cam",
        "guided-backprop",
        "integrated-gradients",
    ):
        found, expected = (seewhy.explain(each, image, 4, name, **FEW.get(name, {})) for each in (twin, model))
        close(found, expected)
        assert found.layers == expected.layers


def test_one_precision_for_what_is_asked_and_what_is_answered(images: Tensor) -> None:
    model = with_weights_of(drawn(TorchNet()), PaddleNet())
    double = seewhy.explain(model, images[0].float(), 1, "grad-cam")
    model.to(dtype="float32")
    close(seewhy.explain(model, images[0].float(), 1, "grad-cam"), double)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    paddle.seed(0)
    paddle.save(paddle.vision.models.resnet18(num_classes=4).state_dict(), str(tmp_path / "crops.pdparams"))
    return tmp_path / "crops.pdparams"


def test_a_checkpoint_says_how_many_classes(weights: Path) -> None:
    model = seewhy.load("paddle:resnet18", weights=weights)
    assert model.labels is None
    stored = paddle.load(str(weights))
    np.testing.assert_array_equal(model.module.model.state_dict()["fc.weight"].numpy(), stored["fc.weight"].numpy())
    assert seewhy.explain(model, torch.zeros(3, 64, 64) + 0.1).target_index in range(4)


def test_a_checkpoint_of_more_than_weights_and_with_a_prefix(weights: Path, tmp_path: Path) -> None:
    state = paddle.load(str(weights))
    paddle.save(
        {"epoch": 3, "model": {f"backbone.{name}": value for name, value in state.items()}},
        str(tmp_path / "whole.pdparams"),
    )
    model = seewhy.load("paddle:resnet18", weights=tmp_path / "whole.pdparams")
    np.testing.assert_array_equal(
        model.module.model.state_dict()["conv1.weight"].numpy(), state["conv1.weight"].numpy()
    )


class Runs:
    """What would run code when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch it-ran",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda whole: whole[:9000], "not a complete file of weights"),
        (lambda _: pickle.dumps({"conv1.weight": Runs()}), r"more than arrays \(posix.system\).*refused"),
        (lambda _: b"version https://git-lfs", "not a complete file of weights"),
        (lambda _: pickle.dumps([1, 2]), "holds no state dict"),
        (lambda _: pickle.dumps({"a": np.array([{}])}), r"more than arrays \(numbers of type 'O8'\)"),
        (lambda _: pickle.dumps({"a": np.zeros(2, "i4,f4")}), r"more than arrays \(numbers of type 'V8'\)"),
        (lambda _: b"\x80\x02]r\xff\xff\xff\x0f.", r"more than arrays \(a memo of 268435455 places\)"),
    ],
)
def test_bad_files_are_refused_and_nothing_in_them_is_run(
    content: Callable[[bytes], bytes], told: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pdparams").write_bytes(content(weights.read_bytes()))
    with pytest.raises(seewhy.ModelError, match=told):
        seewhy.load("paddle:resnet18", weights=tmp_path / "bad.pdparams")
    assert not (tmp_path / "it-ran").exists()


def test_weights_of_another_model_are_told_apart(weights: Path) -> None:
    with pytest.raises(seewhy.ModelError, match=r"do not fit this model: .*missing \(layer1.2.conv1.weight"):
        seewhy.load("paddle:resnet34", weights=weights)
    with pytest.raises(seewhy.ModelError, match=r"paddle has no model 'resnet5'. Nearest: 'resnet50'"):
        seewhy.load("paddle:resnet5", pretrained=False)


def test_methods_that_it_lacks_are_refused_alone_and_left_out_of_many(cnn: Twins, images: Tensor) -> None:
    with pytest.raises(
        seewhy.MethodError, match=r"'legrad' cannot be had of this model of PaddlePaddle: attention is seen"
    ):
        seewhy.explain(cnn[1], images[0], method="legrad")
    several = seewhy.compare(cnn[1], images[0], ["legrad", "grad-cam"])
    assert [each.method for each in several] == ["grad-cam"]
    assert "models of PyTorch only" in several.skipped["legrad"]


def test_half_precision_old_protocols_and_a_state_within_itself(tmp_path: Path) -> None:
    model = paddle.vision.models.resnet18(num_classes=4)
    wanted = model.state_dict()["conv1.weight"].numpy()
    model.to(dtype="bfloat16")
    paddle.save(model.state_dict(), str(tmp_path / "half.pdparams"))
    found = seewhy.load("paddle:resnet18", weights=tmp_path / "half.pdparams").module.model.state_dict()
    np.testing.assert_allclose(found["conv1.weight"].numpy(), wanted, rtol=0.01)
    state = {name: np.asarray(values.astype("float32")) for name, values in model.state_dict().items()}
    state["itself"] = state
    (tmp_path / "old.pdparams").write_bytes(pickle.dumps(state, protocol=2))
    found = seewhy.load("paddle:resnet18", weights=tmp_path / "old.pdparams").module.model.state_dict()
    np.testing.assert_allclose(found["conv1.weight"].numpy(), wanted, rtol=0.01)
