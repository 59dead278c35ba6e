import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seewhy.errors import ModelError
from seewhy.models import load
from seewhy.models.checkpoint import load_state, match_names, read_state


def network(classes=3):
    return nn.Sequential(
        OrderedDict(
            body=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            pool=nn.AdaptiveAvgPool2d(1),
            head=nn.Linear(4, classes),
        )
    )


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


ACCURACY = torch.tensor(0.7)
NESTED = {
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "data parallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
    "Lightning with a loss": lambda state: {"state_dict": {**prefixed(state, "model."), "loss.weight": ACCURACY}},
    "Lightning, compiled": lambda state: {"state_dict": prefixed(state, "model._orig_mod.")},
    "three wrappers": lambda state: {"model": prefixed(state, "module._orig_mod.net.")},
    "beside another tensor": lambda state: {"best_acc1": ACCURACY, "state_dict": prefixed(state, "module.")},
    "averaged and not": lambda state: {"state_dict": {k: v * 0 for k, v in state.items()}, "state_dict_ema": state},
    "teacher before student": lambda state: {
        **prefixed(state, "teacher."),
        **prefixed({name: value * 0 for name, value in state.items()}, "student."),
    },
    "without counters": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    "with FLOP counts": lambda state: {**state, "body.total_ops": ACCURACY, "total_params": ACCURACY},
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_weights_are_found_whatever_they_were_wrapped_in(nest, suffix, tmp_path, same_weights):
    trained, fresh = network(), network()
    trained.body[1].num_batches_tracked.fill_(0)
    state = trained.state_dict()
    torch.save(nest(state), tmp_path / f"best{suffix}")
    load_state(fresh, read_state(tmp_path / f"best{suffix}"), "best")
    assert same_weights(fresh, state)


@pytest.mark.parametrize("name", ["best.safetensors", "BEST.SAFETENSORS"])
def test_safetensors_are_read_from_a_path_or_its_text(name, tmp_path, same_weights):
    trained, fresh = network(), network()
    save_file(prefixed(trained.state_dict(), "model."), tmp_path / name)
    load_state(fresh, read_state(str(tmp_path / name)), name)
    assert same_weights(fresh, trained.state_dict())


def test_the_file_from_before_zip_archives_is_read_too(tmp_path, same_weights):
    trained = network()
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    fresh = network()
    load_state(fresh, read_state(tmp_path / "old.pth"), "old.pth")
    assert same_weights(fresh, trained.state_dict())


def test_names_that_fit_already_are_left_alone():
    state = {"model.weight": ACCURACY, "model.bias": ACCURACY}
    assert match_names(state, {"model.weight", "model.bias"}) == state
    assert set(match_names(state, {"weight", "bias"})) == {"weight", "bias"}


MISFITS = {
    "other names": (
        lambda state: {f"x{name}": value for name, value in state.items()},
        r"8 of 9 weights are missing \(body.0.weight, .*unknown to the model \(xbody",
    ),
    "one missing": (
        lambda state: {name: value for name, value in state.items() if name != "head.bias"},
        r"1 of 9 weights are missing \(head.bias\)",
    ),
    "other shape": (
        lambda state: {**state, "body.0.weight": torch.zeros(4, 3, 5, 5)},
        r"body.0.weight is \(4, 3, 5, 5\), the model has \(4, 3, 3, 3\)",
    ),
    "a larger model": (
        lambda state: {**state, "body.2.weight": torch.zeros(4)},
        r"1 in the file are unknown to the model \(body.2.weight\)",
    ),
}


@pytest.mark.parametrize(("change", "told"), MISFITS.values(), ids=MISFITS)
def test_weights_of_another_model_are_told_apart_and_nothing_is_loaded(change, told, same_weights):
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=told):
        load_state(module, change(network().state_dict()), "best.pth")
    assert same_weights(module, before)


@pytest.mark.parametrize(
    "hollow", [torch.zeros(3, 4).to_sparse(), torch.zeros(3, 4, device="meta")], ids=["sparse", "without data"]
)
def test_tensors_that_cannot_be_copied_are_told(hollow):
    with pytest.raises(ModelError, match="cannot be copied"):
        load_state(network(), {**network().state_dict(), "head.weight": hollow}, "best.pth")


