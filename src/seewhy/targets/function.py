"""A caller's own function as a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import TargetError
from seewhy.models.labels import Labels
from seewhy.targets.protocol import Output


@dataclass(frozen=True, eq=False)
class CallableTarget:
    """Whatever a caller's function makes of one sample's output."""

    function: Callable[[Tensor], Tensor]
    index: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, ""]:
        try:
            score = self.function(output)
        except Exception as error:
            raise TargetError(
                f"target={self._name} raised {type(error).__name__} for one sample's output, shape {tuple(output.shape)}: {error}"
            ) from error
        if not isinstance(score, Tensor) or score.numel() != 1:
            found = f"a tensor of shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise TargetError(
                f"target={self._name} must return one number as a tensor, from one sample's output of shape "
                f"{tuple(output.shape)}; it returned {found}."
            )
        if not score.is_floating_point():
            raise TargetError(
                f"target={self._name} returned a number of type {score.dtype}, which has no derivative (as argmax, round and "
                "comparisons have none). Return a real number that changes smoothly with the output."
            )
        return score.reshape(())

    def describe(self, labels: Labels | None) -> str:  # noqa: ARG002 - the same call for every target
        return self._name

    @property
    def _name(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "a function" if name == "<lambda>" else str(name)
