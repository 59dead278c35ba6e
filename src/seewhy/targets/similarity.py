"""Targets for models that answer with a vector: how close it is to another picture's, to a text's, to a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seewhy.errors import TargetError
from seewhy.models.labels import Labels
from seewhy.targets.protocol import Ahead, Output, Subject

Measure = Literal["cosine", "dot"]


@dataclass(frozen=True, eq=False)
class Anchor:
    """What a model's vector is compared with: `(feature,)`, and what to call it."""

    vector: Float[Tensor, " feature"]
    name: str


@dataclass(frozen=True, eq=False)
class SimilarityTarget:
    """How similar one sample's vector is to an anchor, or how much more than to another anchor.

    Attributes:
        anchor: what it is compared with.
        than: what is subtracted is the same for this; None: nothing.
        measure: "cosine" of the angle between the two, or their "dot" product.
        scale, bias: the score is the similarity times the one plus the other, as in a model of images and texts.
        words: what it is, before the anchor's name.
    """

    anchor: Anchor
    than: Anchor | None = None
    measure: Measure = "cosine"
    scale: float = 1.0
    bias: float = 0.0
    words: str = "similarity to "

    @property
    def index(self) -> None:
        return None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        score = self._similarity(output, self.anchor)
        if self.than is not None:
            return self.scale * (score - self._similarity(output, self.than))
        return self.scale * score + self.bias

    def describe(self, labels: Labels | None) -> str:  # noqa: ARG002 - the same call for every target
        return f"{self.words}{self.anchor.name}" + (f" vs {self.than.name}" if self.than is not None else "")

    def _similarity(self, output: Output, anchor: Anchor) -> Float[Tensor, ""]:
        if output.shape != anchor.vector.shape:
            raise TargetError(
                f"The target is a vector of {len(anchor.vector)} numbers ({anchor.name}), and the model's output for one image "
                f"has shape {tuple(output.shape)}. Give a vector as long as the model's own, or output= to say where in what it "
                "returns the vector is."
            )
        own = output.float()  # half precision has too few digits for the difference of two angles
        other = anchor.vector.to(own)
        return functional.cosine_similarity(own, other, dim=0) if self.measure == "cosine" else own @ other


@dataclass(frozen=True, eq=False)
class SimilarTo(Ahead):
    """The wish of :func:`similar_to`, before the model has been asked about the other images."""

    what: Any
    than: Any = None
    measure: Measure = "cosine"


def similar_to(what: Any, *, than: Any = None, measure: str = "cosine") -> SimilarTo:
    """Ask what in an image makes its vector similar to another one.

    For models that answer with a vector an image: self-supervised, metric learning, re-identification, the image side of CLIP.

    Args:
        what: another image (a path, PIL image, picture array or float tensor `(C, *space)`), for which the same model is asked
            with the same preprocessing; a vector `(feature,)`, such as a concept's direction; or a list of images, whose vectors'
            mean is taken (each at length 1 first, for cosine).
        than: what in it makes it more similar to `what` than to this; the same kinds of things. None: no other.
        measure: "cosine" similarity, -1..1, or "dot" product.

    Returns:
        A target for :func:`seewhy.explain` and its like.

    Raises:
        TargetError: an unknown measure.
    """
    known: Measure | None = next((known for known in get_args(Measure) if known == measure), None)
    if known is None:
        raise TargetError(f"measure={measure!r} is not known. Known: {', '.join(get_args(Measure))}.")
    return SimilarTo(what, than, known)


def no_vector(wanted: Any, subject: Subject) -> NoReturn:
    """Say what can be asked of a vector.

    A vector has no number of its own that means anything to a reader: its parts have no names, and its length is taken out
    before two are compared. So nothing is explained by default.

    Raises:
        TargetError: always.
    """
    given = "no target was given" if wanted is None else f"target={wanted!r} was given"
    raise TargetError(
        f"The model answers with a vector of {len(subject.output)} numbers, which means something only beside another, and "
        f"{given}. Give target=seewhy.similar_to(...) with another image or a vector (in words: 'similar:other.jpg'), "
        "'text:a dog' (or labels= of several texts) for a model of images and texts, or a callable such as lambda vector: "
        "vector[17]. If these are scores of classes, say so with output= and a function of what the model returns."
    )
