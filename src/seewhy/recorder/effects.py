"""Whether a model's scores depend on a layer's places, where no derivative can tell it: by changing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from seewhy.recorder.borrow import borrowed
from seewhy.recorder.forward import Forward
from seewhy.recorder.listening import Listening
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape, first_tensor, with_first_tensor

_NOISE = 1e-6
"""Difference of scores, as a part of the largest, up to which they are the same."""


def last_with_effect(forward: Forward, image: Tensor, rows: Sequence[LayerRow]) -> list[str]:
    """Return the name of the last layer on whose places the scores depend, in a list; an empty one where there is none.

    Every other place is changed, then the others: both must count, since one place alone is no map.

    Args:
        forward: the model.
        image: `(1, channel, *space)`.
        rows: layers in the order in which they finish.
    """
    with borrowed(forward.module, seed=0):
        for row in reversed(rows):
            plain, *changed = (_scores(forward, image, rows, row, part) for part in (None, 0, 1))
            least = _NOISE * float(plain.abs().max())
            if all(float((each - plain).abs().max()) > least for each in changed):
                return [row.name]
    return []


def _scores(forward: Forward, image: Tensor, rows: Sequence[LayerRow], row: LayerRow, part: int | None) -> Tensor:
    """Return the scores where a layer's even (0) or odd (1) places are changed; None: where all go on as they are."""
    with _replacing(forward, row, part):
        return forward.run(image, [each.name for each in rows], Tape(gradients=False, note=lambda _name, _gave: None))


@contextmanager
def _replacing(forward: Forward, row: LayerRow, part: int | None) -> Iterator[None]:
    def replace(_module: Any, _inputs: Any, output: Any) -> Any:
        found = first_tensor(output)
        if found is None:
            return None
        values = row.layout.to_channels_first(found).clone()
        if part is not None:
            places = values.flatten(2)
            noise = torch.randn(places.shape, generator=torch.Generator().manual_seed(0)) * values.std()
            places[:, :, part::2] += noise[:, :, part::2]
            values = places.view_as(values)
        return with_first_tensor(output, row.layout.from_channels_first(values, like=found))

    with ExitStack() as stack:
        stack.enter_context(Listening()).after(forward.module.get_submodule(row.module), replace)
        yield
