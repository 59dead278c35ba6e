"""`python -m bench.families`: the truth of maps, as in bench.truth, on small networks of other families than bench.truth has.

Residual networks and vision transformers are trained here, in a minute each, to look at a known mark (tests/planted_marks.py).
One line a picture is written to --results as it is measured; another call goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tests.planted_marks import KINDS, SIDE, Kind, drawn, taught
from torch import nn

import seewhy
from bench.ledger import Ledger
from bench.truth import measured, table

MORE = ("attn-lrp",)
ATTENTION = (*MORE, "attention-rollout", "generic-attention", "legrad")
CLASSES = 3


def residual() -> nn.Module:
    """Return a residual network of four stages, the last with 2 cells a side."""
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, channels=(16, 32, 48, 64), stem_width=16)


def transformer() -> nn.Module:
    """Return a vision transformer of four blocks with 8 x 8 patches and a class token."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(SIDE, SIDE // 8, num_classes=CLASSES, embed_dim=96, depth=4, num_heads=4)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], float, int, tuple[str, ...]]] = {
    "residual": (residual, 3e-3, 300, MORE),
    "transformer": (transformer, 1e-3, 900, ATTENTION),
}
"""How a network is made, its learning rate, the steps it learns for, and methods that are measured beside the usual ones."""


def trained(make: Callable[[], nn.Module], rate: float, steps: int, kind: Kind) -> nn.Module:
    """Return a network that learnt to tell the marks of a kind apart, on pictures that are drawn as it learns."""
    torch.manual_seed(0)
    return taught(make(), kind, torch.Generator().manual_seed(0), rate=rate, steps=steps, decay=0.02, longest=1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not yet in the file of results, and print a table a family."""
    asked = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    asked.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    asked.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    asked.add_argument("--limit", type=int, default=15, help="pictures of each kind (15)")
    asked.add_argument("--results", type=Path, default=Path("build/families.jsonl"), help="the file of results")
    given = asked.parse_args(arguments)
    ledger = Ledger(given.results)
    for family in given.families:
        for kind in given.kinds:
            label = f"{family}, {kind}"
            done = {row["photograph"] for row in ledger.rows if row["model"] == label}
            if len(done) >= given.limit:
                continue
            make, rate, steps, more = FAMILIES[family]
            ask = seewhy.Explainer(trained(make, rate, steps, kind))
            images = drawn(kind, given.limit, torch.Generator().manual_seed(7), with_mark=True).images
            for number in range(given.limit):
                if str(number) not in done:
                    truth = measured(ask, images[number], images[number - 1], more)
                    ledger.add({"model": label, "photograph": str(number), "truth": truth})
        print(f"\n{family}\n\n" + table([row for row in ledger.rows if row["model"].startswith(f"{family}, ")]))


if __name__ == "__main__":
    main()
