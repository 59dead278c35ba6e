"""From scores to derivatives: one backward a question, from the score to the recorded layers and no further."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.errors import LayerError, RecordingError
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape
from seewhy.targets import Question


def differentiate(
    tape: Tape | None, outputs: Tensor, questions: Sequence[Question], layers: Sequence[LayerRow]
) -> tuple[list[Tensor], dict[tuple[int, str], Tensor]]:
    """Return each question's scores `(batch,)` and, with a tape, their derivatives by the layers' activations."""
    scores: list[Tensor] = []
    found: dict[tuple[int, str], Tensor] = {}
    kept = [tape.last(row.name) for row in layers] if tape else []
    with torch.set_grad_enabled(tape is not None):
        for number, question in enumerate(questions):
            score = torch.stack([target(outputs[row]) for row, target in enumerate(question)])
            scores.append(score.detach().float())
            if tape is None:
                continue
            if not score.requires_grad:
                raise LayerError(not_connected([row.name for row in layers]))
            gradients = _derived(score, kept, keep_graph=number + 1 < len(questions))
            for row, gradient in zip(layers, gradients, strict=True):
                if gradient is None:
                    raise LayerError(not_connected([row.name]))
                found[number, row.name] = read_as(gradient, row)
    return scores, found


def _derived(score: Tensor, kept: Sequence[Tensor], *, keep_graph: bool) -> list[Tensor | None]:
    """Return the derivatives; an error of the model's own backward code is told as such."""
    try:
        return _gradients(score, kept, keep_graph=keep_graph)
    except Exception as error:
        if is_out_of_memory(error) or "modified by an inplace operation" in str(error):
            raise  # the recorder has an answer to these
        raise RecordingError(
            f"The model cannot be differentiated: its backward raised {type(error).__name__}: {error} "
            "A method that needs no gradient may still work."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    words = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def _gradients(score: Tensor, kept: Sequence[Tensor], *, keep_graph: bool) -> list[Tensor | None]:
    """Return d score / d kept as float32; half precision is scaled meanwhile, or small derivatives would vanish."""
    if score.dtype != torch.float16 and all(tensor.dtype != torch.float16 for tensor in kept):
        return list(torch.autograd.grad(score.sum(), kept, retain_graph=keep_graph, allow_unused=True))
    found: list[Tensor | None] = []
    for factor in (1024.0, 1.0):
        last = factor == 1.0
        scaled = torch.autograd.grad(
            score.float().sum() * factor, kept, retain_graph=keep_graph or not last, allow_unused=True
        )
        found = [None if gradient is None else gradient.float() / factor for gradient in scaled]
        if last or all(gradient is None or gradient.isfinite().all() for gradient in found):
            break
    return found


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
