"""A small member of every module of timm, and further ones where a module holds several designs."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from torch import nn

from architectures.members import FOUR, TWELVE, Member, Size

SMALL, MEDIUM, LARGE = (96, 128), (192, 256), (384, 512)  # strides up to 16, 32 and 64; height and width differ


def free(name: str, size: Size = MEDIUM, *, tiles: Size = TWELVE, asleep: bool = False, **options: Any) -> Member:
    """Return a member that takes inputs of any size."""

    def make() -> nn.Module:
        return timm.create_model(name, pretrained=False, **{"num_classes": 10, **options})

    return Member(name, make, size, tiles, asleep)


def told(name: str, size: Size = SMALL, *, tiles: Size = TWELVE, asleep: bool = False, **options: Any) -> Member:
    """Return a member that is told its inputs' size when it is made."""
    return free(name, size, tiles=tiles, asleep=asleep, img_size=size, **options)


THIN = {"depth": 3, "embed_dim": 96, "num_heads": 4}

MEMBERS = {
    "beit": told("beit_base_patch16_224", **THIN),
    "byoanet": free("halonet26t", (256, 256), tiles=FOUR),
    "byobnet": free("test_byobnet"),
    "cait": told("cait_xxs24_224", depth=3),
    "coat": told("coat_tiny", MEDIUM, tiles=FOUR),
    "convit": told("convit_tiny", (224, 224), depth=4),
    "convmixer": Member("convmixer", partial(timm.models.ConvMixer, 64, 4, 9, 14, num_classes=10), MEDIUM),
    "convnext": free("test_convnext"),
    "cpubone": free("cpubone_nano", tiles=FOUR, asleep=True),
    "crossvit": told("crossvit_tiny_240", (240, 240)),
    "csatv2": free("csatv2", LARGE),
    "cspnet": free("cs3darknet_focus_s"),
    "cspnext": free("cspnext_tiny", tiles=FOUR),
    "davit": free("davit_tiny", SMALL, tiles=FOUR),
    "deepseek_vit": free("deepseek_vit_412m", (84, 112), **THIN),
    "deit": told("deit_tiny_distilled_patch16_224", depth=4),
    "densenet": free("densenet121"),
    "dla": free("dla46_c"),
    "dpn": free("dpn48b", tiles=FOUR),
    "edgenext": free("edgenext_xx_small"),
    "efficientformer": free("efficientformer_l1", (224, 224), tiles=FOUR),
    "efficientformer_v2": told("efficientformerv2_s0", MEDIUM),
    "efficientnet": free("test_efficientnet"),
    "efficientvim": free("efficientvim_m1", LARGE, tiles=FOUR),
    "efficientvit_mit": free("efficientvit_b0", LARGE, tiles=FOUR),
    "efficientvit_msra": free("efficientvit_m0", (224, 224), tiles=FOUR),
    "eva": told("eva02_tiny_patch14_224", (84, 112), depth=3),
    "fasternet": free("fasternet_t0", SMALL),
    "fastvit": free("fastvit_t8", tiles=FOUR),
    "focalnet": free("focalnet_tiny_srf", SMALL),
    "gcvit": told("gcvit_xxtiny", MEDIUM),
    "gemma4_vit": told("gemma4_vit_167m", **THIN),
    "ghostnet": free("ghostnet_050", tiles=FOUR),
    "hardcorenas": free("hardcorenas_b", tiles=FOUR),
    "hgnet": free("hgnetv2_b0"),
    "hiera": told("hiera_tiny_224"),
    "hieradet_sam2": free("hieradet_small"),
    "hrnet": free("hrnet_w18_small", tiles=FOUR),
    "iformer": free("iformer_t"),
    "inception_next": free("inception_next_atto", SMALL),
    "inception_resnet_v2": free("inception_resnet_v2", tiles=FOUR),
    "inception_v3": free("inception_v3", LARGE, tiles=FOUR, asleep=True),
    "inception_v4": free("inception_v4", (240, 320)),
    "lcnetv2": free("lcnetv2_small", tiles=FOUR),
    "levit": free("levit_128s", (224, 224), tiles=FOUR, asleep=True),
    "lowformer": free("lowformer_b0", tiles=FOUR, asleep=True),
    "mambaout": free("test_mambaout"),
    "maxxvit": told("test_maxvit"),
    "metaformer": free("poolformerv2_s12", tiles=FOUR),
    "mlp_mixer": told("gmlp_ti16_224"),
    "mobilenetv3": free("mobilenetv3_small_050", tiles=FOUR),
    "mobilenetv5": free("mobilenetv5_300m", SMALL, tiles=FOUR),
    "mobilevit": free("mobilevit_xxs", tiles=FOUR, asleep=True),
    "mvitv2": told("mvitv2_tiny", (224, 224), tiles=FOUR),
    "naflexvit": free("naflexvit_so150m2_patch16_reg1_gap", SMALL, **THIN),
    "nasnet": free("nasnetalarge", (144, 192), tiles=FOUR),
    "nest": told("nest_tiny", (224, 224)),
    "nextvit": free("nextvit_small", SMALL),
    "nfnet": free("test_nfnet"),
    "pit": told("pit_ti_224", MEDIUM),
    "pnasnet": free("pnasnet5large", tiles=FOUR),
    "pvt_v2": free("pvt_v2_b0"),
    "qwen3_vit": told("qwen3_vit_88m", depth=3),
    "rdnet": free("rdnet_tiny", SMALL),
    "regnet": free("regnetx_002"),
    "repghost": free("repghostnet_050", tiles=FOUR),
    "repvit": free("repvit_m0_9", tiles=FOUR),
    "res2net": free("res2net50_14w_8s"),
    "resnest": free("resnest14d", SMALL),
    "resnet": free("test_resnet"),
    "resnetv2": free("resnetv2_18", tiles=FOUR),
    "rexnet": free("rexnet_100"),
    "selecsls": free("selecsls42", LARGE),
    "senet": free("legacy_seresnet18"),
    "sequencer": told("sequencer2d_s"),
    "shvit": free("shvit_s1", LARGE),
    "sknet": free("skresnet18"),
    "starnet": free("starnet_s050"),
    "swiftformer": free("swiftformer_xs"),
    "swin_transformer": told("swin_tiny_patch4_window7_224", (168, 224)),
    "swin_transformer_v2": told("swinv2_tiny_window8_256", MEDIUM),
    "swin_transformer_v2_cr": told("swinv2_cr_tiny_224"),
    "tiny_vit": free("tiny_vit_5m_224", tiles=FOUR, asleep=True),
    "tnt": told("tnt_s_patch16_224", depth=3),
    "tresnet": free("tresnet_m", SMALL),
    "twins": told("twins_svt_small", MEDIUM),
    "vgg": free("vgg11"),
    "visformer": told("visformer_tiny", MEDIUM, asleep=True),
    "vision_transformer": told("test_vit"),
    "vision_transformer_hybrid": told("vit_tiny_r_s16_p8_224"),
    "vision_transformer_relpos": told("test_vit_relpos"),
    "vision_transformer_sam": told("samvit_base_patch16_224", **THIN),
    "vitamin": told("vitamin_small_224"),
    "volo": told("volo_d1_224"),
    "vovnet": free("ese_vovnet19b_slim_dw"),
    "xception": free("legacy_xception", tiles=FOUR),
    "xception_aligned": free("xception41p", tiles=FOUR),
    "xcit": told("xcit_nano_12_p8_224"),
}

