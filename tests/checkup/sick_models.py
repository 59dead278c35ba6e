"""Models with one thing wrong each, small enough to be run many times; and one that is healthy."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from small_models import SmallNet, make_small_net


def made(kind: type[SmallNet]) -> SmallNet:
    """Return a model of this kind with the weights of the healthy one."""
    model = kind()
    model.load_state_dict(make_small_net().state_dict())
    return model.eval()


class Overwrites(SmallNet):
    """Multiplies in place what the sigmoid before keeps for its derivative."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.relu(self.norm(self.first(images))))
        gate = torch.sigmoid(features)
        gate *= features
        return self.head(gate.mean((2, 3)))


class Detaches(SmallNet):
    """Cuts its graph in the middle."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.first(images))).detach()
        return self.head(self.second(features).mean((2, 3)))


class DetachesAtTheEnd(SmallNet):
    """Cuts its graph behind the last layer."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class WithoutGradient(SmallNet):
    """Runs under its own `no_grad`."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(images)


class GivesNan(SmallNet):
    """Divides zero by zero for one class."""

    def forward(self, images: Tensor) -> Tensor:
        scores = super().forward(images)
        return torch.cat([scores[:, :4], scores[:, 4:] * float("nan")], 1)


class Views(SmallNet):
    """Calls view() where only reshape() takes any memory order."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.view(len(images), -1)
        return super().forward(flat.reshape(images.shape))


class Mixes(SmallNet):
    """Normalises by the batch, also in evaluation mode."""

    def forward(self, images: Tensor) -> Tensor:
        features = F.batch_norm(self.first(images), None, None, training=True)
        return self.head(self.second(self.relu(features)).mean((2, 3)))


class OneByOne(SmallNet):
    """Takes one picture at a time."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) != 1:
            raise ValueError("one picture at a time, please")
        return super().forward(images)


class Dictionary(SmallNet):
    """Gives scores and features."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        scores = super().forward(images)
        return {"features": self.first(images), "logits": scores}


class FixedSize(SmallNet):
    """Takes pictures of 48 x 48 only."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (48, 48):
            raise ValueError(f"expected 48 x 48, got {tuple(images.shape[2:])}")
        return super().forward(images)


class Overflows(SmallNet):
    """Has numbers on the way that float16 does not."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.relu(self.norm(self.first(images)))) * 1e6
        return self.head(features.mean((2, 3)) / 1e6)


class AlwaysRandom(SmallNet):
    """Has a dropout that does not ask for the mode."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.relu(self.norm(self.first(images))))
        return self.head(F.dropout(features.mean((2, 3)), 0.5))


class Probabilities(SmallNet):
    """Gives probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class OwnProbabilities(SmallNet):
    """Gives one class a probability of its own."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :1].sigmoid()


class Smooth(SmallNet):
    """Has no ReLU."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.silu(self.norm(self.first(images))).mean((2, 3)) @ torch.eye(4, 6, dtype=images.dtype))


class Raises(SmallNet):
    """Does not run at all."""

    def forward(self, images: Tensor) -> Tensor:
        raise KeyError("no such thing")


def zero_head() -> SmallNet:
    model = make_small_net()
    nn.init.zeros_(model.head.weight)
    return model


def in_training() -> SmallNet:
    return make_small_net().train()


def trained_on_other_range() -> SmallNet:
    """Its batch normalisation has seen values a hundred times as large."""
    model = make_small_net()
    with torch.no_grad():
        model.norm.running_var.mul_(10_000)
    return model
