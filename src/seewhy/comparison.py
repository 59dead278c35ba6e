"""Several explanations of one image, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from seewhy.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(list[Explanation]):
    """A list of explanations of one image, made from one recording: methods x layers x targets, in this order.

    Attributes:
        skipped: methods of "all" that this model does not allow, and why.
    """

    def __init__(self, explanations: Iterable[Explanation], skipped: Mapping[str, str] | None = None) -> None:
        super().__init__(explanations)
        self.skipped = dict(skipped or {})

    @overload
    def __getitem__(self, index: SupportsIndex) -> Explanation: ...

    @overload
    def __getitem__(self, index: slice) -> Comparison: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Explanation | Comparison:
        """Return one explanation, or some as a comparison again, which can be drawn."""
        return (
            Comparison(super().__getitem__(index), self.skipped)
            if isinstance(index, slice)
            else super().__getitem__(index)
        )

    def figure(self, **style: Any) -> Figure:
        """Return a grid of overlays as a matplotlib figure; arguments as in :func:`seewhy.render.figure`."""
        from seewhy.render import figure

        return figure(self, **style)

    def save(self, path: str | os.PathLike[str], **style: Any) -> None:
        """Write the grid to .png, .jpg, .webp, .pdf, .svg or .html."""
        from seewhy.render import save_grid

        save_grid(self, path, **style)

    def _repr_png_(self) -> bytes:
        from seewhy.render import figure_bytes

        return figure_bytes(self.figure())
