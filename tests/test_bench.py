"""The benchmark's every path on a tiny model, once. Nothing is said about time."""

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

from bench import cases, report  # noqa: E402
from bench.__main__ import command, main, parser  # noqa: E402
from bench.maps import difference, unit  # noqa: E402
from bench.peers import CAPTUM, GRAD_CAM, NOTES, TORCHCAM  # noqa: E402
from bench.subject import Subject, make_subject  # noqa: E402
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


@pytest.fixture(scope="module")
def subject() -> Subject:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return Subject(tiny(), images)


def differences(table: cases.Table) -> dict[tuple[str, str], float]:
    return {(row.what, row.who): row.difference for row in table.rows if row.difference is not None}


def test_single_has_every_method_of_every_peer_and_the_same_maps_where_the_peer_follows_the_paper(subject):
    table = cases.single(subject, 1)
    found = differences(table)
    wanted = {(method, "torchcam") for method in TORCHCAM} | {(method, "pytorch-grad-cam") for method in GRAD_CAM}
    assert set(found) == wanted | {(method, "captum") for method in CAPTUM}
    assert all(apart < 1e-4 for key, apart in found.items() if key not in NOTES)
    assert found["grad-cam++", "torchcam"] > 1e-3
    assert {row.who for row in table.rows} == {"bare forward", "seewhy", "torchcam", "pytorch-grad-cam", "captum"}
    assert {row.note for row in table.rows} - {""} == set(NOTES.values())


def test_multi_compares_all_maps(subject):
    table = cases.multi(subject, 1)
    assert [row.who for row in table.rows] == ["bare forward", "seewhy", "torchcam", "captum", "pytorch-grad-cam"]
    assert [row.note.partition(" ")[0] for row in table.rows] == ["", "24", "16", "4", "24"]
    assert all(apart < 1e-4 for apart in differences(table).values())


def test_batch_tells_images_a_second(subject):
    table = cases.batch(subject, 1, size=5)
    assert all(apart < 1e-4 for apart in differences(table).values())
    assert len(differences(table)) == 3
    assert all(row.rate == pytest.approx(5 / row.seconds) for row in table.rows)


def test_photo_goes_from_file_to_file_and_leaves_nothing(subject):
    table = cases.photo(subject, 1, size=(160, 120))
    total = next(row for row in table.rows if row.who == "seewhy: file to overlay")
    beyond = next(row for row in table.rows if "beyond" in row.who)
    bare = table.rows[0]
    assert beyond.seconds == pytest.approx(total.seconds - bare.seconds)
    assert "160 x 120" in table.text


def test_the_page_has_the_rows_and_no_path(subject):
    row = cases.Row("grad-cam", "seewhy", 0.0123, 1.07, None, 3e-7, "a note")
    bare = cases.Row("", "bare forward", 0.0115, 1.0)
    text = report.page([cases.Table("One image", "Text.", (bare, row), 1)], subject, "python -m bench single")
    assert "| grad-cam | seewhy | 12.3 | 1.07 | 3e-07 | a note |" in text
    assert "images/s" not in text
    assert "Text. 1 round." in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_the_command_writes_the_page(subject, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.__main__.make_subject", lambda *_, **__: subject)
    row = cases.Row("", "bare forward", 0.01, 1.0)
    monkeypatch.setattr("bench.__main__.CASES", {"single": lambda *_: cases.Table("One", "Text.", (row,), 1)})
    with pytest.raises(SystemExit, match="no case double"):
        main(["double"])
    with pytest.raises(SystemExit, match="at least 1"):
        main(["--repeats", "0"])
    main(["single", "--out", str(tmp_path / "new" / "page.md")])
    assert "## One" in (tmp_path / "new" / "page.md").read_text(encoding="utf-8")
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
    assert len(alternate(runners, repeats=50, limit=0.0)["a"].seconds) == 1


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
    with pytest.raises(ValueError, match="not of the same layer"):
        difference([one], [one[:, :1]])
