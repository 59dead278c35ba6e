"""The map laid over the picture, with a legend that says what is shown."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from seewhy.errors import RenderError
from seewhy.explanation import Explanation, Scaling
from seewhy.render.colour import colormap_name, colours

_UNSEEN_DIM = 0.45
_COVER_POWER = (
    1.5  # weak evidence leaves the picture clear, so that what lies below a strong place can be told from fog
)
_INK, _PAPER, _WARNING = (32, 32, 32), (255, 255, 255), (160, 60, 0)


def overlay(
    explanation: Explanation,
    *,
    opacity: float = 0.75,
    colormap: str | None = None,
    scaling: Scaling | float = "per-image",
    max_side: int | None = None,
    legend: bool = False,
) -> Image.Image:
    """Lay the map over the original picture; the stronger the map, the more it covers. What was not seen is dark and grey.

    Args:
        explanation: of a picture; for other inputs the map alone is drawn.
        opacity: how much the strongest place covers, 0..1.
        colormap: a matplotlib name; None: "inferno", or "RdBu_r" for signed maps.
        scaling: as in :meth:`Explanation.scaled`.
        max_side: the longest side of the result, in pixels; None: the original's size.
        legend: with a strip below that holds the colour bar and says what is shown.

    Returns:
        RGB image; without a legend and max_side of the original's size.

    Raises:
        RenderError: an argument out of range, or a map that is not two-dimensional.
    """
    if not 0 <= opacity <= 1:
        raise RenderError(f"opacity={opacity} must be 0 to 1.")
    if len(explanation.geometry.axes) != 2:
        raise RenderError(
            f"An overlay needs a map of two axes; this one has {len(explanation.geometry.axes)}. Use .raw."
        )
    shape = _shape(explanation.geometry.original_shape, max_side)
    name = colormap_name(explanation.view, colormap)
    values = explanation.scaled(scaling, shape=shape)
    picture = _picture(explanation, shape)
    cover = Image.fromarray(np.rint(np.clip(np.abs(values), 0, 1) ** _COVER_POWER * (255 * opacity)).astype(np.uint8))
    drawn = Image.composite(Image.fromarray(colours(values, explanation.view, name)), picture, cover)
    seen = explanation.geometry.viewed_at(shape).seen()
    if not seen.all():
        drawn = Image.composite(drawn, _unseen(picture), Image.fromarray(seen.astype(np.uint8) * np.uint8(255)))
    return _with_legend(drawn, explanation, name) if legend else drawn


def heat(explanation: Explanation, *, colormap: str | None = None) -> npt.NDArray[np.uint8]:
    """Return the map alone as `(height, width, 3)` uint8 RGB."""
    return colours(explanation.heatmap, explanation.view, colormap_name(explanation.view, colormap))


def caption(explanation: Explanation) -> list[str]:
    """Return what is shown, line by line: the question and the answer, then how the map was made."""
    chance = explanation.probability
    asked = f"for {explanation.target}" + ("" if chance is None else f", {chance:.1%} likely to the model")
    how = " + ".join(explanation.layers) if len(explanation.layers) < 4 else f"{len(explanation.layers)} layers"
    return [asked, f"{explanation.method} at {how or 'the input'} of {explanation.model}"]


def _shape(original: tuple[int, ...], max_side: int | None) -> tuple[int, int]:
    height, width = original
    if max_side is None or max(height, width) <= max_side:
        return height, width
    if max_side < 1:
        raise RenderError(f"max_side={max_side} must be at least 1.")
    ratio = max_side / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _picture(explanation: Explanation, shape: tuple[int, int]) -> Image.Image:
    if explanation.image is None:
        return Image.new("RGB", shape[::-1], _PAPER)
    picture = Image.fromarray(explanation.image)
    return picture if picture.size == shape[::-1] else picture.resize(shape[::-1], Image.Resampling.BOX, reducing_gap=2)


def _unseen(picture: Image.Image) -> Image.Image:
    """Return the picture grey, dark and hatched: nothing is known about the map there."""
    grey = np.asarray(picture.convert("L"), np.float32) * _UNSEEN_DIM
    rows, columns = np.ogrid[: grey.shape[0], : grey.shape[1]]
    step = max(6, max(grey.shape) // 60)
    grey = np.where((rows + columns) % step < max(1, step // 6), grey + 40, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _with_legend(drawn: Image.Image, explanation: Explanation, colormap: str) -> Image.Image:
    """Add a strip of paper below the picture: the colour bar, its meaning, the caption, and what is wrong."""
    size = int(np.clip(drawn.width / 32, 11, 34))
    margin, font = size // 2, _font(size)
    columns = max(12, int((drawn.width - 2 * margin) / font.getlength("n")))
    lines = [(part, _INK) for line in caption(explanation) for part in textwrap.wrap(line, columns) or [""]]
    lines += [(part, _WARNING) for finding in explanation.diagnosis for part in textwrap.wrap(str(finding), columns)]
    step = int(size * 1.35)
    strip = Image.new("RGB", (drawn.width, margin * 3 + size + step * (len(lines) + 1)), _PAPER)
    strip.paste(_bar(drawn.width - 2 * margin, size, explanation, colormap), (margin, margin))
    pen = ImageDraw.Draw(strip)
    below = margin * 2 + size
    left, right = (
        ("evidence against", "evidence for") if explanation.view == "signed" else ("no evidence", "most evidence")
    )
    pen.text((margin, below), left, _INK, font)
    pen.text((drawn.width - margin, below), right, _INK, font, anchor="ra")
    for number, (line, ink) in enumerate(lines, start=1):
        pen.text((margin, below + number * step), line, ink, font)
    whole = Image.new("RGB", (drawn.width, drawn.height + strip.height), _PAPER)
    whole.paste(drawn, (0, 0))
    whole.paste(strip, (0, drawn.height))
    return whole


def _bar(width: int, height: int, explanation: Explanation, colormap: str) -> Image.Image:
    low = -1.0 if explanation.view == "signed" else 0.0
    values = np.linspace(low, 1.0, max(1, width), dtype=np.float32)
    return Image.fromarray(np.repeat(colours(values, explanation.view, colormap)[None], height, axis=0))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib carries: it has Latin, Greek, Cyrillic, Arabic and signs."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
