"""A way round an error of torch: its backward of batch normalisation misreads the gradient of a single sample on a CPU.

Seen in torch 2.14.1, in evaluation mode: a batch of one, the input in rows, its gradient in the order of tokens (as behind
`flatten(2).transpose(1, 2)`), whose first stride then says nothing. The derivatives before it come out wrong, without a word.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def in_rows(output: Any) -> None:
    """Let what a batch normalisation gave get its gradient in rows; what is no part of a graph stays as it is."""
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
