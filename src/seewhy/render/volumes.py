"""Volumes and videos: slices with the map over them, side by side or one after the other."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from seewhy.errors import RenderError
from seewhy.explanation import Explanation
from seewhy.images import Geometry, picture_of
from seewhy.images.display import Channels
from seewhy.reading import Scaling
from seewhy.render.overlay import RGB, caption, overlay, warnings
from seewhy.render.page import LETTER, Page, colour_bar

Slices = str | Sequence[int]
"""Which slices are shown: "top", those with the most of the map; "even", evenly spread ones; or these numbers."""

MOST = 12
"""Most slices of one volume."""

_BESIDE = 6  # most slices of each of several volumes
_CELL = 1.7  # inches: the side of a square cell; others have its area
_MARGIN = 0.4  # inches beside the words above
_CELL_PIXELS = 400
_FRAMES = 200  # most of an animation
_FRAME_SIDE = 480  # pixels: the longest side of a frame


@dataclass(frozen=True, eq=False)
class _Stack:
    """A volume's slices along one axis.

    Attributes:
        explanation: whose they are.
        heat: the map, scaled, `(slice, height, width)`.
        picture: `(slice, height, width, 3)`; None where the input is not known.
        told: what the picture shows.
        axis: which axis of the input was cut.
    """

    explanation: Explanation
    heat: npt.NDArray[np.float32]
    picture: npt.NDArray[np.uint8] | None
    told: str
    axis: int

    @classmethod
    def of(cls, explanation: Explanation, scaling: Scaling | float | None, channels: Channels, axis: int) -> _Stack:
        if len(explanation.geometry.axes) != 3:
            raise RenderError(f"Slices are of volumes; this map has {len(explanation.geometry.axes)} axes, not 3.")
        if axis not in (0, 1, 2):
            raise RenderError(f"axis={axis!r} is not one of a volume's: 0, 1 or 2, in the input's own order.")
        heat = np.clip(explanation.scaled(explanation.scaling if scaling is None else scaling), -1, 1)
        picture, told = (None, "") if explanation.input is None else picture_of(explanation.input, channels)
        told = "" if explanation.input is None or len(explanation.input) == 1 else told
        cut = None if picture is None else np.moveaxis(picture, axis, 0)
        return cls(explanation, np.moveaxis(heat, axis, 0), cut, told, axis)

    @property
    def word(self) -> str:
        """What one of them is called."""
        is_video = self.explanation.input is not None and len(self.explanation.input) == RGB and self.axis == 0
        return "frame" if is_video else "slice"

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each slice's part of the whole map's sum of absolute values."""
        sums = np.abs(self.heat.astype(np.float64)).sum((1, 2))
        return np.asarray(sums / (sums.sum() or 1.0))

    def at(self, number: int) -> Explanation:
        """Return one slice as an explanation of a picture, on the scale of the whole."""
        heat = self.heat[number]
        picture = None if self.picture is None else np.ascontiguousarray(self.picture[number])
        flat = Geometry.identity(heat.shape)
        return replace(
            self.explanation, raw=heat, geometry=flat, image=picture, scaling="none", colours=None, input=None
        )


