"""Finding the linear classifier behind global average pooling: what the original CAM reads its weights from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.frameworks import Part
from seewhy.recorder.listening import Listening
from seewhy.targets import Question


class HeadTap:
    """Listens to the linear layers during a forward and keeps what they were given and gave."""

    def __init__(self) -> None:
        self._heard: list[tuple[Tensor, Tensor, Tensor]] = []

    @contextmanager
    def on(self, root: nn.Module) -> Iterator[None]:
        """Listen to every linear layer of a model; the hooks are gone afterwards."""
        with Listening() as listening:
            for module in root.modules():
                if _is_linear(module):
                    listening.after(module, self._hear)
            yield

    def _hear(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        weight, given = getattr(module, "weight", None), inputs[0] if inputs else None
        if not (isinstance(weight, Tensor) and isinstance(given, Tensor) and isinstance(output, Tensor)):
            return
        if (
            given.ndim >= 2 and given.numel() == len(given) * weight.shape[1]
        ):  # one vector a sample: may be the pooled one
            self._heard.append((weight.detach(), given.detach().flatten(1), output.detach().flatten(1)))

    def found(
        self, activations: Mapping[str, Tensor], outputs: Tensor, questions: Sequence[Question]
    ) -> dict[tuple[int, str], Tensor]:
        """Return the weights by question number and layer name, where there are any; see :meth:`weights`."""
        return {
            (number, name): weights
            for number, question in enumerate(questions)
            for name, values in activations.items()
            if (weights := self.weights(values, outputs, question)) is not None
        }

    def weights(self, activations: Tensor, outputs: Tensor, question: Question) -> Tensor | None:
        """Return `(batch, channel)`: how the score changes with each channel's spatial mean.

        None when the output is not one linear layer on that mean.

        Args:
            activations: `(batch, channel, *grid)` of the layer.
            outputs: `(batch, classes)`, the model's scores.
            question: one target a sample; its derivative by the scores is carried back through the weights.
        """
        pooled = activations.flatten(2).mean(2)
        for weight, given, gave in reversed(self._heard):
            from_pooled = given.shape == pooled.shape and _close(given.float(), pooled)
            if from_pooled and gave.shape == outputs.shape and _close(gave.float(), outputs.detach().float()):
                return (_by_output(outputs, question) @ weight.flatten(1).float()).float()
        return None


def _by_output(outputs: Tensor, question: Question) -> Tensor:
    """Return the derivative of each sample's score by its outputs, `(batch, classes)`."""
    with torch.enable_grad():
        leaf = outputs.detach().float().requires_grad_()
        score = torch.stack([target(leaf[row]) for row, target in enumerate(question)]).sum()
        return torch.autograd.grad(score, leaf)[0]


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear) or (isinstance(module, Part) and module.weight is not None):
        return True
    return (
        isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and set(module.kernel_size) == {1} and module.groups == 1
    )


def _close(one: Tensor, other: Tensor) -> bool:
    scale = other.abs().max().clamp_min(1e-12)
    return bool(((one - other).abs().max() / scale) < 2e-3)
