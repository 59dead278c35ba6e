"""Errors point to where there is more, and their messages stay as they are."""

import pickle
import traceback

import pytest

import seewhy

KINDS = sorted(name for name in seewhy.__all__ if name.endswith("Error") and name != "PartialError")


@pytest.mark.parametrize("name", KINDS)
def test_the_message_is_without_where_there_is_more(name: str) -> None:
    error = getattr(seewhy, name)("There is none.")
    assert str(error) == "There is none."
    assert "docs/troubleshooting.md" in error.see
    assert ("seewhy doctor MODEL" in error.see) == (name in ("ModelError", "LayerError", "RecordingError"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), getattr(again, "__notes__", None)) == (str(error), getattr(error, "__notes__", None))


def test_a_traceback_shows_where_there_is_more_once() -> None:
    try:
        seewhy.load("resnet1888")
    except seewhy.ModelError as error:
        told = "".join(traceback.format_exception(error))
        shown = told.count("docs/troubleshooting.md")
        assert shown == (1 if hasattr(error, "add_note") else 0)
