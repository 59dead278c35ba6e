"""Writing results: pictures, arrays, JSON and HTML."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seewhy.errors import RenderError
from seewhy.evidence import TEST, Evidence
from seewhy.explanation import Explanation, Prediction
from seewhy.render.figures import figure
from seewhy.render.overlay import overlay
from seewhy.render.page import figure_bytes
from seewhy.render.volumes import animation

PICTURE_SIDE = 1280
"""Longest side of a saved overlay, in pixels, unless max_side says otherwise: what a screen shows."""

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_FIGURES = {".pdf": "pdf", ".svg": "svg"}
_PLAIN = str | bool | int | float | None


def save(explanation: Explanation, path: str | os.PathLike[str], **style: Any) -> None:
    """Write one explanation by the file's ending; see :meth:`Explanation.save`."""
    path = Path(path)
    kind = path.suffix.casefold()
    writers: dict[str, Callable[[], bytes]] = {
        ".npz": lambda: _npz(explanation),
        ".json": lambda: json.dumps(as_json(explanation)).encode(),
        ".html": lambda: _page(explanation.name, html_fragment(explanation, **style)).encode(),
        ".gif": lambda: animation(explanation, **style),
        **{ending: lambda: picture_bytes(explanation, _PICTURES[kind], **style) for ending in _PICTURES},
        **{ending: lambda: figure_bytes(figure([explanation], **style), _FIGURES[kind]) for ending in _FIGURES},
    }
    _write(path, writers)


def save_grid(explanations: Sequence[Explanation], path: str | os.PathLike[str], **style: Any) -> None:
    """Write several explanations as one grid; see :meth:`Comparison.save`."""
    save_figure(lambda: figure(explanations, **style), path, "comparison")


def save_figure(draw: Callable[[], Figure], path: str | os.PathLike[str], name: str) -> None:
    """Write a figure by the file's ending; it is drawn when the ending is known to be one.

    Raises:
        RenderError: the ending is not known, or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.casefold()

    def drawn(as_kind: str) -> bytes:
        return figure_bytes(draw(), as_kind)

    _write(
        path,
        {
            ".html": lambda: _page(name, image_tag(drawn("png"), name)).encode(),
            ".jpg": lambda: drawn("jpg"),
            ".jpeg": lambda: drawn("jpg"),
            **{ending: lambda: drawn(kind[1:]) for ending in (".png", ".webp", ".pdf", ".svg")},
        },
    )


def png_bytes(explanation: Explanation) -> bytes:
    """Return the overlay with its legend as a PNG."""
    return picture_bytes(explanation, "PNG")


def picture_bytes(explanation: Explanation, kind: str, **style: Any) -> bytes:
    """Return the overlay with its legend, or a signal's or volume's figure, as the bytes of a picture file."""
    if len(explanation.geometry.axes) != 2:
        return figure_bytes(figure([explanation], **style), kind.casefold())
    drawn = overlay(explanation, **{"legend": True, "max_side": PICTURE_SIDE, **style})
    buffer = io.BytesIO()
    # Photographs hardly shrink further at higher levels; runs of equal bytes are what this finds, in half the time.
    quick = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    drawn.save(buffer, kind, **(quick if kind == "PNG" else {"quality": 92}))
    return buffer.getvalue()


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Return everything but the pictures in plain types; numbers that JSON has not (NaN) become null."""
    raw = explanation.raw.astype(float)
    return {
        "image": explanation.name,
        "model": explanation.model,
        "target": explanation.target,
        "target_index": explanation.target_index,
        "score": _number(explanation.score),
        "prediction": [
            {
                "index": p.index,
                "name": p.name,
                "score": _number(p.score),
                "probability": _number(p.probability),
                "means": p.means,
            }
            for p in explanation.prediction
        ],
        "detections": [asdict(found) for found in explanation.detections],
        "method": explanation.method,
        "options": {
            name: value if isinstance(value, _PLAIN) else str(value) for name, value in explanation.options.items()
        },
        "layers": list(explanation.layers),
        "layout": explanation.layout,
        "smooth": list(explanation.smooth),
        "reduction": explanation.reduction,
        "scaling": explanation.scaling,
        "shows": explanation.shows,
        "reported": {name: _number(value) for name, value in explanation.reported.items()},
        "among": explanation.among,
        "view": explanation.view,
        "channel_shares": None if explanation.colours is None else explanation.channel_shares().round(6).tolist(),
        "cost": {
            "forwards": explanation.cost.forwards,
            "backwards": explanation.cost.backwards,
            "replays": explanation.cost.replays,
            "seconds": round(explanation.cost.seconds, 4),
        },
        "evidence": None if explanation.evidence is None else _as_plain(explanation.evidence),
        "diagnosis": [{"code": f.code, "message": f.message, "remedy": f.remedy} for f in explanation.diagnosis],
        "notes": list(explanation.notes),
        "geometry": {"original": list(explanation.geometry.original_shape), "steps": list(explanation.geometry.steps)},
        "raw": np.where(np.isfinite(raw), raw.astype(object), np.array(None)).tolist(),
    }


