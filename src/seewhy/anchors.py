"""Targets that need the model's answer about something else first: other images and texts, as the model's own vectors."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import ImageError, RecordingError, TargetError
from seewhy.inputs import Sample, chunks, prepare, split
from seewhy.models import Convolutions, LoadedModel
from seewhy.recorder import TorchRecorder, is_out_of_memory
from seewhy.targets import Anchor, SimilarityTarget, SimilarTo
from seewhy.targets.similarity import Measure

_QUOTED = r'"[^"]*"|\'[^\']*\''


class Anchors:
    """Asks a model about other images and texts, before it is asked about the images to explain.

    Args:
        recorder: runs the model.
        model: for preprocessing, class names and texts.
        batch_size: most images in one run.
        seed: for what the model itself draws.
    """

    def __init__(self, recorder: TorchRecorder, model: LoadedModel, batch_size: int, seed: int) -> None:
        self._recorder = recorder
        self._model = model
        self._batch_size = batch_size
        self._seed = seed

    def ready(self, target: Any, wrt: Any = None) -> Any:
        """Return a target that can be asked as it is; in a list or tuple, each.

        "similar:FILE", "similar:FILE-vs-FILE" and what :func:`seewhy.similar_to` gave become similarities with the model's
        vectors; "text:WORDS" and "text:WORDS-vs-WORDS" those with a text tower's. Anything else is returned unchanged.

        Args:
            target: whatever a caller gave.
            wrt: which input is explained of a model that takes several; the other images are calls of the same kind.

        Raises:
            TargetError: an image that cannot be read, a vector that is none, a text asked of a model without a text tower.
        """
        if isinstance(target, list | tuple):
            return type(target)(self.ready(each, wrt) for each in target)
        if isinstance(target, SimilarTo):
            return self._similar(target, wrt)
        if not isinstance(target, str) or self._is_name(target):
            return target
        word, colon, rest = target.strip().partition(":")
        if colon and word.casefold() == "text":
            return self._text(rest)
        if colon and word.casefold() == "similar":
            what, *than = _files(rest)
            return self._similar(SimilarTo(what, than[0] if than else None), wrt)
        return target

    def _is_name(self, target: str) -> bool:
        """Return whether this is a class's whole name, which may begin like anything."""
        return self._model.labels is not None and self._model.labels.exactly(target) is not None

    def _text(self, words: str) -> Any:
        tower, labels = self._model.tower, self._model.labels
        sides = _sides(words)
        if tower is None:
            raise TargetError(
                f"target='text:{words}' is for a model of images and texts, and {self._model.name} has no text tower. Name "
                "a class, give seewhy.similar_to(another image), or wrap a model that has both with "
                "seewhy.image_text(model, tokenizer=...)."
            )
        if tower.has_texts and labels is not None:
            if all(labels.exactly(side) is not None for side in sides):
                return "-vs-".join(str(labels.exactly(side)) for side in sides)
            raise TargetError(
                f"target='text:{words}' is not one of the {len(labels)} texts that were given as labels=, of which this is a "
                "zero-shot classifier. Add it to them, or leave labels= out."
            )
        vectors = self._recorder.text_vectors(sides, self._seed)
        anchor, *than = (Anchor(vector, f'"{side}"') for side, vector in zip(sides, vectors, strict=True))
        return SimilarityTarget(anchor, than[0] if than else None, scale=tower.scale, bias=tower.bias, words="")

    def _similar(self, wanted: SimilarTo, wrt: Any) -> SimilarityTarget:
        tower = self._model.tower
        if tower is not None and tower.has_texts:
            raise TargetError(
                "With labels= this is a zero-shot classifier, which answers with a score a text and not with a vector that could "
                "be compared with another image's. Leave labels= out for similar_to."
            )
        than = None if wanted.than is None else self._anchor(wanted.than, wanted.measure, wrt)
        return SimilarityTarget(self._anchor(wanted.what, wanted.measure, wrt), than, wanted.measure)

    def _anchor(self, what: Any, measure: Measure, wrt: Any) -> Anchor:
        """Return the vector of an image, of several images together, or the one that was given."""
        if (vector := _as_vector(what)) is not None:
            return Anchor(_checked(vector, measure), f"a vector of {len(vector)}")
        try:
            items, _ = split(what, self._recorder.module, wrt)
            convolutions = Convolutions.of(self._recorder.module)
            samples = [prepare(item, self._model.preprocess, convolutions=convolutions) for item in items]
        except ImageError as error:
            raise TargetError(f"similar_to: the image to compare with cannot be had: {error}") from error
        vectors = torch.stack(self._answers(samples))
        if measure == "cosine":
            vectors = functional.normalize(vectors, dim=-1)
        words = samples[0].name if len(samples) == 1 else f"{len(samples)} images"
        return Anchor(_checked(vectors.mean(0), measure), words)

    def _answers(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Return the model's vector `(feature,)` for each sample."""
        found: list[Tensor] = []
        for chunk in chunks(list(enumerate(samples)), self._batch_size):
            found += self._together([sample for _, sample in chunk])
        return found

    def _together(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Return the vectors of one batch; in halves where memory runs out."""
        try:
            images = torch.stack([sample.tensor for sample in samples])
            answers = self._recorder.answers(images, self._seed, samples[0].call)
            if answers.ndim != 2:
                raise TargetError(
                    f"similar_to needs a vector an image, and this model answers with shape {tuple(answers.shape[1:])} for one. "
                    "Give output= to say where the vector is, such as lambda returned: returned.mean((2, 3))."
                )
            return list(answers)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(samples) == 1:
                raise RecordingError(f"Memory ran out for the single image to compare with: {error}") from error
        half = len(samples) // 2  # outside the handler: the error holds what must be freed first
        return self._together(samples[:half]) + self._together(samples[half:])


def _sides(words: str) -> list[str]:
    """Return one text, or two that stand as A-vs-B; quotes around a text are taken off, and keep what is in them together."""
    match = re.fullmatch(rf"\s*({_QUOTED}|.*?)\s*-vs-\s*({_QUOTED}|.*?)\s*", words, re.IGNORECASE | re.DOTALL)
    whole = re.fullmatch(rf"\s*({_QUOTED})\s*", words)
    found = [whole[1]] if whole else list(match.groups()) if match else [words.strip()]
    return [side[1:-1] if re.fullmatch(_QUOTED, side) else side for side in found]


def _files(words: str) -> list[str]:
    """Return one file, or two that stand as A-vs-B, unless that is a file's own name."""
    return [words.strip()] if os.path.exists(words.strip()) else _sides(words)  # noqa: PTH110 - too long a name is none


def _as_vector(what: Any) -> Tensor | None:
    """Return a vector that was given as one: a tensor or array of one axis, or a list of numbers."""
    if isinstance(what, list | tuple) and what and all(isinstance(each, int | float) for each in what):
        return torch.tensor(what, dtype=torch.float32)
    if isinstance(what, Tensor | np.ndarray) and what.ndim == 1:
        return torch.as_tensor(what).detach().float().cpu()
    return None


def _checked(vector: Tensor, measure: Measure) -> Tensor:
    if not bool(vector.isfinite().all()):
        raise TargetError(
            "The vector to compare with holds NaN or infinite values. Check the image or vector that was given."
        )
    if measure == "cosine" and not bool(vector.any()):
        raise TargetError(
            "The vector to compare with is zero, so no angle with it exists. Give another, or measure='dot'."
        )
    return vector