# Further members, of a design of their own in a module that has several.
FURTHER = [
    free("resnet18"), free("resnext50_32x4d"), free("seresnet50"), free("ecaresnet26t"),
    free("resnetv2_50x1_bit", tiles=FOUR), free("regnety_002", tiles=FOUR), free("efficientnet_b0", tiles=FOUR),
    free("tf_efficientnetv2_b0", tiles=FOUR), free("tf_efficientnet_lite0", LARGE, tiles=FOUR),
    free("tf_mixnet_s", tiles=FOUR), free("mobilenetv2_100", tiles=FOUR),
    free("mobilenetv4_conv_small", LARGE, tiles=FOUR), free("mnasnet_small", tiles=FOUR),
    free("fbnetc_100", LARGE, tiles=FOUR), free("lcnet_050", tiles=FOUR), free("mobileone_s0", tiles=FOUR),
    free("repvgg_a0", LARGE, tiles=FOUR, asleep=True), free("gernet_s"),
    free("bat_resnext26ts", (256, 256), tiles=FOUR), free("lambda_resnet26t", (256, 256), tiles=FOUR),
    free("cspresnet50"), free("darknet17"), free("convnextv2_atto"), free("nfnet_l0"), free("caformer_s18"),
    free("convformer_s18"), free("poolformer_s12"), free("mobilevitv2_050", tiles=FOUR, asleep=True),
    free("edgenext_small"), free("vovnet39a", tiles=FOUR), free("xception41", tiles=FOUR),
    told("vit_tiny_patch16_224"), told("deit_tiny_patch16_224"), told("deit3_small_patch16_224", depth=3),
    told("vit_small_patch14_reg4_dinov2", (84, 112), depth=3), told("vit_relpos_small_patch16_224", depth=3),
    told("vit_small_r26_s32_224", MEDIUM), told("beitv2_base_patch16_224", **THIN), told("flexivit_small", depth=3),
    told("vit_tiny_patch16_dinov3_qkvb", depth=3), told("vit_base_patch16_siglip_224", **THIN),
    told("xcit_nano_12_p16_224", MEDIUM), told("twins_pcpvt_small", MEDIUM), told("coat_lite_tiny", MEDIUM),
    told("coatnet_nano_rw_224", MEDIUM), told("coatnext_nano_rw_224", MEDIUM), told("mixer_s16_224", (224, 224)),
    told("resmlp_12_224"), told("gmixer_12_224"), told("mvitv2_small_cls", (224, 224), tiles=FOUR),
    told("swin_s3_tiny_224", (168, 224)), free("levit_conv_128s", (224, 224), tiles=FOUR, asleep=True),
    told("swinv2_cr_tiny_ns_224"), told("pit_ti_distilled_224", MEDIUM),
]  # fmt: skip

EXCEPTIONS: dict[str, str] = {}
"""Modules of timm for which no small member passes, and why; docs/models.md tells them to users."""
