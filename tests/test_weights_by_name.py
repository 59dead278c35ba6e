"""`weights=` wherever a model is given: a name's file is loaded into it, and what is an object already is told so."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import seewhy
from small_models import make_small_net

NAME = "timm:resnet10t"
CALLS: dict[str, Callable[..., Any]] = {
    "explain": lambda model, image, **how: seewhy.explain(model, image, **how).score,
    "compare": lambda model, image, **how: seewhy.compare(model, image, **how)[0].score,
    "Explainer": lambda model, image, **how: seewhy.Explainer(model, **how)(image).score,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of three classes, and its weights in a file."""
    torch.manual_seed(3)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("call", CALLS)
def test_the_weights_in_a_file_answer(call: str, trained: tuple[Any, Path]) -> None:
    model, path = trained
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = float(model(image[None]).max())
    assert CALLS[call](NAME, image, weights=path) == pytest.approx(expected, rel=1e-4)


def test_layers_and_pairs_take_weights_too(trained: tuple[Any, Path]) -> None:
    _, path = trained
    assert seewhy.layers(NAME, weights=path).default == seewhy.layers(copy.deepcopy(trained[0])).default
    first, second = (np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in (0, 1))
    pair = seewhy.compare_pair(NAME, first, second, weights=str(path))
    alone = seewhy.compare_pair(trained[0], first, second)
    assert pair[0].score == pytest.approx(alone[0].score, rel=1e-4)


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, trained: tuple[Any, Path]) -> None:
    path = tmp_path / "again.pth"
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    state = dict(trained[0].state_dict())
    torch.save(state, path)
    before = seewhy.explain(NAME, image, 0, weights=path).score
    state["fc.bias"] = state["fc.bias"] + 5
    torch.save({**state, "more": torch.zeros(9)}, path)
    assert seewhy.explain(NAME, image, 0, weights=path).score == pytest.approx(before + 5, rel=1e-4)


@pytest.mark.parametrize("call", CALLS)
def test_an_object_has_its_weights_already(call: str, trained: tuple[Any, Path]) -> None:
    with pytest.raises(seewhy.ModelError, match="a SmallNet was given: it has its weights already") as raised:
        CALLS[call](make_small_net(), torch.zeros(3, 24, 40), weights=trained[1])
    assert "give a name" in str(raised.value)


def test_the_doctor_says_so_too(trained: tuple[Any, Path]) -> None:
    [check] = seewhy.doctor(make_small_net(), torch.zeros(3, 24, 40), weights=trained[1])
    assert (check.name, check.verdict) == ("loads", "fails")
    assert "has its weights already" in check.found


def test_weights_in_memory_are_no_file(trained: tuple[Any, Path], unchecked: None) -> None:
    with pytest.raises(seewhy.ModelError, match="a file's path, and a OrderedDict was given"):
        seewhy.explain(NAME, torch.zeros(3, 64, 64), weights=trained[0].state_dict())


def test_a_class_is_told_from_a_model_of_it() -> None:
    with pytest.raises(
        seewhy.ModelError, match=r"ResNet is a class, not a model of this class. Give one: ResNet\(\)\."
    ):
        seewhy.explain(timm.models.ResNet, torch.zeros(3, 64, 64))


FACTORY = """
import torch

def make(num_classes=4):
    pool = torch.nn.AdaptiveAvgPool2d(1)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 2), pool, torch.nn.Flatten(), torch.nn.Linear(2, num_classes))
"""


def test_random_weights_are_told_with_every_map_where_seewhy_drew_them(trained: tuple[Any, Path]) -> None:
    image = torch.zeros(3, 64, 64)
    drawn = seewhy.explain(seewhy.load(NAME, pretrained=False), image, 0, preprocess={"size": (64, 64)})
    assert any("the model's weights are random" in note for note in drawn.notes)
    known = seewhy.explain(NAME, image, 0, weights=trained[1])
    assert not any("random" in note for note in known.notes)


def test_a_trained_body_with_a_new_last_layer_is_told_and_a_whole_model_is_not() -> None:
    [told] = seewhy.load(num_classes=5).remarks
    assert "last layer has random weights" in told
    assert seewhy.load().remarks == seewhy.load(num_classes=1000).remarks == seewhy.load(num_classes=0).remarks == ()


def test_a_factory_that_follows_the_weights_number_of_classes_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "follows_weights.py").write_text(FACTORY)
    import follows_weights  # type: ignore[import-not-found]

    torch.save(follows_weights.make(7).state_dict(), tmp_path / "seven.pth")
    torch.save(follows_weights.make(4).state_dict(), tmp_path / "four.pth")
    why = seewhy.explain("follows_weights:make", torch.rand(3, 8, 8), 0, weights="seven.pth")
    assert "the model was built for 7 classes, as many as the weights in seven.pth are for" in why.notes
    assert seewhy.load("follows_weights:make", weights="four.pth").remarks == ()
    assert seewhy.load("follows_weights:make").remarks == ()  # it may have loaded some by itself
