"""Where things are in pictures, from what annotation tools write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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
        MetricError: it is neither, or tells of no picture.
    """
    path = Path(given)
    if not path.exists():
        raise MetricError(
            f"There is no truth at '{path}': no folder or file is called so. It is taken from where you are."
        )
    if path.is_dir():
        names = list(names)
        found = _Folder.of_pictures(path, pictures, names)
        if names and not any(found.tells(name) for name in names):
            raise MetricError(
                f"No file in '{path}' has the name of a picture, as '{_stem(names[0])}.txt', .xml or a mask for '{names[0]}'. "
                "Give the folder where these are; a mask cannot lie beside its picture."
            )
        return found
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

    def tells(self, name: str) -> bool:
        """Return whether there is a file of a picture's name."""
        return any(True for _ in self._files(name))

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
        path, is_own = next(self._files(name), (None, True))
        if not is_own:
            self.listed.check_only(name, f"'{path}'")
        return path

    def _files(self, name: str) -> Iterator[tuple[Path, bool]]:
        """Yield the files that may tell of a picture, and whether they lie as it does."""
        at = PurePosixPath(name)
        for way in (at, PurePosixPath(at.name)):
            for ending in self.endings:
                path = self.folder / way.with_suffix(ending)
                if _is_file(path) and path.name != "classes.txt":
                    yield path, way == at


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a longer name than there can be
        return False


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
