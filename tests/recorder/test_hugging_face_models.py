"""Hugging Face image classifiers, randomly initialised: outputs, layers and token layouts are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

import seewhy

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
VIT = {"image_size": 64, "patch_size": 8, **SMALL}


@pytest.mark.parametrize(
    ("kind", "options", "grid", "prefix"),
    [
        ("ViT", {**VIT, "intermediate_size": 64}, 8, 1),
        ("DeiT", {**VIT, "intermediate_size": 64}, 8, 2),
        ("Beit", {**VIT, "intermediate_size": 64}, 8, 1),
        ("Dinov2", VIT, 8, 1),
        ("Dinov2WithRegisters", VIT, 8, 5),
        ("Swin", {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, 8, 0),
        ("ConvNext", {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}, 2, 0),
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}, 2, 0),
    ],
)
def test_explained_without_naming_a_layer(kind: str, options: dict, grid: int, prefix: int) -> None:
    torch.manual_seed(0)
    config = getattr(hf, f"{kind}Config")(**options, id2label={0: "grass", 1: "weed", 2: "soil"})
    model = getattr(hf, f"{kind}ForImageClassification")(config).eval()
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    why = seewhy.explain(model, image, "weed")
    assert why.raw.shape == (grid, grid)
    assert why.layouts[0].prefix == prefix
    assert why.target == "weed"
    assert why.target_index == 1
    assert np.ptp(why.raw) > 0
    assert not why.diagnosis or why.diagnosis[0].code in ("all-negative", "mostly-negative")
    with torch.no_grad():
        assert why.score == pytest.approx(float(model(image[None]).logits[0, 1]), abs=1e-5)
