"""Hugging Face's image models, small and randomly initialised."""

from __future__ import annotations

from typing import Any

import transformers as hf
from torch import nn

from architectures.members import FOUR, TWELVE, Member, Size

SMALL, MEDIUM = (96, 128), (192, 256)
TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SMALL, "patch_size": 8}
SQUARE = {**TOKENS, "image_size": 96}
WIDE = {"intermediate_size": 64}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 32, 64]}
WINDOWS = {"image_size": 128, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 4, 4], "window_size": 4}


def model(
    name: str, kind: str, size: Size = SMALL, tiles: Size = TWELVE, *, asleep: bool = False, **options: Any
) -> Member:
    """Return a member of a class `kind`, whose configuration is named alike."""
    family = kind.split("For", maxsplit=1)[0].removesuffix("Model")

    def make() -> nn.Module:
        config = getattr(hf, f"{family}Config")(**options)
        return getattr(hf, kind)(config)

    return Member(name, make, size, tiles, asleep)


def classifier(name: str, family: str, size: Size = SMALL, tiles: Size = TWELVE, **options: Any) -> Member:
    return model(name, f"{family}ForImageClassification", size, tiles, num_labels=3, **options)


def _backbone() -> hf.ResNetConfig:
    return hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )


DETR = {
    "use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False, "d_model": 32, "num_queries": 10,
    "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
}  # fmt: skip
YOLOS = {**TOKENS, **WIDE, "image_size": list(SMALL), "num_detection_tokens": 10}

MEMBERS = [
    classifier("vit", "ViT", **TOKENS, **WIDE),
    classifier("deit", "DeiT", **TOKENS, **WIDE),
    classifier("swin", "Swin", (128, 128), **WINDOWS),
    classifier("swin v2", "Swinv2", (128, 128), **WINDOWS),
    classifier("beit", "Beit", **TOKENS, **WIDE),
    classifier("dinov2", "Dinov2", (96, 96), **SQUARE),
    classifier("dinov2 with registers", "Dinov2WithRegisters", (96, 96), **SQUARE),
    classifier("convnext", "ConvNext", MEDIUM, FOUR, **STAGES),
    classifier("convnext v2", "ConvNextV2", MEDIUM, FOUR, **STAGES),
    classifier("resnet", "ResNet", MEDIUM, embedding_size=8, **STAGES),
    classifier("levit", "Levit", (224, 224), FOUR, asleep=True),
    classifier("mobilevit", "MobileViT", MEDIUM, FOUR, image_size=256, asleep=True),
    classifier("mobilenet v2", "MobileNetV2", MEDIUM),
    classifier("pvt", "Pvt", (128, 128), FOUR, image_size=128, depths=[1] * 4),
    classifier("clip", "CLIP", (96, 96), vision_config={**SQUARE, **WIDE}),
    classifier("siglip", "Siglip", (96, 96), vision_config={**SQUARE, **WIDE}),
    classifier("segformer's encoder", "Segformer", MEDIUM, **STAGES),
    model("segformer", "SegformerForSemanticSegmentation", MEDIUM, **STAGES, num_labels=4, decoder_hidden_size=32),
    model("detr", "DetrForObjectDetection", MEDIUM, FOUR, **DETR, backbone_config=_backbone(), num_labels=3),
    model("yolos", "YolosForObjectDetection", **YOLOS, num_labels=3),
]
