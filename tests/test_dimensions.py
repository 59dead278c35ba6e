"""Signals, volumes and pictures of any channels, from the model to the file: every method, and planted truths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy

pytestmark = pytest.mark.usefixtures("one_core")

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
FEW = {"samples": 3, "masks": 40, "steps": 4, "count": 8}
WITHOUT_RULES = ("cam", "lrp")  # those that say that a transformer is not for them


class Transformer(nn.Module):
    """Patches as tokens behind one class token, two blocks, and a head that looks at the class token alone."""

    def __init__(self, axes: int, channels: int, places: int) -> None:
        super().__init__()
        self.embed = CONV[axes](channels, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, places + 1, 16) * 0.1)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0) for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embed(inputs).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.place
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


def network(axes: int, channels: int) -> nn.Module:
    return nn.Sequential(
        *(CONV[axes](channels, 6, 3, stride=2, padding=1), nn.ReLU()),
        *(CONV[axes](6, 8, 3, padding=1), nn.ReLU(), POOL[axes](1), nn.Flatten(), nn.Linear(8, 3)),
    )


CASES = {
    "signal": (lambda: network(1, 2), (2, 40)),
    "signal, transformer": (lambda: Transformer(1, 2, 8), (2, 32)),
    "volume": (lambda: network(3, 1), (1, 8, 10, 12)),
    "video": (lambda: network(3, 3), (3, 6, 10, 12)),
    "volume, transformer": (lambda: Transformer(3, 1, 12), (1, 8, 8, 12)),
    "four channels": (lambda: network(2, 4), (4, 16, 20)),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = request.param
    torch.manual_seed(0)
    return make().eval(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [entry.name for entry in seewhy.methods()])
def test_every_method_explains_every_kind_of_input_or_says_why_not(case: tuple[nn.Module, Tensor], name: str) -> None:
    model, inputs = case
    few = {word: value for word, value in FEW.items() if word in seewhy.maps.find_method(name).options}
    ask = seewhy.Explainer(model)
    if isinstance(model, Transformer) and name in WITHOUT_RULES:
        with pytest.raises(seewhy.MethodError, match="Use"):
            ask(inputs[0], 0, name)
        return
    if seewhy.maps.find_method(name).needs.attention and not isinstance(model, Transformer):
        with pytest.raises(seewhy.MethodError, match=r"runs no attention that can be seen.*Use"):
            ask(inputs[0], 0, name)
        return
    why = ask(inputs[0], 0, name, **few)
    assert np.isfinite(why.raw).all()
    assert np.ptp(why.raw) > 0 or why.diagnosis
    assert why.heatmap.shape == inputs.shape[2:]
    together = ask(inputs, 0, name, **few)
    if name not in ("guided-ig", "xrai"):  # their orders of values hang on the last digits
        np.testing.assert_allclose(together[0].raw, why.raw, atol=1e-4 * max(1.0, np.abs(why.raw).max()))
    if why.colours is not None:
        shares = np.abs(why.colours).reshape(len(why.colours), -1).sum(1)
        np.testing.assert_allclose(why.channel_shares(), shares / shares.sum(), atol=1e-6)


def test_a_baseline_of_pixels_is_zeros_where_there_are_no_pixels_and_that_is_said(
    case: tuple[nn.Module, Tensor],
) -> None:
    model, inputs = case
    usual = seewhy.explain(model, inputs[0], 0, "integrated-gradients", steps=3)
    zeros = seewhy.explain(model, inputs[0], 0, "integrated-gradients", steps=3, baseline="dataset")
    if inputs.shape[1] == 3:  # a video has colours
        assert usual.options == {"steps": 3}
        assert not np.allclose(usual.raw, zeros.raw)
        return
    np.testing.assert_array_equal(usual.raw, zeros.raw)
    assert usual.options == {"steps": 3, "baseline": "dataset"}
    assert any(note.startswith("baseline: zeros instead of 'black'") for note in usual.notes)
    assert not any("baseline" in note for note in zeros.notes)
    with pytest.raises(seewhy.ImageError, match="what a pixel value is"):
        seewhy.explain(model, inputs[0], 0, "integrated-gradients", steps=3, baseline="black")


def test_the_tokens_of_a_line_are_found_behind_the_class_token() -> None:
    torch.manual_seed(0)
    model = Transformer(1, 2, 8).eval()
    why = seewhy.explain(model, torch.randn(2, 32), 0)
    assert why.layers == ("blocks.0",)  # behind it only the class token counts
    assert why.layout == "tokens, grid 8, 16 channels, 1 prefix token"


def finder(channels: int, axes: int) -> nn.Module:
    """A model whose class 0 is how bright channel 0 is anywhere."""
    model = network(axes, channels)
    with torch.no_grad():
        for part in (model[0], model[2]):
            part.weight.zero_()
            part.bias.zero_()
        model[0].weight[0, 0], model[2].weight[0, 0], model[6].weight[0] = 1.0, 1.0, torch.eye(8)[0]
    return model.eval()


SPACE, OBJECT = (10, 16, 26), (slice(1, 4), slice(9, 14), slice(18, 24))


def test_a_planted_object_comes_back_in_the_volumes_own_axis_order(tmp_path: Path) -> None:
    volume = np.zeros((1, *SPACE), np.float32)
    volume[(0, *OBJECT)] = 1
    np.save(tmp_path / "scan.npy", volume)
    for given in (volume, volume[0], torch.from_numpy(volume), tmp_path / "scan.npy"):
        why = seewhy.explain(finder(1, 3), given, 0)
        why.save(tmp_path / "why.npz")
        stored = np.load(tmp_path / "why.npz", allow_pickle=False)["heatmap"]
        assert stored.shape == SPACE
        centre = [np.average(np.arange(side), weights=stored.sum(rest)) for side, rest in zip(SPACE, REST, strict=True)]
        np.testing.assert_allclose(
            centre, [(each.start + each.stop - 1) / 2 for each in OBJECT], atol=1.0
        )  # a cell's own place
        [region] = why.regions()
        # The first convolution spreads what it sees by one voxel, the second by one of its cells, two voxels.
        for start, stop, planted in zip(region.start, region.stop, OBJECT, strict=True):
            assert planted.start - 3 <= start <= planted.start
            assert planted.stop <= stop <= planted.stop + 3


REST = ((1, 2), (0, 2), (0, 1))


def test_an_interval_of_a_signal_is_where_the_bump_is() -> None:
    signal = np.zeros((2, 200))
    signal[0, 120:140] = 1
    signal[1, 20:40] = 5  # the other channel counts for nothing
    why = seewhy.explain(finder(2, 1), signal, 0, "occlusion", window=8)
    [found] = why.intervals()
    assert abs(found.start - 120) <= 8
    assert abs(found.stop - 140) <= 8
    assert found.share > 0.9
    shares = seewhy.explain(finder(2, 1), signal, 0, "input-x-gradient").channel_shares()
    np.testing.assert_allclose(shares, [1, 0])
    with pytest.raises(seewhy.RenderError, match="intervals"):
        why.boxes()


def test_a_long_signal_is_explained_without_a_matrix_of_its_length() -> None:
    signal = torch.zeros(1, 60_000)
    signal[0, 41_000:41_200] = 1
    for name in ("grad-cam", "input-x-gradient"):
        why = seewhy.explain(finder(1, 1), signal, 0, name)
        assert 40_995 <= int(why.heatmap.argmax()) < 41_205
        assert why.heatmap.shape == (60_000,)
    blurred = seewhy.explain(finder(1, 1), signal, 0, "integrated-gradients", steps=2, baseline="blur")
    [found] = blurred.intervals()
    assert abs(found.start - 41_000) <= 3
    assert abs(found.stop - 41_200) <= 3


def test_the_layers_of_a_model_of_signals_need_an_input() -> None:
    with pytest.raises(seewhy.ImageError, match="takes a signal"):
        seewhy.layers(network(1, 2))
    assert next(row.layout.grid for row in seewhy.layers(network(1, 2), torch.zeros(2, 40))) == (20,)
    assert seewhy.layers(network(2, 13)).default.layout.channels == 8  # noise of 13 channels


def test_facts_tell_the_shares_of_channels(tmp_path: Path) -> None:
    why = seewhy.explain(network(2, 4), torch.randn(4, 16, 20), 0, "input-x-gradient")
    why.save(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())["channel_shares"]
    np.testing.assert_allclose(found, why.channel_shares(), atol=1e-6)
    cam = seewhy.explain(network(2, 4), torch.randn(4, 16, 20), 0)
    with pytest.raises(seewhy.RenderError, match="grad-cam has no channels to compare"):
        cam.channel_shares()
