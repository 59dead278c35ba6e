"""Which pictures a folder holds, and what they are said to show; hostile lists are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy import MetricError
from seewhy.datasets import entries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of two classes, and what is none."""
    for name in ("dog/b.JPG", "dog/a.png", "cat/deep/c.webp", "cat/notes.txt", "cat/.hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def _told(folder: Path, classes: object = None, **more: object) -> list[tuple[str, str | None]]:
    return [(each.name, each.label) for each in entries(folder, classes, **more)]  # type: ignore[arg-type]


def test_sub_folders_name_the_classes(folder: Path) -> None:
    named = [("cat/deep/c.webp", "cat"), ("dog/a.png", "dog"), ("dog/b.JPG", "dog")]
    assert _told(folder) == _told(folder, "folders") == named
    assert _told(folder, "predicted") == [(name, None) for name, _ in named]


def test_a_flat_folder_says_nothing(folder: Path) -> None:
    (folder / "loose.png").write_bytes(b"")
    assert {label for _, label in _told(folder)} == {None}
    with pytest.raises(MetricError, match=r"names the class of 1 picture, such as 'loose\.png'\. Move"):
        entries(folder, "folders")


def test_folders_of_results_and_masks_are_left_out(folder: Path) -> None:
    assert [name for name, _ in _told(folder, apart=[folder / "dog"])] == ["cat/deep/c.webp"]


@pytest.mark.parametrize(
    "text",
    [
        "dog/a.png,cat\ndog/b.JPG,7\n",
        "\ufefflabel;x,filename\n".replace(";x", "") + "cat,dog/a.png\n7,dog/b.JPG\n",
        'file,note,class\n"dog/a.png","a, b",cat\ndog/b.JPG,,7\n\n',
    ],
    ids=["no head", "head, other order", "more columns"],
)
def test_a_csv_says_what_its_pictures_show(folder: Path, text: str) -> None:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    assert _told(folder, folder / "labels.csv") == [("dog/a.png", "cat"), ("dog/b.JPG", "7")]
    assert _told(folder, {"dog/a.png": "cat", "dog/b.JPG": 7}) == [("dog/a.png", "cat"), ("dog/b.JPG", "7")]


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "a/../../b.png", "..\\b.png", "C:\\b.png", "C:b.png", "x\0.png", "", ".", "./"],
)
def test_names_that_lead_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(MetricError, match="which is no path within the folder"):
        entries(folder, {name: "cat"})
    if name and "\0" not in name:
        (folder / "labels.csv").write_text(f"{name},cat\n")
        with pytest.raises(MetricError, match="which is no path within the folder"):
            entries(folder, folder / "labels.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.png\n", r"labels\.csv', line 1 has no file name and label: 'a\.png'\. Part them by a comma"),
        (
            "a.png,cat\n\nb.png;cat\n",
            r"labels\.csv', line 3 has no file .* ';' parts no columns here\. Part them by a comma",
        ),
        ("a.png,cat\na.png,dog\n", r"labels\.csv', line 2 gives 'a\.png' two labels, 'cat' and 'dog'"),
        ("a.png,cat\n./a.png,dog\n", "gives 'a.png' two labels, 'cat' and 'dog'"),
        ("a.png,cat\n.,dog\n", r"labels\.csv', line 2 names '\.', which is no path within the folder"),
        ("", "names no picture"),
        ('a.png,"cat\n', "cannot be read as CSV"),
    ],
)
def test_a_csv_that_says_nothing_clear_is_refused(folder: Path, text: str, told: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(MetricError, match=told):
        entries(folder, folder / "labels.csv")


def test_what_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(MetricError, match="There is no folder"):
        entries(folder / "none", None)
    with pytest.raises(MetricError, match="There is no picture"):
        entries(folder / ".git" / "..", None, [folder / "dog", folder / "cat"])
    with pytest.raises(MetricError, match="cannot be read as labels or boxes: No such file"):
        entries(folder, folder / "none.csv")
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MetricError, match="is no UTF-8 text"):
        entries(folder, folder / "labels.csv")


def test_a_mappings_names_and_paths_are_the_same_checked_ones(folder: Path) -> None:
    [found] = entries(folder, {"dog\\a.png": "dog", "./dog/a.png": "dog"})
    assert (found.name, found.path) == ("dog/a.png", folder / "dog" / "a.png")
    with pytest.raises(MetricError, match=r"classes= gives 'dog/a.png' two labels, 'dog' and 'cat'"):
        entries(folder, {"dog/a.png": "dog", "./dog/a.png": "cat"})


def test_a_file_is_no_folder_of_pictures(folder: Path) -> None:
    with pytest.raises(MetricError, match=r"a\.png' is a file, and many pictures are asked for"):
        entries(folder / "dog" / "a.png", None)
