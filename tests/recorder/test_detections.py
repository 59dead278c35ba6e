"""A detector's predictions, read before anything is suppressed, against the models' own answers and against sums by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import detection
from typer.testing import CliRunner

import seewhy
from seewhy.cli.commands import app
from seewhy.recorder.detections import from_pair, read_boxes
from seewhy.recorder.torchvision_detectors import torchvision_detector

SMALL = {"weights": None, "weights_backbone": None, "num_classes": 3}
SIZED = {**SMALL, "min_size": 64, "max_size": 96}
BUILDERS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "faster r-cnn": (detection.fasterrcnn_mobilenet_v3_large_320_fpn, SIZED),
    "mask r-cnn": (detection.maskrcnn_resnet50_fpn, SIZED),
    "keypoint r-cnn": (detection.keypointrcnn_resnet50_fpn, {**SIZED, "num_classes": 2}),
    "retinanet": (detection.retinanet_resnet50_fpn, SIZED),
    "fcos": (detection.fcos_resnet50_fpn, SIZED),
    "ssdlite": (detection.ssdlite320_mobilenet_v3_large, SMALL),
    "ssd": (detection.ssd300_vgg16, SMALL),
}
ALL = [
    pytest.param(name, marks=pytest.mark.slow if name in ("mask r-cnn", "keypoint r-cnn", "ssd") else ())
    for name in BUILDERS
]
pytestmark = pytest.mark.usefixtures("one_core")


def built(name: str) -> nn.Module:
    builder, options = BUILDERS[name]
    torch.manual_seed(0)
    model = builder(**options).eval()
    for part, parameter in model.named_parameters():
        if part.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)  # untrained, it starts out sure that nothing is there
    return model


@pytest.mark.parametrize("name", ALL)
def test_raw_predictions_hold_what_torchvision_itself_detects_and_every_family_gives_a_map(name: str) -> None:
    model, image = built(name), torch.rand(3, 72, 88, generator=torch.Generator().manual_seed(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        [own] = model([image])
        [rows] = torchvision_detector(model)(image[None]).rows
    assert len(own["boxes"]) > 0
    found = 0
    for box, label, score in zip(own["boxes"][:20], own["labels"], own["scores"], strict=False):
        # Of one proposal torchvision keeps every class; a row has the box of its likeliest.
        near = (rows[:, :4] - box).abs().amax(1) < 1e-2
        fitting = near & ((rows[:, 5:].argmax(1) == label) | ("r-cnn" not in name))
        if fitting.any():
            assert (rows[fitting, 5 + label] - score).abs().min() < 1e-4
            found += 1
    assert found == 20 or ("r-cnn" in name and found > 0)
    why = seewhy.explain(model, image)
    assert why.method == "hires-cam"
    assert np.abs(why.raw).max() > 0
    assert why.score == pytest.approx(why.detections[0].score)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_map_lies_where_its_evidence_is_though_the_model_scales_and_pads_inside() -> None:
    torch.manual_seed(0)
    model = detection.retinanet_resnet50_fpn(**{**SMALL, "min_size": 100, "max_size": 300}).eval()
    image = torch.zeros(3, 50, 66)  # becomes 100 x 132 inside, and then 128 x 160
    why = seewhy.explain(model, image, seewhy.BoxTarget((40, 20, 66, 50), of=1), "eigen-cam", "backbone.body.layer1")
    assert why.raw.shape == (32, 40)
    # A cell's middle, (column + 0.5) * 4 inside pixels, lies at half of that on the picture.
    planted = np.zeros((32, 40), np.float32)
    planted[20, 30] = 1  # 82, 122 inside: 41, 61 on the picture
    heat = replace(why, raw=planted).heatmap
    top = np.argwhere(heat == heat.max()).mean(0) + 0.5
    np.testing.assert_allclose(top, [41, 61], atol=0.51)


def test_detr_boxes_and_chances_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25], [0.1, 0.2, 0.2, 0.4]]])
    returned = SimpleNamespace(logits=logits, pred_boxes=boxes)
    rows = read_boxes(returned, (40, 80), configured(num_labels=2))
    np.testing.assert_allclose(rows[0, :, :4], [[20, 15, 60, 25], [0, 0, 16, 16]], atol=1e-5)
    chances = np.exp([2, 0, 1]) / np.exp([2, 0, 1]).sum()
    np.testing.assert_allclose(rows[0, 0, 4:], [1 - chances[2], *chances[:2]], rtol=1e-5)
    alone = read_boxes(returned, (40, 80), configured(num_labels=3))
    np.testing.assert_allclose(alone[0, :, 5:], 1 / (1 + np.exp(-logits[0].numpy())), rtol=1e-5)


def configured(**known: object) -> nn.Module:
    model = nn.Identity()
    model.config = SimpleNamespace(**known)
    return model


@pytest.mark.parametrize("texts", [1, 2, 3])
def test_each_text_of_a_model_asked_in_words_has_a_chance_of_its_own(texts: int) -> None:
    logits = torch.randn(1, 5, texts, generator=torch.Generator().manual_seed(0))
    returned = SimpleNamespace(logits=logits, pred_boxes=torch.full((1, 5, 4), 0.5))
    rows = read_boxes(returned, (40, 80), configured(num_labels=2, text_config=SimpleNamespace()))
    np.testing.assert_allclose(rows[0, :, 5:], 1 / (1 + np.exp(-logits[0].numpy())), rtol=1e-5)
    np.testing.assert_allclose(rows[0, :, 4], 1 / (1 + np.exp(-logits[0].numpy().max(1))), rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (configured(num_labels=7), "gives 3 logits a box and has num_labels=7"),
        (nn.Identity(), "has no config with num_labels"),
    ],
)
def test_what_logits_mean_is_not_guessed(module: nn.Module, told: str) -> None:
    returned = SimpleNamespace(logits=torch.zeros(1, 5, 3), pred_boxes=torch.full((1, 5, 4), 0.5))
    with pytest.raises(seewhy.RecordingError, match=f"{told}.*output="):
        read_boxes(returned, (40, 80), module)


def test_owl_vit_scores_each_text_as_its_own_post_processing_does() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.OwlViTConfig(
        text_config={**size, "vocab_size": 50, "max_position_embeddings": 8, "eos_token_id": 49},
        vision_config={**size, "image_size": 64, "patch_size": 16}, projection_dim=16,
    )  # fmt: skip
    words = torch.randint(1, 49, (3, 8), generator=torch.Generator().manual_seed(1))

    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.OwlViTForObjectDetection(config)
            heads = self.model.class_head
            for last in (self.model.box_head.dense2, heads.logit_shift, heads.logit_scale):
                nn.init.zeros_(last.weight)  # untrained, they give boxes without width and chances of 0 and 1

        def forward(self, images: torch.Tensor) -> object:
            texts = words.repeat(len(images), 1)
            return self.model(pixel_values=images, input_ids=texts, attention_mask=torch.ones_like(texts))

    model, image = Asked().eval(), torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(2))
    why = seewhy.explain(model, image, "box:0", "grad-cam")
    with torch.no_grad():
        own = model(image[None]).logits[0].sigmoid()
    assert why.score == pytest.approx(float(own.max()), rel=1e-4)
    assert why.detections[0].index == int(own.amax(0).argmax())


def test_yolo_heads_by_hand() -> None:
    draws = torch.Generator().manual_seed(0)
    count = 8 * 12 + 4 * 6 + 2 * 3  # a 64 x 96 input at strides 8, 16, 32
    centres = torch.tensor([10.0, 20.0, 4.0, 6.0])
    eight = torch.cat([centres[None, :, None].expand(1, 4, count), torch.rand(1, 3, count, generator=draws)], 1)
    rows = read_boxes((eight, None), (64, 96), nn.Identity())
    assert rows[0, 0, :4].tolist() == [8, 17, 12, 23]
    assert torch.equal(rows[0, :, 5:], eight[0, 4:].T)
    assert torch.equal(rows[0, :, 4], eight[0, 4:].amax(0))
    five = torch.cat([centres.expand(1, 3 * count, 4), torch.rand(1, 3 * count, 4, generator=draws)], 2)
    rows = read_boxes(five, (64, 96), nn.Identity())
    assert torch.equal(rows[0, :, 4], five[0, :, 4])
    torch.testing.assert_close(rows[0, :, 5:], five[0, :, 5:] * five[0, :, 4:5])
    ended = torch.tensor([[[1.0, 2, 3, 4, 0.5, 2], [1, 2, 3, 4, 0.25, 0]]])
    model = nn.Identity()
    model.nc = 3
    assert read_boxes(ended, (64, 96), model)[0].tolist() == [
        [1, 2, 3, 4, 0.5, 0, 0, 0.5],
        [1, 2, 3, 4, 0.25, 0.25, 0, 0],
    ]
    assert read_boxes(eight[:, :, :-1], (64, 96), nn.Identity()) is None
    assert read_boxes(eight - 1, (64, 96), nn.Identity()) is None


def test_a_pair_of_lists_is_filled_up_with_rows_that_score_nothing() -> None:
    rows = from_pair(([torch.ones(1, 4), torch.ones(3, 4)], [torch.full((1, 2), 0.5), torch.full((3, 2), 0.5)]))
    assert rows.shape == (2, 3, 7)
    assert rows[0, 1:].abs().sum() == 0
    assert from_pair((torch.ones(2, 3, 4), torch.ones(2, 4, 2))) is None


@pytest.mark.parametrize("name", ["detr", "yolos"])
def test_hugging_face_detectors_give_a_map_on_the_grid_of_their_tokens(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "yolos":
        config = transformers.YolosConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[64, 96],
            patch_size=16, num_detection_tokens=10, num_labels=3,
        )  # fmt: skip
        model, grid = transformers.YolosForObjectDetection(config), (4, 6)
    else:
        body = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
        )
        config = transformers.DetrConfig(
            use_timm_backbone=False, backbone_config=body, backbone=None, use_pretrained_backbone=False, d_model=32,
            encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, num_queries=10, num_labels=3,
        )  # fmt: skip
        model, grid = transformers.DetrForObjectDetection(config), (2, 3)
    image = torch.rand(3, 64, 96)
    why = seewhy.explain(model.eval(), image)
    assert why.raw.shape == grid
    assert np.abs(why.raw).max() > 0
    with torch.no_grad():
        own = model(image[None])
    chances = own.logits[0].softmax(-1)[:, :-1]
    assert why.score == pytest.approx(float(chances.max()), rel=1e-4)
    assert why.detections[0].index == int(chances.max(0).values.argmax())


@pytest.mark.parametrize(
    ("name", "layer"),
    [("retinanet", "backbone.body.layer2"), ("fcos", "backbone.body.layer2"), ("ssdlite", "backbone.features.0")],
)
def test_the_default_layer_is_where_the_way_to_all_levels_begins(name: str, layer: str) -> None:
    assert seewhy.layers(built(name), torch.rand(3, 72, 88)).default.name == layer


def factory() -> nn.Module:
    return built("ssdlite")


def test_the_command_asks_about_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (72, 88, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("x.png")
    preprocess = {"size": [72, 88], "mean": [0.0] * 3, "std": [1.0] * 3}
    words = ["explain", "x.png", "--model", "recorder.test_detections:factory", "-t", "box:0", "-t", "box:1", "--json"]
    result = CliRunner().invoke(app, [*words, "--preprocess", json.dumps(preprocess)])
    assert result.exit_code == 0, result.output
    own = seewhy.explain(factory(), pixels, "box:1", preprocess=preprocess)
    first, second = json.loads(result.stdout)
    assert second["score"] == pytest.approx(own.score, rel=1e-5)
    assert (first["target"], second["target"]) == ("box 0: class 1", own.target)
    assert {first["method"], second["method"]} == {"hires-cam"}
    assert [each["left"] for each in second["detections"]] == pytest.approx([each.left for each in own.detections])
    assert len(list(tmp_path.glob("*.why.png"))) == 2
    told = CliRunner().invoke(app, [*words[:-1], "--preprocess", json.dumps(preprocess)])
    head = next(line.split() for line in told.output.splitlines() if "left" in line)
    assert head == ["box", "%", "class", "index", "left", "top", "right", "bottom"]
    with pytest.raises(
        seewhy.ModelError, match=r"has 2 names, and the model has 3 classes.*class 0 may be the background"
    ):
        seewhy.explain(factory(), pixels, "box:0", preprocess=preprocess, labels=["dog", "cat"])
