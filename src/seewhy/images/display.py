"""A picture of an input that is none: which of its channels are shown, and with what contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8

from seewhy.errors import RenderError

CONTRAST = (1.0, 99.0)
"""The percentiles that become black and white; scanners and satellites have a few values far out."""

Channels = int | str | Sequence[int] | None
"""What a caller may choose: one channel, in grey; three, as red, green and blue; None: all."""


def picture_of(
    values: Float[np.ndarray, " channel *space"], channels: Channels = None
) -> tuple[UInt8[np.ndarray, "*space 3"], str]:
    """Return an input as a picture, and in words what is shown.

    Args:
        values: in any units.
        channels: one number (grey) or three (red, green, blue), counted from 0, each stretched from its 1st to its 99th
            percentile; text such as "3,2,1" too. None: three channels together as red, green and blue; otherwise the mean
            of all, in grey.

    Raises:
        RenderError: other than one or three, or a channel that is not there.
    """
    chosen = chosen_channels(channels, len(values))
    if chosen is None:
        if len(values) == 3:
            return _painted(_stretched(values)), "its three channels as red, green and blue"
        grey = values.mean(0, keepdims=True, dtype=np.float32) if len(values) > 1 else values
        told = f"the mean of its {len(values)} channels" if len(values) > 1 else "its one channel"
        return _painted(_stretched(grey)), told
    if len(chosen) not in (1, 3):
        raise RenderError(f"channels={channels!r}: give one for a grey picture, or three as red, green and blue.")
    shown = np.stack([_stretched(values[number]) for number in chosen])
    numbers = ", ".join(map(str, chosen))
    return _painted(shown), f"channel {numbers}" if len(chosen) == 1 else f"channels {numbers} as red, green and blue"


def chosen_channels(given: Channels, count: int) -> tuple[int, ...] | None:
    """Return channel numbers from what a caller wrote, or None where nothing was chosen.

    Raises:
        RenderError: no whole numbers, or not below `count`.
    """
    if given is None:
        return None
    parts: Sequence[Any] = (
        given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
    )
    try:
        numbers = tuple(int(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise RenderError(f"channels={given!r} must be whole numbers, such as (3, 2, 1) or '3,2,1'.") from error
    if not numbers or not all(0 <= number < count for number in numbers):
        raise RenderError(f"channels={given!r}: the input has {count} channels, 0 to {count - 1}.")
    return numbers


def _stretched(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return values with their low percentile become 0 and their high one 1; all 0 where these are equal."""
    values = np.asarray(values, np.float32)
    low, high = (float(limit) for limit in np.percentile(values, CONTRAST))
    if high <= low:  # nearly all is one value: what sticks out of it decides
        low, high = float(values.min()), float(values.max())
    span = high - low
    return np.clip((values - low) / span, 0, 1) if span > 0 else np.zeros_like(values)


def _painted(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return one or three channels in 0..1 as `(*space, 3)`."""
    colours = np.rint(np.moveaxis(unit, 0, -1) * 255).astype(np.uint8)
    return np.array(np.broadcast_to(colours, (*colours.shape[:-1], 3)), order="C")
