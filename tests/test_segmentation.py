"""Models that answer place by place, explained: closed forms, the same answer by another way, batches, what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import seewhy
from seewhy.cli.commands import app
from seewhy.render.overlay import caption
from segmenters import Answering, Linear, UNet

pytestmark = pytest.mark.usefixtures("one_core")

WEIGHT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0.5, -2.0, 1.0]])
LABELS = ["background", "circle", "square"]


@pytest.fixture
def linear() -> Linear:
    return Linear(WEIGHT, stride=2).eval()


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    model = UNet().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # as it comes, what is deep hardly counts beside the skip connections
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def left() -> np.ndarray:
    mask = np.zeros((16, 24), bool)
    mask[4:12, 2:9] = True  # its right edge lies within cells of two pixels
    return mask


def cell_weights() -> Tensor:
    """Return what each cell of 2 x 2 pixels has in the mean over that mask."""
    share = torch.from_numpy(left().reshape(8, 2, 12, 2).mean((1, 3))).float()
    return share / share.sum()


def test_the_layer_is_the_encoders_end_and_maps_are_the_closed_forms(linear: Linear, images: Tensor) -> None:
    region = seewhy.Region(left(), 2)
    weights, cells = cell_weights(), nn.functional.avg_pool2d(images[0], 2)
    plane = torch.einsum("k,khw->hw", WEIGHT[2], cells)  # the class's own score at every cell
    why = seewhy.explain(linear, images[0], region, "grad-cam")
    assert why.layers == ("encoder",)
    assert why.score == pytest.approx(float((plane * weights).sum()), rel=1e-5)
    np.testing.assert_allclose(why.raw, plane / 96, rtol=1e-4, atol=1e-7)  # gradients have the mean WEIGHT / cells
    usual = seewhy.explain(linear, images[0], region)
    assert usual.method == "hires-cam"
    np.testing.assert_allclose(usual.raw, plane * weights, rtol=1e-4, atol=1e-7)
    by_pixel = seewhy.explain(linear, images[0], region, "input-x-gradient")
    slopes = weights.repeat_interleave(2, 0).repeat_interleave(2, 1) / 4
    expected = (WEIGHT[2][:, None, None] * images[0] * slopes).sum(0)
    np.testing.assert_allclose(by_pixel.raw, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(why.outline, left())
    assert why.target == "class 2 in the region"


def test_a_contrast_is_the_difference_of_two_maps(linear: Linear, images: Tensor) -> None:
    one, other, both = (seewhy.explain(linear, images[0], seewhy.Region(left(), of)) for of in (1, 2, "1-vs-2"))
    np.testing.assert_allclose(both.raw, one.raw - other.raw, atol=1e-6)
    assert np.abs(both.raw).max() > 0
    assert both.score == pytest.approx(one.score - other.score, abs=1e-6)


class Pooled(nn.Module):
    """The same question as a classifier's: each class's mean over the region."""

    def __init__(self, model: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, images: Tensor) -> Tensor:
        return (self.model(images) * self.weights).sum((2, 3))


METHODS = {
    "grad-cam": {},
    "grad-cam++": {},
    "finer-cam": {},
    "score-cam": {},
    "ablation-cam": {},
    "eigen-cam": {},
    "shapley-cam": {},
    "occlusion": {"window": 6},
    "rise": {"masks": 40},
    "feature-ablation": {"count": 8},
    "integrated-gradients": {"steps": 6},
    "smoothgrad": {"samples": 4},
    "guided-backprop": {},
    "fullgrad": {},
    "lrp": {},
    "attn-lrp": {},
    "captum:Saliency": {},
}


def close(method: str) -> float:
    """Return how far maps may lie apart, as a part of the peak; ablation's are small differences of large scores."""
    return 1e-3 if method == "ablation-cam" else 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_what_it_gives_for_the_region_as_a_class(method: str, unet: UNet, images: Tensor) -> None:
    weights = torch.from_numpy(left() / left().sum()).float()
    options: dict[str, Any] = dict(METHODS[method])
    asked = seewhy.explain(unet, images[0], seewhy.Region(left(), 1), method, layers="deep", **options)
    pooled = seewhy.explain(Pooled(unet, weights), images[0], 1, method, layers="model.deep", **options)
    assert asked.score == pytest.approx(pooled.score, rel=1e-5)
    assert np.abs(asked.raw).max() > 0
    np.testing.assert_allclose(asked.raw, pooled.raw, rtol=1e-3, atol=close(method) * np.abs(pooled.raw).max())


