"""Further runs of a torch model: forwards, derivatives by the input, and its tail on edited activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.errors import LayerError, MethodError
from seewhy.frameworks import Shell
from seewhy.kept import frozen
from seewhy.recorder.biases import BiasShare, BiasTap, merged
from seewhy.recorder.borrow import borrowed
from seewhy.recorder.differentiate import derivatives, factors
from seewhy.recorder.engine import Rule, Score
from seewhy.recorder.folding import Folded, fold
from seewhy.recorder.forward import Forward, despite_overwriting
from seewhy.recorder.propagation import Propagation
from seewhy.recorder.replay import TorchReplayer
from seewhy.recorder.rules import Tally, note, refusal, relu_rule
from seewhy.recorder.table import LayerRow
from seewhy.recorder.tape import Tape
from seewhy.targets import Target

Result = TypeVar("Result")


class TorchBackend:
    """What the engine asks of a torch model; see :class:`seewhy.recorder.engine.Backend`."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._folded: Folded | None = None
        self.told: set[str] = set()

    @contextmanager
    def holding(self, seed: int) -> Iterator[None]:
        """Borrow the model for several runs."""
        with borrowed(self._forward.module, seed):
            try:
                yield
            finally:
                self._folded = None

    def rehearse(self, image: Tensor) -> None:
        """Find out with one image `(1, channel, *space)` which batch normalisations to fold while the model is held."""
        if isinstance(self._forward.module, Shell):
            return  # its normalisations are not torch's
        two = torch.cat([image, image.flip(-1) / 2])
        self._folded = fold(self._forward.module, lambda: self.outputs(two))

    @property
    def differentiable(self) -> bool:
        """Whether derivatives can be had at all."""
        return not isinstance(self._forward.module, Shell) or self._forward.module.differentiable

    @property
    def most(self) -> int | None:
        """The most images that the model is given at once, where it says."""
        return self._forward.module.batch if isinstance(self._forward.module, Shell) else None

    @property
    def folded_pairs(self) -> int:
        """How many batch normalisations are folded now."""
        return 0 if self._folded is None else len(self._folded.pairs)

    def _run(self, run: Callable[[], Result]) -> Result:
        return run() if self._folded is None else self._folded(run)

    def outputs(self, images: Tensor) -> Tensor:
        """Return `(number, *output)`."""
        placed = self._forward.placed(images)
        return self._run(lambda: self._forward.run(placed, (), Tape(gradients=False))).detach()

    def derivatives(self, images: Tensor, score: Score, rule: Rule) -> tuple[Tensor, Tensor]:
        """Return the scores `(number,)` and their derivatives `(number, channel, *space)` by the images, float32.

        Raises:
            MethodError: a rule for ReLU was given, and the model has none.
            LayerError: the model cannot be differentiated down to its input.
        """
        # With its backward, in which a model that saves memory runs parts of its forward again.
        return self._run(lambda: despite_overwriting(lambda: self.plain_derivatives(images, score, rule)))

    def plain_derivatives(self, images: Tensor, score: Score, rule: Rule) -> tuple[Tensor, Tensor]:
        """Return the same of a model that is run as it is: it fails where the model overwrites what a derivative needs."""
        with frozen(self._forward.module), rule.on() if isinstance(rule, Propagation) else nullcontext():
            with self._by_rule(rule) if isinstance(rule, str) else nullcontext() as tally:
                leaf, outputs = self._connected(images)
                with torch.enable_grad():
                    scores = score(outputs)
            if tally is not None and (why := refusal(tally, type(self._forward.module).__name__)):
                raise MethodError(why)
            if tally is not None and (words := note(tally)):
                self.told.add(words)
            [gradients] = derivatives(scores, [leaf])
        if gradients is None:
            raise LayerError(_NOT_DOWN_TO_INPUT)
        return scores.detach().float(), gradients.float()

    @contextmanager
    def _by_rule(self, rule: str) -> Iterator[Tally]:
        """Give ReLUs another derivative meanwhile; those of another framework their own way."""
        module = self._forward.module
        with relu_rule(rule) as tally, module.by_rule(tally) if isinstance(module, Shell) else nullcontext():
            yield tally

    def bias_shares(self, images: Tensor, score: Score) -> list[BiasShare]:
        """Return what every bias contributes to the scores of these images."""
        return despite_overwriting(lambda: self._bias_shares(images, score))

    def _bias_shares(self, images: Tensor, score: Score) -> list[BiasShare]:
        tap = BiasTap(images.ndim - 2)
        leaves, outputs = [], []
        with frozen(self._forward.module), tap.on(self._forward.module), torch.enable_grad():
            for image in torch.split(images, 1):
                tap.begin()
                leaf, output = self._connected(image)
                leaves.append(leaf)
                outputs.append(output)
            total = score(torch.cat(outputs)).float().sum()
            # Not by `derivatives`, which hands over the last derivatives only: the tap reads them on their way.
            for factor in factors([*leaves, *outputs]):
                tap.expect(factor)
                torch.autograd.grad(total * factor, leaves, retain_graph=factor != 1, allow_unused=True)
                if tap.finite:
                    break
        return merged(tap.runs)

    def replayer(self, image: Tensor, layer: LayerRow, call: int) -> TorchReplayer:
        """Return the model's tail behind a layer, for one image `(1, channel, *space)`."""

        def run(images: Tensor, samples: int) -> Tensor:
            return self._forward.run(images, (), Tape(gradients=False), samples).detach()

        return TorchReplayer(self._forward.module, run, self._forward.placed(image), layer, call)

    @contextmanager
    def module(self, target: Target, seed: int) -> Iterator[nn.Module]:
        """Hold the model as a module from images to one target's scores, with gradients as the caller's code wants them."""
        with self.holding(seed), torch.enable_grad():
            yield Scorer(self._forward, target)

    def _connected(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images as a leaf, and the outputs with a graph down to it, also against the model's own `no_grad`."""
        leaf = self._forward.placed(images).detach().requires_grad_()
        for insist in (False, True):
            outputs = self._forward.run(leaf, (), Tape(gradients=False, insist=insist, begun=True))
            if outputs.requires_grad:
                return leaf, outputs
        raise LayerError(_NOT_DOWN_TO_INPUT)


class Scorer(nn.Module):
    """A model and a target as one module: images `(number, channel, *space)` to scores `(number,)`."""

    def __init__(self, forward: Forward, target: Target) -> None:
        super().__init__()
        self.model = forward.module
        self._about = forward
        self.target = target
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return each image's score."""
        return torch.stack([self.target(output) for output in self.outputs(images)])

    def outputs(self, images: Tensor) -> Tensor:
        """Return the model's scores `(number, *output)`."""
        return self._about.scores(images)


def double_differentiable() -> AbstractContextManager[Any]:
    """Run attention by its plain formula meanwhile: the fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


_NOT_DOWN_TO_INPUT = (
    "The score cannot be differentiated down to the model's input: the model detaches on the way (`.detach()`, `.data`, "
    "rounding, numpy). Choose a method that needs no gradient of the input, such as grad-cam, occlusion or rise."
)
