"""Where a model that answers place by place knows most about the whole: the end of its encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from seewhy.recorder.table import LayerRow, ancestors, in_attention

_ENCODERS = ("backbone", "encoder", "bottleneck", "body")
"""What parts are called that lead to the coarsest grid; in dilated networks the head works on that grid, too."""

_HEADS = ("decoder", "head", "classifier", "neck")
"""What the names of the parts behind end with."""


def bottleneck(rows: Sequence[LayerRow], kinds: dict[str, str]) -> Iterator[list[LayerRow]]:
    """Yield layers of the coarsest grid, in groups, of which the first is the likeliest to end with the encoder's last layer.

    The last layers of such a model are its answer. Of a part called a backbone or encoder, it is the last layer; otherwise,
    of the layers in no part called a head, the last with most channels (a head narrows), among modules made of others where
    there are such. A grid that adaptive pooling made (a pyramid beside the way) does not count, nor does a single cell.

    Args:
        rows: the model's layers in the order in which they finish.
        kinds: names of the modules that are made of others, and their class.
    """
    features = [row for row in _without_pyramids(rows) if not in_attention(row.name, kinds)]
    bodies = [row for row in features if not _is_of_head(row.name)]
    yield _coarsest([row for row in bodies if _is_of_encoder(row.name)])
    ends = [row for row in _coarsest(bodies) if not _inside_narrower(row, rows, kinds)]
    widest = [row for row in ends if row.layout.channels == max(each.layout.channels for each in ends)]
    yield [row for row in widest if row.name in kinds]
    yield widest
    yield _coarsest(features)


def _without_pyramids(rows: Sequence[LayerRow]) -> list[LayerRow]:
    begun: dict[tuple[int, ...], LayerRow] = {}
    for row in rows:
        begun.setdefault(row.layout.grid, row)
    return [
        row for row in rows if math.prod(row.layout.grid) > 1 and not begun[row.layout.grid].kind.startswith("Adaptive")
    ]


def _coarsest(rows: Sequence[LayerRow]) -> list[LayerRow]:
    least = min((math.prod(row.layout.grid) for row in rows), default=0)
    return [row for row in rows if math.prod(row.layout.grid) == least]


def _inside_narrower(row: LayerRow, rows: Sequence[LayerRow], kinds: dict[str, str]) -> bool:
    """Return whether a layer is wide only inside of a block that gives fewer channels, as in a transformer's perceptron."""
    above = set(ancestors(row.name))
    return any(
        other.layout.grid == row.layout.grid and other.layout.channels < row.layout.channels
        for other in rows
        if other.name in above
        and kinds.get(other.name) not in ("Sequential", "ModuleList")
        and not all(each.name == other.name or each.name.startswith(f"{other.name}.") for each in rows)
    )


def _is_of_encoder(name: str) -> bool:
    return any(part in _ENCODERS for part in name.casefold().split("."))


def _is_of_head(name: str) -> bool:
    return any(part.startswith("decode") or part.endswith(_HEADS) for part in name.casefold().split("."))
