"""Any architecture of timm, randomly initialised, explained without naming a layer or a layout."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import seewhy

# name: the grid that the architecture's last features have for a picture of its own size.
GRIDS = {
    # convolutional
    "resnet18": 7, "resnet50": 7, "resnext50_32x4d": 7, "seresnet50": 7, "resnetv2_50": 7, "ecaresnet26t": 8,
    "res2net50_26w_4s": 7, "skresnet18": 7, "regnetx_002": 7, "regnety_002": 7, "densenet121": 7, "vgg11": 7,
    "inception_v3": 8, "inception_v4": 8, "xception41": 10, "efficientnet_b0": 7, "tf_efficientnetv2_b0": 6,
    "tf_efficientnet_lite0": 7, "tf_mixnet_s": 7, "mobilenetv2_100": 7, "mobilenetv3_small_100": 7,
    "mobilenetv4_conv_small": 7, "mobileone_s0": 7, "mnasnet_small": 7, "ghostnet_100": 7, "fbnetc_100": 7, "lcnet_050": 7,
    "rexnet_100": 7, "repvgg_a0": 7, "repvit_m0_9": 7, "nfnet_l0": 7, "convnext_atto": 7, "convnextv2_atto": 7,
    "inception_next_tiny": 7, "hrnet_w18_small": 7, "dla34": 7, "dpn48b": 7, "vovnet39a": 7, "ese_vovnet19b_dw": 7,
    "cs3darknet_focus_s": 8, "cspresnet50": 8, "hgnetv2_b0": 7, "selecsls42": 4, "tresnet_m": 7, "starnet_s1": 7,
    "fasternet_t0": 7, "mambaout_femto": 7,
    # attention, with or without a class token; hybrids; mixers
    "vit_tiny_patch16_224": 14, "deit_tiny_patch16_224": 14, "deit_tiny_distilled_patch16_224": 14,
    "deit3_small_patch16_224": 14, "vit_small_patch14_reg4_dinov2": 37, "vit_relpos_small_patch16_224": 14,
    "eva02_tiny_patch14_224": 16, "beit_base_patch16_224": 14,
    "cait_xxs24_224": 14, "xcit_nano_12_p16_224": 14, "convit_tiny": 14, "crossvit_tiny_240": 14, "tnt_s_patch16_224": 14,
    "volo_d1_224": 14, "swin_tiny_patch4_window7_224": 7, "swinv2_tiny_window8_256": 8, "swinv2_cr_tiny_ns_224": 7,
    "maxvit_tiny_tf_224": 7, "coatnet_nano_rw_224": 7, "coat_lite_tiny": 7, "mobilevit_xxs": 8, "mobilevitv2_050": 8,
    "pvt_v2_b0": 7, "twins_svt_small": 7, "twins_pcpvt_small": 7, "pit_ti_224": 7, "levit_128s": 4, "efficientformer_l1": 7,
    "efficientformerv2_s0": 7, "efficientvit_b0": 7, "efficientvit_m0": 4, "edgenext_xx_small": 8, "fastvit_t8": 8,
    "focalnet_tiny_srf": 7, "davit_tiny": 7, "gcvit_xxtiny": 7, "mvitv2_tiny": 7, "nest_tiny": 14, "nextvit_small": 7,
    "hiera_tiny_224": 7, "tiny_vit_5m_224": 7, "visformer_tiny": 7, "caformer_s18": 7, "convformer_s18": 7,
    "poolformer_s12": 7, "mixer_s16_224": 14, "resmlp_12_224": 14, "gmlp_ti16_224": 14, "sequencer2d_s": 16,
}  # fmt: skip


def build(name: str) -> nn.Module:
    """Return the model; a classifier that begins at zero, as some do, gets random weights: else nothing depends on anything."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    classifier = model.get_classifier()
    parts = classifier if isinstance(classifier, tuple | list) else [classifier]
    for head in (module for part in parts for module in part.modules() if isinstance(module, nn.Linear)):
        if not head.weight.any():
            nn.init.normal_(head.weight, std=0.02)
    return model


def test_sixty_families_and_more() -> None:
    assert len(GRIDS) >= 60
    assert set(GRIDS) <= set(timm.list_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_explains_without_naming_a_layer(name: str, chelsea: np.ndarray) -> None:
    model = build(name)
    why = seewhy.explain(model, chelsea)
    assert why.raw.shape == (GRIDS[name], GRIDS[name])
    assert np.isfinite(why.raw).all()
    if name == "levit_128s":  # its untrained attention makes all places alike; the result must say so
        assert [finding.code for finding in why.diagnosis] == ["flat"]
        return
    assert np.ptp(why.raw) > 1e-6 * np.abs(why.raw).max() > 0
    assert {finding.code for finding in why.diagnosis} <= {"all-negative"}


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("resnet18", (96, 160), (3, 5)),
        ("vit_tiny_patch16_224", (96, 160), (6, 10)),
        ("deit_tiny_distilled_patch16_224", (160, 96), (10, 6)),
        ("swin_tiny_patch4_window7_224", (112, 224), (4, 7)),
        ("convnext_atto", (160, 96), (5, 3)),
        ("pvt_v2_b0", (96, 160), (3, 5)),
        ("efficientformer_l1", (224, 224), (7, 7)),
    ],
)
def test_inputs_that_are_not_square(name: str, size: tuple[int, int], grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    fixed = ("vit", "deit", "swin")
    model = timm.create_model(name, **({"img_size": size} if name.startswith(fixed) else {})).eval()
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    why = seewhy.explain(model, image)
    assert why.raw.shape == grid
    assert np.ptp(why.raw) > 0
