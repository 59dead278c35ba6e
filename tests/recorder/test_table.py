"""Which layers there are, which is taken, and saying so in words."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.recorder import TorchRecorder, peak_bytes

IMAGE = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18").eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()


def names(rows: object) -> list[str]:
    return [row.name for row in rows]


def chosen(model: nn.Module, wanted: object) -> list[str]:
    return names(
        [layer for why in _each(seewhy.explain(model, IMAGE, 3, layers=wanted, fuse="none")) for layer in _rows(why)]
    )


def _each(found: object) -> list[seewhy.Explanation]:
    return found if isinstance(found, list) else [found]


def _rows(why: seewhy.Explanation) -> list[object]:
    return [type("Row", (), {"name": name}) for name in why.layers]


def test_the_stages_of_a_resnet(resnet: nn.Module) -> None:
    table = seewhy.layers(resnet, IMAGE)
    assert names(table.stages) == ["layer1", "layer2", "layer3", "layer4"]
    assert [row.layout.grid for row in table.stages] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [row.stride for row in table.stages] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert table.default.name == "layer4"
    assert "layer4" in str(table)
    assert "default" in table._repr_html_()


def test_the_stages_of_a_transformer_are_its_blocks_and_the_last_has_a_gradient(vit: nn.Module) -> None:
    """After the last attention only the class token counts: there every place has gradient zero."""
    table = seewhy.layers(vit, IMAGE)
    assert names(table.stages) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3.norm1"]
    assert table.default.layout.prefix == 1
    assert not seewhy.explain(vit, IMAGE).diagnosis
    blank = seewhy.explain(vit, IMAGE, layers="blocks.3")
    assert [finding.code for finding in blank.diagnosis] == ["zero-gradient"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, ["layer4"]),
        ("last", ["layer4"]),
        ("-2", ["layer3"]),
        (-3, ["layer2"]),
        ("all-stages", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer?", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer4.*.conv2", ["layer4.0.conv2", "layer4.1.conv2"]),
        ("layer4.*", ["layer4.0", "layer4.1"]),
        ("layer[34].?", ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]),
        ("layer[!123].1", ["layer4.1"]),
        ("layer4.1.**2", ["layer4.1.conv2", "layer4.1.bn2", "layer4.1.act2"]),
        ("*4.1.conv2", ["layer4.1.conv2"]),
        (["layer2", "last", "layer2"], ["layer2", "layer4"]),
        ("module.layer3", ["layer3"]),
    ],
)
def test_layers_are_chosen_in_words(resnet: nn.Module, wanted: object, expected: list[str]) -> None:
    assert chosen(resnet, wanted) == expected


def test_a_layer_may_be_given_as_a_module(resnet: nn.Module) -> None:
    assert chosen(resnet, resnet.layer2[1]) == ["layer2.1"]
    assert chosen(resnet, [resnet.layer1, "layer3"]) == ["layer1", "layer3"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("layr4", r"'layr4'.*Nearest: 'layer4'.*stages are layer1, layer2, layer3, layer4"),
        ("layer9*", r"fits 'layer9\*'"),
        ("-7", r"-7 was asked for; this model has 4 stages"),
        ("fc", r"'fc' gives \(1, 1000\).*layout="),
        (nn.ReLU(), r"ReLU is not a part of this model"),
        ([], "empty list"),
    ],
)
def test_a_wrong_layer_is_answered_with_the_right_ones(resnet: nn.Module, wanted: object, told: str) -> None:
    with pytest.raises(seewhy.LayerError, match=told):
        seewhy.explain(resnet, IMAGE, layers=wanted)


def test_a_layer_beside_the_way_to_the_score_is_named() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            self.side(images)
            return self.main(images).mean((2, 3))

    with pytest.raises(seewhy.LayerError, match=r"does not depend on layer 'side'"):
        seewhy.explain(Branches(), IMAGE, layers="side")
    assert seewhy.explain(Branches(), IMAGE).layers == ("main",)


def test_no_grad_inside_the_models_own_code_is_overcome() -> None:
    class Probe(nn.Module):
        """A frozen backbone under no_grad and a head, as linear probes are written."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU())
            self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.backbone(images)
            return self.head(self.pool(features).flatten(1))

    torch.manual_seed(0)
    model = Probe()
    why = seewhy.explain(model, IMAGE, 2)
    activations = model.backbone(IMAGE[None])[0]
    expected = torch.einsum("chw,c->hw", activations, model.head.weight[2]) / activations[0].numel()
    assert why.layers == ("backbone",)
    torch.testing.assert_close(torch.from_numpy(why.raw), expected.detach())


