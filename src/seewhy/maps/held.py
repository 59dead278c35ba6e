"""Options of any kind as parts of what is hashed: words and numbers by value, pictures and arrays by identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Held:
    """One option.

    Attributes:
        value: whatever it is; held, so that no other object takes its identity.
    """

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> Any:
        by_value = self.value is None or isinstance(self.value, str | int | float | bool)
        return (type(self.value), self.value) if by_value else id(self.value)


def held(given: Any) -> tuple[Held, ...]:
    """Return one or several options: several in text by commas ("black,white"), or in a list."""
    if isinstance(given, str):
        return tuple(Held(word.strip()) for word in given.split(",") if word.strip())
    return tuple(Held(each) for each in given) if isinstance(given, list | tuple) else (Held(given),)
