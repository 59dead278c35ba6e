"""Any function from a batch of images to scores: a service, another library's predictor, a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seewhy.errors import ModelError, RecordingError
from seewhy.frameworks.shell import LAYERS, TORCH_ONLY, Shell, mapped, named
from seewhy.images.arrays import as_tensor
from seewhy.kept import seeded

Takes = Literal["numpy", "torch", "pictures"]
"""What a function is given: float32 arrays, tensors, or pictures `(number, height, width, 3)` of whole numbers 0..255."""

Order = Literal["channels-first", "channels-last"]

_INSTEAD = "Use 'rise', 'occlusion' or 'feature-ablation', which need nothing but scores."

SCORES_ONLY = {
    **dict.fromkeys(LAYERS, f"it has no layers that can be listened to. {_INSTEAD}"),
    "INPUT_GRADIENTS": f"it has no gradients. {_INSTEAD}",
    **dict.fromkeys(TORCH_ONLY.keys() - set(LAYERS), f"it can only be called. {_INSTEAD}"),
}
"""What a black box cannot be asked for, and why."""

_FAR = 0.15
"""How far from 0..1 values lie, on average, that are no picture's: a normalised one's are farther, a noisy one's nearer."""


class FunctionShell(Shell):
    """A function of a batch.

    Args:
        call: gets one batch, and returns scores `(number, classes)`: an array or tensor of any library, or lists.
        takes: what it is given.
        layout: where it has the channels; None: first, of pictures last.
        batch: the most images it is given at once; None: as many as are quick for a model of torch.
    """

    framework = "functions"
    lacks: Mapping[str, str] = SCORES_ONLY
    usual = "rise"
    why_usual = "a function has no gradients"

    def __init__(
        self,
        call: Callable[..., Any],
        takes: Takes = "numpy",
        layout: Order | None = None,
        batch: int | None = None,
    ) -> None:
        if takes not in get_args(Takes):
            raise ModelError(f"takes='{takes}' is not known. Known: {', '.join(get_args(Takes))}.")
        if layout is not None and layout not in get_args(Order):
            raise ModelError(f"layout='{layout}' is not known for a function. Known: {', '.join(get_args(Order))}.")
        if batch is not None and not (isinstance(batch, int) and batch >= 1):
            raise ModelError(f"batch={batch!r} must be a whole number, at least 1.")
        super().__init__(call)
        self.called = getattr(call, "__name__", None) or type(call).__name__
        self.__class__ = named(FunctionShell, self.called)
        self.takes = takes
        self.layout = layout or ("channels-last" if takes == "pictures" else "channels-first")
        self.batch = batch
        self.calls = 0
        self._outputs: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def words(self) -> str:
        """How messages speak of it."""
        return f"the function {self.called}"

    @property
    def stands_for(self) -> Any:
        """What findings are remembered by: itself, since functions may be made anew each time they are asked for."""
        return self

    def name_of(self, layer: Any) -> str | None:  # noqa: ARG002
        """Return None: there are no layers."""
        return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, several times where it takes fewer images at once, and return tensors.

        Raises:
            RecordingError: it raised, or returned something else than numbers for each image.
        """
        given = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        number, size = len(given), self.batch or len(given)
        pieces = []
        for at in range(0, number, size):
            piece = slice(at, min(at + size, number))
            cut = partial(_cut, number=number, piece=piece)
            pieces.append(self._called(piece.stop - at, *(mapped(each, Tensor, cut) for each in (args, kwargs))))
        found = pieces[0] if len(pieces) == 1 else _joined(pieces)
        return mapped(found, Tensor, lambda each: each.to(given.device))

    def check(self, scores: Tensor, space: tuple[int, ...]) -> None:
        """Raise RecordingError for scores that are not finite, or of other classes than before for such inputs."""
        bad = ~scores.isfinite()
        if bool(bad.any()):
            rows = [row for row, own in enumerate(bad.flatten(1).any(1).tolist()) if own]
            which = f"inputs {', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''} of {len(scores)}"
            raise RecordingError(
                f"The function {self.called} returned {int(bad.sum()):,} scores that are NaN or infinite, for {which} (call "
                f"{self.calls}). Return finite numbers; where these are logarithms of probabilities, clip them from below."
            )
        before = self._outputs.setdefault(space, tuple(scores.shape[1:]))
        if before != scores.shape[1:]:
            self._outputs.clear()
            raise RecordingError(
                f"The function {self.called} returned scores of shape (number, {', '.join(map(str, before))}) before and "
                f"(number, {', '.join(map(str, scores.shape[1:]))}) at call {self.calls}. It must answer about the same classes "
                "each time."
            )

    def _called(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given, named_given = mapped(args, Tensor, self._given), mapped(kwargs, Tensor, self._given)
        self.calls += 1
        try:
            # By a seed drawn from torch's, which holds here.
            with seeded(int(torch.randint(2**31 - 1, ()))):
                returned = self.model(*given, **named_given)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # it is called again with fewer images
        except Exception as error:
            shape = tuple(next(each for each in (*given, *named_given.values()) if hasattr(each, "shape")).shape)
            raise RecordingError(
                f"The function {self.called} raised {type(error).__name__} at call {self.calls}, for an input of shape {shape}: "
                f"{str(error).rstrip('.')}. Check that it takes such an input when called by itself; what it takes can be said: "
                "seewhy.function."
            ) from error
        found = self._read(returned, number)
        if isinstance(found, Tensor) and found.shape[:1] != (number,) and not (number == 1 and found.ndim == 0):
            raise RecordingError(
                f"The function {self.called} returned an array of shape {tuple(found.shape)} for {number} "
                f"image{'s' * (number > 1)}; it must return a row of scores for each: ({number}, classes)."
            )
        return found

    def _given(self, images: Tensor) -> npt.NDArray[Any] | Tensor:
        """Return what the function gets for images `(number, channel, *space)`; other inputs as they are."""
        is_image = images.ndim > 2
        if self.takes == "pictures" and images.ndim == 4:
            images = self._pictures(images)
        if is_image and self.layout == "channels-last":
            images = images.movedim(1, -1)
        return images.contiguous() if self.takes == "torch" else np.ascontiguousarray(images.cpu().numpy())

    def _pictures(self, images: Tensor) -> Tensor:
        kept = images.clamp(0, 1)
        if float((images - kept).abs().mean()) > _FAR:
            raise RecordingError(
                f"The function {self.called} takes pictures, whose input is prepared as 0..1; values from {images.min():.3g} to "
                f"{images.max():.3g} came. Give preprocess= without mean and std, and tensors in 0..1."
            )
        if images.shape[1] not in (1, 3):
            raise RecordingError(
                f"The function {self.called} takes pictures, of 1 or 3 channels; an input of {images.shape[1]} came. Give "
                "takes='numpy' to seewhy.function."
            )
        return (kept * 255).round().byte()

    def _read(self, returned: Any, number: int) -> Any:
        """Return what the function returned with every array and list of numbers as a float32 tensor."""
        if isinstance(returned, Mapping):
            return {key: self._read(value, number) for key, value in returned.items() if not isinstance(value, str)}
        if isinstance(returned, list | tuple) and returned and all(hasattr(each, "shape") for each in returned):
            each = [self._read(value, number) for value in returned]
            is_rows = (
                len(each) == number and {one.ndim for one in each} <= {0, 1} and len({one.shape for one in each}) == 1
            )
            return torch.stack(each) if is_rows else tuple(each)
        tensor = returned.detach() if isinstance(returned, Tensor) else as_tensor(returned)
        if tensor is None or tensor.is_complex():
            kind = getattr(returned, "dtype", None)
            what = type(returned).__name__ + ("" if kind is None else f" of {kind}")
            raise RecordingError(
                f"The function {self.called} returned what is not an array of real numbers: {what}. Return scores (number, "
                "classes): an array, a tensor or lists of equal length."
            )
        return tensor.float()


def _cut(given: Tensor, number: int, piece: slice) -> Tensor:
    """Return a piece of what has a row for each image."""
    return given[piece] if given.ndim > 0 and len(given) == number else given


def _joined(pieces: Sequence[Any]) -> Any:
    """Return what several calls returned as if it were one."""
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat([each.reshape(1) if each.ndim == 0 else each for each in pieces])
    if isinstance(first, Mapping):
        return {key: _joined([piece[key] for piece in pieces]) for key in first}
    return tuple(_joined([piece[place] for piece in pieces]) for place in range(len(first)))
