"""Models with several inputs: one of them is explained, the others stand as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import ImageError, RecordingError
from seewhy.images import read


def encoder(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()
    )


class Depth(nn.Module):
    """Colour and depth, each through its own way; then both together."""

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.depth = encoder(3), encoder(1)
        self.head = nn.Linear(12, 3)

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        return self.head(torch.cat([self.colour(rgb).mean((2, 3)), self.depth(depth).mean((2, 3))], 1))


class Mixed(nn.Module):
    """A picture and a table's row, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.body = encoder(3)
        self.table = nn.Linear(2, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, *, image: Tensor, row: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": scale * self.head(self.body(image).mean((2, 3)) * self.table(row))}


class Siamese(nn.Module):
    """One way for two pictures; how alike they are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = encoder(3)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (self.body(one).mean((2, 3)) * self.body(other).mean((2, 3))).sum(1, keepdim=True)


def make(kind: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    model = kind()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def pictures(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RGB, DEPTH = pictures(1, 3, 16, 24), pictures(2, 1, 16, 24)


def grad_cam(features: Tensor, score: Tensor) -> np.ndarray:
    [gradient] = torch.autograd.grad(score, features, retain_graph=True)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach().numpy()


@pytest.mark.parametrize(("wrt", "part", "image"), [(0, "colour", RGB), ("depth", "depth", DEPTH)])
def test_each_input_has_its_own_layers_and_its_own_map(wrt: Any, part: str, image: Tensor) -> None:
    model = make(Depth)
    why = seewhy.explain(model, (RGB, DEPTH), 1, wrt=wrt)
    assert why.layers == (part,)
    assert {row.name.split(".")[0] for row in seewhy.layers(model, (RGB, DEPTH), wrt=wrt)} == {part}
    features = getattr(model, part)(image[None])
    pooled = {"colour": model.colour(RGB[None]), "depth": model.depth(DEPTH[None]), part: features}
    score = model.head(torch.cat([pooled["colour"].mean((2, 3)), pooled["depth"].mean((2, 3))], 1))[0, 1]
    assert why.score == pytest.approx(score.item(), rel=1e-5)
    np.testing.assert_allclose(why.raw, grad_cam(features, score)[0], rtol=1e-4, atol=1e-6)


def test_a_list_of_inputs_gives_a_map_each() -> None:
    both = seewhy.explain(make(Depth), (RGB, DEPTH), 1, wrt=["rgb", "depth"])
    assert [why.layers for why in both] == [("colour",), ("depth",)]


@pytest.mark.parametrize(
    "method", ["grad-cam", "ablation-cam", "occlusion", "integrated-gradients", "score-cam", "fullgrad"]
)
def test_a_batch_of_calls_is_one_by_one(method: str) -> None:
    model, few = make(Mixed), {"steps": 4} if method == "integrated-gradients" else {}
    images, rows = pictures(3, 3, 3, 16, 24), pictures(4, 3, 2)
    together = seewhy.explain(model, {"image": images, "row": rows, "scale": 2.0}, 1, method, **few)
    for why, image, row in zip(together, images, rows, strict=True):
        alone = seewhy.explain(model, {"image": image, "row": row, "scale": 2.0}, 1, method, **few)
        np.testing.assert_allclose(why.raw, alone.raw, rtol=1e-4, atol=1e-6)
        expected = model(image=image[None], row=row[None], scale=2.0)["logits"][0, 1]
        assert why.score == pytest.approx(expected.item(), rel=1e-5)


def test_other_inputs_matter_and_are_not_changed() -> None:
    model, row = make(Mixed), torch.tensor([1.0, -1.0])
    one = seewhy.explain(model, {"image": RGB, "row": row}, 1)
    other = seewhy.explain(model, {"image": RGB, "row": -row}, 1)
    assert not np.allclose(one.raw, other.raw)
    assert row.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("method", ["grad-cam", "ablation-cam", "eigen-cam"])
def test_a_part_that_runs_twice_has_a_map_for_each_run(method: str) -> None:
    model, other = make(Siamese), pictures(5, 3, 16, 24)
    first = seewhy.explain(model, (RGB, other), method=method, wrt="one")
    second = seewhy.explain(model, (RGB, other), method=method, wrt="other")
    assert (first.layers, second.layers) == (("body#1",), ("body#2",))
    assert not np.allclose(first.raw, second.raw)
    swapped = seewhy.explain(model, (other, RGB), method=method, wrt="other")
    np.testing.assert_allclose(first.raw, swapped.raw, rtol=1e-4, atol=1e-6)


def test_runs_are_asked_for_by_number_or_all_by_the_modules_name() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.again(self.again(self.stem(images)).relu()).mean((2, 3))

    model = make(Twice)
    each = seewhy.explain(model, RGB, 1, layers="again", fuse="none")
    assert [why.layers for why in each] == [("again#1",), ("again#2",)]
    assert not any("ran" in note for note in each[0].notes)
    first = seewhy.explain(model, RGB, 1, layers="again#1")
    np.testing.assert_array_equal(first.raw, each[0].raw)
    features = model.again(model.stem(RGB[None]))
    np.testing.assert_allclose(
        first.raw, grad_cam(features, model.again(features.relu()).mean((2, 3))[0, 1])[0], rtol=1e-4, atol=1e-6
    )


def test_where_inputs_have_met_the_map_is_of_all_and_says_so() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = encoder(4)

        def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
            return self.body(torch.cat([rgb, depth], 1)).mean((2, 3))

    why = seewhy.explain(make(Early), (RGB, DEPTH), 1, wrt=0)
    assert why.layers == ("body",)
    assert any("all inputs together" in note for note in why.notes)


def test_pictures_among_the_inputs_are_prepared_alike(chelsea: np.ndarray) -> None:
    how = {"preprocess": {"size": (32, 32), "fit": "squash"}}
    model = make(Siamese)
    why = seewhy.explain(model, (chelsea, chelsea[:, ::-1]), wrt=0, **how)
    assert why.heatmap.shape == chelsea.shape[:2]
    same = seewhy.explain(model, (chelsea, chelsea), wrt=0, **how)
    tensor = seewhy.Explainer(model, **how).model.preprocess(read(chelsea))[0][None]
    assert same.score == pytest.approx(model(tensor, tensor).item(), rel=1e-5)


def test_perturbations_change_the_explained_input_alone() -> None:
    class Planted(nn.Module):
        """Only one place of the depth counts, and only together with the brightness of the picture."""

        def __init__(self) -> None:
            super().__init__()
            self.keep = nn.Conv2d(1, 1, 1)

        def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
            return self.keep(depth)[:, :, 4:8, 16:20].mean((1, 2, 3))[:, None] * rgb.mean((1, 2, 3))[:, None]

    model = make(Planted)
    why = seewhy.explain(
        model, (RGB + 2, DEPTH.abs() + 1), "up", "occlusion", wrt="depth", window=4, stride=4, baseline=0.0
    )
    peak = np.unravel_index(np.abs(why.raw).argmax(), why.raw.shape)
    cell = [place * length // cells for place, length, cells in zip(peak, (16, 24), why.raw.shape, strict=True)]
    assert cell[0] in range(4, 8) and cell[1] in range(16, 20)


class Worded(nn.Module):
    """A picture and texts: the length of each sample's text, taken apart one by one, is added to its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = encoder(3)

    def forward(self, image: Tensor, words: Any) -> Tensor:
        pooled = self.body(image).mean((2, 3))
        return torch.stack([row + len(text) for row, text in zip(pooled, words, strict=True)])


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_texts_beside_a_batch_are_one_a_sample(kind: Any, method: str) -> None:
    model, images = make(Worded), pictures(6, 2, 3, 16, 24)
    both = seewhy.explain(model, (images, kind(["a", "bbb"])), 1, method)
    for why, image, text in zip(both, images, ["a", "bbb"], strict=True):
        assert why.score == pytest.approx(model(image[None], [text])[0, 1].item(), rel=1e-5)
        alone = seewhy.explain(model, (image[None], [text]), 1, method)[0]
        np.testing.assert_allclose(why.raw, alone.raw, rtol=1e-4, atol=1e-6)


def test_arrays_beside_a_batch_are_one_row_a_sample() -> None:
    model, images, rows = make(Mixed), pictures(3, 3, 3, 16, 24), pictures(4, 3, 2)
    tensors = seewhy.explain(model, {"image": images, "row": rows}, 1)
    arrays = seewhy.explain(model, {"image": images, "row": rows.numpy()}, 1)
    assert [why.score for why in arrays] == [why.score for why in tensors]


def test_pictures_beside_a_batch_are_one_a_sample_and_a_single_one_is_for_all(chelsea: np.ndarray) -> None:
    how: Any = {"preprocess": {"size": (16, 24), "fit": "squash"}}
    model, images, turned = make(Siamese), pictures(3, 2, 3, 16, 24), np.ascontiguousarray(chelsea[:, ::-1])
    ask = seewhy.Explainer(model, **how)
    first, second = (ask.model.preprocess(read(picture))[0][None] for picture in (chelsea, turned))
    expected = [model(images[:1], first).item(), model(images[1:], second).item()]
    each = ask((images, np.stack([chelsea, turned])), "up", wrt=0)
    assert [why.score for why in each] == pytest.approx(expected, rel=1e-4)
    one = ask((images, chelsea), "up", wrt=0)
    assert [why.score for why in one] == pytest.approx([expected[0], model(images[1:], first).item()], rel=1e-4)


def test_settings_beside_a_batch_are_the_same_for_all_unless_they_could_be_one_a_sample() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = encoder(3)

        def forward(self, image: Tensor, weights: Any) -> Tensor:
            return self.body(image).mean((2, 3)) * sum(weights)

    model, images = make(Pooled), pictures(6, 2, 3, 16, 24)
    for why, image in zip(seewhy.explain(model, (images, (1.0, 2.0, 3.0)), 1), images, strict=True):
        assert why.score == pytest.approx(6 * model.body(image[None]).mean((2, 3))[0, 1].item(), rel=1e-5)
    with pytest.raises(ImageError, match=r"1 \(tuple of 2\) holds as many numbers as the batch has images"):
        seewhy.explain(model, (images, (1.0, 2.0)), 1)
    one_by_one = seewhy.explain(model, [(image, (1.0, 2.0)) for image in images], 1)
    assert one_by_one[1].score == pytest.approx(3 * model.body(images[1:]).mean((2, 3))[0, 1].item(), rel=1e-5)
    with pytest.raises(ImageError, match=r"has a batch of 2, and the input 1 \(list of 3\) another"):
        seewhy.explain(model, (images, ["a", "b", "c"]), 1)


class Heard(nn.Module):
    """A signal, which comes first among the parts, and a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = nn.Conv1d(2, 4, 3, padding=1)
        self.picture = encoder(3)
        self.head = nn.Linear(10, 3)

    def forward(self, image: Tensor, signal: Tensor) -> Tensor:
        return self.head(torch.cat([self.picture(image).mean((2, 3)), self.signal(signal).mean(2)], 1))


@pytest.mark.parametrize("turn", ["as it is", "square"])
def test_an_array_of_a_picture_is_one_whichever_part_comes_first(chelsea: np.ndarray, turn: str) -> None:
    picture = chelsea if turn == "as it is" else np.ascontiguousarray(chelsea[:40, :40])
    signal, how = pictures(7, 2, 30), {"preprocess": {"size": (16, 24), "fit": "squash"}}
    found = seewhy.explain(make(Heard), (picture, signal), 1, wrt=0, **how)
    expected = seewhy.explain(make(Heard), (Image.fromarray(picture), signal), 1, wrt=0, **how)
    assert found.layers == ("picture",)
    np.testing.assert_array_equal(found.raw, expected.raw)
    heard = seewhy.explain(make(Heard), (picture, signal.numpy()), 1, wrt="signal", **how)
    assert (heard.layers, heard.score) == (("signal",), expected.score)


def test_an_input_is_named_by_one_name_where_one_map_is_made(unchecked: None) -> None:
    given = (RGB, DEPTH)
    for wrt in (["rgb", "depth"], [], 1.5):
        for ask in (seewhy.compare, seewhy.layers):
            with pytest.raises(ImageError, match=r"is no position and no name of one input"):
                ask(make(Depth), given, wrt=wrt)
    with pytest.raises(ImageError, match=r"wrt=\[\] is no position.*at least one"):
        seewhy.explain(make(Depth), given, wrt=[])
    with pytest.raises(ImageError, match="'nonsense' was asked for, and the model was given one input alone"):
        seewhy.layers(make(Depth), wrt="nonsense")


def test_errors_say_which_inputs_there_are() -> None:
    with pytest.raises(ImageError, match=r"more than one could be meant: 0 \(tensor 3x16x24\), 1 \(tensor 1x16x24\)"):
        seewhy.explain(make(Depth), (RGB, DEPTH))
    with pytest.raises(ImageError, match=r"wrt='depht' is none of the inputs given.*Nearest: 'depth'"):
        seewhy.explain(make(Depth), (RGB, DEPTH), wrt="depht")
    with pytest.raises(ImageError, match="none of them is an image"):
        seewhy.explain(make(Mixed), {"row": torch.zeros(2)})
    with pytest.raises(ImageError, match="batch of 2"):
        seewhy.explain(make(Depth), (torch.zeros(2, 3, 8, 8), torch.zeros(3, 1, 8, 8)), wrt=0)
    with pytest.raises(RecordingError, match="unexpected keyword argument"):
        seewhy.explain(make(Mixed), {"image": RGB, "raw": torch.zeros(2)})


def test_the_model_is_given_back_as_it_was() -> None:
    model = make(Siamese).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seewhy.explain(model, (RGB, DEPTH.expand(3, -1, -1)), method="ablation-cam", wrt=1)
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Described(nn.Module):
    """A picture and a few numbers about it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.told = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        return self.seen(image).relu().mean((2, 3)) + self.told(numbers)


@pytest.mark.parametrize("method", ["grad-cam", "saliency"])
def test_an_input_without_places_has_no_map(method: str) -> None:
    with pytest.raises(seewhy.ImageError, match=r"is an input of shape \(5,\): it has no places"):
        seewhy.explain(Described().eval(), (torch.rand(3, 16, 16), torch.rand(5)), method=method, wrt="numbers")


def test_an_input_that_is_lacking_is_told() -> None:
    with pytest.raises(
        seewhy.RecordingError, match=r"'numbers'\. Give all inputs as a tuple, or as a dict by their names"
    ):
        seewhy.explain(Described().eval(), torch.rand(3, 16, 16))
