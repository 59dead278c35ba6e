"""The default layer of models that answer place by place is the end of the encoder: in torchvision's, in Hugging Face's, in
plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torchvision.models import segmentation

import seewhy
from segmenters import UNet

pytestmark = pytest.mark.usefixtures("one_core")

SIZE = (64, 64)


def explained(model: nn.Module, shape: tuple[int, ...] = (3, *SIZE)) -> tuple[Any, Any]:
    """Return the default explanation and the table of layers, after what holds for every model was checked."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    why = seewhy.explain(model, image)
    table = seewhy.layers(model, image)
    assert why.layers == (table.default.name,)
    assert table.stages[-1] == table.default
    sizes = [np.prod(row.layout.grid) for row in table.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert why.prediction[0].means == "area"
    assert sum(p.probability for p in why.prediction) == pytest.approx(1, abs=1e-5)
    assert np.ptp(why.raw) > 0
    return why, table


@pytest.mark.parametrize(
    ("name", "layer", "stride"),
    [
        ("fcn_resnet50", "backbone.layer4", 8),
        ("fcn_resnet101", "backbone.layer4", 8),
        ("deeplabv3_resnet50", "backbone.layer4", 8),
        ("deeplabv3_resnet101", "backbone.layer4", 8),
        ("deeplabv3_mobilenet_v3_large", "backbone.16", 16),
        ("lraspp_mobilenet_v3_large", "backbone.16", 16),
    ],
)
def test_torchvision(name: str, layer: str, stride: int) -> None:
    torch.manual_seed(0)
    options = {"aux_loss": True} if name.endswith("50") else {}  # a second head must change nothing
    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **options).eval()
    why, table = explained(model)
    assert why.layers == (layer,)
    assert table.default.stride == (stride, stride)
    image = torch.randn((3, *SIZE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = model(image[None])["out"][0]
    own = scores[why.target_index][scores.argmax(0) == why.target_index]
    assert why.score == pytest.approx(float(own.mean()), rel=1e-3, abs=1e-5)


def segformer(width: int) -> nn.Module:
    config = hf.SegformerConfig(
        hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], decoder_hidden_size=width, num_labels=4
    )
    return hf.SegformerForSemanticSegmentation(config)


SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def upernet() -> nn.Module:
    body = hf.ConvNextConfig(hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], out_features=STAGES)
    config = hf.UperNetConfig(backbone_config=body, hidden_size=32, num_labels=4, auxiliary_in_channels=32)
    return hf.UperNetForSemanticSegmentation(config)


def mask2former() -> nn.Module:
    narrow = dict.fromkeys(("hidden_dim", "feature_size", "mask_feature_size", "dim_feedforward"), 32)
    config = hf.Mask2FormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES),
        **narrow,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=6,
        num_labels=4,
    )
    return hf.Mask2FormerForUniversalSegmentation(config)


def maskformer() -> nn.Module:
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    decoder = hf.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5, **heads
    )
    config = hf.MaskFormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=4,
    )
    return hf.MaskFormerForInstanceSegmentation(config)


def dpt() -> nn.Module:
    config = hf.DPTConfig(
        image_size=64,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        num_labels=4,
        is_hybrid=False,
    )
    return hf.DPTForSemanticSegmentation(config)


@pytest.mark.parametrize(
    ("make", "part", "grid"),
    [
        (lambda: segformer(32), "segformer", (2, 2)),
        (lambda: segformer(128), "segformer", (2, 2)),  # a decoder wider than the encoder
        (upernet, "backbone", (2, 2)),
        (mask2former, "model.pixel_level_module.encoder", (2, 2)),
        (maskformer, "model.pixel_level_module.encoder", (2, 2)),
        (dpt, "dpt.encoder", (8, 8)),
    ],
    ids=["segformer", "wide segformer", "upernet", "mask2former", "maskformer", "dpt"],
)
def test_hugging_face(make: Any, part: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    why, table = explained(make().eval(), (3, 64, 64))
    assert why.layers[0].startswith(f"{part}.")
    assert why.raw.shape == grid
    assert all(row.name.startswith(f"{part}.") for row in table.stages)


def test_segformers_logits_at_a_quarter_of_the_size_are_asked_about_original_pixels() -> None:
    torch.manual_seed(0)
    model, image = segformer(32).eval(), torch.randn(3, 64, 64)
    why = seewhy.explain(model, image, "pixel:21,43:2")
    with torch.no_grad():
        assert why.score == pytest.approx(float(model(image[None]).logits[0, 2, 5, 10]), rel=1e-4)


@pytest.mark.parametrize(("axes", "shape"), [(2, (3, 32, 48)), (3, (3, 8, 16, 12))])
def test_a_unet(axes: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    _, table = explained(UNet(axes=axes).eval(), shape)
    assert [row.name for row in table.stages] == ["down1", "down2", "deep"]


class Deep(nn.Module):
    """Answers at three depths, the finest first, as nnU-Net does for deep supervision."""

    def __init__(self) -> None:
        super().__init__()
        self.model = UNet()
        self.shrink = nn.AvgPool2d(2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        finest = self.model(images)
        return finest, self.shrink(finest), self.shrink(self.shrink(finest))


def test_of_several_depths_the_first_is_asked() -> None:
    torch.manual_seed(0)
    model, image = Deep().eval(), torch.rand(3, 16, 24)
    why = seewhy.explain(model, image, "pixel:3,5:1")
    with torch.no_grad():
        assert why.score == pytest.approx(float(model(image[None])[0][0, 1, 3, 5]), rel=1e-4)
    assert why.layers == ("model.deep",)


class Dilated(nn.Module):
    """Nothing is called an encoder, and the head works on the encoder's grid; a pyramid is coarser, beside the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 24, 3, padding=2, dilation=2), nn.ReLU())
        self.pyramid = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(24, 24, 1))
        self.mix = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.ReLU())
        self.answer = nn.Conv2d(12, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.second(self.first(images))
        found = found + nn.functional.interpolate(self.pyramid(found), found.shape[2:])
        return nn.functional.interpolate(self.answer(self.mix(found)), images.shape[2:], mode="bilinear")


def test_a_plain_dilated_network() -> None:
    torch.manual_seed(0)
    why, _ = explained(Dilated().eval(), (3, 32, 32))
    assert why.layers == ("second",)


class Blocks(nn.Module):
    """A transformer that answers for each of its tokens: wide inside of its blocks, narrower between them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Linear(12, 48), nn.Linear(48, 12)

        def forward(self, tokens: Tensor) -> Tensor:
            return tokens + self.narrow(self.wide(tokens).relu())

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 4, stride=4)
        self.blocks = nn.ModuleList([Blocks.Block() for _ in range(3)])
        self.answer = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        found = self.embed(images)
        tokens = found.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.answer(tokens).transpose(1, 2).view(len(images), 4, *found.shape[2:])


def test_what_is_wide_only_inside_of_a_block_is_not_taken() -> None:
    torch.manual_seed(0)
    why, _ = explained(Blocks().eval(), (3, 32, 48))
    assert why.layers == ("blocks.2",)


class Classifier(nn.Module):
    """A fully convolutional classifier: its answer has one place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3), keepdim=True))


def test_one_place_is_explained_like_a_class() -> None:
    torch.manual_seed(0)
    model, image = Classifier().eval(), torch.rand(3, 17, 25)
    why = seewhy.explain(model, image, 2)
    assert why.raw.shape == (8, 12)
    with torch.no_grad():
        assert why.score == pytest.approx(float(model(image[None])[0, 2, 0, 0]), rel=1e-5)