def html_fragment(explanation: Explanation, **style: Any) -> str:
    """Return a figure with picture, top five and what is known, as escaped HTML in one piece."""
    rows = "".join(
        f"<tr><td>{html.escape(p.name)}</td><td style='text-align:right'>{_chance(p)}</td></tr>"
        for p in explanation.prediction
    )
    told = [("target", explanation.target), ("method", explanation.method), ("layers", ", ".join(explanation.layers))]
    told += [("layout", explanation.layout), ("cost", str(explanation.cost))]
    told += [(name, f"{value:.4g}") for name, value in explanation.reported.items()]
    told += [] if explanation.evidence is None else [(TEST, str(explanation.evidence))]
    told += [("attention", str(finding)) for finding in explanation.diagnosis]
    told += [("note", note) for note in explanation.notes]
    facts = "".join(f"<dt>{html.escape(word)}</dt><dd>{html.escape(text)}</dd>" for word, text in told)
    image = image_tag(picture_bytes(explanation, "PNG", **style), explanation.target)
    return f"<figure style='font-family:sans-serif'>{image}<table>{rows}</table><dl>{facts}</dl></figure>"


def _as_plain(evidence: Evidence) -> dict[str, Any]:
    """Return evidence in plain types."""
    values = asdict(evidence).items()
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values}


def _chance(prediction: Prediction) -> str:
    """Return a class's probability, or its score where a probability has no meaning; or what it covers."""
    if math.isnan(prediction.probability):
        return f"{prediction.score:.4g}"
    return f"{prediction.probability:.1%}{' of the picture' if prediction.means == 'area' else ''}"


def image_tag(png: bytes, words: str) -> str:
    """Return a picture that lies in the page itself."""
    data = base64.b64encode(png).decode()
    return f"<img style='max-width:100%' alt='{html.escape(words, quote=True)}' src='data:image/png;base64,{data}'>"


def _page(title: str, body: str) -> str:
    head = f"<meta charset='utf-8'><title>{html.escape(title)}: seewhy</title>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"


def _npz(explanation: Explanation) -> bytes:
    buffer = io.BytesIO()
    facts = json.dumps({key: value for key, value in as_json(explanation).items() if key != "raw"})
    arrays = {"raw": explanation.raw, "heatmap": explanation.heatmap, "seen": explanation.seen}
    arrays |= {} if explanation.colours is None else {"colours": explanation.colours}
    np.savez_compressed(buffer, allow_pickle=False, facts=np.array(facts), **arrays)
    return buffer.getvalue()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _write(path: Path, writers: dict[str, Callable[[], bytes]]) -> None:
    """Make the bytes first and write them then, so that a failure leaves no half file."""
    kind = path.suffix.casefold()
    if kind not in writers:
        found = f"ends in '{kind}'" if kind else "has no ending"
        raise RenderError(f"'{path.name}' {found}. Known endings: {', '.join(sorted(writers))}.")
    content = writers[kind]()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise RenderError(f"'{path}' cannot be written: {error.strerror}. Check the folder.") from error
