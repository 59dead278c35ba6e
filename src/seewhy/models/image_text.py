"""Models of images and texts: two towers that answer with vectors, of which the image side is the model to explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seewhy.errors import ModelError, TargetError
from seewhy.images import Preprocess
from seewhy.models.tokens import Tokenizer, token_ids

_IMAGE_SIDE = ("get_image_features", "encode_image")
_TEXT_SIDE = ("get_text_features", "encode_text")
_OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


class ImageTower(nn.Module):
    """The image side of a model of images and texts, as a model of its own: images to vectors, or to one score a text.

    Its layers have the names that they have in the whole model, which is a part of it, so that it is held in evaluation mode,
    moved and given back as a whole.

    Args:
        model: the whole model.
        tokenizer: texts to token ids; None: it cannot be asked about texts.
        texts: `(text, feature)`, each of length 1; the scores are then those of `logits_per_image`, one a text.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None = None, texts: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer
        self._texts = texts
        # A model of mixed precision keeps some parameters in float32: the first convolution is what meets the images.
        self._entry = tuple(part for part in model.modules() if isinstance(part, nn.Conv2d))[:1]
        self.training = model.training

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return `(batch, feature)` under "image_embeds"; with texts `(batch, text)` under "logits"."""
        images = images.to(self._entry[0].weight.dtype) if self._entry else images
        vectors = _vectors(_side(self.model, _IMAGE_SIDE)(images))
        if self._texts is None:
            return {"image_embeds": vectors}
        similarity = functional.normalize(vectors.float(), dim=-1) @ self._texts.to(vectors.device).T
        return {"logits": similarity * self.scale + self.bias}

    @property
    def scale(self) -> float:
        """What the cosine similarity of an image and a text is multiplied by: the model's temperature."""
        scale = getattr(self.model, "logit_scale", None)
        return float(scale.detach().exp()) if isinstance(scale, Tensor) else 1.0

    @property
    def bias(self) -> float:
        """What is added then; 0 for models without one."""
        bias = getattr(self.model, "logit_bias", None)
        return float(bias.detach()) if isinstance(bias, Tensor) else 0.0

    @property
    def independent(self) -> bool:
        """Whether each text's probability is a sigmoid of its own (SigLIP), rather than a softmax over all texts (CLIP)."""
        return isinstance(getattr(self.model, "logit_bias", None), Tensor)

    @property
    def has_texts(self) -> bool:
        """Whether it answers with one score a text."""
        return self._texts is not None

    def with_texts(self, vectors: Float[Tensor, "text feature"]) -> ImageTower:
        """Return the zero-shot classifier whose classes are texts, given by their vectors of length 1."""
        return ImageTower(self.model, self._tokenizer, vectors)

    def check_texts(self) -> None:
        """Raise ModelError when no tokenizer is known."""
        if self._tokenizer is None:
            raise ModelError(
                f"{type(self.model).__name__} has a text tower, and nothing is known that turns a text into its tokens. Give "
                "seewhy.image_text(model, tokenizer=...), a function from a list of texts to token ids, or load the model by its "
                "name, with its tokenizer ('hf:owner/name')."
            )

    def tokens(self, texts: Sequence[str]) -> Any:
        """Return what the text tower takes for these texts.

        Raises:
            ModelError: no tokenizer is known, or it gave something else than token ids.
            TargetError: a text is empty or longer than the model takes.
        """
        self.check_texts()
        if blank := [text for text in texts if not text.strip()]:
            raise TargetError(f"The text {blank[0]!r} is empty. Write what the picture may show, such as 'text:a dog'.")
        found = token_ids(self._tokenizer, texts, _context(self.model), whole=self.independent)
        return _on(found, next(self.model.parameters()).device)

    def text_vectors(self, tokens: Any) -> Float[Tensor, "text feature"]:
        """Return the text tower's vectors for these tokens, each of length 1, float32."""
        encode = _side(self.model, _TEXT_SIDE)
        returned = encode(**tokens) if isinstance(tokens, Mapping) else encode(tokens)
        return functional.normalize(_vectors(returned).float(), dim=-1)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield all parts under the names that they have in the whole model."""
        memo = set() if memo is None else memo
        if self not in memo:
            memo.add(self)
            yield prefix, self
        yield from self.model.named_modules(memo, prefix, remove_duplicate)

    def get_submodule(self, target: str) -> nn.Module:
        """Return the part that has this name in the whole model."""
        return self.model.get_submodule(target) if target else self


def two_towers(module: nn.Module) -> bool:
    """Return whether a module is a model of images and texts, by what it can do and the temperature that it has."""
    return _has_sides(module) and isinstance(getattr(module, "logit_scale", None), Tensor)


def check_two_towers(module: nn.Module) -> None:
    """Raise ModelError when a module has no image side and text side that can be asked alone."""
    name = type(module).__name__
    if name.startswith("Siglip2"):
        raise ModelError(
            f"{name} takes pictures as patches of its own making, in any number (NaFlex), not as images. Checkpoints of SigLIP 2 "
            "with a fixed size load as SiglipModel, which can be explained."
        )
    if not _has_sides(module):
        raise ModelError(
            f"{name} is not a model of images and texts: it needs encode_image and encode_text (open_clip), or "
            "get_image_features and get_text_features (Hugging Face's CLIPModel, SiglipModel). "
            "A model of images alone needs no wrapping."
        )


def usual_preprocess(module: nn.Module) -> tuple[Preprocess, bool]:
    """Return how pictures are prepared, and whether the model says so itself, as open_clip's do.

    Otherwise the size is the model's own and the rest what nearly all of its kind have: CLIP's statistics, or 0.5 for models
    with a sigmoid.
    """
    own = getattr(getattr(module, "visual", None), "preprocess_cfg", None)
    if isinstance(own, Mapping) and {"size", "mean", "std"} <= set(own):
        fit: Any = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}.get(
            own.get("resize_mode", ""), "crop"
        )
        size = own["size"] if isinstance(own["size"], Sequence) else (own["size"],) * 2
        return (
            Preprocess(
                size=tuple(size),
                resize=None,
                fit=fit,
                interpolation=own.get("interpolation", "bicubic"),
                mean=tuple(own["mean"]),
                std=tuple(own["std"]),
            ),
            True,
        )
    config = getattr(getattr(module, "config", None), "vision_config", None)
    side = getattr(config, "image_size", None) or getattr(getattr(module, "visual", None), "image_size", None) or 224
    height, width = side if isinstance(side, Sequence) else (side, side)
    sigmoid = isinstance(getattr(module, "logit_bias", None), Tensor)
    statistics: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if sigmoid else dict(_OPENAI)
    return Preprocess((height, width), None, "squash" if sigmoid else "crop", "bicubic", **statistics), False


def _has_sides(module: nn.Module) -> bool:
    return any(
        callable(getattr(module, image, None)) and callable(getattr(module, text, None))
        for image, text in zip(_IMAGE_SIDE, _TEXT_SIDE, strict=True)
    )


def _side(model: nn.Module, names: tuple[str, ...]) -> Callable[..., Any]:
    return next(getattr(model, name) for name in names if callable(getattr(model, name, None)))  # type: ignore[no-any-return]


def _vectors(returned: Any) -> Tensor:
    """Return the `(batch, feature)` in what a tower returned: itself, its `pooler_output`, or a tuple's only 2-D tensor."""
    if isinstance(returned, Tensor):
        return returned
    parts = [getattr(returned, "pooler_output", None), *(returned if isinstance(returned, tuple) else ())]
    for part in parts:
        if isinstance(part, Tensor) and part.ndim == 2:
            return part
    raise ModelError(f"A tower returned a {type(returned).__name__} in which no vector an image or text was found.")


def _context(model: nn.Module) -> int | None:
    """Return how many tokens the text tower takes at most, where it says so."""
    config = getattr(getattr(model, "config", None), "text_config", None)
    most = getattr(config, "max_position_embeddings", None) or getattr(model, "context_length", None)
    return int(most) if isinstance(most, int) else None


def _on(tokens: Any, device: torch.device) -> Any:
    if isinstance(tokens, Mapping):
        return {name: value.to(device) for name, value in tokens.items()}
    return tokens.to(device)
