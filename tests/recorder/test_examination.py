"""What is found out about a model is compared with what the model does when it is called by itself."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from checkup import sick_models as sick
from seewhy.recorder import TorchRecorder, peak_bytes
from small_models import make_small_net

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(5))


class OwnNorm(nn.Module):
    """Normalises by the batch and keeps running statistics in every mode, as some models' own code does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.ones(4))
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = F.batch_norm(self.first(images), self.mean, self.variance, training=True)
        return self.head(features.relu().mean((2, 3)))


def test_buffers_that_batch_normalisation_changes_are_given_back(images: Tensor) -> None:
    model = OwnNorm().eval()
    before = copy.deepcopy(model.state_dict())
    recorder = TorchRecorder(model)
    recorder.table(images)
    recorder.examination().scores(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(images)
    assert not torch.equal(model.mean, before["mean"])  # so there was something to give back


def test_what_was_returned_and_taken(images: Tensor) -> None:
    model = sick.made(sick.Dictionary)
    found = TorchRecorder(model).examination().returned(images)
    assert found.shapes == {"features": (1, 4, 24, 24), "logits": (1, 5)}
    assert found.taken == "logits"
    assert torch.equal(found.scores, model(images)["logits"])


def test_gradient_peaks_are_those_of_autograd(images: Tensor) -> None:
    model = make_small_net()
    recorder = TorchRecorder(model)
    rows = [row for row in recorder.table(images) if row.name in ("first", "second")]
    found = recorder.examination().gradient_peaks(images, rows)
    kept: dict[str, Tensor] = {}
    handles = [
        getattr(model, row.name).register_forward_hook(lambda _m, _i, out, name=row.name: kept.update({name: out}))
        for row in rows
    ]
    best = model(images).max()
    for handle in handles:
        handle.remove()
    gradient = torch.autograd.grad(best, kept["second"])[0]
    assert found["second"] == pytest.approx(float(gradient.abs().max()), rel=1e-5)
    assert found.keys() == {"first", "second"}
    assert TorchRecorder(sick.made(sick.Detaches)).examination().gradient_peaks(images, rows)["first"] is None
    assert set(TorchRecorder(sick.zero_head()).examination().gradient_peaks(images, rows).values()) == {0.0}


@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        (sick.SmallNet, "none"),
        (sick.Overwrites, "none"),
        (sick.WithoutGradient, "no_grad"),
        (sick.Detaches, "detach"),
        (sick.DetachesAtTheEnd, "detach"),
    ],
)
def test_what_cuts_the_graph(kind: type[sick.SmallNet], cut: str, images: Tensor) -> None:
    assert TorchRecorder(sick.made(kind)).examination().cut(images) == cut


def test_the_first_normalisation_gets_what_the_convolution_gives(images: Tensor) -> None:
    model = make_small_net()
    found = TorchRecorder(model).examination().first_normalisation(images)
    assert found is not None
    given = model.first(images).detach()
    deviation = model.norm.running_var.sqrt()
    shift = (given.mean((0, 2, 3)) - model.norm.running_mean).abs() / deviation
    spread = given.transpose(0, 1).flatten(1).std(1, correction=0) / deviation
    assert (found.name, found.trained) == ("norm", True)
    assert found.shift == pytest.approx(float(shift.median()), rel=1e-4)
    assert found.spread == pytest.approx(float(spread.median()), rel=1e-4)
    fresh = TorchRecorder(sick.SmallNet().eval()).examination().first_normalisation(images)
    assert fresh is not None
    assert not fresh.trained


def test_runs_of_a_shared_module_are_counted(images: Tensor) -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.LazyLinear(2))
    model(images)
    assert TorchRecorder(model).examination().calls(images) == {"0": 1, "1": 2, "2": 1, "4": 1, "5": 1}


def test_folding_and_the_tail_are_found(images: Tensor) -> None:
    recorder = TorchRecorder(make_small_net())
    row = next(row for row in recorder.table(images) if row.name == "second")
    assert recorder.examination().folding(images).pairs == 1
    tail = recorder.examination().tail(images, row, 3)
    assert tail.broadcasts
    expected = recorder.module(images)
    assert torch.allclose(tail.run(), expected.expand(3, -1), atol=1e-5)


def test_the_most_memory_held_is_counted() -> None:
    """1 MiB, twice that while the sum is made, then 1 MiB again and three more of a fourth of it."""
    mebibyte = 2**18  # floats

    def run() -> None:
        one = torch.ones(mebibyte)
        two = one + 1
        del one
        for _ in range(3):
            _ = two[: mebibyte // 4] * 2
        two.view(-1, 2).add_(1)

    before = torch.ones(mebibyte)  # what was there before does not count
    assert peak_bytes(run) == 2 * 2**20
    assert peak_bytes(lambda: before.mul_(2)) == 0
    assert peak_bytes(lambda: [torch.zeros(mebibyte) for _ in range(5)]) == 5 * 2**20


def test_scores_that_are_seen_in_another_shape_keep_their_name_and_made_ones_have_none() -> None:
    class Answers(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.body, self.kind = nn.Conv2d(3, 4, 3), kind

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            features = self.body(images)
            if self.kind == "pooled":
                return {"last_hidden_state": features, "pooler_output": features.mean((2, 3), keepdim=True)}
            queries = features.mean((2, 3))[:, None].expand(-1, 3, -1)  # three masks, each with a class
            return {"class_queries_logits": queries, "masks_queries_logits": features[:, :3]}

    images = torch.randn(2, 3, 8, 8)
    pooled = TorchRecorder(Answers("pooled")).examination().returned(images)
    assert (pooled.taken, pooled.kind, tuple(pooled.scores.shape)) == ("pooler_output", "vector", (2, 4))
    masks = TorchRecorder(Answers("masks")).examination().returned(images)
    assert (masks.taken, masks.kind, tuple(masks.scores.shape)) == (None, "places", (2, 3, 6, 6))
