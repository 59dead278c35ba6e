"""AttnLRP: layer-wise relevance propagation with rules for all that a transformer is made of."""

from __future__ import annotations

from seewhy.errors import MethodError
from seewhy.maps.backprop import Colours, input_gradient
from seewhy.maps.registry import method
from seewhy.recorder import Needs, Propagation, Recording

GAMMA = 0.25
"""One for all layers; the authors search it for each vision transformer, from 0.1 for convolutions, 0 to 1 for the rest."""


@method(
    "attn-lrp",
    needs=Needs.INPUT_GRADIENTS | Needs.PROPAGATION,
    class_specific=True,
    signed=True,
    source="Achtibat et al. 2024, arXiv:2402.05602",
    passes="2 + 1",
    colours="sum",
    scaling="percentile",
)
def attn_lrp(rec: Recording, *, gamma: float = GAMMA) -> Colours:
    """Hand the score back from layer to layer, also through attention, norms and smooth activation functions.

    Formula: x * d score / d x, summed over colours, where norms divide by constants, y = f(x) counts as x * (y / x), each
        factor of a product of activations gets an equal part, softmax and linear functions have their own derivative.
    Options: gamma, how much more those parts of a linear layer's or convolution's sum count that have the sum's own sign; 0:
        LRP-0.
    Elsewhere: lxt patches the code of each family of models. By the paper's rule for products a sigmoid that weighs others gets
        half, too; here it gets nothing, so that x * sigmoid(x) is SiLU however it is written.
    """
    if gamma < 0:
        raise MethodError(f"gamma={gamma} must be at least 0.")
    found = relevance(rec, gamma)
    rec.report("score difference", rec.scores)
    rec.report("relevance kept on the way", rec.scores - found.flatten(1).sum(1))
    return found


def relevance(rec: Recording, gamma: float = GAMMA) -> Colours:
    """Return each input value's part in the score."""
    return rec.images * input_gradient(rec, Propagation(gamma))
