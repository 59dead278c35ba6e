"""From scores to derivatives: one backward a question, from the score to the recorded layers and no further."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.errors import LayerError, RecordingError
from seewhy.recorder.memory import is_out_of_memory
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape
from seewhy.targets import Question

Found = dict[tuple[int, str], Tensor]
"""By question number and layer name."""


def differentiate(
    tape: Tape | None,
    outputs: Tensor,
    questions: Sequence[Question],
    layers: Sequence[LayerRow],
    *,
    curved: bool = False,
) -> tuple[list[Tensor], Found, Found]:
    """Return each question's scores `(batch,)` and, with a tape, their derivatives by the layers' activations.

    The third is the second derivative times the activations, empty unless `curved`.
    """
    scores: list[Tensor] = []
    first: Found = {}
    second: Found = {}
    kept = [tape.last(row.name) for row in layers] if tape else []
    with torch.set_grad_enabled(tape is not None):
        for number, question in enumerate(questions):
            score = torch.stack([target(outputs[row]) for row, target in enumerate(question)])
            scores.append(score.detach().float())
            if tape is None:
                continue
            if not score.requires_grad:
                raise LayerError(not_connected([row.name for row in layers]))
            keep = number + 1 < len(questions)
            gradients = derivatives(score, kept, keep_graph=keep or curved, curved=curved)
            for place, (row, gradient) in enumerate(zip(layers, gradients, strict=True)):
                if gradient is None:
                    if tape.kind != "boxes" or all(each is None for each in gradients):
                        raise LayerError(not_connected([row.name]))
                    gradient = torch.zeros_like(kept[place])  # noqa: PLW2901 - a box is found at one level and not at others
                first[number, row.name] = read_as(gradient, row)
                if curved:
                    last = not keep and place + 1 == len(layers)
                    second[number, row.name] = read_as(_curvature(gradient, kept[place], keep_graph=not last), row)
    return scores, first, second


def _curvature(gradient: Tensor, activations: Tensor, *, keep_graph: bool) -> Tensor:
    """Return the Hessian of the score by the activations, times the activations; zero where the score is linear."""
    if not gradient.requires_grad:
        return torch.zeros_like(gradient)
    along = (gradient * activations.detach()).sum()
    [found] = derivatives(along, [activations], keep_graph=keep_graph)
    return torch.zeros_like(gradient) if found is None else found


def derivatives(
    score: Tensor, kept: Sequence[Tensor], *, keep_graph: bool = False, curved: bool = False
) -> list[Tensor | None]:
    """Return the derivatives of the scores' sum by each tensor, None where it does not depend on it.

    Args:
        score: `(batch,)`.
        kept: what to differentiate by.
        keep_graph: whether the graph is needed again.
        curved: whether the derivatives are to be differentiated themselves.

    Raises:
        RecordingError: the model's own backward code raised.
    """
    try:
        with torch.enable_grad():
            return _gradients(score, kept, keep_graph=keep_graph or curved, curved=curved)
    except Exception as error:
        if is_out_of_memory(error) or "modified by an inplace operation" in str(error):
            raise  # the recorder has an answer to these
        raise RecordingError(
            f"The model cannot be differentiated: its backward raised {type(error).__name__}: {error} "
            "A method that needs no gradient may still work."
        ) from error


def _gradients(score: Tensor, kept: Sequence[Tensor], *, keep_graph: bool, curved: bool) -> list[Tensor | None]:
    """Return d score / d kept; half precision is scaled meanwhile, or small derivatives would vanish, and comes as float32."""
    if (scales := factors([score, *kept])) == (1.0,):
        return list(
            torch.autograd.grad(score.sum(), kept, retain_graph=keep_graph, create_graph=curved, allow_unused=True)
        )
    found: list[Tensor | None] = []
    for factor in scales:
        keep = keep_graph or factor != 1
        scaled = torch.autograd.grad(
            score.float().sum() * factor, kept, retain_graph=keep, create_graph=curved, allow_unused=True
        )
        found = [None if gradient is None else gradient.float() / factor for gradient in scaled]
        if all(gradient is None or gradient.isfinite().all() for gradient in found):
            break
    return found


def factors(tensors: Sequence[Tensor]) -> tuple[float, ...]:
    """Return what to multiply a score by before it is differentiated, in the order to try until all is finite."""
    return (1024.0, 1.0) if any(tensor.dtype == torch.float16 for tensor in tensors) else (1.0,)


def read_as(values: Tensor, row: LayerRow) -> Tensor:
    """Return what a layer gave (or its derivative) as `(batch, channel, *grid)` float32.

    Raises:
        LayerError: it has another shape than the layout says.
    """
    row.layout.check(values.shape, row.name)
    return row.layout.to_channels_first(values.detach()).contiguous()


def not_connected(names: Sequence[str]) -> str:
    """Return the message for layers that the score cannot be differentiated by."""
    listed = ", ".join(f"'{name}'" for name in names)
    return (
        f"The score does not depend on layer {listed} through anything that can be differentiated: the layer is beside the "
        "way to the output, or the model detaches (`.detach()`, `.data`, `torch.inference_mode`, rounding, numpy) after it. "
        "Choose a later layer, or a method that needs no gradient."
    )
