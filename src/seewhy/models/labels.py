"""The names of a model's classes, and finding a class by what a person calls it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from seewhy.errors import ModelError, TargetError, did_you_mean

_FILE_LIMIT = 20_000_000  # bytes; the largest real label files (21k classes with definitions) are below 2 MB


@dataclass(frozen=True)
class Labels:
    """One line a class, in output order; a line may hold synonyms, separated by commas ("tabby, tabby cat")."""

    lines: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def name(self, index: int) -> str:
        """Return the class's first name, or "class 7" where it has none."""
        named = self.lines[index].split(",")[0].strip() if 0 <= index < len(self.lines) else ""
        return named or f"class {index}"

    def exactly(self, wanted: str) -> int | None:
        """Return the index of the one class that has this whole name or synonym, or None."""
        found = {index for name, index in _synonyms(self.lines) if name == wanted.strip().casefold()}
        return found.pop() if len(found) == 1 else None

    def find(self, wanted: str) -> int:
        """Return the index of the class of this name.

        A whole name or synonym wins; otherwise a beginning that only one class has, if no other class has it as a word
        ("dog" is not dogsled while there is an African hunting dog). Case does not matter.

        Raises:
            TargetError: no class or several classes answer to it; those with the word in their name are told first.
        """
        exact = self.exactly(wanted)
        if exact is not None:
            return exact
        folded = wanted.strip().casefold()
        word = re.compile(rf"\b{re.escape(folded)}\b")
        table = _synonyms(self.lines)
        first_names = [index for index in range(len(self)) if word.search(self.name(index).casefold())]
        others = [index for name, index in table if word.search(name)]
        beginning = [index for name, index in table if name.startswith(folded)]
        found = list(dict.fromkeys([*first_names, *others, *beginning]))
        if len(found) == 1 and beginning:
            return found[0]
        if found:
            some = ", ".join(f"{index} '{self.name(index)}'" for index in found[:6])
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            raise TargetError(
                f"'{wanted}' may mean {len(found)} classes: {some}{more}. Give one name in full, or its index."
                if len(found) > 1
                else f"No class is called '{wanted}'. Is it {some}? Give the name in full, or the index."
            )
        raise TargetError(
            f"No class is called '{wanted}' among {len(self.lines)}.{did_you_mean(wanted, [name for name, _ in table])} "
            "An index works too."
        )


@cache
def _synonyms(lines: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return every synonym and whole line, lower case, with its class."""
    pairs = [(part.strip().casefold(), index) for index, line in enumerate(lines) for part in line.split(",")]
    wholes = [(line.strip().casefold(), index) for index, line in enumerate(lines) if "," in line]
    return tuple((name, index) for name, index in [*pairs, *wholes] if name)


@cache
def imagenet() -> Labels:
    """Return the 1000 names of ImageNet-1k, with synonyms, as timm carries them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return Labels(tuple(info.index_to_description(index) for index in range(info.num_classes())))


def as_labels(given: Labels | Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]) -> Labels:
    """Accept what a caller gives as `labels=`: names in order, a mapping index to name, a file, or "imagenet".

    Raises:
        ModelError: the file is missing, too large or not understood; the mapping has holes.
    """
    if isinstance(given, Labels):
        return given
    if isinstance(given, str) and given.casefold() == "imagenet":
        return imagenet()
    if isinstance(given, str | os.PathLike):
        return _from_file(Path(given))
    if isinstance(given, Mapping):
        return _from_mapping(given)
    if not isinstance(given, Sequence):
        raise ModelError(f"Labels are names in order, a mapping or a file, not a {type(given).__name__}.")
    return Labels(tuple(str(name) for name in given))


def _from_file(path: Path) -> Labels:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on names that are too long
        raise ModelError(f"There is no label file '{path}'. Give a text file with one name a line, or JSON.")
    if path.stat().st_size > _FILE_LIMIT:
        raise ModelError(f"The label file '{path}' is over {_FILE_LIMIT:,} bytes; that is no list of names.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors put a mark before the first name
        content = json.loads(text) if path.suffix.lower() == ".json" else text.rstrip().splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"The label file '{path}' cannot be read: {error}. It must be UTF-8 text or JSON.") from error
    if isinstance(content, Mapping):
        content = content.get("id2label", content)
    if isinstance(content, Mapping):
        return _from_mapping(content)
    if not isinstance(content, list):
        raise ModelError(f"The label file '{path}' holds a {type(content).__name__}; expected a list or a mapping.")
    return Labels(tuple(str(line).strip() for line in content))  # an empty line is a class without a name


def _from_mapping(mapping: Mapping[Any, Any]) -> Labels:
    """Return labels from {index: name}, or {name: index}."""
    try:
        numbered = [(int(key), _line(value)) for key, value in mapping.items()]
    except (TypeError, ValueError, OverflowError):
        try:
            numbered = [(int(value), str(key)) for key, value in mapping.items()]
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError("Labels given as a mapping must be {index: name} or {name: index}.") from error
    by_index = dict(numbered)
    if sorted(index for index, _ in numbered) != list(range(len(numbered))):
        raise ModelError(
            f"Labels given as a mapping must number its {len(numbered)} classes from 0 to {len(numbered) - 1}, each once."
        )
    return Labels(tuple(by_index[index] for index in range(len(by_index))))


def _line(value: object) -> str:
    """Return one class's names from a mapping's value; `["n01440764", "tench"]`, as Keras writes it, is "tench"."""
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join(name for name in map(str, value) if not re.fullmatch(r"n\d{8}", name))
