"""The model's tail on edited activations: as if the whole model were run for each edit, in one run wherever that works."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from seewhy.recorder import Conditions, Recording, TorchRecorder, Variants, replay
from seewhy.targets import ClassTarget

TARGETS = (2, 0, 3)


class Net(nn.Module):
    """A stem, a layer, and a tail that each model here writes in its own way."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.stem = conv(3, 6, 3, padding=1)
        self.layer = conv(6, 6, 3, padding=1)
        self.head = nn.LazyLinear(4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images).tanh()
        return self.tail(images, stem, self.layer(stem))

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return self.head(features.flatten(1))


class Views(Net):
    """Only `view`, which wants the memory in order."""

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return self.head(features.view(features.size(0), -1))


class AddsToTheLayer(Net):
    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return super().tail(images, stem, (features + stem).relu_())


class WritesIntoTheLayer(Net):
    """What it writes is not the same when it is done twice."""

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return super().tail(images, stem, features.mul_(2).add_(1))


class RunsTwice(Net):
    """The last run is the one that is recorded."""

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return super().tail(images, stem, self.layer(features.relu()))


class BothRuns(Net):
    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return super().tail(images, stem, self.layer(stem.flip(2)) + 2 * features)


class SeveralOutputs(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = WithRest(self.layer)

    def tail(self, images: Tensor, stem: Tensor, features: object) -> Tensor:
        return super().tail(images, stem, features[0] * features[1]["scale"])


class WithRest(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor) -> tuple[Tensor, dict[str, float]]:
        return self.inner(values), {"scale": 1.5}


class Concatenates(Net):
    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return super().tail(images, stem, torch.cat([stem, features], 1))


class RemembersTheBatch(Net):
    """And wants the memory in order, so that it is run a second time."""

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return self.head(features.view(images.size(0), -1))


class AddsInPlace(Net):
    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        stem += features
        return super().tail(images, stem, stem)


class OneByOne(Net):
    """Answers for each image that went in: too few answers, and no error."""

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        return torch.cat([self.head(features[row : row + 1].flatten(1)) for row in range(len(images))])


AT_ONCE = [Net, Views, AddsToTheLayer, WritesIntoTheLayer, RunsTwice, BothRuns, SeveralOutputs]
BY_COPIES = [Concatenates, RemembersTheBatch, AddsInPlace, OneByOne]


def made(kind: type[Net], images: Tensor, **options: int) -> Net:
    torch.manual_seed(0)
    model = kind(**options).eval()
    model(images)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 6, 8, generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Edits:
    """Activations with noise on them; each edit is its own, whatever chunk it is in."""

    count: int

    def __call__(self, sample: Recording) -> Variants:
        activations = sample.activations[0]

        def make(numbers: range) -> Tensor:
            noise = [torch.randn(activations.shape, generator=torch.Generator().manual_seed(n)) for n in numbers]
            return activations + torch.stack(noise)

        return Variants(self.count, make)


def recorded(model: nn.Module, images: Tensor, layer: str = "layer", **conditions: object) -> Recording:
    recorder = TorchRecorder(model)
    row = recorder.table(images).select(layer, model)[-1]
    question = tuple(ClassTarget(target) for target in TARGETS[: len(images)])
    recordings = recorder.record(
        images, [row], lambda *_: [question], needs=seewhy.Needs.REPLAY, conditions=Conditions(**conditions)
    )
    return recordings.at(row.name, 0)


def slowly(model: nn.Module, rec: Recording, count: int) -> Tensor:
    """Run the whole model for each edit of each image alone, in float64."""
    exact = copy.deepcopy(model).double()
    found = torch.zeros(len(rec.images), count)
    for row, image in enumerate(rec.images.double()):
        for number in range(count):
            edited = Edits(count)(rec.row(row)).make(range(number, number + 1)).double()
            outputs: list[object] = []
            handle = exact.layer.register_forward_hook(lambda _, __, output, seen=outputs: seen.append(output))
            exact(image[None])
            handle.remove()
            last, runs = len(outputs), []

            def replace(_module: nn.Module, _inputs: object, output: object, runs=runs, last=last, edited=edited):
                runs.append(output)
                if len(runs) < last:
                    return None
                return (edited, *output[1:]) if isinstance(output, tuple) else edited

            handle = exact.layer.register_forward_hook(replace)
            found[row, number] = exact(image[None])[0, TARGETS[row]].detach()
            handle.remove()
    return found


@contextmanager
def entering(module: nn.Module) -> Iterator[list[int]]:
    """List how many samples go into each run of a module."""
    seen: list[int] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", [*AT_ONCE, *BY_COPIES])
def test_scores_are_those_of_the_whole_model_with_the_edit(kind: type[Net], images: Tensor) -> None:
    model = made(kind, images)
    rec = recorded(model, images)
    expected = slowly(model, rec, 9)
    assert float(expected.std(1).min()) > 0.05
    found = rec.replay(Edits(9))
    assert found.known.all()
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_of_signals_and_volumes_too(axes: int) -> None:
    images = torch.randn(2, 3, *(16, 6, 8)[:axes], generator=torch.Generator().manual_seed(2))
    model = made(Net, images, axes=axes)
    rec = recorded(model, images)
    torch.testing.assert_close(rec.replay(Edits(7)).values, slowly(model, rec, 7), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", AT_ONCE)
def test_one_image_goes_in_and_all_its_edits_come_out(kind: type[Net], images: Tensor) -> None:
    model = made(kind, images)
    rec = recorded(model, images)
    with entering(model) as seen:
        rec.replay(Edits(20))
    assert seen == [2, 1, 1, 1, 1]  # both ways of two edits, then an image each
    with entering(model) as seen:
        recorded(model, images).replay(Edits(30))
    assert seen == [3, 1, 1, 1]  # the recording; what works is found out once


@pytest.mark.parametrize("kind", BY_COPIES)
def test_a_model_that_does_not_allow_it_gets_a_copy_of_the_image_for_each_edit(kind: type[Net], images: Tensor) -> None:
    model = made(kind, images)
    rec = recorded(model, images)
    rec.replay(Edits(1))
    with entering(model.stem) as seen:
        rec.replay(Edits(20))
    assert [each for each in seen if each == 1] == []
    assert sum(seen) in (3 * 20, 3 * 20 + 20)  # the last: once more, in another memory order


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("efficientnet_lite0", {}),
        ("convnext_pico", {}),
        ("vit_tiny_patch16_224", {"img_size": 64}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}),
    ],
)
def test_the_usual_architectures_take_all_edits_at_once(name: str, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    model, image = timm.create_model(name, num_classes=10, **options).eval(), torch.randn(3, 64, 64)
    ask = seewhy.Explainer(model)
    ask(image, 1, "ablation-cam", top=1)  # finds out what works
    first = next(part for part in model.modules() if not list(part.children()))
    with entering(first) as seen:
        at_once = ask(image, 1, "ablation-cam", top=6)
    assert seen == [1, 1]  # the recording, and seven outputs of the layer
    [key] = replay._broadcasting[model]
    replay._broadcasting[model][key] = False
    with entering(first) as seen:
        by_copies = ask(image, 1, "ablation-cam", top=6)
    assert seen == [1, 7]
    np.testing.assert_allclose(at_once.raw, by_copies.raw, atol=2e-3 * np.abs(by_copies.raw).max())
    assert np.ptp(at_once.raw) > 0


def test_a_model_that_was_changed_since_is_found_out_again(images: Tensor) -> None:
    model = made(Net, images)
    recorded(model, images).replay(Edits(4))
    model.tail = lambda images, stem, features: model.head(features.reshape(len(images), -1))
    rec = recorded(model, images)
    with entering(model) as seen:
        found = rec.replay(Edits(4)).values
    assert seen == [1, 4, 4, 4]  # it fails, and is not tried again
    torch.testing.assert_close(found, slowly(made(Net, images), rec, 4), atol=1e-5, rtol=1e-5)


class Narrow(Net):
    """More than so many samples are too many, in the part that says so."""

    def __init__(self, part: str, most: int) -> None:
        super().__init__()
        self.part, self.most, self.tries = part, most, []

    def tail(self, images: Tensor, stem: Tensor, features: Tensor) -> Tensor:
        count = {"body": len(images), "tail": len(features)}[self.part]
        self.tries.append(count)
        if count > self.most and self.part:
            raise torch.OutOfMemoryError("out of memory")
        return super().tail(images, stem, features)


@pytest.mark.parametrize(
    ("part", "most", "tries"),
    [
        ("tail", 5, [2, 2, 20, 10, 5, 5, 5, 5]),
        ("tail", 1, [2, 20, 10, 5, 2, *[1] * 20]),
        ("body", 1, [2, 20, 10, 5, 2, *[1] * 20]),
    ],
)
def test_when_memory_runs_out_fewer_edits_go_in(part: str, most: int, tries: list[int], images: Tensor) -> None:
    model = made(Narrow, images, part=part, most=10)
    rec = recorded(model, images[:1])
    model.most = most
    model.tries.clear()
    found = rec.replay(Edits(20)).values
    assert model.tries == tries
    torch.testing.assert_close(found, slowly(made(Net, images), rec, 20), atol=1e-5, rtol=1e-5)


def test_the_samples_of_a_batch_advance_alike_and_the_progress_is_told_once(images: Tensor) -> None:
    model, told = made(Net, images), []
    rec = recorded(model, images, watch=lambda done, planned: told.append((done, planned)))
    with entering(model.layer) as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "first_replay", lambda _: 4)
        patch.setattr(replay, "first_chunk", lambda *_, **__: 4)
        rec.replay(Edits(10))
    assert told == [(done, 30) for done in (0, 4, 8, 12, 16, 20, 24, 28, 30)]
    assert (
        seen[2:] == [1] * 9
    )  # four edits of one image, four of the next; the last two of each, two images in one chunk
    assert rec.cost.replays == 10
    assert rec.cut_short is None


