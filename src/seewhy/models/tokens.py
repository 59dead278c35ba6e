"""From texts to the token ids that a text tower takes, whatever kind of tokenizer the caller has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import ModelError, TargetError

Tokenizer = Callable[[list[str]], Any]
"""From texts to token ids: a tensor or lists `(text, token)`, or a mapping of such, given to the text tower by name."""


def token_ids(tokenizer: Any, texts: Sequence[str], most: int | None, *, whole: bool) -> Tensor | dict[str, Tensor]:
    """Return the texts' token ids `(text, token)`, or a dict with them and what belongs to them, such as a mask.

    Args:
        tokenizer: the caller's function, or one of Hugging Face.
        texts: at least one.
        most: how many tokens the model takes at most; None: not known.
        whole: whether a tokenizer of Hugging Face is to fill up to that number, as models with a sigmoid were trained.

    Raises:
        ModelError: the tokenizer failed, or gave something else.
        TargetError: a text is too long.
    """
    name = type(tokenizer).__name__
    options: dict[str, Any] = {}
    if hasattr(tokenizer, "model_input_names"):  # Hugging Face's, which fill up only when told to
        padding = {"padding": "max_length", "max_length": most} if whole and most else {"padding": True}
        options = {"return_tensors": "pt", **padding}
    try:
        made = tokenizer(list(texts), **options)
        found = {key: _tensor(value) for key, value in made.items()} if isinstance(made, Mapping) else _tensor(made)
    except Exception as error:  # the caller's code may fail in its own way
        raise ModelError(
            f"The tokenizer {name} did not turn {len(texts)} texts into token ids of equal length: {type(error).__name__}: "
            f"{error}"
        ) from error
    each = list(found.values()) if isinstance(found, dict) else [found]
    for ids in each:
        if ids.ndim < 2 or len(ids) != len(texts):
            raise ModelError(
                f"The tokenizer {name} returned shape {tuple(ids.shape)} for {len(texts)} texts; ({len(texts)}, tokens) is "
                "needed."
            )
    longest = max((ids.shape[1] for ids in each), default=0)
    if most is not None and longest > most:
        which = max(texts, key=len)
        raise TargetError(
            f"The text {which!r} takes {longest} tokens, and the model takes at most {most}. Shorten it: what is cut off "
            "would not be asked about."
        )
    return found


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
