"""Hooks hear the thread that put them there: whoever runs the model in another meanwhile gets its own answer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

import seewhy
from seewhy.recorder import TorchRecorder
from seewhy.recorder.listening import Listening
from seewhy.recorder.torchvision_detectors import torchvision_detector

pytestmark = pytest.mark.usefixtures("one_core")


def elsewhere(work: Callable[[], Any]) -> Any:
    """Return what work gives in a thread of its own; what it raises is raised here."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as error:  # noqa: BLE001 - handed on
            found.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    [(result, error)] = found
    if error is not None:
        raise error
    return result


@contextmanager
def meanwhile(part: nn.Module, work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Whenever this thread runs a part of a model, let another thread work before; yield what that gave."""
    gave: list[Any] = []

    def hook(_module: nn.Module, _inputs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            gave.append(elsewhere(work))

    handle = part.register_forward_pre_hook(hook)
    try:
        yield gave
    finally:
        handle.remove()


def test_hooks_are_called_in_their_own_thread_only_and_are_gone_afterwards() -> None:
    module, heard = nn.ReLU(), []
    with Listening() as listening:
        listening.before(module, lambda _module, inputs: heard.append(("before", *inputs)))
        listening.after(module, lambda _module, _inputs, output: output + 1)
        assert elsewhere(lambda: module(torch.ones(()))) == 1
        assert heard == []
        assert module(torch.ones(())) == 2
        assert heard == [("before", torch.ones(()))]
    assert module(torch.ones(())) == 1
    assert not (module._forward_hooks or module._forward_pre_hooks)


@pytest.mark.parametrize(
    "kind", [detection.ssdlite320_mobilenet_v3_large, detection.fasterrcnn_mobilenet_v3_large_320_fpn]
)
def test_a_detector_that_another_thread_runs_meanwhile(kind: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind(weights=None, weights_backbone=None, num_classes=3).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)
    image, other = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    target = seewhy.BoxTarget((5, 5, 40, 40), of=1)
    shared = copy.deepcopy(model)  # of which no table is remembered: its levels are listened to while it is shared
    work = torch.no_grad()(lambda: shared([other])[0])
    rows, own = torchvision_detector(model)(image[None]).rows, work()
    expected = seewhy.explain(model, image, target, "layer-cam")
    with meanwhile(shared.backbone, work) as gave:
        found = torchvision_detector(shared)(image[None]).rows
        why = seewhy.explain(shared, image, target, "layer-cam")
    torch.testing.assert_close(found, rows)
    assert why.layers == expected.layers
    assert why.score == pytest.approx(expected.score, rel=1e-5)
    torch.testing.assert_close(torch.tensor(why.raw), torch.tensor(expected.raw))
    assert gave
    for each in gave:
        assert each.keys() == own.keys()
        assert all(torch.equal(each[name], own[name]) for name in own)


class Pyramid(nn.Module):
    """Gives its head maps on two grids; for large inputs another layer gives the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
        self.coarse = nn.Conv2d(4, 4, 3, 2, 1)
        self.head = Heads()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = (self.large if images.shape[-1] > 32 else self.small)(images)
        return self.head([fine, self.coarse(fine)])


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(4, 2, 3, 1, 1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        scores = torch.cat([self.score(each).sigmoid().flatten(2) for each in maps], 2).mT
        return torch.tensor([0.0, 0, 8, 8]).expand(*scores.shape[:2], 4), scores


def test_the_levels_of_a_detector_are_those_of_its_own_input() -> None:
    torch.manual_seed(0)
    model = Pyramid().eval()
    images = torch.rand(1, 3, 32, 32)
    with meanwhile(model.head.score, lambda: model(torch.rand(1, 3, 64, 64))) as gave:
        table = TorchRecorder(model, output=tuple).table(images)
    assert gave
    assert table.default.name == "small"


def test_the_first_normalisation_is_that_of_its_own_input() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with meanwhile(model[0], lambda: model(100 + images)):
        found = TorchRecorder(model).examination().first_normalisation(images)
    assert found is not None
    assert found.shift == pytest.approx(float(images.mean((0, 2, 3)).abs().median()), rel=1e-4)
