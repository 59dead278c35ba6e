"""What users of other libraries asked for and did not get: one test each, named after what they wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from architectures.members import FOUR
from architectures.planted import misplaced


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(build: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return build(**options).eval()


def test_why_this_box_without_a_wrapper() -> None:
    """Detectors: no tuples to unpack, no suppression to undo, no layer to pick."""
    from torchvision.models.detection import fcos_resnet50_fpn

    model = seeded(
        fcos_resnet50_fpn,
        weights=None,
        weights_backbone=None,
        num_classes=3,
        min_size=96,
        max_size=96,
        score_thresh=0.0,
    )
    why = seewhy.explain(model, picture(3, 96, 96), target="box:0")
    best = why.detections[0]
    rows, columns = (np.flatnonzero(why.outline.any(axis)) for axis in (1, 0))
    assert (columns[0], rows[0]) == pytest.approx((best.left, best.top), abs=1.5)
    assert (columns[-1] + 1, rows[-1] + 1) == pytest.approx((best.right, best.bottom), abs=1.5)
    assert why.score == pytest.approx(best.score, abs=1e-4)
    assert np.ptp(why.raw) > 0


@pytest.mark.parametrize(
    ("name", "grid"), [("vit_tiny_patch16_224", 4), ("swin_tiny_patch4_window7_224", 2), ("pvt_v2_b0", 2)]
)
def test_a_transformer_without_a_reshape(name: str, grid: int) -> None:
    size = {"img_size": 64} if name.startswith(("vit", "swin")) else {}
    model = seeded(lambda: timm.create_model(name, pretrained=False, **size))
    why = seewhy.explain(model, picture(3, 64, 64))
    assert why.raw.shape == (grid, grid)
    assert np.ptp(why.raw) > 0
    assert misplaced(model, (64, 64), FOUR) == []  # each cell is the place that it is taken for


def test_a_frozen_backbone_under_no_grad_and_inference_mode() -> None:
    model = seeded(lambda: timm.create_model("resnet18", pretrained=False)).requires_grad_(requires_grad=False)
    image = picture(3, 64, 64)
    expected = seewhy.explain(model, image, 1).raw
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            np.testing.assert_allclose(seewhy.explain(model, image.clone(), 1).raw, expected, rtol=1e-4, atol=1e-6)


def classifier(axes: int, channels: int, classes: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Return a convolution, an activation, the mean over all places, one linear layer."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](channels, 4, 3, padding=1)
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1](1)
    return nn.Sequential(conv, activation or nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, classes))


class Answers(nn.Module):
    """A small model whose answer is wrapped in a structure."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 5, 3, stride=2), nn.Linear(5, 4)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        features = self.body(images).relu()
        return self.wrap(self.head(features.mean((2, 3))), features)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits, _: {"logits": logits, "loss": None},
        lambda logits, features: (logits, features),
        lambda logits, features: {"features": features, "anything": logits},
    ],
    ids=["dict", "tuple", "only one that fits"],
)
def test_an_answer_that_is_not_a_tensor(wrap: Any) -> None:
    image = picture(3, 16, 16)
    plain = seewhy.explain(seeded(Answers, wrap=lambda logits, _: logits), image, 2)
    np.testing.assert_array_equal(seewhy.explain(seeded(Answers, wrap=wrap), image, 2).raw, plain.raw)


def test_which_layer_to_take_is_not_my_problem() -> None:
    """The default layer has a map larger than one cell, and a gradient: also where the last norm of a transformer has none."""
    for name, layer in [("resnet18", "layer4"), ("vit_tiny_patch16_224", "blocks.11.norm1")]:
        model = seeded(lambda name=name: timm.create_model(name, pretrained=False))
        why = seewhy.explain(model, picture(3, 224, 224), 3)
        assert why.layers[0].startswith(layer)
        assert not why.diagnosis or {finding.code for finding in why.diagnosis} <= {
            "all-negative",
            "mostly-negative",
            "unlikely",
        }


def test_one_logit_is_asked_up_or_down_and_a_regression_too() -> None:
    model = seeded(classifier, axes=2, channels=3, classes=1)
    image = picture(3, 16, 16)
    up, down = (seewhy.explain(model, image, each) for each in ("up", "down"))
    np.testing.assert_allclose(up.raw, -down.raw)
    assert up.score == -down.score == pytest.approx(model(image[None]).item(), rel=1e-5)
    names = seewhy.explain(model, image, labels=["healthy", "ill"])
    assert names.target == ("ill" if model(image[None]).item() > 0 else "healthy")


def test_several_labels_that_hold_at_once_each_have_their_own_chance() -> None:
    model = seeded(Answers, wrap=lambda logits, _: logits)
    image = picture(3, 16, 16)
    why = seewhy.explain(model, image, "probability:1", multi_label=True)
    logits = model(image[None])[0]
    assert why.score == pytest.approx(logits[1].sigmoid().item(), rel=1e-5)
    assert [each.probability for each in why.prediction] == pytest.approx(
        sorted(logits.sigmoid().tolist(), reverse=True)[:5]
    )


