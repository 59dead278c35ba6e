"""Evidence: maps on a known mark are supported, maps that know nothing are not; the words say what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.planted_marks import KINDS, drawn, trained
from tests.small_models import SmallNet
from torch import Tensor, nn
from torch.nn import functional

import seewhy
from seewhy.evidence import Aspects, Evidence, Seen, edge_share, judged
from seewhy.measures.controls import shuffled
from seewhy.measures.drawing import drawn_for
from seewhy.verifying import CONTROL_PARTS, FORWARDS, PARTS, SHUFFLES, verified

PICTURES = 67  # of each kind: 201 in all


def _words(model: nn.Module, images: Tensor, classes: Tensor, raws: Tensor) -> list[Evidence]:
    """Return the evidence of maps `(number, *grid)` that were made by hand."""
    ask = seewhy.Explainer(model)
    found = []
    for at in range(0, len(images), 16):
        block = slice(at, at + 16)
        given = [int(one) for one in classes[block]]
        explanations = ask(list(images[block]), given, "grad-cam")
        recorded, _ = ask.recorded(list(images[block]), given)
        made = [
            (sample, [replace(why, raw=raw.numpy(), diagnosis=())])
            for sample, why, raw in zip(recorded.samples, explanations, raws[block], strict=True)
        ]
        question = recorded.recordings.questions[0]
        found += [each.evidence for [each] in verified(made, [question], recorded.recordings, recorded.chances)]
    return found


@pytest.mark.slow
def test_maps_on_a_mark_are_supported_and_others_are_not() -> None:
    words: dict[str, list[str]] = {"mark": [], "random": [], "shuffled": []}
    for kind in KINDS:
        model, generator = trained(kind), torch.Generator().manual_seed(7)
        pictures = drawn(kind, PICTURES, generator, with_mark=True)
        with torch.no_grad():
            assert (model(pictures.images).argmax(1) == pictures.classes).float().mean() > 0.95
        marks = functional.avg_pool2d(pictures.marks.float()[:, None], 8)[:, 0]
        noise = torch.randn((PICTURES, 8, 8), generator=generator)
        moved = torch.stack([shuffled(mark, generator) for mark in marks])
        for name, raws in (("mark", marks), ("random", noise), ("shuffled", moved)):
            words[name] += [each.word for each in _words(model, pictures.images, pictures.classes, raws)]
    shares = {name: np.mean([word == "supported" for word in found]) for name, found in words.items()}
    chance = {name: np.mean([word == "no better than chance" for word in found]) for name, found in words.items()}
    assert shares["mark"] >= 0.95
    assert chance["random"] >= 0.95
    assert chance["shuffled"] >= 0.95


def _seen(kept: float, hidden: float, others: list[float], *, whole: float = 0.9, blank: float = 0.0) -> Seen:
    """Return what is seen of a map with the same said at every part, and of controls with these differences."""
    controls = np.repeat(np.asarray(others)[:, None], len(CONTROL_PARTS), 1)
    flat = np.full(len(PARTS), 1.0)
    return Seen(
        PARTS, kept * flat, hidden * flat, CONTROL_PARTS, (whole + controls) / 2, (whole - controls) / 2, whole, blank,
        "probability", FORWARDS,
    )  # fmt: skip


PLAIN = Aspects(class_blind=False, flat=False, edge=0.1, method="grad-cam")
SPREAD = [-0.5, -0.4, -0.3, -0.2, -0.35, -0.45]


def test_the_score_is_zero_by_chance_and_one_where_all_hangs_on_the_map() -> None:
    mean = float(np.mean(SPREAD))
    assert judged(_seen((0.9 + mean) / 2, (0.9 - mean) / 2, SPREAD), PLAIN).score == pytest.approx(0, abs=1e-9)
    best = judged(_seen(0.9, 0.0, SPREAD), PLAIN)
    assert best.score == pytest.approx(1)
    assert best.word == "supported"
    assert not best.remedy
    assert "Chance that a shuffled map does as well: under 1% (supported: under 2%)" in best.reason


def test_the_chance_is_that_of_students_t_with_the_usual_spread_mixed_in() -> None:
    found = judged(_seen(0.6, 0.4, SPREAD), PLAIN)
    own, others = 0.2 / 0.9, np.asarray(SPREAD) / 0.9
    variance = (10 * 0.35**2 + 5 * others.var(ddof=1)) / 15
    from scipy import stats

    expected = stats.t(15).sf((own - others.mean()) / np.sqrt(variance * (1 + 1 / 6)))
    assert found.chance == pytest.approx(expected)
    of_three = judged(_seen(0.6, 0.4, SPREAD), replace(PLAIN, among=3))
    assert of_three.chance == pytest.approx(3 * expected)
    assert "Chance that the best of 3 shuffled maps does as well: " in of_three.reason
    assert judged(_seen(0.0, 0.9, SPREAD), replace(PLAIN, among=3)).chance == 1


def test_maps_that_do_worse_than_chance_are_no_better() -> None:
    found = judged(_seen(0.0, 0.9, SPREAD), PLAIN)
    assert found.word == "no better than chance"
    assert found.score < 0
    assert "Do not rely on this map" in found.remedy


def test_reasons_name_their_cause() -> None:
    poor = _seen(0.2, 0.6, SPREAD)
    assert "the same everywhere" in judged(poor, replace(PLAIN, flat=True)).reason
    assert "does not ask what the class needs" in judged(poor, replace(PLAIN, class_blind=True)).reason
    assert "border" in judged(poor, replace(PLAIN, edge=0.9)).reason
    assert "of an empty picture" in judged(replace(poor, blank=0.89), PLAIN).reason
    lost = replace(poor, control_hidden=np.full((SHUFFLES, 2), 0.01))
    assert "lost whatever is hidden" in judged(lost, PLAIN).reason
    sure = replace(poor, hidden=np.full(len(PARTS), 0.9), control_hidden=np.full((SHUFFLES, 2), 0.9))
    assert "stays sure" in judged(sure, PLAIN).reason
    asked = judged(sure, replace(PLAIN, rival="cat-vs-dog"))
    assert asked.remedy == "Ask what sets the class apart from the next: target 'cat-vs-dog', method 'auto'."


def test_remedies_name_what_was_not_tried() -> None:
    poor = _seen(0.2, 0.6, SPREAD)
    end = "; if none is supported, no map tells what matters here."
    said = {
        ("", True): "Try method 'auto'",
        ("cat-vs-dog", True): "Try method 'auto', also with target 'cat-vs-dog'",
        (
            "cat-vs-dog",
            False,
        ): "Ask what sets the class apart from the next (target 'cat-vs-dog'), and try other methods",
        ("", False): "Try other methods",
    }
    for (rival, can_auto), words in said.items():
        found = judged(poor, replace(PLAIN, rival=rival, can_auto=can_auto))
        assert found.remedy == f"Do not rely on this map. {words}{end}"


def test_scores_that_nothing_changes_support_no_map() -> None:
    controls = np.repeat(np.asarray(SPREAD)[:, None], len(CONTROL_PARTS), 1)
    flat, still = np.full(len(PARTS), 1.0), np.full_like(controls, 5.0)
    seen = Seen(
        PARTS, 5.02 * flat, 4.98 * flat, CONTROL_PARTS, still + 0.002 * controls, still, 5.02, 5.0, "score", FORWARDS
    )
    assert judged(seen, PLAIN).word == "supported"  # a score of unknown unit: it may be small by nature
    assert judged(replace(seen, least=1.0), PLAIN).word == "no better than chance"
    assert "decides between the two" in judged(replace(seen, least=1.0), PLAIN).reason
    moved = {"control_kept": 100 + 2 * controls, "control_hidden": np.full_like(controls, 100.0)}
    whole = replace(seen, kept=105 * flat, hidden=95 * flat, whole=105.0, blank=98.0, least=1.0, **moved)
    assert judged(whole, PLAIN).word == "supported"


def test_a_contrast_that_the_picture_does_not_decide_supports_no_map(ask: seewhy.Explainer) -> None:
    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(9))
    faint = SmallNet().eval()
    with torch.no_grad():
        for values in faint.parameters():
            values.mul_(0.2)
    evidence = seewhy.explain(faint, image, target="2-vs-1", verify=True).evidence
    assert evidence is not None
    assert evidence.unit == "score"
    assert evidence.word == "no better than chance"
    assert "nothing in the picture decides between the two" in evidence.reason


def test_where_there_are_no_derivatives_auto_is_no_advice(ask: seewhy.Explainer) -> None:
    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return ask.model.module(torch.from_numpy(images)).numpy()

    image = torch.rand((3, 32, 32), generator=torch.Generator().manual_seed(9))
    evidence = seewhy.explain(predict, image, target=2, masks=5, verify=True).evidence
    assert evidence is not None
    assert evidence.word == "no better than chance"
    assert "'auto'" not in evidence.remedy


def test_the_rival_is_the_likeliest_other_class_and_only_classes_have_one(ask: seewhy.Explainer) -> None:
    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(9))
    for method in ("grad-cam", "auto"):
        why = ask(image, 2, method, verify=True)
        other = next(each.index for each in why.prediction if each.index != 2)
        assert why.evidence is not None
        assert (f"target '2-vs-{other}'" in why.evidence.remedy) == (why.evidence.word != "supported")
    contrast = ask(image, "2-vs-1", "grad-cam", verify=True).evidence
    assert contrast is not None
    assert "-vs-" not in contrast.remedy


def test_a_flat_map_is_never_better_than_chance() -> None:
    assert judged(_seen(0.9, 0.0, SPREAD), replace(PLAIN, flat=True)).word == "no better than chance"


def test_edge_share_is_the_part_of_the_highest_places_on_the_border() -> None:
    values = np.zeros((32, 32), np.float32)
    values[:2] = 1 + np.arange(64, dtype=np.float32).reshape(2, 32)
    assert edge_share(values, 64 / 1024) == 1
    assert edge_share(values.T[::-1].copy(), 64 / 1024) == 1
    values = np.zeros((32, 32), np.float32)
    values[8:16, 8:16] = 1 + np.arange(64, dtype=np.float32).reshape(8, 8)
    assert edge_share(values, 64 / 1024) == 0
    assert np.isnan(edge_share(np.zeros((32, 32), np.float32)))  # all are equally high
    assert np.isnan(edge_share(np.arange(16, dtype=np.float32).reshape(4, 4)))  # nearly all of it is border


@pytest.fixture(scope="module")
def ask() -> Iterator[seewhy.Explainer]:
    torch.manual_seed(0)
    yield seewhy.Explainer(SmallNet().eval())


def test_evidence_takes_as_many_runs_as_it_says(ask: seewhy.Explainer) -> None:
    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(1))
    ask(image)  # finds the layers
    runs: list[int] = []
    hook = ask.model.module.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
    try:
        ask(image)
        alone = sum(runs)
        runs.clear()
        why = ask(image, verify=True)
    finally:
        hook.remove()
    assert why.evidence is not None
    # MANY runs at once are rehearsed, once for each of the calls that are long enough.
    assert FORWARDS <= sum(runs) - alone <= FORWARDS + 4
    assert why.evidence.forwards == FORWARDS <= 40


def test_evidence_equals_runs_made_by_hand(ask: seewhy.Explainer) -> None:
    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(2))
    why = ask(image, 3, "hires-cam", "second", verify=True)
    evidence = why.evidence
    assert evidence is not None
    values = torch.from_numpy(why.viewed("signed").scaled("none")).flatten()
    mixed = torch.randperm(1024, generator=drawn_for(image, 0, "order"))  # the order of places of one value
    order = mixed[values[mixed].argsort(descending=True, stable=True)]
    from seewhy.images.blur import gaussian_blur

    blurred = gaussian_blur(image[None], 32 / 16, edges="repeat")[0]
    for number, part in enumerate(evidence.parts):
        top = torch.zeros(1024, dtype=torch.bool)
        top[order[: round(part * 1024)]] = True
        kept = torch.where(top.view(32, 32), image, blurred)
        hidden = torch.where(top.view(32, 32), blurred, image)
        with torch.no_grad():
            both = ask.model.module(torch.stack([kept, hidden])).softmax(1)[:, 3]
        assert [evidence.kept[number], evidence.hidden[number]] == pytest.approx(both.tolist(), abs=1e-5)


def test_controls_equal_the_evidence_of_maps_that_are_shuffled_by_hand(ask: seewhy.Explainer) -> None:
    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(2))
    why = ask(image, 3, "hires-cam", "second", verify=True)
    recorded, _ = ask.recorded([image], [3])
    generator = torch.Generator().manual_seed(0)
    moved = [shuffled(torch.from_numpy(why.raw), generator).numpy() for _ in range(SHUFFLES)]
    made = [(recorded.samples[0], [replace(why, raw=raw) for raw in moved])]
    questions = [recorded.recordings.questions[0]] * SHUFFLES
    [found] = verified(made, questions, recorded.recordings, recorded.chances)
    places = [PARTS.index(part) for part in CONTROL_PARTS]
    for number, each in enumerate(found):
        assert why.evidence.control_kept[number] == pytest.approx(np.asarray(each.evidence.kept)[places], abs=1e-5)
        assert why.evidence.control_hidden[number] == pytest.approx(np.asarray(each.evidence.hidden)[places], abs=1e-5)
    gaps = (np.asarray(why.evidence.kept) - np.asarray(why.evidence.hidden))[places].mean() / why.evidence.whole
    others = (why.evidence.control_kept - why.evidence.control_hidden).mean(1) / why.evidence.whole
    assert why.evidence.score == pytest.approx(
        np.clip((gaps - others.mean()) / max(1 - others.mean(), 0.1), -1, 1), abs=1e-6
    )


def test_of_few_places_luck_is_likelier_than_the_test_allows(ask: seewhy.Explainer) -> None:
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(8))
    whys = [ask(image, 1, "grad-cam", "second") for image in images]
    recorded, _ = ask.recorded(list(images), [1, 1])
    for shape, least in (((2, 2), 1 / 4), ((1, 3), 1 / 3), ((4, 4), 1 / 16), ((5, 5), 1 / 300)):
        raw = torch.rand(shape, generator=torch.Generator().manual_seed(3)).numpy()
        made = [(sample, [replace(why, raw=raw)]) for sample, why in zip(recorded.samples, whys, strict=True)]
        for [each] in verified(made, [recorded.recordings.questions[0]], recorded.recordings, recorded.chances):
            assert each.evidence.chance >= least
            if least > 0.02:
                assert each.evidence.word == "no better than chance"
                assert f"in {least:.0%} of cases. Name a finer layer" in each.evidence.reason


def test_answers_that_are_no_numbers_judge_nothing() -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = SmallNet()

        def forward(self, images: Tensor) -> Tensor:
            blurred = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3), keepdim=True) < 1
            return torch.where(blurred[..., 0, 0], torch.nan, self.net(images))

    image = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(1))
    why = seewhy.explain(Fragile().eval(), image, target=1, verify=True)
    assert why.evidence is None
    assert any("are no numbers" in note for note in why.notes)


def test_the_chance_grows_without_steps_as_controls_differ_more() -> None:
    chances = []
    for spread in np.linspace(0.3, 1.2, 91):
        others = spread * np.asarray([-1.0, -0.6, -0.2, 0.2, 0.6, 1.0]) * 0.9
        chances.append(judged(_seen(0.9, 0.0, list(others)), PLAIN).chance)
    steps = np.diff(chances)
    assert (steps > 0).all()
    assert steps.max() < 0.01


def test_batches_and_several_maps_get_what_each_gets_alone(ask: seewhy.Explainer) -> None:
    images = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    together = ask.compare(images, ["grad-cam", "layer-cam"], verify=True)
    for image, row in zip(images, together, strict=True):
        for each in row:
            alone = ask(image, None, each.method, verify=True)
            assert each.evidence.kept == pytest.approx(alone.evidence.kept, abs=1e-5)
            assert each.evidence.chance == pytest.approx(alone.evidence.chance, abs=1e-4)


def test_maps_of_one_place_and_unasked_ones_have_none(ask: seewhy.Explainer) -> None:
    image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(4))
    assert ask(image).evidence is None
    small = ask(image[:, :4, :4], 1, "grad-cam", "second", verify=True)
    assert small.raw.size == 1
    assert small.evidence is None


def test_signals_and_scores_without_probability_are_put_to_the_test() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    signal = torch.randn((2, 64), generator=torch.Generator().manual_seed(5))
    why = seewhy.explain(model, signal, verify=True)
    assert why.evidence.unit == "score"
    assert why.evidence.reason.startswith("Score ")


def test_a_shuffled_map_has_the_same_values_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 8), (16, 24), (7, 7), (40,), (4, 8, 8)):
        values = torch.arange(float(np.prod(shape))).view(shape)
        moved = shuffled(values, generator)
        assert torch.equal(moved.flatten().sort().values, values.flatten()), shape
        assert not torch.equal(moved, values)
    tiles = torch.arange(64.0).view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    moved = shuffled(tiles, generator).view(8, 4, 8, 4)
    assert (moved == moved[:, :1, :, :1]).all()  # a tile moves as one


def test_captions_say_the_word_the_reason_and_what_to_do(ask: seewhy.Explainer) -> None:
    from seewhy.render.overlay import caption, warnings

    image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(6))
    why = ask(image, verify=True)
    good = replace(why, evidence=judged(_seen(0.9, 0.0, SPREAD), PLAIN))
    poor = replace(why, evidence=judged(_seen(0.2, 0.6, SPREAD), PLAIN))
    others = "(of: supported, weak, no better than chance)"
    for one, word in ((good, "supported"), (poor, "no better than chance")):
        at = caption(one).index(f"test of this map, not of the answer: {word} {others}")
        assert caption(one)[at + 1] == one.evidence.reason
    assert not warnings(good)
    assert warnings(poor) == [poor.evidence.remedy]
    assert "method 'auto'" in poor.evidence.remedy
    assert "if none is supported, no map tells" in poor.evidence.remedy


def test_shuffled_tiles_never_lie_as_they_did_where_there_are_two() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        assert shuffled(torch.tensor([1.0, 2.0]), generator).tolist() == [2.0, 1.0]
    assert shuffled(torch.tensor([[3.0]]), generator).tolist() == [[3.0]]


def test_what_is_weak_says_why() -> None:
    lucky = [judged(_seen(0.45 + step, 0.45 - step, SPREAD), PLAIN) for step in np.linspace(0, 0.3, 300)]
    [nearly, *_] = [each for each in lucky if each.word == "weak"]
    assert 0.02 <= nearly.chance < 0.025
    assert f"Chance that a shuffled map does as well: {nearly.chance:.1%} (supported: under 2%)" in nearly.reason
    assert "hint" in nearly.remedy