def test_a_budget_cuts_each_sample_alike(images: Tensor) -> None:
    rec = recorded(made(Net, images), images, budget=seewhy.recorder.Budget(forwards=6))
    found = rec.replay(Edits(10))
    assert found.known.sum(1).tolist() == [6, 6, 6]
    assert rec.cut_short == (6, 10)
    assert not found.values[:, 6:].any()


def test_another_thread_that_runs_the_model_meanwhile_gets_its_own_answer(images: Tensor) -> None:
    class Meanwhile(Net):
        other = None

        def forward(self, images: Tensor) -> Tensor:
            if threading.current_thread() is threading.main_thread():
                thread = threading.Thread(target=lambda: setattr(self, "other", self(images).detach()))
                thread.start()
                thread.join()
            return super().forward(images)

    model = made(Meanwhile, images)
    rec = recorded(model, images[:1])
    expected = slowly(made(Net, images), rec, 5)
    torch.testing.assert_close(rec.replay(Edits(5)).values, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.other, made(Net, images)(images[:1]).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_edits_go_in_as_precise_as_the_model_is(dtype: torch.dtype, images: Tensor) -> None:
    model = made(AddsToTheLayer, images)
    expected = recorded(model, images).replay(Edits(6)).values
    with entering(model.head) as seen:
        found = recorded(model.to(dtype), images).replay(Edits(6)).values
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)
    assert seen[-3:] == [6, 6, 6]


def test_every_hook_is_gone_after_an_error(images: Tensor) -> None:
    model = made(Net, images)
    rec = recorded(model, images)
    rec.replay(Edits(2))
    model.head = nn.Linear(7, 7)
    with pytest.raises(seewhy.RecordingError, match="Net raised RuntimeError"):
        rec.replay(Edits(3))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