@pytest.mark.parametrize("method", ["grad-cam", "occlusion", "rise", "saliency", "ablation-cam"])
def test_a_batch_is_one_by_one(method: str, unet: UNet, images: Tensor) -> None:
    options: dict[str, Any] = METHODS.get(method, {})
    together = seewhy.explain(unet, images, method=method, **options)
    for image, why in zip(images, together, strict=True):
        alone = seewhy.explain(unet, image, method=method, **options)
        assert (why.target, why.prediction) == (alone.target, alone.prediction) or np.allclose(
            [p.score for p in why.prediction], [p.score for p in alone.prediction], atol=1e-5
        )
        np.testing.assert_array_equal(why.outline, alone.outline)
        np.testing.assert_allclose(why.raw, alone.raw, atol=close(method) * np.abs(alone.raw).max())


def test_a_reflected_input_is_asked_about_the_reflected_region(unet: UNet, images: Tensor) -> None:
    """Smoothing over reflected and dimmed inputs: each is asked by itself here, about the mask where it then lies."""
    smoothed = seewhy.explain(unet, images[0], seewhy.Region(left(), 1), smooth="aug", layers="deep")
    total = np.zeros_like(smoothed.raw)
    for factor in (0.9, 1.0, 1.1):
        plain = seewhy.explain(unet, images[0] * factor, seewhy.Region(left(), 1), layers="deep")
        turned = seewhy.explain(unet, images[0].flip(-1) * factor, seewhy.Region(left()[:, ::-1], 1), layers="deep")
        total += (plain.raw + turned.raw[:, ::-1]) / 6
    np.testing.assert_allclose(smoothed.raw, total, atol=1e-5 * np.abs(total).max())
    unmoved = seewhy.explain(unet, images[0].flip(-1), seewhy.Region(left(), 1), layers="deep")
    assert np.abs(unmoved.raw[:, ::-1] - total).max() > 0.05 * np.abs(total).max()  # the other way differs


def test_all_stages_lead_to_the_bottleneck(unet: UNet, images: Tensor) -> None:
    table = seewhy.layers(unet, images[0])
    assert [row.name for row in table.stages] == ["down1", "down2", "deep"]
    assert table.default.name == "deep"
    maps = seewhy.compare(unet, images[0], layers="all-stages", targets=1)
    assert [each.raw.shape for each in maps] == [(16, 24), (8, 12), (4, 6)]
    usual = seewhy.explain(unet, images[0])
    assert any("layers='all-stages'" in note and "deep" in note for note in usual.notes)
    assert not any("all-stages" in note for note in seewhy.explain(unet, images[0], layers="down1").notes)


def test_a_volume_is_explained() -> None:
    torch.manual_seed(0)
    model = UNet(channels=1, axes=3).eval()
    volume = torch.rand(1, 8, 8, 12)
    mask = np.zeros((8, 8, 12), bool)
    mask[2:6, 2:6, 4:8] = True
    why = seewhy.explain(model, volume, seewhy.Region(mask, 2), "hires-cam")
    assert (why.layers, why.raw.shape) == (("deep",), (2, 2, 3))
    deep: dict[str, Tensor] = {}
    handle = model.deep.register_forward_hook(
        lambda _m, _i, out: deep.update(kept=out.detach().requires_grad_()) or deep["kept"]
    )
    scores = model(volume[None])
    handle.remove()
    total = scores[0, 2][torch.from_numpy(mask)].mean()
    [slope] = torch.autograd.grad(total, deep["kept"])
    assert why.score == pytest.approx(float(total.detach()), rel=1e-5)
    expected = (slope * deep["kept"]).sum(1)[0].detach().numpy()
    np.testing.assert_allclose(why.raw, expected, rtol=1e-4, atol=1e-7)


def answering(*shares: int) -> Answering:
    """Return a model that predicts class i at shares[i] of 100 places."""
    predicted = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor(shares)).view(10, 10)
    return Answering(3 * nn.functional.one_hot(predicted, len(shares)).permute(2, 0, 1).float()).eval()


def test_what_the_model_says_is_how_much_each_class_covers() -> None:
    why = seewhy.explain(answering(60, 25, 15, 0), torch.rand(3, 10, 10), method="random", labels=[*LABELS, "star"])
    told = [(p.index, p.name, p.probability, p.score, p.means) for p in why.prediction]
    assert told == [
        (0, "background", pytest.approx(0.6), 3, "area"),
        (1, "circle", pytest.approx(0.25), 3, "area"),
        (2, "square", pytest.approx(0.15), 3, "area"),
    ]
    assert why.target_index == 1
    assert why.about == why.prediction[1]
    assert why.probability == pytest.approx(0.25)


