"""COCO's JSON: pictures, categories, and annotations with `bbox` left, top, width, height in pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seewhy.datasets.marks import Boxed, boxed, check_size
from seewhy.datasets.namesakes import Namesakes, bare
from seewhy.errors import MetricError

_Picture = tuple[float, float, tuple[Boxed, ...]]
"""Width and height, 0 where they are not told, and boxes."""


@dataclass(frozen=True)
class Coco:
    """Boxes of all pictures of one file, by the pictures' names.

    Attributes:
        where: the file's name.
        pictures: by the path that the file has for them.
        paths: these paths, by the name alone where only one has it.
        listed: the folder's pictures.
    """

    where: str
    pictures: Mapping[str, _Picture]
    paths: Mapping[str, str]
    listed: Namesakes

    @classmethod
    def of_text(cls, text: str, where: str, names: Iterable[str] = ()) -> Coco:
        """Read a file's text.

        Boxes around crowds (`iscrowd`), and those of no width or height, which COCO's own files have, are left out.

        Args:
            text: the file's.
            where: its name.
            names: the folder's pictures.

        Raises:
            MetricError: it is no COCO.
        """
        at = "the file"
        try:
            content = json.loads(text)
            kinds = {each["id"]: str(each["name"]) for each in content.get("categories", ())}
            boxes: dict[Any, list[Boxed]] = {each["id"]: [] for each in content["images"]}
            for number, each in enumerate(content["annotations"]):
                at = f"annotations[{number}]"
                of_picture = boxes[each["image_id"]]
                if each.get("iscrowd"):
                    continue
                left, top, width, height = (float(number) for number in each["bbox"])
                kind = kinds.get(each.get("category_id"))
                if not (width <= 0 or height <= 0):
                    of_picture.append(boxed(left, top, left + width, top + height, kind, where))
            told: list[tuple[str, _Picture]] = []
            for number, each in enumerate(content["images"]):
                at = f"images[{number}]"
                told.append((str(each["file_name"]), (*_size(each), tuple(boxes[each["id"]]))))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise MetricError(
                f"'{where}' is no COCO file of boxes: {type(error).__name__} {error}, in {at}. Expected images (id, file_name), "
                "annotations (image_id, bbox, category_id) and categories (id, name)."
            ) from error
        counts = Counter(bare(path) for path, _ in told)
        paths = {bare(path): path for path, _ in told if counts[bare(path)] == 1}
        return cls(where, dict(told), paths, Namesakes.of(names))

    def of(self, name: str, shape: tuple[int, ...]) -> list[Boxed] | None:
        """Return a picture's boxes; see :class:`seewhy.datasets.Truths`."""
        found = self._picture(name)
        if found is None:
            return None
        width, height, boxes = found
        if width and height:
            check_size(width, height, shape, f"{self.where}, {name}:")
        return list(boxes)

    def digest(self, name: str) -> str:
        """Return a text that changes when the picture's boxes do."""
        return repr(self._picture(name))

    def _picture(self, name: str) -> _Picture | None:
        """Return what is said of a picture: under its own path, else under its name alone.

        Raises:
            MetricError: several pictures have the name.
        """
        if name in self.pictures:
            return self.pictures[name]
        path = self.paths.get(bare(name))
        if path is None or ("/" in path and path in self.listed.pictures.get(bare(name), ())):
            return None  # of the latter: it is said of another picture of the folder
        self.listed.check_only(name, f"'{self.where}'")
        return self.pictures[path]


def _size(picture: Mapping[str, Any]) -> tuple[float, float]:
    return float(picture.get("width") or 0), float(picture.get("height") or 0)
