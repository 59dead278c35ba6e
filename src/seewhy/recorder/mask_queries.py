"""Models that answer with masks, each with a class (MaskFormer, Mask2Former, OneFormer, EoMT), as scores a class and place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

_NAMES = (("class_queries_logits", "masks_queries_logits"), ("pred_logits", "pred_masks"))
"""What Hugging Face and the authors' own code call the queries' class scores and masks."""


def semantic_scores(returned: Any, batch: int) -> Float[Tensor, "batch class height width"] | None:
    """Return the semantic map of masks with classes, or None where a model returned something else.

    The score of a class at a place is the sum over the queries of the probability that the query is of the class, times that
    of its mask there; the last class, "no object", is left out (Cheng et al. 2021, arXiv:2107.06278, section 3.4).
    """
    named = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
    if "pred_boxes" in named:
        return None  # a detector whose objects have masks
    for classes, masks in _NAMES:
        of_class, of_place = named.get(classes), named.get(masks)
        if not (isinstance(of_class, Tensor) and isinstance(of_place, Tensor)):
            continue
        if (
            of_class.ndim == 3
            and of_place.ndim == 4
            and of_class.shape[:2] == of_place.shape[:2]
            and len(of_class) == batch
        ):
            chances = of_class.softmax(-1)[..., :-1].transpose(1, 2)
            scores = chances @ of_place.sigmoid().flatten(2)
            return scores.view(*scores.shape[:2], *of_place.shape[2:])
    return None