def volume_figure(
    explanations: Sequence[Explanation],
    labels: Sequence[str],
    *,
    opacity: float,
    colormap: str | None,
    scaling: Scaling | float | None,
    channels: Channels,
    slices: Slices,
    axis: int,
) -> Figure:
    """Draw slices of one volume, or a row of slices for each of several; volumes as deep as each other show the same ones.

    Args:
        explanations: of inputs with three axes.
        labels: what to call each, where there are several.
        opacity, colormap, scaling, channels, slices, axis: as in :func:`seewhy.render.figure`.

    Raises:
        RenderError: no such slice, axis, channel or colour map.
    """
    stacks = [_Stack.of(each, scaling, channels, axis) for each in explanations]
    one, several = stacks[0], len(stacks) > 1
    chosen = _chosen_of_each(slices, stacks, _BESIDE if several else MOST)
    most = max(len(numbers) for numbers, _ in chosen)
    rows, across = (len(stacks), most) if several else _grid(most, one.heat.shape[1:])
    side = math.sqrt(one.heat.shape[2] / one.heat.shape[1])
    width, height = min(3.0, max(0.7, _CELL * side)), min(3.0, max(0.7, _CELL / side))
    page = max(across * width, 4.0) + 1.2
    how = "; ".join(dict.fromkeys(how.format(word=one.word) for _, how in chosen))
    told = [f"{how} along axis {axis}; {one.told}".rstrip("; ")]
    if several:
        targets = ", ".join(dict.fromkeys(each.target for each in explanations))
        words = [f"{one.explanation.model} on {one.explanation.name}: {targets}; each map on its own scale", *told]
    else:
        words = [*caption(one.explanation), *told, *warnings(one.explanation)]
    lines = list(chain.from_iterable(textwrap.wrap(line, int((page - _MARGIN) / LETTER)) for line in words))
    down = rows * (height + (0.4 if several else 0.25))
    drawn = Page(figsize=(page, down + 0.3 + 0.16 * len(lines)), layout="constrained")
    cells = drawn.subplots(rows, across, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    for row, (stack, (numbers, _)) in enumerate(zip(stacks, chosen, strict=True)):
        for column, number in enumerate(numbers):
            flat = overlay(stack.at(number), opacity=opacity, colormap=colormap, max_side=_CELL_PIXELS)
            ax = cells.flat[row * across + column]
            ax.imshow(np.asarray(flat), interpolation="nearest")
            title = f"{stack.word} {number}" + ("" if several else f" ({stack.shares[number]:.0%})")
            ax.set_title(f"{labels[row]}\n{title}" if several and column == 0 else title, fontsize=7, parse_math=False)
    style = {"colormap": colormap, "scaling": scaling}
    for view in sorted({each.view for each in explanations}):
        colour_bar(drawn, list(cells.flat), view, style, upright=min(4.0, down))
    drawn.suptitle("\n".join(lines), fontsize=9, parse_math=False)
    return drawn


def _grid(count: int, shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of cells for a page wider than high."""
    across = min(count, max(1, math.ceil(math.sqrt(count * 1.6 * shape[0] / shape[1]))))
    return math.ceil(count / across), across


def _chosen_of_each(wanted: Slices, stacks: Sequence[_Stack], most: int) -> list[tuple[list[int], str]]:
    """Return for each stack the numbers of its slices and how they were chosen: together for all of the same depth."""
    depths = [len(stack.heat) for stack in stacks]
    of_depth = {
        depth: _chosen(wanted, np.mean([stack.shares for stack in stacks if len(stack.heat) == depth], 0), most)
        for depth in dict.fromkeys(depths)
    }
    return [of_depth[depth] for depth in depths]


def _chosen(wanted: Slices, shares: npt.NDArray[np.float64], most: int) -> tuple[list[int], str]:
    """Return the numbers of the slices that are shown, in order, and how they were chosen."""
    count = len(shares)
    if not isinstance(wanted, str):
        numbers = [int(number) for number in wanted]
        if not numbers or not all(0 <= number < count for number in numbers):
            raise RenderError(f"slices={list(wanted)}: there are {count} along this axis, 0 to {count - 1}.")
        return numbers, f"{len(numbers)} of {count} {{word}}s"
    if wanted not in ("top", "even"):
        raise RenderError(f"slices='{wanted}' is not known. Known: top, even, or a list of numbers.")
    if count <= most:
        return list(range(count)), f"all {count} {{word}}s"
    if wanted == "even":
        return np.linspace(0, count - 1, most).round().astype(
            int
        ).tolist(), f"{most} of {count} {{word}}s, evenly spread"
    largest = np.argsort(-shares, kind="stable")[:most]
    return sorted(map(int, largest)), f"{most} of {count} {{word}}s, those with the most of the map,"


def animation(
    explanation: Explanation,
    *,
    opacity: float = 0.75,
    colormap: str | None = None,
    scaling: Scaling | float | None = None,
    channels: Channels = None,
    axis: int = 0,
    fps: float = 8.0,
    legend: bool = True,
) -> bytes:
    """Return a volume's slices or a video's frames, one after the other with the map over them, as a GIF.

    Args:
        explanation: of an input with three axes.
        opacity, colormap, scaling, channels, axis: as in :func:`seewhy.render.figure`.
        fps: slices a second; of more than 200, evenly spread ones are taken.
        legend: with the colour bar and what is shown below each.

    Raises:
        RenderError: a map of other than three axes, or an argument out of range.
    """
    if not 0.1 <= fps <= 50:
        raise RenderError(f"fps={fps} must be 0.1 to 50 slices a second.")
    stack = _Stack.of(explanation, scaling, channels, axis)
    count = len(stack.heat)
    numbers = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int)).tolist()
    frames = []
    for number in numbers:
        flat = stack.at(number)
        frame = overlay(flat, opacity=opacity, colormap=colormap, max_side=_FRAME_SIDE, legend=legend)
        pen = ImageDraw.Draw(frame)
        pen.text((5, 3), f"{stack.word} {number} of {count}", (255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
        frames.append(frame.quantize(256, Image.Quantize.MEDIANCUT))
    buffer = io.BytesIO()
    rest = {"append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(buffer, "GIF", save_all=True, duration=round(1000 / fps), loop=0, **rest)
    return buffer.getvalue()
