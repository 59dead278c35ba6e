"""What is changed for a while and then put back: of torch modules, and of what numpy and Python draw at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluation(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, by the flag alone: a model's own train() may do more."""
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def buffers_kept(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Put back what is changed in the buffers of these modules."""
    kept = [
        (part, name, buffer, buffer.clone())
        for part in parts
        for name, buffer in part._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, name, buffer, values in kept:
                part._buffers[name] = buffer
                if not torch.equal(buffer, values):  # batch normalisation writes without counting up a buffer's version
                    buffer.copy_(values)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Want no derivative by any parameter: what only those would need is then not kept."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.is_leaf]
    for parameter in wanted:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad = True


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed what numpy and Python draw at random, for code that draws there, and put their states back."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002 - the states that such code shares
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)