def test_what_in_the_picture_fits_this_text() -> None:
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    words = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = seeded(lambda: CLIPModel(CLIPConfig(vision_config=vision, text_config=words, projection_dim=16)))

    def tokens(texts: list[str]) -> Tensor:
        return torch.tensor([[1, *(3 + ord(letter) % 40 for letter in text[:6].ljust(6)), 2] for text in texts])

    named = seewhy.image_text(model, tokenizer=tokens)
    image = picture(3, 32, 32)
    why = seewhy.explain(named, image, "text:a dog")
    expected = model(pixel_values=image[None], input_ids=tokens(["a dog"])).logits_per_image.item()
    assert why.score == pytest.approx(expected, rel=1e-3)
    assert why.raw.shape == (4, 4)


def test_a_scan_keeps_its_axes_in_every_method() -> None:
    model = seeded(classifier, axes=3, channels=1, classes=2)
    with torch.no_grad():
        model[0].weight.abs_(), model[0].bias.zero_(), model[4].weight.abs_()
    volume = torch.zeros(1, 6, 10, 16)
    volume[:, 1:3, 6:8, 12:15] = 1  # the planted object
    for method in ("grad-cam", "layer-cam", "saliency", "input-x-gradient", "occlusion"):
        why = seewhy.explain(model, volume, 1, method)
        assert why.heatmap.shape == (6, 10, 16)
        if method != "saliency":  # constant for a model that is linear where it is on
            depth, row, column = np.unravel_index(why.heatmap.argmax(), why.heatmap.shape)
            assert depth in range(4) and row in range(5, 9) and column in range(11, 16)


def test_a_model_with_two_inputs_is_called_as_it_is() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(6, 2)

        def forward(self, image: Tensor, age: Tensor) -> Tensor:
            return self.head(torch.cat([self.body(image).relu().mean((2, 3)), age], 1))

    model, image, age = seeded(Both), picture(3, 16, 16), torch.tensor([0.3, 1.0])
    why = seewhy.explain(model, (image, age), 1)
    assert why.layers == ("body",)
    assert why.score == pytest.approx(model(image[None], age[None])[0, 1].item(), rel=1e-5)


def test_what_to_ask_of_a_segmentation() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.Conv2d(6, 3, 1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            coarse = self.head(self.body(images).relu())
            return {"out": nn.functional.interpolate(coarse, images.shape[2:], mode="bilinear")}

    model, image = seeded(Segments), picture(3, 32, 32)
    at = seewhy.explain(model, image, "pixel:4,28:1", "hires-cam", layers="body")
    row, column = np.unravel_index(np.abs(at.raw).argmax(), at.raw.shape)
    assert (row, column) in {(r, c) for r in (0, 1) for c in (6, 7)}
    whole = seewhy.explain(model, image)
    assert whole.outline is not None and whole.outline.any()


def test_each_image_of_a_batch_has_its_own_target() -> None:
    model, images = seeded(Answers, wrap=lambda logits, _: logits), picture(3, 3, 16, 16)
    together = seewhy.explain(model, images, [0, 2, 1])
    for why, image, target in zip(together, images, [0, 2, 1], strict=True):
        np.testing.assert_allclose(why.raw, seewhy.explain(model, image, target).raw, rtol=1e-4, atol=1e-6)
    with pytest.raises(seewhy.TargetError, match="2 targets were given for 3 images"):
        seewhy.explain(model, images, [0, 2])


def test_attention_of_any_vit_though_it_is_fused() -> None:
    from torchvision.models import VisionTransformer

    size = {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
        "num_classes": 3,
    }
    for model in (
        seeded(VisionTransformer, **size),
        seeded(lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64)),
    ):
        why = seewhy.explain(
            model,
            picture(3, size["image_size"], size["image_size"])
            if isinstance(model, VisionTransformer)
            else picture(3, 64, 64),
            method="attention-rollout",
        )
        assert why.raw.shape == (4, 4)
        assert (why.raw > 0).all() and np.ptp(why.raw) > 0


def test_a_signal_is_explained_like_a_picture() -> None:
    model = seeded(classifier, axes=1, channels=2, classes=3)
    signal = torch.zeros(2, 60)
    signal[:, 40:44] = 3
    why = seewhy.explain(model, signal, 1, "occlusion", window=5)
    assert (
        36 <= int(np.abs(why.heatmap).argmax()) <= 47 or 36 <= int(np.abs(why.raw).argmax()) * 60 / len(why.raw) <= 47
    )


def test_guided_backpropagation_without_relu_says_why_and_what_to_take() -> None:
    model = seeded(classifier, axes=2, channels=3, classes=3, activation=nn.GELU())
    with pytest.raises(seewhy.MethodError, match="ReLU"):
        seewhy.explain(model, picture(3, 16, 16), method="guided-backprop")


def test_an_embedding_is_asked_what_it_is_similar_to() -> None:
    model = seeded(classifier, axes=2, channels=3, classes=8)
    one, other = picture(3, 16, 16), picture(3, 16, 16, seed=1)
    why = seewhy.explain(model, one, seewhy.similar_to(other))
    expected = nn.functional.cosine_similarity(model(one[None]), model(other[None])).item()
    assert why.score == pytest.approx(expected, rel=1e-4)
