"""Where things are in pictures, from what annotation tools write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from seewhy.datasets.coco import Coco
from seewhy.datasets.marks import Boxed
from seewhy.datasets.namesakes import Namesakes
from seewhy.datasets.text import LARGEST, LARGEST_OF_ONE, bytes_of, text_of
from seewhy.datasets.voc import voc_boxes
from seewhy.datasets.yolo import yolo_boxes
from seewhy.errors import MetricError

MASKS = (".png", ".bmp", ".tif", ".tiff", ".webp")


@runtime_checkable
class Truths(Protocol):
    """Where things are in the pictures of a folder."""

    def of(self, name: str, shape: tuple[int, ...]) -> list[Boxed] | Path | None:
        """Return a picture's boxes, or the file of its mask; None where nothing is said of it.

        Args:
            name: the picture's path in its folder.
            shape: `(height, width)` of the picture, upright.

        Raises:
            MetricError: what is said cannot be read.
        """

    def digest(self, name: str) -> str:
        """Return a text that changes when what is said of a picture does."""


def open_truth(given: str | os.PathLike[str], pictures: Path, names: Iterable[str] = ()) -> Truths:
    """Return where things are: of a COCO file, or of a folder with a file for each picture.

    Args:
        given: a `.json` file of COCO; or a folder, in which a file of the picture's name (or path) is looked for: `.txt` of YOLO,
            `.xml` of Pascal VOC, or a mask. It may be the folder of the pictures, where there are no masks then.
        pictures: the pictures' folder.
        names: the pictures, by their paths in it: what is said of a name without a folder is taken where only one has it.

    Raises:
        MetricError: it is neither.
    """
    path = Path(given)
    if path.is_dir():
        return _Folder.of_pictures(path, pictures, names)
    if path.suffix.casefold() == ".json" and path.is_file():
        return Coco.of_text(text_of(path), str(path), names)
    raise MetricError(
        f"'{path}' is no truth: give a folder with YOLO's .txt, Pascal VOC's .xml or masks, a file of each picture's name; or a "
        ".json of COCO."
    )


@dataclass(frozen=True)
class _Folder:
    """A folder with one file a picture."""

    folder: Path
    endings: tuple[str, ...]
    classes: tuple[str, ...]
    listed: Namesakes

    @classmethod
    def of_pictures(cls, folder: Path, pictures: Path, names: Iterable[str]) -> _Folder:
        masks = () if folder.resolve() == pictures.resolve() else MASKS
        listed = folder / "classes.txt"
        classes = (
            tuple(line.strip() for line in text_of(listed, LARGEST_OF_ONE).splitlines()) if listed.is_file() else ()
        )
        return cls(folder, (".txt", ".xml", *masks), classes, Namesakes.of(names, _stem))

    def of(self, name: str, shape: tuple[int, ...]) -> list[Boxed] | Path | None:
        path = self._file(name)
        if path is None:
            return None
        kind = path.suffix.casefold()
        if kind == ".txt":
            return yolo_boxes(text_of(path, LARGEST_OF_ONE), str(path), shape, self.classes)
        return voc_boxes(text_of(path, LARGEST_OF_ONE), str(path), shape) if kind == ".xml" else path

    def digest(self, name: str) -> str:
        path = self._file(name)
        if path is None:
            return ""
        return sha256(
            bytes_of(path, LARGEST if path.suffix.casefold() in MASKS else LARGEST_OF_ONE)
            + "\n".join(self.classes).encode()
        ).hexdigest()

    def _file(self, name: str) -> Path | None:
        """Return the file that tells of a picture: under the picture's own path, else under its name alone.

        Raises:
            MetricError: several pictures have that name.
        """
        at = PurePosixPath(name)
        for way in (at, PurePosixPath(at.name)):
            for ending in self.endings:
                path = self.folder / way.with_suffix(ending)
                if path.is_file() and path.name != "classes.txt":
                    if way != at:
                        self.listed.check_only(name, f"'{path}'")
                    return path
        return None


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
