"""The map laid over the picture, with a legend that says what is shown."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from seewhy.errors import RenderError
from seewhy.evidence import TEST
from seewhy.explanation import Explanation, layer_words
from seewhy.images import picture_of
from seewhy.images.display import Channels
from seewhy.reading import Scaling, Shows, View
from seewhy.render.colour import colormap_name, colours

_UNSEEN_DIM = 0.45
_PICTURE_GREY = 190
_COVER_POWER = 1.5  # weak evidence leaves the picture clear: what lies below a strong place can be told from fog
_LEGEND_SIDE = 320  # with a legend, a picture smaller than this is enlarged
_OUTLINED_SIDE = 64  # in a smaller picture the dark edges of an outline would hide what it encloses
_LEGEND_LETTERS = 24  # a legend is at least as wide as this many heights of its letters
_MOST_BOXES, _LEAST_SURE = 20, 0.3  # of a detector, the most confident
RGB = 3
"""Channels of an ordinary picture: of more, those that mattered most are named."""

_NAMED = 4  # that many of them
_PICTURE_NOTE = "picture: "

_INK, _PAPER, _WARNING = (32, 32, 32), (255, 255, 255), (160, 60, 0)


def overlay(
    explanation: Explanation,
    *,
    opacity: float = 0.75,
    colormap: str | None = None,
    scaling: Scaling | float | None = None,
    max_side: int | None = None,
    legend: bool = False,
    channels: Channels = None,
) -> Image.Image:
    """Lay the map over the original picture; the stronger the map, the more it covers. What was not seen is dark and grey.

    Args:
        explanation: of a picture; for other inputs the map alone is drawn.
        opacity: how much the strongest place covers, 0..1.
        colormap: a matplotlib name; None: "inferno", or "RdBu_r" for signed maps.
        scaling: as in :meth:`Explanation.scaled`; None: the explanation's own.
        max_side: the longest side of the result, in pixels; None: the original's size.
        legend: with a strip below that holds the colour bar and says what is shown; a tiny picture is then enlarged by a
            whole factor, and a narrow one stands on wider paper.
        channels: of an input whose channels are not a picture's, one (in grey) or three (as red, green and blue), counted from
            0, each from its 1st to its 99th percentile: (3, 2, 1) or "3,2,1". None: the mean of all.

    Returns:
        RGB image; without a legend and max_side of the original's size.

    Raises:
        RenderError: an argument out of range, or a map that is not two-dimensional.
    """
    if not 0 <= opacity <= 1:
        raise RenderError(f"opacity={opacity} must be 0 to 1.")
    if len(explanation.geometry.axes) != 2:
        raise RenderError(
            f"An overlay needs a map of two axes; this one has {len(explanation.geometry.axes)}. Use .figure() or .save()."
        )
    explanation = with_channels(explanation, channels)
    shape = _shape(explanation.geometry.original_shape, max_side, enlarge=legend)
    name = colormap_name(explanation.view, colormap)
    values = explanation.scaled(explanation.scaling if scaling is None else scaling, shape=shape)
    picture = _picture(explanation, shape)
    cover = Image.fromarray(np.rint(np.clip(np.abs(values), 0, 1) ** _COVER_POWER * (255 * opacity)).astype(np.uint8))
    drawn = Image.composite(Image.fromarray(colours(values, explanation.view, name)), picture, cover)
    seen = explanation.geometry.viewed_at(shape).seen()
    if not seen.all():
        drawn = Image.composite(drawn, _unseen(picture), Image.fromarray(seen.astype(np.uint8) * np.uint8(255)))
    if explanation.detections:
        drawn = _with_boxes(drawn, explanation)
    if explanation.outline is not None:
        drawn = _outlined(drawn, explanation.outline)
    return _with_legend(drawn, explanation, name) if legend else drawn


def with_channels(explanation: Explanation, channels: Channels) -> Explanation:
    """Return the explanation with its picture made of some of the input's channels; as it is where none are chosen.

    Raises:
        RenderError: the input is a picture already, or has no such channels.
    """
    if channels is None:
        return explanation
    if explanation.input is None:
        raise RenderError(
            f"channels={channels!r}: '{explanation.name}' is a picture already, shown in its own colours."
        )
    picture, told = picture_of(explanation.input, channels)
    rest = tuple(note for note in explanation.notes if not note.startswith(_PICTURE_NOTE))
    return replace(explanation, image=picture, notes=(*rest, _PICTURE_NOTE + told))


def heat(explanation: Explanation, *, colormap: str | None = None) -> npt.NDArray[np.uint8]:
    """Return the map alone as `(height, width, 3)` uint8 RGB."""
    return colours(explanation.heatmap, explanation.view, colormap_name(explanation.view, colormap))


def caption(explanation: Explanation) -> list[str]:
    """Return what is shown, line by line: the question and the answer, how the map was made, and what was not seen."""
    sides = "evidence for and against" if explanation.view == "signed" else "evidence for"
    sides = "influence on" if explanation.shows == "influence" else sides
    where = layer_words(explanation.layers) or "the input"
    lines = [
        f"{sides} {explanation.target}{_answer(explanation)}",
        ", ".join((f"{explanation.method} at {where} of {explanation.model}", *explanation.smooth)),
    ]
    if any(note.startswith("preprocessing assumed") for note in explanation.notes):
        lines.append("how pictures are prepared for this model was assumed")
    shown = [note.partition(";")[0] for note in explanation.notes if note.startswith(_PICTURE_NOTE)]
    lines += [*shown, *_channels_that_mattered(explanation)]
    if not explanation.seen.all():
        lines.append("grey, hatched: cropped away, never seen by the model")
    if explanation.evidence is not None:
        lines += [f"{TEST}: {explanation.evidence.verdict}", explanation.evidence.reason]
    return lines


def warnings(explanation: Explanation) -> list[str]:
    """Return what a reader must know before believing the map: that it was cut short, and what is or may be wrong with it."""
    told = []
    if explanation.evidence is not None and explanation.evidence.remedy:
        told.append(explanation.evidence.remedy)
    if explanation.cut_short is not None:
        made, planned = explanation.cut_short
        told.append(f"Cut short after {made:,} of {planned:,} runs: a first estimate.")
    return [*told, *map(str, explanation.diagnosis)]


def _channels_that_mattered(explanation: Explanation) -> list[str]:
    """Return in one line which channels have the largest shares of a map, where there are more than a picture has."""
    if explanation.colours is None or len(explanation.colours) <= RGB:
        return []
    shares = explanation.channel_shares()
    largest = np.argsort(-shares, kind="stable")[:_NAMED]
    named = ", ".join(f"{number} ({shares[number]:.0%})" for number in largest)
    return [f"channels with the largest shares: {named} of {len(shares)}"]


def _answer(explanation: Explanation) -> str:
    """Return how what is asked about stands to what the model says."""
    if not explanation.prediction:
        return f" (score {explanation.score:.4g})"
    best = explanation.prediction[0]
    if best.means == "area":
        asked = explanation.about
        return "" if asked is None else f" ({asked.name} covers {asked.probability:.1%} of the picture)"
    if explanation.detections:  # of two objects of one class, the chance must be that of the box asked about
        return f" (score {explanation.score:.1%})"
    if np.isnan(best.probability):
        return f" (score {explanation.score:.4g})"
    # A contrast or a probability has a class too, but is not that class: only the plain class has the class's chance.
    own = [p for p in explanation.prediction if (p.index, p.name) == (explanation.target_index, explanation.target)]
    if own == [best]:
        return f", the model's answer ({best.probability:.1%})"
    chance = f"{own[0].probability:.1%}; " if own else ""
    return f" ({chance}the model's answer: {best.name}, {best.probability:.1%})"


def _shape(original: tuple[int, ...], max_side: int | None, *, enlarge: bool) -> tuple[int, int]:
    """Return the size to draw at: the original's, at most `max_side`, and a multiple of it when it is too small to see."""
    height, width = original
    longest = max(height, width)
    if max_side is not None and max_side < 1:
        raise RenderError(f"max_side={max_side} must be at least 1.")
    if max_side is not None and longest > max_side:
        return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))
    factor = max(1, min(_LEGEND_SIDE, max_side or _LEGEND_SIDE) // longest) if enlarge else 1
    return height * factor, width * factor


def _picture(explanation: Explanation, shape: tuple[int, int]) -> Image.Image:
    if explanation.image is None:
        return Image.new("RGB", shape[::-1], _PAPER)
    picture = Image.fromarray(explanation.image)
    return picture if picture.size == shape[::-1] else picture.resize(shape[::-1], Image.Resampling.BOX, reducing_gap=1)


def _unseen(picture: Image.Image) -> Image.Image:
    """Return the picture grey, dark and hatched: nothing is known about the map there."""
    grey = picture.convert("L").point([int(value * _UNSEEN_DIM) for value in range(256)])
    step = max(8, max(picture.size) // 50)
    line = np.add.outer(np.arange(step), np.arange(step)) % step < max(1, step // 6)
    tile = np.where(line, 40, 0).astype(
        np.uint8
    )  # one cell of the hatching; added to at most 255 * 0.45, it fits 8 bits
    width, height = picture.size
    hatched = np.asarray(grey) + np.tile(tile, (-(-height // step), -(-width // step)))[:height, :width]
    return Image.fromarray(hatched).convert("RGB")


def _with_boxes(drawn: Image.Image, explanation: Explanation) -> Image.Image:
    """Draw what a detector found, thin and half clear, each with its name; the least sure first, below the others."""
    height, width = explanation.geometry.original_shape
    across, down = drawn.width / width, drawn.height / height
    over = Image.new("RGBA", drawn.size)
    pen, font = ImageDraw.Draw(over), _font(int(np.clip(max(drawn.size) / 45, 9, 24)))
    shown = [found for found in explanation.detections if found.score >= _LEAST_SURE] or explanation.detections[:1]
    for found in reversed(shown[:_MOST_BOXES]):
        left, top, right, bottom = found.left * across, found.top * down, found.right * across, found.bottom * down
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=(*_PAPER, 150))
        words = f"{found.name} {found.score:.0%}"
        place = (max(left, 0) + 2, max(top, 0) + 1)
        pen.rectangle(pen.textbbox(place, words, font), fill=(*_INK, 130))
        pen.text(place, words, (*_PAPER, 220), font)
    return Image.alpha_composite(drawn.convert("RGBA"), over).convert("RGB")


def _outlined(drawn: Image.Image, part: npt.NDArray[np.bool_]) -> Image.Image:
    """Draw a white line with dark edges around a part of the picture, which stands out from any colour below it."""
    whole = Image.fromarray(part.astype(np.uint8) * np.uint8(255)).resize(drawn.size, Image.Resampling.NEAREST)
    inside = np.pad(np.asarray(whole) > 0, 1)
    width = max(1, round(max(drawn.size) / 300))
    edge = width if max(drawn.size) >= _OUTLINED_SIDE else 0
    distance = distance_transform_edt(inside)[1:-1, 1:-1]
    picture = np.array(drawn)
    picture[(distance > 0) & (distance <= width + 2 * edge)] = _INK
    picture[(distance > edge) & (distance <= width + edge)] = _PAPER
    return Image.fromarray(picture)


def _with_legend(drawn: Image.Image, explanation: Explanation, colormap: str) -> Image.Image:
    """Add a strip of paper below the picture: the colour bar, its meaning, the caption, and what is wrong."""
    size = int(np.clip((drawn.width * drawn.height) ** 0.5 / 26, 12, 30))
    margin, font, step = size // 2, _font(size), int(size * 1.35)
    width = max(drawn.width, _LEGEND_LETTERS * size)
    room = width - 2 * margin
    lines = [(part, _INK) for line in caption(explanation) for part in _wrapped(line, font, room)]
    lines += [(part, _WARNING) for each in warnings(explanation) for part in _wrapped(each, font, room)]
    top = drawn.height + margin
    whole = Image.new("RGB", (width, top + size + margin + step * (len(lines) + 1) + margin), _PAPER)
    whole.paste(drawn, ((width - drawn.width) // 2, 0))
    whole.paste(_bar(room, size, explanation, colormap), (margin, top))
    pen = ImageDraw.Draw(whole)
    below = top + size + margin // 2
    for share, word in scale_words(explanation.view, explanation.shows):
        pen.text((margin + share * room, below), word, _INK, font, anchor={0: "la", 0.5: "ma", 1: "ra"}[share])
    for number, (line, ink) in enumerate(lines, start=1):
        pen.text((margin, below + margin // 2 + number * step), line, ink, font)
    return whole


def scale_words(view: View, shows: Shows = "evidence") -> tuple[tuple[float, str], ...]:
    """Return what the ends of the colour bar (and its middle) mean, each with its place along the bar."""
    if view == "signed":
        return (0.0, "against"), (0.5, "0"), (1.0, "for")
    return (0.0, f"no {shows}"), (1.0, f"most {shows}")


def _wrapped(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """Break a text into lines of at most `room` pixels, between words where that is possible."""
    lines, rest = [], " ".join(text.split())
    while rest:
        fitting = bisect_right(range(1, len(rest) + 1), float(room), key=lambda count: font.getlength(rest[:count]))
        cut = max(1, fitting)
        if cut < len(rest) and (space := rest.rfind(" ", 0, cut + 1)) > 0:
            cut = space
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines


def _bar(width: int, height: int, explanation: Explanation, colormap: str) -> Image.Image:
    low = -1.0 if explanation.view == "signed" else 0.0
    values = np.linspace(low, 1.0, max(1, width), dtype=np.float32)
    strip = np.repeat(colours(values, explanation.view, colormap)[None], height, axis=0)
    # Half of the bar as it looks over a picture: no evidence is clear, not black.
    cover = np.abs(values) ** _COVER_POWER
    over = strip[0] * cover[:, None] + _PICTURE_GREY * (1 - cover[:, None])
    strip[height // 2 :] = np.rint(over).astype(np.uint8)
    return Image.fromarray(strip)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib carries: it has Latin, Greek, Cyrillic, Arabic and signs."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
