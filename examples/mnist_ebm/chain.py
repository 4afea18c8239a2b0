"""The strong model: a denoising chain of machines that is told which digit to make."""

from __future__ import annotations

import math
from typing import Any

import glauber as gl
import torch
from glauber.torch import DenoisingChain, RestrictedBoltzmannMachine, Sampler
from torch import Tensor

from examples.mnist_ebm.machines import N_CLASSES, pixel_spins
from examples.mnist_ebm.models import ImageModel, Likelihood

AT_A_TIME = 2_500
TOLERANCE = 0.4
"""Nats by which the estimated log Z of a machine may flatter the likelihood."""


class ChainModel(ImageModel):
    """p(label) as often as in the data, and p(image | label) by a chain of restricted Boltzmann machines.

    Args:
        n_hidden: of each machine.
        n_steps: machines.
        kept: correlation of the noisiest state with the data, or of each; see DenoisingChain.
        n_sweeps: of each machine in training.
        sample_sweeps: of each machine in generation.
        n_paths: noise paths of the likelihood's bound.
        n_temperatures: of its annealed runs.
        side: pixels along a side.
        means: of the pixels as spins, (side^2,).
        class_shares: how often each label is, (10,).
        device: an open device, or a sampler.
    """

    kind = "chain"
    conditional = True
    class_shares: Tensor

    def __init__(
        self,
        n_hidden: int,
        n_steps: int,
        kept: float | tuple[float, ...],
        n_sweeps: int,
        sample_sweeps: int,
        n_paths: int,
        n_temperatures: int,
        side: int,
        means: Tensor,
        class_shares: Tensor,
        device: gl.Device | Sampler,
    ) -> None:
        super().__init__(side, 2)
        sampler = device if isinstance(device, Sampler) else Sampler(device)
        self.n_sweeps, self.sample_sweeps = n_sweeps, sample_sweeps
        self.n_paths, self.n_temperatures = n_paths, n_temperatures
        self.chain = DenoisingChain(
            lambda: RestrictedBoltzmannMachine(side * side, n_hidden, sampler),
            n_steps,
            kept,
            means=means,
            n_context=N_CLASSES,
        )
        self.sampler = sampler
        self.register_buffer("class_shares", class_shares.float())

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Machines of noisier states learn more slowly, as r_(t-1)^2: their fields add up more of nothing but noise.

        What the label does is learned at the full rate everywhere.
        """
        chain = self.chain
        groups = zip(chain.machines, chain.linear, chain.lift, chain.correlation, strict=False)
        return [
            {"params": list(chain.given), "lr": learning_rate},
            *(
                {"params": [*machine.parameters(), *conditions], "lr": learning_rate * correlation**2}
                for machine, *conditions, correlation in groups
            ),
        ]

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The sum of all machines' losses."""
        return self.chain.loss(pixel_spins(images), self.n_sweeps, _one_hot(labels))

    @torch.no_grad()
    def draw_labels(self, n: int) -> Tensor:
        """Labels, as often as in the data: one p-dit of the device each, int64 (n,)."""
        return self.sampler.categorical(self.class_shares.log().expand(n, -1))[0]

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """New images; without labels, of labels that are drawn first."""
        asked = self.draw_labels(n) if labels is None else labels
        return torch.cat([self.path(part)[-1] for part in torch.split(asked, AT_A_TIME)])

    @torch.no_grad()
    def path(self, labels: Tensor) -> Tensor:
        """Images from noise to digit, uint8 (n_steps + 1, n, side, side)."""
        states = self.chain.generate(len(labels), self.sample_sweeps, context=_one_hot(labels), whole_path=True)
        return (states > 0).to(torch.uint8).reshape(-1, len(labels), self.side, self.side)

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """Log p(image, label), below log p(image), and from below: a mean over noise paths.

        From below as far as the annealed runs find the machines' log Z, whose error acts the other way: by TOLERANCE a
        machine at most, as far as repeats tell; see DenoisingChain.log_likelihood.
        """
        values = self.chain.log_likelihood(
            pixel_spins(images),
            _one_hot(labels),
            n_paths=1 if quick else self.n_paths,
            n_temperatures=max(2, self.n_temperatures // 4) if quick else self.n_temperatures,
            n_repeats=1 if quick else 2,
            tolerance=None if quick else TOLERANCE,
        )
        values = values + self.class_shares[labels.long()].double().log()
        spread = float(values.std()) / math.sqrt(len(values))
        how = "lower bound over noise paths, log Z by AIS, with the label"
        return Likelihood(float(values.mean()), spread, how, len(values))


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels.long(), N_CLASSES).float()