def test_resnet34_is_not_taken_for_the_resnet18_that_it_contains(tmp_path):
    torch.save(load("resnet34", pretrained=False).module.state_dict(), tmp_path / "r34.pth")
    with pytest.raises(ModelError, match=r"'r34.pth' do not fit this model: .*layer1.2.conv1.weight"):
        load("resnet18", weights=tmp_path / "r34.pth")


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("given", [None, 10])
def test_the_number_of_classes_is_read_off_the_weights(name, given, tmp_path, same_weights):
    trained = load(name, pretrained=False, num_classes=10)
    torch.save({"state_dict": prefixed(trained.module.state_dict(), "model.")}, tmp_path / "mine.ckpt")
    found = load(name, weights=tmp_path / "mine.ckpt", num_classes=given)
    assert same_weights(found.module, trained.module.state_dict())
    assert found.labels is None  # ten unknown classes are not the first ten of ImageNet
    assert found.preprocess == load(name, pretrained=False).preprocess


def test_weights_for_imagenet_keep_its_names(tmp_path):
    torch.save(load("resnet18", pretrained=False).module.state_dict(), tmp_path / "in1k.pth")
    assert load("resnet18", weights=tmp_path / "in1k.pth").labels.find("tench") == 0


def test_a_wrong_number_of_classes_in_the_request_is_told(tmp_path):
    torch.save(load("resnet18", pretrained=False, num_classes=10).module.state_dict(), tmp_path / "ten.pth")
    with pytest.raises(ModelError, match=r"fc.weight is \(10, 512\), the model has \(7, 512\)"):
        load("resnet18", weights=tmp_path / "ten.pth", num_classes=7)


def test_a_small_file_that_claims_billions_of_classes_does_not_fill_the_memory(tmp_path):
    state = load("resnet18", pretrained=False).module.state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(1).expand(10**9, 512), torch.zeros(1).expand(10**9)
    torch.save(state, tmp_path / "claims.pth")
    with pytest.raises(ModelError, match=r"fc.weight is \(1000000000, 512\), the model has \(1000, 512\)"):
        load("resnet18", weights=tmp_path / "claims.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": network().state_dict(), "args": x}])
def test_a_file_that_would_run_code_is_refused_and_does_not(wrap, zipped, trap, tmp_path):
    bait, left_behind = trap
    torch.save(wrap(bait), tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"'evil.pth' holds more than weights, .*refused. Save `model.state_dict\(\)`"):
        load("resnet18", weights=tmp_path / "evil.pth")
    assert not left_behind.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert left_behind.exists()  # the trap was armed


def test_a_whole_saved_module_is_refused_with_the_remedy(tmp_path):
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(ModelError, match=r"Save `model.state_dict\(\)`"):
        read_state(tmp_path / "module.pth")


HOLDING = {
    "nothing": ({}, "holds no state dict"),
    "a list": ([1, 2], "it holds: list"),
    "only progress": ({"epoch": 3, "optimizer": {"lr": 0.1}}, "it holds: epoch, optimizer"),
}


@pytest.mark.parametrize(("content", "told"), HOLDING.values(), ids=HOLDING)
def test_a_file_without_weights_is_told_by_what_it_holds(content, told, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=told):
        read_state(tmp_path / "other.pth")


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    endless = {"epoch": 1}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(ModelError, match="it holds: epoch, model"):
        read_state(tmp_path / "endless.pth")


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file_is_told(kind, keep, tmp_path):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(network().state_dict(), path)
    else:
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"is not a (complete )?(PyTorch|safetensors) file|refused") as told:
        read_state(path)
    assert "run code" not in str(told.value) or kind == "old"  # a damaged file is not called an attack


@pytest.mark.parametrize(
    "data", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b"\x89HDF\r\n\x1a\n"]
)
def test_a_pointer_or_page_in_the_place_of_weights_is_told_by_its_beginning(data, tmp_path):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"begins with.*Download the file itself"):
        read_state(tmp_path / "model.bin")


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(ModelError, match="packed archive"):
        read_state(path)


@pytest.mark.parametrize("path", ["nowhere.pth", ".", "/dev/zero", "x" * 5000])
def test_a_weights_file_that_is_not_there_is_told(path):
    with pytest.raises(ModelError, match="no weights file"):
        read_state(path)


@pytest.mark.parametrize(
    ("ending", "what"),
    [
        (".pdopt", "the state of an optimiser of PaddlePaddle"),
        (".pdmodel", "an inference program of PaddlePaddle"),
        (".pdiparams", "the weights of an inference program"),
    ],
)
def test_paddles_other_files_are_told_from_weights(ending, what, tmp_path):
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"\x80\x04}.")
    with pytest.raises(ModelError, match=rf"'x{ending}' is {what}.*, not a model's weights\. Give .*'x\.pdparams'"):
        read_state(path)
