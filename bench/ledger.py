"""Results of long measurements: one line of JSON each, written as they are made, so that another call goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Ledger:
    """A file of results; `rows` holds those that were there and those that came."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.path = path
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def add(self, row: dict[str, Any]) -> None:
        """Write a result down."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
