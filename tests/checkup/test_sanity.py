"""The sanity checks: what must fail them fails, what must pass passes, and their numbers are those of a slow way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tests.planted_marks import SIDE, drawn, trained
from tests.small_models import make_small_net
from torch import Tensor, nn
from torch.nn import functional

import seewhy
from seewhy.checkup import trust
from seewhy.errors import MetricError, RenderError, TargetError
from seewhy.maps import registry
from seewhy.measures.controls import centre_map
from seewhy.untrained import untrained

RING, CROSS = 1, 2


@pytest.fixture(autouse=True)
def own_methods() -> Iterator[None]:
    """Methods that a test adds are taken away again."""
    known = dict(registry._ENTRIES)
    yield
    registry._ENTRIES.clear()
    registry._ENTRIES.update(known)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def looker() -> seewhy.Explainer:
    """A model that learnt to tell rings from crosses."""
    return seewhy.Explainer(trained("shape"), labels=["nothing", "ring", "cross"])


@pytest.fixture(scope="module")
def both() -> tuple[Tensor, dict[int, Tensor]]:
    """A picture with a ring and a cross, and where these are."""
    generator = torch.Generator().manual_seed(3)
    while True:
        pictures = drawn("shape", 8, generator, with_mark=True)
        rings, crosses = (torch.nonzero(pictures.classes == kind).flatten().tolist() for kind in (RING, CROSS))
        for ring in rings:
            for cross in crosses:
                near = functional.max_pool2d(pictures.marks[cross][None].float(), 17, 1, 8)[0] > 0
                if not (near & pictures.marks[ring]).any():
                    there = pictures.marks[cross]
                    image = torch.where(there, pictures.images[cross], pictures.images[ring])
                    return image, {RING: pictures.marks[ring], CROSS: there}


def test_grad_cam_of_a_model_that_learnt_something_passes(
    looker: seewhy.Explainer, both: tuple[Tensor, dict[int, Tensor]]
) -> None:
    image, marks = both
    found = seewhy.sanity(looker, image, "grad-cam", target="ring", other="cross")
    assert {row.check: row.verdict for row in found} == {
        "class": "passes",
        "weights": "passes",
        "input": "passes",
        "agreement": "cannot be asked",
    }
    assert found.verdict == "passes"
    assert found.outcome("class", "grad-cam").value < 0
    maps = found.maps["grad-cam"]
    for what, kind, another in (
        ("the picture", RING, CROSS),
        ("for cross", CROSS, RING),
    ):  # each is high in its own mark
        heat = maps[what].scaled("none")
        assert heat[marks[kind].numpy()].mean() > 5 * heat[marks[another].numpy()].mean()


def test_edges_fail_what_asks_for_the_class_and_the_model_and_pass_what_asks_for_the_picture(
    looker: seewhy.Explainer, both: tuple[Tensor, dict[int, Tensor]]
) -> None:
    found = seewhy.sanity(looker, both[0], ["edges", "grad-cam"])
    assert [found.outcome(check, "edges").verdict for check in ("class", "weights", "input")] == [
        "fails",
        "fails",
        "passes",
    ]
    assert found.outcome("class", "edges").value == found.outcome("weights", "edges").value == 1
    assert "by nature" in found.outcome("class", "edges").found
    assert found.verdict == "fails"


def test_a_liking_for_the_middle_fails_everything_but_agreement_with_itself(
    looker: seewhy.Explainer, both: tuple[Tensor, dict[int, Tensor]]
) -> None:
    for name in ("middle", "same-middle"):

        def middle(rec: seewhy.Recording) -> Tensor:
            """Draw a blob in the middle."""
            return centre_map(rec.images.shape[2:]).expand(len(rec.images), -1, -1).clone()

        how = {"needs": seewhy.Needs.IMAGES, "class_specific": True, "signed": False, "source": "here"}
        seewhy.method(name, **how)(middle)
    found = seewhy.sanity(looker, both[0], ["middle", "same-middle"])
    for check in ("class", "weights", "input"):
        row = found.outcome(check, "middle")
        assert (row.verdict, row.value) == ("fails", 1)
        assert row.remedy
    assert "by nature" not in found.outcome("class", "middle").found
    assert found.outcome("agreement", "middle").verdict == "passes"
    np.testing.assert_array_equal(found.agreement, np.ones((2, 2)))


def test_numbers_are_those_of_a_slow_way(looker: seewhy.Explainer, both: tuple[Tensor, dict[int, Tensor]]) -> None:
    image = both[0]
    found = seewhy.sanity(looker, image, ["saliency", "input-x-gradient"], target=RING)
    own = looker(image, RING, "saliency").raw.flatten()
    others = [looker(image, kind, "saliency").raw.flatten() for kind in (0, CROSS)]
    expected = np.median([spearmanr(own, other).statistic for other in others])
    assert found.outcome("class", "saliency").value == pytest.approx(expected, abs=1e-5)
    sizes = []
    for part in (1 / 3, 2 / 3, 1.0):
        each = [untrained(looker, image[None], part, seed)(image, RING, "saliency").raw.flatten() for seed in (0, 1)]
        sizes.append(np.mean([abs(spearmanr(own, other).statistic) for other in each]))
    row = found.outcome("weights", "saliency")
    assert list(row.numbers["parts"].values()) == pytest.approx(sizes, abs=1e-5)
    assert row.value == pytest.approx(np.mean(sizes), abs=1e-5)

    def cells(values: np.ndarray) -> np.ndarray:
        return values.reshape(16, SIDE // 16, 16, SIDE // 16).mean((1, 3)).flatten()

    pair = [cells(looker(image, RING, name).raw) for name in ("saliency", "input-x-gradient")]
    assert found.agreement[0, 1] == found.agreement[1, 0] == pytest.approx(spearmanr(*pair).statistic, abs=1e-4)


def test_what_is_shown_instead_is_noise_as_wide_and_the_same_pixels_elsewhere(batch: Tensor) -> None:
    seen: list[Tensor] = []

    @seewhy.method("watches", needs=seewhy.Needs.IMAGES, class_specific=False, signed=True, source="here")
    def watches(rec: seewhy.Recording) -> Tensor:
        """Keep what it is shown."""
        seen.extend(rec.images.detach().clone())
        return rec.images.sum(1)

    image = 3 * batch[0] + torch.tensor([1.0, 0.0, -2.0])[:, None, None]
    seewhy.sanity(make_small_net(), image, "watches")
    shown = [each for each in seen if not torch.equal(each, image)]
    assert len(shown) == 6
    for noise in shown[:3]:
        torch.testing.assert_close(noise.mean((1, 2)), image.mean((1, 2)), atol=0.6, rtol=0)
        torch.testing.assert_close(noise.std((1, 2)), image.std((1, 2)), atol=0, rtol=0.15)
    for patches in shown[3:]:  # 24 x 40 pixels: 8 x 8 whole tiles
        own, other = ({tuple(pixel) for pixel in each.flatten(1).T.tolist()} for each in (image, patches))
        assert own == other
        tiles = patches.unfold(1, 3, 3).unfold(2, 5, 5).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
        whole = image.unfold(1, 3, 3).unfold(2, 5, 5).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
        assert {tuple(tile) for tile in tiles.tolist()} == {tuple(tile) for tile in whole.tolist()}
        assert not torch.equal(patches, image)


def test_unrelated_maps_of_noise_are_as_alike_as_chance_has_it(generator: torch.Generator) -> None:
    found = [trust.known_of("any", torch.randn((8, 8), generator=generator), seed).chance for seed in range(20)]
    assert np.mean(found) == pytest.approx(1.96 / 63**0.5, rel=0.1)  # about normal, with deviation 1 / sqrt(places - 1)


def test_a_turned_sign_is_another_class_and_the_same_model() -> None:
    known = trust.Known("any", 0.2)
    turned = np.full((2, 3), -0.9)
    assert trust.of_class(known, turned[0], "a", ["b", "c", "d"]).verdict == "passes"
    row = trust.of_weights(known, turned, (1 / 3, 2 / 3, 1.0))
    assert (row.verdict, row.value) == ("fails", pytest.approx(0.9))


def test_one_map_of_another_sign_hides_no_two_that_stay() -> None:
    known = trust.Known("any", 0.2)
    row = trust.of_class(known, np.array([0.95, 0.95, -0.9]), "a", ["b", "c", "d"])
    assert (row.verdict, row.value) == ("fails", pytest.approx(0.95))
    assert row.numbers["each"] == {"b": 0.95, "c": 0.95, "d": -0.9}
    assert (
        row.found == "The map of 'a' is nearly that of 'b', 'c': it shows what speaks for all, not what sets 'a' apart."
    )
    row = trust.of_class(known, np.array([0.95]), "a", ["b"], chosen=True)
    end = "it shows what speaks for both, not what sets 'a' apart. Classes that look alike may rightly share a map."
    assert row.found.endswith(end)
    row = trust.of_class(known, np.array([0.95, 0.1, -0.9]), "a", ["b", "c", "d"])
    assert (row.verdict, row.value) == ("passes", pytest.approx(0.1))
    assert row.found.endswith(
        "than that of 'c', 'd' (no more than unrelated maps): it is about the class. It is nearly that of 'b'."
    )


def test_the_same_places_with_the_sign_turned_are_the_same_map_whatever_is_shown() -> None:
    found = {"noise": np.full(3, -0.95), "shuffled patches": np.array([0.1, -0.1, 0.3])}
    row = trust.of_input(trust.Known("any", 0.2), found)
    assert (row.verdict, row.value) == ("fails", pytest.approx(0.95))
    assert row.found.startswith("Much the same map is drawn of noise")
    assert dict(row.numbers) == {"noise": pytest.approx(0.95), "shuffled patches": pytest.approx(0.5 / 3)}


def test_of_weights_what_is_judged_is_what_is_told() -> None:
    known = trust.Known("any", 0.2)
    row = trust.of_weights(known, np.array([[1.0, 0.99, 0.14], [1.0, 0.99, -0.14]]), (1 / 3, 2 / 3, 1.0))
    assert (row.verdict, row.value) == ("fails", pytest.approx(0.71))
    assert "(0.71 on average; the last 33%: 1.00, the last 67%: 0.99, all layers drawn anew: 0.14)" in row.found
    assert "edges" not in row.found
    assert "edges" in trust.of_weights(known, np.full((2, 3), 0.9), (1 / 3, 2 / 3, 1.0)).found


def test_a_map_that_is_the_same_everywhere_is_neither_alike_nor_other() -> None:
    known, flat = trust.Known("any", 0.2), torch.ones(1, 8, 8)
    values = torch.arange(64.0).view(1, 8, 8)
    assert np.isnan(trust.likeness(values, flat)).all()
    assert np.isnan(trust.likeness(flat, values)).all()
    nothing = np.full(3, np.nan)
    rows = [
        trust.of_class(known, nothing, "a", ["b", "c", "d"]),
        trust.of_weights(known, np.stack([nothing, nothing]), (1 / 3, 2 / 3, 1.0)),
        trust.of_input(known, {"noise": nothing, "shuffled patches": nothing}),
    ]
    for row in rows:
        assert (row.verdict, row.found) == ("cannot be asked", trust.BLANK)
    some = np.array([0.9, np.nan, 0.9])
    assert trust.of_class(known, some, "a", ["b", "c", "d"]).value == pytest.approx(0.9)
    row = trust.of_weights(known, np.array([[0.9, np.nan, np.nan], [0.8, np.nan, 0.7]]), (1 / 3, 2 / 3, 1.0))
    assert row.value == pytest.approx((0.85 + 0.7) / 2)
    assert row.found.endswith(" 3 of 6 maps made again are the same everywhere and are left out.")
    row = trust.of_input(known, {"noise": nothing, "shuffled patches": np.array([np.nan, 0.2, -0.4])})
    assert (row.verdict, row.value) == ("passes", pytest.approx(0.3))
    assert row.found.startswith("Shuffled patches have other maps: it is about this picture. 4 of 6 maps")


def test_controls_do_not_count_in_agreement(looker: seewhy.Explainer, both: tuple[Tensor, dict[int, Tensor]]) -> None:
    found = seewhy.sanity(looker, both[0], ["grad-cam", "layer-cam", "random", "edges"])
    for name in ("random", "edges"):
        row = found.outcome("agreement", name)
        assert row.verdict == "cannot be asked"
        assert "It is a control" in row.found
    assert set(found.outcome("agreement", "grad-cam").numbers["each"]) == {"layer-cam"}
    assert np.isfinite(found.agreement).all()
    alone = seewhy.sanity(looker, both[0], ["grad-cam", "edges"]).outcome("agreement", "grad-cam")
    assert alone.verdict == "cannot be asked"
    assert "controls do not count" in alone.found


def test_who_disagrees_is_named(generator: torch.Generator) -> None:
    smooth = functional.interpolate(torch.randn((2, 1, 5, 5), generator=generator), size=32, mode="bicubic")[:, 0]
    maps = torch.stack([smooth[0], smooth[0] ** 3, smooth[0] + 0.1, -smooth[0], torch.ones(32, 32)])
    cells = trust.coarse(maps[[0, 0, 2, 3, 4]])
    agreement = trust.agreement_of(cells)
    expected = np.outer([1, 1, 1, -1], [1, 1, 1, -1])
    np.testing.assert_allclose(agreement[:4, :4], expected, atol=1e-6)
    assert np.isnan(agreement[4]).all()
    assert np.isnan(agreement[:, 4]).all()
    known = [trust.known_of(name, each, 0) for name, each in zip("abcde", cells, strict=True)]
    rows = trust.of_agreement(known, agreement)
    assert [row.verdict for row in rows] == ["passes", "passes", "passes", "fails", "cannot be asked"]
    assert rows[0].found == "It disagrees with d (-1.00). Most others show related places: more alike than by chance."
    assert rows[3].found == "It disagrees with a (-1.00), b (-1.00), c (-1.00)."


def test_what_cannot_be_asked_says_why(batch: Tensor) -> None:
    single = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    row = seewhy.sanity(single, batch[0], "saliency", target="up").outcome("class", "saliency")
    assert (row.verdict, row.threshold) == ("cannot be asked", trust.SAME)
    assert "--other" in row.found
    asked = seewhy.sanity(single, batch[0], "input-x-gradient", target="up", other="down")
    assert asked.outcome("class", "input-x-gradient").value == pytest.approx(-1)
    net = make_small_net()
    box = seewhy.function(lambda images: net(images).detach(), "torch")
    found = seewhy.sanity(seewhy.Explainer(box), batch[0], "rise", how={"masks": 20})
    assert "torch modules alone" in found.outcome("weights", "rise").found
    assert found.outcome("input", "rise").verdict != "cannot be asked"
    assert found.as_dict()["checks"][1]["value"] is None

    @seewhy.method("flat", needs=seewhy.Needs.IMAGES, class_specific=True, signed=False, source="here")
    def flat(rec: seewhy.Recording) -> Tensor:
        """Draw nothing."""
        return torch.ones_like(rec.images[:, 0])

    rows = seewhy.sanity(make_small_net(), batch[0], "flat")
    assert {row.verdict for row in rows} == {"cannot be asked"} == {rows.verdict}
    assert "same everywhere" in rows.outcome("weights", "flat").found
    coarse = trust.known_of("any", torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0)
    assert "so little structure" in coarse.unknowable


def test_the_figures_title_is_about_the_maps_below(batch: Tensor) -> None:
    told = seewhy.sanity(make_small_net(), batch[0], "grad-cam", target=1).figure()._suptitle.get_text()
    assert (
        "Above, what the model was shown; below, a method's maps a row: all must look different from the row's first"
        in told
    )


def test_the_model_is_given_back_and_every_layer_has_its_row(batch: Tensor) -> None:
    net = make_small_net()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    state = torch.random.get_rng_state()
    found = seewhy.sanity(net, batch[0], ["grad-cam", "eigen-cam"], layers=["first", "second"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert found.methods == ("grad-cam first", "grad-cam second", "eigen-cam first", "eigen-cam second")
    assert found.outcome("class", "eigen-cam first").verdict == "fails"
    again = seewhy.sanity(net, batch[0], ["grad-cam", "eigen-cam"], layers=["first", "second"])
    assert again.as_dict() == found.as_dict()


def test_what_is_refused(batch: Tensor) -> None:
    with pytest.raises(MetricError, match="about one image, and 2 were given"):
        seewhy.sanity(make_small_net(), batch[:2], "saliency")

    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_small_net()

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.net(image) * scale[:, None]

    with pytest.raises(MetricError, match="a model that takes several"):
        seewhy.sanity(TwoInputs().eval(), (batch[:1], torch.ones(1)), "saliency")
    with pytest.raises(TargetError, match="7"):
        seewhy.sanity(make_small_net(), batch[0], "saliency", other=7)
    for asked, other in ((3, 3), ("probability:3", 3), (None, int(make_small_net()(batch[:1]).argmax()))):
        with pytest.raises(
            TargetError, match=rf"other={other} \(--other\) is what the maps are about already, '.*class {other}'"
        ):
            seewhy.sanity(make_small_net(), batch[0], "saliency", target=asked, other=other)
    with pytest.raises(TargetError, match=r"other='top:2' \(--other\) asks 2 questions"):
        seewhy.sanity(make_small_net(), batch[0], "saliency", other="top:2")
    with pytest.raises(MetricError, match="about one question, and target='top:3' asks 3"):
        seewhy.sanity(make_small_net(), batch[0], "saliency", target="top:3")
    line = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    found = seewhy.sanity(line, torch.randn(2, 40, generator=torch.Generator().manual_seed(0)), "saliency")
    with pytest.raises(RenderError, match="drawn for pictures only"):
        found.figure()
    with pytest.raises(KeyError, match="no check 'class' of 'rise'"):
        found.outcome("class", "rise")
