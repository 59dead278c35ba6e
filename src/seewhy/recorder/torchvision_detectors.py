"""torchvision's detectors: their predictions are taken where their heads give them, before any is suppressed.

They scale and pad the pictures of a batch inside. What they return is the detections that are left, from which most of the
graph, and all that was not found, is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.recorder.detections import RawBoxes, as_rows, padded
from seewhy.recorder.listening import Listening

Shape = tuple[int, int]


@dataclass(frozen=True)
class Inside:
    """What a model made of its input before its first layer.

    Attributes:
        scaled: height and width to which the input was scaled.
        whole: height and width with what was added on the right and below.
    """

    scaled: Shape
    whole: Shape


class _Heard(Exception):  # noqa: N818 - nothing is wrong
    """All is known: the rest of the model would only throw predictions away."""


class TorchvisionDetector:
    """Runs one of torchvision's detectors up to its raw predictions.

    Args:
        module: Faster, Mask or Keypoint R-CNN, RetinaNet, SSD, SSDLite, FCOS, or one built like them.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        parts: Any = module
        self._two_stages = hasattr(module, "roi_heads")
        self._listened: dict[str, nn.Module] = {"sized": parts.transform}
        if self._two_stages:
            self._listened |= {"proposed": parts.rpn, "predicted": parts.roi_heads.box_predictor}
        else:
            self._listened |= {"predicted": parts.head, "anchors": parts.anchor_generator}
        self.inside: Inside | None = None

    def __call__(self, images: Tensor) -> RawBoxes:
        """Return the predictions for images `(batch, channel, height, width)`."""
        heard: dict[str, Any] = {}
        with Listening() as listening:
            for name, part in self._listened.items():
                listening.after(part, self._hearing(name, heard))
            with suppress(_Heard):
                self._module(list(images))
        sized = heard["sized"][0]
        scaled, (height, width) = sized.image_sizes[0], images.shape[-2:]
        self.inside = Inside(tuple(scaled), tuple(sized.tensors.shape[-2:]))
        rows = (self._by_proposal if self._two_stages else self._by_anchor)(heard, scaled)
        # As the models do: edges beyond the picture lie on its border, and are told in the input's own pixels.
        most = rows.new_tensor([scaled[1], scaled[0]] * 2)
        back = rows.new_tensor([width / scaled[1], height / scaled[0]] * 2)
        edges = torch.minimum(rows[..., :4].clamp_min(0), most) * back
        return RawBoxes(torch.cat([edges, rows[..., 4:]], -1))

    def _hearing(self, name: str, heard: dict[str, Any]) -> Callable[[nn.Module, Any, Any], None]:
        def hear(_module: nn.Module, _inputs: Any, output: Any) -> None:
            heard[name] = output
            if len(heard) == len(self._listened):
                raise _Heard

        return hear

    def _by_proposal(self, heard: dict[str, Any], _scaled: Shape) -> Tensor:
        """Return one row a proposal: the box as its likeliest class has it. The first class, the background, scores 0."""
        logits, changes = heard["predicted"]
        proposals: Sequence[Tensor] = heard["proposed"][0]
        counts = [len(each) for each in proposals]
        chances = logits.softmax(-1)
        boxes = self._module.roi_heads.box_coder.decode(changes, list(proposals))
        likeliest = chances[:, 1:].argmax(-1) + 1
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), likeliest]
        # As many rows for every picture as the model proposes at most, so that runs can be put side by side.
        least = int(self._module.rpn.post_nms_top_n())
        return padded(torch.split(_foreground(boxes, chances), counts), least)

    def _by_anchor(self, heard: dict[str, Any], _scaled: Shape) -> Tensor:
        """Return one row an anchor."""
        predicted, coder = heard["predicted"], self._module.box_coder
        anchors = heard["anchors"][0]  # the same for each picture: they are all of one size
        logits, changes = predicted["cls_logits"], predicted["bbox_regression"]
        if "bbox_ctrness" in predicted:  # FCOS
            centred = predicted["bbox_ctrness"].sigmoid()
            boxes = coder.decode(changes, anchors.expand(len(changes), -1, -1))
            return as_rows(boxes, (logits.sigmoid() * centred).clamp_min(1e-12).sqrt(), centred[..., 0])
        boxes = torch.stack([coder.decode_single(each, anchors) for each in changes])
        if hasattr(self._module, "neg_to_pos_ratio"):  # SSD: its first class is the background
            return _foreground(boxes, logits.softmax(-1))
        return as_rows(boxes, logits.sigmoid())


def _foreground(boxes: Tensor, chances: Tensor) -> Tensor:
    """Return rows in which the first class, the background, keeps its number but scores 0."""
    found = torch.cat([torch.zeros_like(chances[..., :1]), chances[..., 1:]], -1)
    return as_rows(boxes, found, 1 - chances[..., 0])


def torchvision_detector(module: nn.Module) -> TorchvisionDetector | None:
    """Return how to run a model that is built like torchvision's detectors; None for any other."""
    two_stages = hasattr(module, "rpn") and hasattr(getattr(module, "roi_heads", None), "box_predictor")
    one_stage = all(hasattr(module, name) for name in ("head", "anchor_generator", "box_coder"))
    is_one = (two_stages or one_stage) and hasattr(getattr(module, "transform", None), "image_mean")
    return TorchvisionDetector(module) if is_one else None