def test_a_model_that_detaches_says_so() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images).detach().mean((2, 3))

    with pytest.raises(seewhy.LayerError, match=r"detaches"):
        seewhy.explain(Detached(), IMAGE)
    assert seewhy.explain(Detached(), IMAGE, method="random").raw.shape == (62, 62)


def test_a_reused_module_is_recorded_where_it_ran_last() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
            self.act = nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return self.act(self.second(self.act(self.first(images)))).mean((2, 3))

    torch.manual_seed(0)
    model = Twice()
    why = seewhy.explain(model, IMAGE, 1, layers="act")
    last = model.act(model.second(model.act(model.first(IMAGE[None]))))[0, 1] / 32**2
    torch.testing.assert_close(torch.from_numpy(why.raw), last.detach())


def test_view_in_the_model_does_not_meet_a_channels_last_batch() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, stride=8), nn.Linear(4 * 64, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.conv(images).view(len(images), -1))

    batch = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    model = Views()
    together = seewhy.explain(model, batch, 1)
    for image, why in zip(batch, together, strict=True):
        alone = torch.from_numpy(seewhy.explain(model, image, 1).raw)
        torch.testing.assert_close(torch.from_numpy(why.raw), alone, atol=1e-5, rtol=1e-4)


def test_layout_may_be_told() -> None:
    """A channel axis as long as the grid's can be read either way; the caller knows."""

    class Ambiguous(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 8, stride=8), nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(self.conv(images).permute(0, 2, 3, 1)).mean((1, 2))

    torch.manual_seed(0)
    model = Ambiguous()
    truth = model.conv(IMAGE[None])[0, 5].detach() / 64
    for layout in ("channels-last", {"order": "channels-last"}, seewhy.Layout("channels-last", (8, 8), 8)):
        why = seewhy.explain(model, IMAGE, 5, layers="norm", layout=layout)
        torch.testing.assert_close(torch.from_numpy(why.raw), truth)
        assert why.layout == "channels-last, grid 8x8, 8 channels"


@pytest.mark.parametrize(
    "name", ["vit_b_16", "swin_t", "squeezenet1_1", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_torchvision_models_need_no_layer_either(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    if name == "vit_b_16":
        nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision begins it at zero
    image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    why = seewhy.explain(model, image)
    grids = {
        "vit_b_16": 14,
        "swin_t": 7,
        "squeezenet1_1": 13,
        "googlenet": 7,
        "mobilenet_v3_small": 7,
        "shufflenet_v2_x0_5": 7,
    }
    assert why.raw.shape == (grids[name],) * 2
    assert not [finding for finding in why.diagnosis if finding.code not in ("all-negative", "mostly-negative")]


def test_listing_the_layers_does_not_hold_them_all() -> None:
    body = [part for _ in range(100) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    images = torch.randn(1, 3, 32, 32)
    all_layers = len(body) * 4 * 32 * 32 * 4  # bytes
    assert peak_bytes(lambda: TorchRecorder(model).table(images)) < 0.8 * all_layers


class Scaled(nn.Module):
    """Takes a number beside the picture, and counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.runs = nn.Conv2d(3, 4, 3), 0

    def forward(self, image: Tensor, factor: float = 1.0) -> Tensor:
        self.runs += 1
        return self.body(image).mean((2, 3)) * factor


def test_of_a_module_only_the_tables_used_last_are_remembered() -> None:
    model = Scaled().eval()
    asked = [{"image": IMAGE[None], "factor": float(number)} for number in range(1, 13)]

    def runs(given: object) -> int:
        before = model.runs
        seewhy.layers(model, given, wrt="image")
        return model.runs - before

    assert all(runs(given) > 0 for given in asked)
    assert [runs(given) for given in asked[-7:]] == [0] * 7
    assert runs(asked[0]) > 0  # forgotten
    assert runs(asked[-1]) == 0


def test_functions_that_were_given_as_output_are_let_go() -> None:
    model, kept = Scaled().eval(), []
    for _ in range(20):
        function = partial(torch.mul, other=2.0)
        kept.append(weakref.ref(function))
        seewhy.explain(model, IMAGE, 0, output=function)
    del function
    gc.collect()
    assert sum(each() is not None for each in kept) <= 8
