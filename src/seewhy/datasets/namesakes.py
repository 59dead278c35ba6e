"""Pictures of the same name in several folders, which what is said of a bare name cannot tell apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from seewhy.errors import MetricError


def bare(name: str) -> str:
    """Return a path's last part."""
    return name.rpartition("/")[2]


@dataclass(frozen=True)
class Namesakes:
    """Pictures by what is left of their names.

    Attributes:
        short: what is left of a name.
        pictures: the names, by what is left.
    """

    short: Callable[[str], str]
    pictures: Mapping[str, list[str]]

    @classmethod
    def of(cls, names: Iterable[str], short: Callable[[str], str] = bare) -> Namesakes:
        """Sort names."""
        pictures = defaultdict(list)
        for name in names:
            pictures[short(name)].append(name)
        return cls(short, dict(pictures))

    def check_only(self, name: str, where: str) -> None:
        """Refuse what is said of a bare name where several pictures have it.

        Raises:
            MetricError: they do.
        """
        others = [each for each in self.pictures.get(self.short(name), ()) if each != name]
        if others:
            raise MetricError(
                f"{where} tells of '{self.short(name)}' without a folder, which may be '{name}' or '{others[0]}'. Name the "
                "pictures there by their paths in the folder of pictures."
            )
