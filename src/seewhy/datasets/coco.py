"""COCO's JSON: pictures, categories, and annotations with `bbox` left, top, width, height in pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seewhy.datasets.marks import Boxed, boxed, check_size
from seewhy.errors import MetricError

_Picture = tuple[float, float, tuple[Boxed, ...]]
"""Width and height, 0 where they are not told, and boxes."""


@dataclass(frozen=True)
class Coco:
    """Boxes of all pictures of one file, by the pictures' names.

    Attributes:
        where: the file's name.
        pictures: by the path that the file has for them, and by their name alone where only one has it.
    """

    where: str
    pictures: Mapping[str, _Picture]

    @classmethod
    def of_text(cls, text: str, where: str) -> Coco:
        """Read a file's text.

        Raises:
            MetricError: it is no COCO.
        """
        try:
            content = json.loads(text)
            kinds = {each["id"]: str(each["name"]) for each in content.get("categories", ())}
            boxes: dict[Any, list[Boxed]] = {each["id"]: [] for each in content["images"]}
            for each in content["annotations"]:
                left, top, width, height = (float(number) for number in each["bbox"])
                kind = kinds.get(each.get("category_id"))
                boxes[each["image_id"]].append(boxed(left, top, left + width, top + height, kind, where))
            told = [(str(each["file_name"]), (*_size(each), tuple(boxes[each["id"]]))) for each in content["images"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MetricError(
                f"'{where}' is no COCO file of boxes: {type(error).__name__} {error}. Expected images (id, file_name), "
                "annotations (image_id, bbox, category_id) and categories (id, name)."
            ) from error
        names = [name.rpartition("/")[2] for name, _ in told]
        counts = Counter(names)
        alone = {name: picture for name, (_, picture) in zip(names, told, strict=True) if counts[name] == 1}
        return cls(where, {**alone, **dict(told)})

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
        return self.pictures.get(name, self.pictures.get(name.rpartition("/")[2]))


def _size(picture: Mapping[str, Any]) -> tuple[float, float]:
    return float(picture.get("width") or 0), float(picture.get("height") or 0)