def test_only_the_picture_counts_not_an_added_border() -> None:
    """A picture twice as wide as high lies on rows 2 to 6 of a square; the rows above and below are border."""
    preprocess = {"size": (10, 10), "fit": "letterbox"}
    model = answering(20, 40, 40)  # rows 0 and 1 background, 2 to 5 circle, 6 to 9 square
    why = seewhy.explain(model, np.zeros((20, 40, 3), np.uint8), method="random", preprocess=preprocess)
    shares = {p.index: p.probability for p in why.prediction}
    assert shares == {1: pytest.approx(4 / 5), 2: pytest.approx(1 / 5)}


def test_captions_and_files_speak_of_area(tmp_path: Path) -> None:
    why = seewhy.explain(answering(60, 25, 15), torch.rand(3, 40, 40), "square", "edges", labels=LABELS)
    assert "square where it is predicted (square covers 15.0% of the picture)" in caption(why)[0]
    default = seewhy.explain(answering(60, 25, 15), torch.rand(3, 40, 40), method="edges", labels=LABELS)
    assert "the model's answer" not in " ".join(caption(default))
    why.save(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["prediction"][0] == {
        "index": 0,
        "name": "background",
        "score": 3.0,
        "probability": pytest.approx(0.6),
        "means": "area",
    }
    why.save(tmp_path / "a.html")
    assert "60.0% of the picture" in (tmp_path / "a.html").read_text()
    both = seewhy.compare(answering(60, 25, 15), torch.rand(3, 40, 40), ["edges", "random"], labels=LABELS)
    words = [text.get_text() for ax in both.figure().axes for text in (ax.title, *ax.texts)]
    assert any("covers most:\nbackground 60%" in word for word in words)
    assert not any("the model's answer" in word for word in words)


def test_a_class_that_is_predicted_nowhere_is_told() -> None:
    why = seewhy.explain(answering(60, 40, 0), torch.rand(3, 10, 10), "square", "occlusion", labels=LABELS, window=4)
    assert "absent" in [finding.code for finding in why.diagnosis]
    assert "unlikely" not in [finding.code for finding in why.diagnosis]
    assert why.outline is None
    small = seewhy.explain(answering(99, 1, 0), torch.rand(3, 10, 10), "circle", "occlusion", labels=LABELS, window=4)
    assert not {"absent", "unlikely"} & {finding.code for finding in small.diagnosis}


def test_labels_must_be_as_many_as_the_classes() -> None:
    with pytest.raises(seewhy.ModelError, match="2 names, and the model has 3 classes"):
        seewhy.explain(answering(60, 40, 0), torch.rand(3, 10, 10), labels=["a", "b"])


def test_the_region_is_outlined_in_the_picture(unet: UNet) -> None:
    picture = np.full((16, 24, 3), 90, np.uint8)
    preprocess = {"size": (16, 24), "fit": "squash"}
    why = seewhy.explain(unet, picture, seewhy.Region(left(), 1), preprocess=preprocess)
    drawn = np.asarray(why.overlay(opacity=0.0))
    changed = (drawn != 90).any(2)
    assert changed.any()
    assert not changed[~left()].any()


def factory() -> nn.Module:
    torch.manual_seed(0)
    return UNet().eval()


def test_the_command_reads_masks_and_says_what_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)).save("x.png")
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 10:30] = 255
    Image.fromarray(mask).save("mask.png")
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    usual = ["explain", "x.png", "--model", "test_segmentation:factory", "--labels", "names.txt"]
    usual += ["--preprocess", '{"size": [16, 24], "fit": "squash"}']
    result = CliRunner().invoke(
        app, [*usual, "-t", "region:mask.png:square", "-t", "pixel:3,4", "-t", "circle-vs-square"]
    )
    assert result.exit_code == 0, result.output
    assert "place by place: % of the picture" in result.output
    assert "hires-cam for square in the region at deep" in result.output
    assert "at (3, 4)" in result.output
    assert len(list(tmp_path.glob("*.why.png"))) == 3
    compared = CliRunner().invoke(app, ["compare", *usual[1:], "--json"])
    assert [each["method"] for each in json.loads(compared.stdout)["maps"]] == ["hires-cam"]
    refused = CliRunner().invoke(app, [*usual, "-t", "pixel:40,4"])
    assert isinstance(refused.exception, seewhy.TargetError)
    assert "outside of the picture" in str(refused.exception)
