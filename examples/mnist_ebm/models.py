"""What every model of this example can do, so that training, evaluation and pictures are written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Likelihood:
    """Mean log-likelihood of test images.

    Attributes:
        nats: of an image, mean.
        standard_error: of `nats`: spread over images, and of the estimate of log Z.
        how: method, and what it bounds: "exact", "AIS, ...", "lower bound over noise paths, ...". "With the label": of
            image and label together, which is below that of the image.
        n_images: images that it is the mean of.
    """

    nats: float
    standard_error: float
    how: str
    n_images: int


class ImageModel(nn.Module, ABC):
    """A distribution over images of `side` x `side` pixels with `n_levels` grey levels.

    Images are tensors of levels, uint8 (n, side, side); labels int64 (n,). All randomness is the device's, whose
    sampler the model keeps, so that a checkpoint of the model goes on bit for bit.

    Attributes:
        side: pixels along a side.
        n_levels: grey levels.
        conditional: whether `sample` takes labels.
    """

    kind: ClassVar[str]
    """Its name in configurations."""
    conditional: ClassVar[bool] = False

    def __init__(self, side: int, n_levels: int) -> None:
        super().__init__()
        self.side, self.n_levels = side, n_levels

    @property
    def n_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(value.numel() for value in self.parameters() if value.requires_grad)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What an optimiser takes: all parameters at one rate, unless a model knows better."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The objective of a minibatch, whose gradient counts; moves persistent chains."""

    @abstractmethod
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """New images from noise, as the configuration says how long."""

    @abstractmethod
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """How well it predicts images it has not seen; `quick` for early stopping, with a larger error."""

    @torch.no_grad()
    def free_energy(self, images: Tensor) -> Tensor | None:
        """-log of the unnormalised law of images (n,), hidden units and label summed out; None where that is no sum."""
        return None

    @torch.no_grad()
    def reconstruction_error(self, images: Tensor) -> float | None:
        """Share of pixels that one step of the model's own dynamics changes in data; None where it has none."""
        return None
