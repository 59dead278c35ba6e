"""Pascal VOC's XML: an `object` with `name` and `bndbox` a thing; pixels are counted from 1, and the last is inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from seewhy.datasets.marks import Boxed, boxed, check_size
from seewhy.errors import MetricError

DEEPEST = 50
"""Elements in each other; VOC's own files have four."""


@dataclass
class _Element:
    name: str
    said: list[str] = field(default_factory=list)
    parts: list[_Element] = field(default_factory=list)

    def all(self, name: str) -> list[_Element]:
        return [part for part in self.parts if part.name == name]

    def first(self, name: str) -> str | None:
        return next(("".join(part.said).strip() for part in self.all(name)), None)


def voc_boxes(text: str, where: str, shape: tuple[int, ...]) -> list[Boxed]:
    """Return the boxes of one picture.

    Args:
        text: the file's.
        where: its name.
        shape: `(height, width)`.

    Raises:
        MetricError: it is none of VOC's files, declares a document type, or is about a picture of another size.
    """
    root = _parsed(text, where)
    found = []
    try:
        for size in root.all("size"):
            wide, high = float(size.first("width") or 0), float(size.first("height") or 0)
            if wide and high:  # some tools write 0 for "not known"
                check_size(wide, high, shape, where)
        for thing in root.all("object"):
            [box] = thing.all("bndbox")
            left, top, right, bottom = (float(box.first(edge) or "") for edge in ("xmin", "ymin", "xmax", "ymax"))
            found.append(boxed(left - 1, top - 1, right, bottom, thing.first("name"), where))
    except ValueError as error:
        raise MetricError(
            f"{where} is none of Pascal VOC's files: {error}. Expected object elements with name and bndbox (xmin, ymin, xmax, "
            "ymax)."
        ) from error
    return found


def _parsed(text: str, where: str) -> _Element:
    """Return the root of XML that declares nothing: without a document type there are no entities to expand or fetch."""
    root = _Element("")
    path = [root]

    def begin(name: str, _: dict[str, str]) -> None:
        if len(path) > DEEPEST:
            raise MetricError(f"{where} has over {DEEPEST} elements in each other: that is none of Pascal VOC's files.")
        path[-1].parts.append(_Element(name))
        path.append(path[-1].parts[-1])

    def say(words: str) -> None:
        path[-1].said.append(words)

    def end(_: str) -> None:
        path.pop()

    def refuse(*_: object) -> None:
        raise MetricError(f"{where} declares a document type (DOCTYPE), which boxes need none of: it is not read.")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = begin, say, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)  # noqa: FBT003 - that this is all
    except (expat.ExpatError, LookupError) as error:
        raise MetricError(f"{where} cannot be read as XML: {error}. Expected one of Pascal VOC's files.") from error
    return root.parts[0]
