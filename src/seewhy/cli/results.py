"""From pictures to answers and files: what is written, under which name, and what is told on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy.cli import say
from seewhy.errors import ImageError, PartialError, RecordingError, RenderError, SeewhyError

if TYPE_CHECKING:
    from seewhy.explanation import Explanation

PICTURES = ("png", "jpg", "jpeg", "webp", "html", "pdf", "svg")
FORMS = (*PICTURES, "npz", "json", "gif")
"""How files of results end; the last three are of one map alone."""


def check_some_exist(images: list[Path]) -> None:
    """Fail before anything heavy is loaded when none of the pictures is there; single ones are told as they come.

    Raises:
        ImageError: none is.
    """
    if not any(path.is_file() for path in images):
        if images[0].is_dir():
            raise ImageError(
                f"'{images[0]}' is a folder. Name the pictures in it, as {images[0] / '*.jpg'}; or measure methods on all of "
                f"them: seewhy evaluate {images[0]}"
            )
        raise ImageError(f"There is no file '{images[0]}'. Check the path; it is taken from the folder you are in.")


def result_names(images: list[Path]) -> dict[Path, str]:
    """Return what each picture's results are called: its stem, or more of its path where others are called the same."""
    different = set(images)
    names: dict[Path, str] = {}
    for path in sorted(different):
        # Case is folded because two names that differ in it alone are one file on some systems.
        taken = [[way.casefold() for way in _ways_to_call(other)] for other in different if other != path]
        ways = _ways_to_call(path)
        alone = (way for number, way in enumerate(ways) if all(way.casefold() != other[number] for other in taken))
        name = next(alone, ways[-1])
        same = sum(other.casefold() == name.casefold() for other in names.values())
        names[path] = f"{name}-{same + 1}" if same else name
    return names


def _ways_to_call(path: Path) -> list[str]:
    """Return names for a picture, the shortest first: cat, cat.jpg, pets-cat.jpg, home-pets-cat.jpg, ..."""
    parts = path.absolute().parts
    return [path.stem, *("-".join(parts[-count:]) for count in range(1, 10))]


def file_forms(forms: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return file endings without their dots, checked before any work is done."""
    found = list(dict.fromkeys(form.casefold().lstrip(".") for form in forms))
    for form in found:
        if form not in known:
            raise RenderError(f"--format {form} is not known. Known: {', '.join(known)}.")
    return found


def made_folder(out: Path) -> Path:
    """Return the folder to write to, made where it is not there yet.

    Raises:
        SeewhyError: it cannot be made, or is called like a file of results.
    """
    if out.suffix.casefold().lstrip(".") in FORMS and not out.exists():
        raise RenderError(
            f"--out {out} is the name of a file, and --out is a folder: each picture's results are called after it, such as "
            "cat.why.png. Give a folder; the kind of file by --format."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = "is a file; give a folder" if out.is_file() else f"cannot be made: {error.strerror}"
        raise SeewhyError(f"--out {out} {told}.") from error
    return out


def answer_each(
    images: list[Path], targets: Sequence[str | None], answer: Callable[[list[str], str | None], Any]
) -> tuple[list[tuple[Path, list[Explanation]]], bool]:
    """Return each good picture with its answers to all targets, and whether there were bad ones; those are told.

    Where the model failed on the way, a picture's maps are those that were made before, and of what was done before.
    """
    found: dict[int, list[Explanation]] = {number: [] for number in range(len(images))}
    failures: dict[int, SeewhyError] = {}
    for target in targets:
        try:
            results = answer([str(path) for path in images], target)
        except PartialError as partial:
            failures.update(partial.failures)
            results = [
                done or getattr(partial.failures.get(number), "partial", None)
                for number, done in enumerate(partial.done)
            ]
        except ImageError as error:
            if len(images) > 1:
                raise
            failures[0], results = error, [None]
        except RecordingError as error:
            if not (error.partial or any(found.values())):
                raise
            failures.update(dict.fromkeys(found, error))
            results = [error.partial]
        for number, result in enumerate(results):
            found[number] += [] if result is None else _as_list(result)
    for number, failure in sorted(failures.items()):
        say.complain(failure, str(images[number]))
    lost = {number for number, failure in failures.items() if not isinstance(failure, RecordingError)}
    return [(images[number], each) for number, each in found.items() if each and number not in lost], bool(failures)


def save_all(
    explanations: list[Explanation], name: str, out: Path, forms: list[str], channels: str | None = None
) -> list[list[Path]]:
    """Write each explanation in each form; several of one picture get a number and the target in their names."""
    written = []
    for number, explanation in enumerate(explanations, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", explanation.target.casefold()).strip("-")[:40]
        mark = "" if len(explanations) == 1 else f".{number}-{slug}"
        paths = [out / f"{name}{mark}.why.{form}" for form in forms]
        for path in paths:
            explanation.save(path, channels=channels)
        written.append(paths)
    return written


def tell_all(explanations: list[Explanation], files: list[list[Path]]) -> None:
    """Print what the model says, and for each map how it was made, what to know of it, and where it is."""
    say.answer(explanations[0])
    for explanation, paths in zip(explanations, files, strict=True):
        where = " + ".join(explanation.layers) or "the input"
        score = "" if explanation.prediction else f" ({explanation.score:.4g})"  # else it is in the table
        say.line(f"{explanation.method} for {explanation.target}{score} at {where} ({explanation.cost})")
        say.about(explanation)
        for path in paths:
            say.line(f"wrote {path}")


def as_document(explanation: Explanation, files: list[Path] | None) -> dict[str, Any]:
    """Return an explanation as plain types, without its map, with the files that it was written to."""
    from seewhy.render.files import as_json

    content = as_json(explanation)
    content.pop("raw")
    return content if files is None else {**content, "files": [str(path) for path in files]}


def _as_list(found: Any) -> list[Explanation]:
    return found if isinstance(found, list) else [found]
