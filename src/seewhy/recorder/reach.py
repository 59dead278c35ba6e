"""What each module gave in one forward, run by run, and which of it each of several inputs reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.recorder.forward import Forward
from seewhy.recorder.table import ancestors
from seewhy.recorder.tape import Tape

Shapes = dict[str, tuple[int, ...]]


def heard(
    forward: Forward, image: Tensor, *, digest: bool = True
) -> tuple[Shapes, dict[str, Tensor], tuple[Any, Tape]]:
    """Return the shape of what each module gave, in the order in which they finished, and digests that change with its values.

    Third, what the model returned, and the tape.

    A module that ran several times counts as its last run; where it is a shared part (it, or a module that it lies in and that
    ran as often, has parameters) and gave the same shape each time, every run stands for itself: "backbone.conv#2".
    """
    found: list[tuple[str, tuple[int, ...], Tensor]] = []
    names = [name for name, _ in forward.module.named_modules() if name]

    def note(name: str, tensor: Tensor) -> None:
        found.append((name, tuple(tensor.shape), _digest(tensor) if digest else tensor.new_empty(0)))

    tape = Tape(gradients=False, note=note)
    returned = forward.call(image, names, tape)
    kinds = Counter(name for name, _ in {(name, shape) for name, shape, _ in found})
    alike = {name for name, count in kinds.items() if count == 1}
    apart = {name for name in alike if tape.calls[name] > 1 and _is_shared(forward.module, name, tape.calls)}
    shapes: Shapes = {}
    digests: dict[str, Tensor] = {}
    ran: Counter[str] = Counter()
    for name, shape, sums in found:
        ran[name] += 1
        key = f"{name}#{ran[name]}" if name in apart else name
        shapes.pop(key, None)
        shapes[key], digests[key] = shape, sums
    return shapes, digests, (returned, tape)


def reached(forward: Forward, image: Tensor, before: Mapping[str, Tensor]) -> tuple[set[str], set[str]]:
    """Return which layers the explained input reaches, and which of the layers any of the other inputs reaches.

    Args:
        forward: with a call that has other inputs.
        image: the explained input, with which `before` was heard.
        before: digests by :func:`heard`.
    """
    own = _moved(before, heard(forward, image.flip(-1) * 0.5)[1])
    if not forward.inputs.others:
        return own, set()
    changed = forward.about(forward.inputs.changed(_changed))
    return own, _moved(before, heard(changed, image)[1])


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name, digest in before.items() if name not in after or not torch.equal(digest, after[name])}


def _changed(value: object) -> object:
    """Return another input with other values: turned round, and dimmed where it is not a number of something."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.flip(-1) * 0.5 + 0.1 if value.is_floating_point() else value.flip(-1)


def _digest(tensor: Tensor) -> Tensor:
    """Return two sums of a tensor's values, one weighted by place."""
    flat = tensor.detach().flatten().double()
    return torch.stack(
        [flat.sum(), (flat * torch.linspace(1, 2, len(flat), device=flat.device, dtype=flat.dtype)).sum()]
    )


def _is_shared(root: nn.Module, name: str, calls: Mapping[str, int]) -> bool:
    """Return whether a module runs several times because a part with parameters does, rather than as a tool used everywhere."""
    return any(
        calls.get(part) == calls[name] and any(True for _ in root.get_submodule(part).parameters())
        for part in (name, *ancestors(name))
    )
