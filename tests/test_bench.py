"""The benchmark's every path on a tiny model, once. Nothing is said about time."""

import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("torchcam")
pytest.importorskip("captum")

from bench import (  # noqa: E402
    components,
    frameworks,
    gradients,
    memory,
    metrics,
    peak,
    perturbation,
    photo,
    report,
    transformer,
    tuning,
)
from bench.__main__ import command, main, parser  # noqa: E402
from bench.cases import CASES, Part  # noqa: E402
from bench.maps import difference, unit  # noqa: E402
from bench.peers import CAPTUM, GRAD_CAM, NOTES, TORCHCAM  # noqa: E402
from bench.repeated_peers import bind_grad_cam_score, bind_torchcam_score  # noqa: E402
from bench.subject import EMBEDDED, Subject, make_subject  # noqa: E402
from bench.tables import Row, Table  # noqa: E402
from bench.throughput import throughput  # noqa: E402
from bench.timing import Runner, Times, alternate  # noqa: E402

import seewhy  # noqa: E402
from seewhy.models import LoadedModel, adopt  # noqa: E402

# The peers warn about their own hooks; what is tested here is the benchmark.
pytestmark = pytest.mark.filterwarnings("default")


class Tiny(nn.Module):
    """Four stages, like the networks that are measured."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 6, 8, 8)
        for number, (given, made) in enumerate(itertools.pairwise(widths), start=1):
            stage = nn.Sequential(nn.Conv2d(given, made, 3, stride=2, padding=1), nn.ReLU(inplace=True))
            setattr(self, f"layer{number}", stage)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, images):
        for number in range(1, 5):
            images = getattr(self, f"layer{number}")(images)
        return self.head(images)


def tiny() -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return adopt(Tiny().eval(), "tiny").with_(preprocess=seewhy.Preprocess(size=(64, 64)), notes=())


@pytest.fixture(autouse=True)
def few_sizes(monkeypatch):
    monkeypatch.setattr(tuning, "SIZES", (1, 4))


@pytest.fixture(scope="module")
def subject() -> Subject:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return Subject(tiny(), images)


def differences(table: Table) -> dict[tuple[str, str], float]:
    return {(row.what, row.who): row.difference for row in table.rows if row.difference is not None}


def test_single_has_every_method_of_every_peer_and_the_same_maps_where_the_peer_follows_the_paper(subject):
    table = gradients.single(subject, 1)
    found = differences(table)
    wanted = {(method, "torchcam") for method in TORCHCAM} | {(method, "pytorch-grad-cam") for method in GRAD_CAM}
    assert set(found) == wanted | {(method, "captum") for method in CAPTUM}
    assert all(apart < 1e-4 for key, apart in found.items() if key not in NOTES)
    assert found["grad-cam++", "torchcam"] > 1e-3
    assert {row.who for row in table.rows} == {"bare forward", "seewhy", "torchcam", "pytorch-grad-cam", "captum"}
    assert {row.note for row in table.rows} - {""} == set(NOTES.values())


def test_multi_compares_all_maps(subject):
    table = gradients.multi(subject, 1)
    assert [row.who for row in table.rows] == ["bare forward", "seewhy", "torchcam", "captum", "pytorch-grad-cam"]
    assert [row.note.partition(" ")[0] for row in table.rows] == ["", "24", "16", "4", "24"]
    assert all(apart < 1e-4 for apart in differences(table).values())


def test_perturb_has_the_same_maps_where_the_peers_follow_the_same_definition(subject, monkeypatch):
    monkeypatch.setattr(perturbation, "MASKS", 16)
    table = perturbation.perturb(subject, 1)
    found = differences(table)
    grad_cam = [("ablation-cam", "pytorch-grad-cam"), ("score-cam", "pytorch-grad-cam"), ("score-cam", "torchcam")]
    on_input = ("occlusion", "feature-ablation", "integrated-gradients")
    assert set(found) == {*grad_cam, *((method, "captum") for method in on_input)}
    assert all(apart < 1e-4 for (method, _), apart in found.items() if method != "score-cam")
    notes = {(row.what, row.who): row.note for row in table.rows}
    assert notes["ablation-cam", "pytorch-grad-cam"] in {f"batch_size={size}; 1 run" for size in (1, 4)}
    assert notes["occlusion", "captum"] in {f"perturbations_per_eval={size}" for size in (1, 4)}
    assert {row.what for row in table.rows} == {"", "ablation-cam", "score-cam", *on_input, "rise"}
    assert all((row.faster is None) == (row.who in ("bare forward", "seewhy")) for row in table.rows)


def test_score_cams_maps_are_the_peers_where_nothing_is_resized():
    # A layer as large as the input: what is left of the peers' differences is how they resize.
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    own = Subject(adopt(module.eval(), "flat").with_(preprocess=seewhy.Preprocess(size=(16, 16)), notes=()), images)
    task = own.task("1")
    raw = [seewhy.Explainer(own.loaded)(images[0], task.classes[0], "score-cam", "1").raw[None]]
    for bind in (bind_grad_cam_score, bind_torchcam_score):
        with contextlib.ExitStack() as stack:
            assert difference(raw, bind(task, 3, stack)()) < 1e-4


def test_vit_has_the_same_map_as_the_changed_peer():
    subject = make_subject("timm:test_vit")
    table = transformer.vit(subject, 1)
    found = differences(table)
    assert found["ablation-cam", transformer.CHANGED] < 1e-4
    assert found["eigen-cam", "pytorch-grad-cam"] < 1e-3
    assert ("ablation-cam", "pytorch-grad-cam") in found


def test_eigen_and_smooth_have_the_peers_maps(subject):
    assert differences(components.eigen(subject, 1))["", "pytorch-grad-cam"] < 1e-3
    assert differences(components.smooth(subject, 2))["", "pytorch-grad-cam"] < 1e-4


def test_throughput_tells_the_share(subject):
    table = throughput(subject, 1, sizes=(1, 2))
    *bare, own = table.rows
    assert len(bare) == 3
    assert max(row.share for row in bare) == 1
    assert own.share == pytest.approx(own.rate / max(row.rate for row in bare))
    masked = int(own.note.split()[0])
    assert 1 <= masked <= 8
    assert own.rate == pytest.approx(masked / own.seconds)


def test_memory_is_measured_of_what_ran(subject):
    big = peak.growth(lambda: torch.ones(64 << 18), "cpu")
    assert 50 < big < 200 or not peak.can_reset()
    found = peak.methods_of(subject, ["grad-cam", "occlusion", "cam"], 96, 2)
    assert list(found) == ["grad-cam", "occlusion", "cam"]
    assert all(mib >= 0 for mib in found.values() if not isinstance(mib, str))
    with contextlib.ExitStack() as stack:
        for who in memory.LIBRARIES:
            own = Subject(tiny(), subject.images)
            peak.score_cam_run(own, who, 4, stack)()  # peers are stopped inside, which is not seen here


def test_memorys_rows_tell_what_is_too_much_and_what_failed():
    rows = memory.method_rows({"a": 5000.0, "b": 12.0, "c": "It has no | layer."})
    assert [(row.what, row.mib, row.note) for row in rows] == [
        ("a", 5000.0, "more than it may"),
        ("b", 12.0, ""),
        ("c", None, "It has no / layer."),
    ]


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own():
    own = make_subject("timm:test_resnet")
    table = memory.score_cam_memory(own, libraries=("seewhy", "pytorch-grad-cam"))
    assert [(row.who, row.leaner is None) for row in table.rows] == [("seewhy", True), ("pytorch-grad-cam", False)]
    table = memory.large_image(own, side=256, names=["grad-cam", "score-cam"])
    assert [row.what for row in table.rows] == ["grad-cam", "score-cam"]
    assert all(row.mib > 0 for row in table.rows)
    with pytest.raises(SystemExit, match="no-such-model"):
        memory.measured("score_cam", who="seewhy", model="no-such-model", device="cpu", budget=4)


def test_the_best_batch_size_is_found_on_a_part_of_the_work(subject):
    calls: list[int] = []

    def bind(task, size, stack):
        def run():
            task.model(task.images)
            for _ in range(100):
                calls.append(size)
                task.model(task.images.expand(size, -1, -1, -1))

        return run

    assert tuning.sizes_for("cuda:0")[-1] == 256
    assert tuning.best_size(bind, subject.task(), "cpu") in (1, 4)
    # 8 images: of 1 from the third forward on; of 4 from the first batch of 4 on; and the forward that is stopped.
    assert (calls.count(1), calls.count(4)) == (1 + 8 + 1, 2 + 1)
    assert not subject.model._forward_pre_hooks
    counter = tuning.Counter(4, 100, "cpu")
    for size in (1, 3, 3):  # fewer than the size: there were no more
        counter(subject.model, (torch.zeros(size, 1),))
    counter.stop()
    assert counter.rate > 0
    assert tuning.Counter(4, 100, "cpu").rate == 0


def test_batch_tells_images_a_second(subject):
    table = gradients.batch(subject, 1, size=5)
    assert all(apart < 1e-4 for apart in differences(table).values())
    assert len(differences(table)) == 3
    assert all(row.rate == pytest.approx(5 / row.seconds) for row in table.rows)


def test_photo_goes_from_file_to_file_and_leaves_nothing(subject):
    table = photo.photo(subject, 1, size=(160, 120))
    total = next(row for row in table.rows if row.who == "seewhy: file to overlay")
    beyond = next(row for row in table.rows if "beyond" in row.who)
    bare = table.rows[0]
    assert beyond.seconds == pytest.approx(total.seconds - bare.seconds)
    assert "160 x 120" in table.text


def test_the_page_has_the_rows_and_no_path(subject):
    row = Row("grad-cam", "seewhy", 0.0123, 1.07, None, 3e-7, "a note", faster=123.4)
    bare = Row("", "bare forward", 0.0115, 1.0)
    text = report.page([Table("One image", "Text.", (bare, row), 1)], subject, "python -m bench single")
    assert "| grad-cam | seewhy | 12.3 | 1.07 | 123 | 3e-07 | a note |" in text
    assert "images/s" not in text
    assert "MiB" not in text
    assert "Text. 1 round." in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_the_command_writes_the_page(subject, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.__main__.make_subject", lambda *_, **__: subject)
    row = Row("", "bare forward", 0.01, 1.0)
    parts = (
        Part(lambda *_: Table("One", "Text.", (row,), 1)),
        Part(lambda *_: Table("Two", "Text.", (row,)), EMBEDDED),
    )
    monkeypatch.setattr("bench.__main__.CASES", {"single": parts})
    with pytest.raises(SystemExit, match="no case double"):
        main(["double"])
    with pytest.raises(SystemExit, match="at least 1"):
        main(["--repeats", "0"])
    main(["single", "--out", str(tmp_path / "new" / "page.md")])
    written = (tmp_path / "new" / "page.md").read_text(encoding="utf-8")
    assert "## One\n\nText. 1 round.\n" in written
    assert "## Two\n\nModel: tiny, weights random, seeded; input 64 x 64; cpu. Text.\n" in written
    assert "## One" in capsys.readouterr().out


def test_the_command_in_the_page_names_files_without_their_folders(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = parser().parse_args(["single", "--repeats", "3", "--weights", "/somewhere/w.pth"])
    assert command(asked) == "python -m bench single --repeats 3 --weights=w.pth"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert command(parser().parse_args([])) == "OMP_NUM_THREADS=1 python -m bench"


def test_help_answers(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--repeats" in capsys.readouterr().out


def test_a_subject_is_made_from_a_name_a_folder_and_weights(tmp_path):
    from skimage import data, io

    io.imsave(tmp_path / "one.png", data.chelsea()[:64, :64])
    made = make_subject("test_resnet", folder=tmp_path)
    again = make_subject("test_resnet", folder=tmp_path)
    assert made.images.shape[0] == 1
    assert made.batch(3).shape[0] == 3
    assert torch.equal(made.bare(made.images), again.bare(again.images))
    torch.save(made.model.state_dict(), tmp_path / "weights.pth")
    trained = make_subject("test_resnet", folder=tmp_path, weights=tmp_path / "weights.pth", seed=5)
    assert torch.equal(made.bare(made.images), trained.bare(trained.images))
    with pytest.raises(SystemExit, match="no picture"):
        make_subject("test_resnet", folder=ROOT / "bench")


def test_runs_alternate_and_the_dear_ones_are_rarer():
    order: list[str] = []
    runners = [Runner("a", lambda: order.append("a")), Runner("b", lambda: order.append("b"), every=2)]
    times = alternate(runners, repeats=3, warmups=2)
    assert "".join(order) == "aba" + "ab" + "a" + "ab"
    assert sorted(times["b"].seconds) == [0, 2]
    order.clear()
    alternate([runners[0], Runner("b", lambda: order.append("b"), warm=False)], repeats=1, warmups=1)
    assert "".join(order) == "aab"
    assert len(alternate(runners, repeats=50, limit=0.0)["a"].seconds) == 1


def test_the_cases_are_all_known_by_name():
    assert list(CASES)[:4] == ["single", "multi", "batch", "photo"]
    assert {"perturb", "vit", "eigen", "smooth", "memory", "throughput"} < set(CASES)
    assert {part.model for part in CASES["perturb"]} == {EMBEDDED}


def test_ratios_are_of_the_same_round():
    slow, bare = Times({0: 2.0, 1: 20.0, 2: 3.0}), Times({0: 1.0, 1: 10.0})
    assert slow.over(bare) == 2.0
    assert slow.median == 3.0


def test_difference_is_of_the_positive_parts_on_one_scale():
    one = np.array([[[1.0, -4.0], [2.0, 0.0]]])
    assert unit(one).tolist() == [[[0.5, 0.0], [1.0, 0.0]]]
    assert difference([one], [one * 7]) == 0.0
    assert difference([one], [np.array([[[0.0, 0.0], [3.0, 0.0]]])]) == 0.5
    assert unit(-np.ones((1, 2, 2))).max() == 0.0
    assert difference([one], [-one], "signed") == 2.0
    assert difference([one, one], [-one * 3, one], "either sign") == 0.0
    assert unit(one, "signed").tolist() == [[[0.25, -1.0], [0.5, 0.0]]]
    with pytest.raises(ValueError, match="is not one of"):
        difference([one], [one], "anyhow")
    with pytest.raises(ValueError, match="not of the same layer"):
        difference([one], [one[:, :1]])


def test_frameworks_are_measured_beside_their_own_forward(subject, monkeypatch):
    model = tiny().module
    made = frameworks.Made("Some framework", model, lambda: model(torch.zeros(1, 3, 64, 64)))
    monkeypatch.setattr(frameworks, "MAKERS", {"torch": lambda _images: made})
    rows = frameworks.frameworks(subject, 1).rows
    assert [row.what for row in rows] == ["Some framework", *(f"Some framework: {name}" for name in frameworks.MAPS)]
    assert all(row.forwards is not None and row.forwards > 0 for row in rows)


def test_metrics_are_measured_beside_the_peers_that_have_them(subject, monkeypatch):
    monkeypatch.setattr(metrics, "MANY", 2)
    rows = metrics.metrics(subject, 1).rows
    for what in ("road, 1 map", "road, 2 maps"):
        own = [row for row in rows if row.what == what]
        ours = ["seewhy", "seewhy: measure", "seewhy: measure, controls=False"]
        assert [row.who for row in own] == [*ours, "pytorch-grad-cam"]
        assert [row.faster is None for row in own] == [True, True, True, False]
    assert {"deletion, 2 maps", "insertion and deletion, 2 maps"} < {row.what for row in rows}


def test_the_metric_alone_is_what_the_public_call_and_the_peer_say(subject):
    maps = torch.rand((2, 64, 64), generator=torch.Generator().manual_seed(1))
    judged = metrics.Judged(subject, maps, 3)
    alone = metrics.road(judged.trial())[0]
    calls = metrics._measured(judged, "road").values()
    [peer] = metrics._grad_cam(judged).values()
    for measure in calls:
        np.testing.assert_allclose([row.value for row in measure().rows], alone.numpy(), atol=1e-6)
    np.testing.assert_allclose(peer(), alone.numpy(), atol=1e-3)  # each has a noise of its own
