"""A bar for what takes long, on a terminal: how many images are done, and how many runs of the model the present one takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LONG = 64
"""Runs of the model from which a bar is worth showing."""


class Bar:
    """Draws nothing until there is something to wait for.

    Args:
        wanted: True: always; False: never; None: on a terminal.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._shown = sys.stderr.isatty() if wanted is None else wanted
        self._always = wanted is True
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def blocks(self, count: int, size: int) -> Iterator[range]:
        """Yield the numbers of `count` images in blocks of at most `size`."""
        blocks = [range(at, min(at + size, count)) for at in range(0, count, size)]
        images = self._started().add_task("images", total=count) if self._shown and len(blocks) > 1 else None
        try:
            for block in blocks:
                yield block
                if self._progress is not None and images is not None:
                    self._progress.update(images, completed=block.stop)
        finally:
            self._stop()

    def runs(self, done: int, planned: int) -> None:
        """Tell how many of the planned runs of the model are done."""
        if not self._shown or (planned < LONG and not self._always):
            return
        progress = self._started()
        if done == 0 or self._task is None:
            self._task = progress.add_task("runs of the model", total=planned)
        progress.update(self._task, completed=done)
        if done >= planned:
            progress.remove_task(self._task)
            self._task = None

    def _started(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            console = Console(stderr=True)
            self._progress = Progress(*columns, console=console, transient=console.is_terminal)
            self._progress.start()
        return self._progress

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
