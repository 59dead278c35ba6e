"""Attention methods equal their papers, on transformers of three libraries, whichever way these compute attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import slow_attention as slow
import torch
import torchvision
import transformers as hf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import seewhy

METHODS: dict[str, Callable[..., np.ndarray]] = {
    "attention": slow.attention,
    "attention-rollout": slow.attention_rollout,
    "gradient-rollout": slow.gradient_rollout,
    "generic-attention": slow.generic_attention,
    "transition-attention": slow.transition_attention,
    "legrad": slow.legrad,
}
WIDTH = {"embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 2, "num_classes": 4}
HF = {"patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "num_labels": 4}

pytestmark = pytest.mark.usefixtures("one_core")


def drawn(model: nn.Module) -> nn.Module:
    """Give all parameters values that matter: some of them are zero at first, and attention hardly differs from the mean."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = float(name.endswith("weight") and ("norm" in name or "ln" in name))
            parameter.copy_(around + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def timm_vit(*, fused: bool = True, **more: Any) -> nn.Module:
    model = drawn(VisionTransformer(**{"img_size": (16, 32), "patch_size": 8, **WIDTH, **more}))
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def hf_vit(attention: str) -> nn.Module:
    config = hf.ViTConfig(image_size=(16, 32), intermediate_size=40, attn_implementation=attention, **HF)
    return drawn(hf.ViTForImageClassification(config))


def hf_registers(attention: str) -> nn.Module:
    config = hf.Dinov2WithRegistersConfig(image_size=32, mlp_ratio=2, attn_implementation=attention, **HF)
    return drawn(hf.Dinov2WithRegistersForImageClassification(config))


def torchvision_vit() -> nn.Module:
    return drawn(torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 40, num_classes=4))


SUBJECTS: dict[str, Callable[[], tuple[nn.Module, Callable[[nn.Module], slow.WrittenOut]]]] = {
    "timm fused": lambda: (timm_vit(), slow.of_timm),
    "timm eager": lambda: (timm_vit(fused=False), slow.of_timm),
    "timm registers": lambda: (timm_vit(reg_tokens=4, init_values=1.0), slow.of_timm),
    "timm mean": lambda: (timm_vit(class_token=False, global_pool="avg"), slow.of_timm),
    "torchvision": lambda: (torchvision_vit(), slow.of_torchvision),
    "hf sdpa": lambda: (hf_vit("sdpa"), lambda model: slow.of_hugging_face(model, (2, 4))),
    "hf eager": lambda: (hf_vit("eager"), lambda model: slow.of_hugging_face(model, (2, 4))),
    "hf registers sdpa": lambda: (hf_registers("sdpa"), lambda model: slow.of_hugging_face(model, (4, 4))),
    "hf registers eager": lambda: (hf_registers("eager"), lambda model: slow.of_hugging_face(model, (4, 4))),
}


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, slow.WrittenOut, Tensor]:
    """A model, the same written out, and a picture."""
    model, written = SUBJECTS[request.param]()
    reference = written(model)
    size = reference.patch[0].shape[-1]
    shape = (3, reference.grid[0] * size, reference.grid[1] * size)
    return model, reference, torch.randn(shape, generator=torch.Generator().manual_seed(2))


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    scale = np.abs(expected).max()
    assert found.shape == expected.shape
    assert scale > 0
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


def test_the_written_out_model_is_the_model(subject: tuple) -> None:
    model, written, image = subject
    with torch.no_grad():
        found = model(image[None])
    expected = written.run(image.double())[0].detach()
    np.testing.assert_allclose(getattr(found, "logits", found)[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_equals_its_paper(name: str, subject: tuple) -> None:
    model, written, image = subject
    few = {"steps": 5} if name == "transition-attention" else {}
    for target in (0, 3):
        found = seewhy.explain(model.double(), image.double(), target, name, **few)
        assert_close(found.raw, METHODS[name](written, image.double(), target, **few))
        model.float()
        if name != "gradient-rollout":  # whose small numbers lose their digits where rows are made to sum to 1
            assert_close(seewhy.explain(model, image, target, name, **few).raw, found.raw, 1e-3)


@pytest.fixture(scope="module")
def vit() -> tuple[nn.Module, slow.WrittenOut, Tensor]:
    model = timm_vit().double()
    image = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return model, slow.of_timm(model), image


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("attention", {"layer": 0}),
        ("attention", {"layer": -2, "head": 1}),
        ("attention-rollout", {"fusion": "max"}),
        ("attention-rollout", {"fusion": "min", "discard": 0.6}),
        ("attention-rollout", {"start": 1}),
    ],
)
def test_options_mean_what_they_say(name: str, options: dict[str, Any], vit: tuple) -> None:
    model, written, image = vit
    assert_close(seewhy.explain(model, image, 1, name, **options).raw, METHODS[name](written, image, 1, **options))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("attention", {"head": 3}, r"head=3: blocks.2.attn has 3 to choose from: 0 to 2, or -1 to -3"),
        ("attention", {"head": "first"}, "head='first'"),
        ("attention-rollout", {"fusion": "median"}, "fusion='median' is not known.*mean, max, min"),
        ("attention-rollout", {"discard": 1.0}, "at least 0 and less than 1"),
        ("generic-attention", {"start": 5}, "start=5: VisionTransformer has 3"),
        ("transition-attention", {"steps": 0}, "steps=0 must be at least 1"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], told: str, vit: tuple) -> None:
    with pytest.raises(seewhy.MethodError, match=told):
        seewhy.explain(vit[0], vit[2], 1, name, **options)


def test_legrad_equals_torchcams_where_torchcam_has_it() -> None:
    methods = pytest.importorskip("torchcam.methods")
    model = torchvision_vit()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with methods.LeGrad(model, list(model.encoder.layers)) as extractor:
        maps = extractor(2, model(image), normalized=False)
    expected = (sum(maps) / len(maps))[0]
    assert_close(seewhy.explain(model, image[0], 2, "legrad").raw, expected.detach().numpy())


def test_rollout_of_one_layer_is_half_its_attention() -> None:
    """Closed form: it is (A + I) / 2, of whose class row the places have half the attention."""
    model = timm_vit(depth=1)
    image = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(1))
    raw, rolled = (seewhy.explain(model, image, 1, name).raw for name in ("attention", "attention-rollout"))
    np.testing.assert_allclose(rolled, raw / 2, atol=1e-6)


def test_smoothing_goes_around_methods_on_attention(vit: tuple) -> None:
    model, written, image = vit
    found = seewhy.explain(model, image, 1, "generic-attention", smooth=seewhy.Augment([seewhy.maps.smoothing.flip()]))
    assert_close(found.raw, slow.generic_attention(written, image.flip(-1), 1)[:, ::-1])


def test_several_questions_and_methods_share_one_forward(vit: tuple) -> None:
    model, written, image = vit
    names = ["attention", "generic-attention", "grad-cam", "legrad"]
    maps = seewhy.compare(model, image, methods=names, targets=[0, 2], layers=["blocks.1"])
    for each in maps:
        if each.method in METHODS:
            assert_close(each.raw, METHODS[each.method](written, image, each.target_index))
        else:
            assert_close(each.raw, seewhy.explain(model, image, each.target_index, each.method, "blocks.1").raw)
