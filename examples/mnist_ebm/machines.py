"""Boltzmann machines with hidden units: pixels and labels are p-bits beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, cast

import glauber as gl
import numpy as np
import torch
from glauber.errors import InvalidModelError
from glauber.torch import (
    BoltzmannMachine,
    GraphRestrictedBoltzmannMachine,
    PersistentChains,
    RestrictedBoltzmannMachine,
    Sampler,
    annealed_importance,
    contrastive_divergence,
)
from glauber.torch.likelihood import LogPartition, annealed_log_weights
from numpy.typing import NDArray
from torch import Tensor

from examples.mnist_ebm.annealing import with_enough_temperatures
from examples.mnist_ebm.models import ImageModel, Likelihood

N_CLASSES = 10
LARGEST_MEAN = 0.98
"""Of a pixel, for its first field: those that never change need none without end."""
TEMPERED_BETAS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Inverse temperatures of a tempered ladder. Neighbours of a trained RBM of 500 hidden units exchange states in 28 to
50 % of the trials; 0.1 apart it was 4 to 18 %."""
AT_A_TIME = 2_500
"""Chains of one job when thousands of images are drawn."""

Objective = Literal["cd", "pcd", "tempered"]


def pixel_spins(images: Tensor) -> Tensor:
    """Levels 0 and 1 (n, side, side) as spins, float32 (n, side^2)."""
    return 2 * images.reshape(len(images), -1).float() - 1


def label_spins(labels: Tensor, copies: int = 1) -> Tensor:
    """One-hot labels as spins, each written `copies` times, float32 (n, 10 copies)."""
    return (2 * torch.nn.functional.one_hot(labels.long(), N_CLASSES).float() - 1).repeat(1, copies)


class MachineModel(ImageModel):
    """A Boltzmann machine whose visible units are the pixels, and ten p-bits for the label in some copies.

    Args:
        machine: of side^2 + 10 copies visible units.
        side: pixels along a side.
        means: of the pixels as spins, for the first fields, (side^2,).
        objective: "cd" from data; "pcd" persistent chains; "tempered" ladders of them.
        n_sweeps: of a training step.
        n_chains: persistent chains, or ladders.
        sample_sweeps: from random states to a new image.
        n_temperatures: of annealed importance sampling.
        copies: of the label.
    """

    conditional = True

    def __init__(
        self,
        machine: BoltzmannMachine,
        side: int,
        means: Tensor,
        *,
        objective: Objective,
        n_sweeps: int,
        n_chains: int,
        sample_sweeps: int,
        n_temperatures: int,
        copies: int = 1,
    ) -> None:
        super().__init__(side, 2)
        self.machine, self.copies = machine, copies
        self.objective, self.n_sweeps = objective, n_sweeps
        self.sample_sweeps, self.n_temperatures = sample_sweeps, n_temperatures
        self.chains: PersistentChains | None = None
        if objective != "cd":
            ladder = TEMPERED_BETAS if objective == "tempered" else None
            self.chains = PersistentChains(machine, n_chains, n_sweeps=n_sweeps, betas=ladder)
        with torch.no_grad():
            machine.fields[: side * side] = torch.atanh(means.clamp(-LARGEST_MEAN, LARGEST_MEAN))
            machine.fields[side * side : machine.n_visible] = math.atanh(2 / N_CLASSES - 1)

    def get_extra_state(self) -> dict[str, Any]:
        """Of the persistent chains; for torch."""
        return {"chains": None if self.chains is None else self.chains.state_dict()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse; for torch."""
        if self.chains is not None and state["chains"] is not None:
            self.chains.load_state_dict(state["chains"])

    @property
    def sampler(self) -> Sampler:
        """What draws."""
        return self.machine.sampler

    def visible(self, images: Tensor, labels: Tensor) -> Tensor:
        """Pixels and labels as spins, (n, n_visible)."""
        return torch.cat([pixel_spins(images), label_spins(labels, self.copies)], 1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Free energy of data less that of states drawn by the device."""
        data = self.visible(images, labels)
        if self.chains is None:
            return contrastive_divergence(self.machine, data, self.n_sweeps)
        return self.chains.loss(data)

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """New images; with labels, their p-bits are held."""
        return torch.cat([self._drawn(start, n, labels) for start in range(0, n, AT_A_TIME)])

    def _drawn(self, start: int, n: int, labels: Tensor | None) -> Tensor:
        count, pixels = min(AT_A_TIME, n - start), self.side * self.side
        clamp = None if labels is None else self._held(labels[start : start + count])
        states = self.machine.sample(count, n_sweeps=self.sample_sweeps, clamp=clamp)
        return (states[:, :pixels] > 0).to(torch.uint8).reshape(count, self.side, self.side)

    @torch.no_grad()
    def advance(
        self, states: NDArray[Any] | None, n_sweeps: int, n_chains: int = 64, labels: Tensor | None = None
    ) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Chains (n_chains, n_units) so many sweeps on, from random states for None, and their energies.

        With labels, (n_chains,), their p-bits are held.
        """
        start = None if states is None else torch.from_numpy(np.asarray(states, dtype=np.float32))
        clamp = None if labels is None else self._held(labels)
        found = self.machine.sample(
            n_chains if start is None else len(start), n_sweeps=n_sweeps, initial=start, clamp=clamp
        )
        return found.to(torch.int8).numpy(), self.machine.energy(found).double().numpy()

    @torch.no_grad()
    def states_of(self, images: Tensor, labels: Tensor) -> NDArray[np.int8]:
        """Images and labels as states (n, n_units), hidden units drawn given them."""
        data = self.visible(images, labels)
        return self.machine.sample(len(data), n_sweeps=5, clamp=data).to(torch.int8).numpy()

    def images(self, states: NDArray[np.int8]) -> Tensor:
        """The pixels of states (..., n_units), uint8 (..., side, side)."""
        pixels = torch.from_numpy(states[..., : self.side**2] > 0)
        return pixels.to(torch.uint8).reshape(*states.shape[:-1], self.side, self.side)

    def _held(self, labels: Tensor) -> Tensor:
        """A clamp of the label's p-bits alone."""
        held = label_spins(labels, self.copies)
        return torch.cat([held.new_zeros(len(labels), self.side * self.side), held], 1)

    @torch.no_grad()
    def reconstruction_error(self, images: Tensor) -> float:
        """Share of pixels that one sweep from data changes, labels unknown at the start."""
        data = pixel_spins(images)
        machine, rest = self.machine, self.machine.n_visible - data.shape[1]
        start = torch.cat([data, data.new_full((len(data), rest), -1.0)], 1)
        full = torch.cat([start, start.new_ones(len(data), machine.n_hidden)], 1)
        held = torch.cat([data, data.new_zeros(len(data), rest)], 1)
        settled = machine.sample(len(data), n_sweeps=5, initial=full, clamp=held)
        after = machine.sample(len(data), n_sweeps=1, initial=settled)
        return float((after[:, : data.shape[1]] != data).float().mean())


class RbmModel(MachineModel):
    """A restricted Boltzmann machine: all pixels and labels with all hidden units, couplings from N(0, deviation^2)."""

    kind = "rbm"

    def __init__(
        self, n_hidden: int, deviation: float, side: int, means: Tensor, device: gl.Device | Sampler, **how: Any
    ) -> None:
        machine = RestrictedBoltzmannMachine(side * side + N_CLASSES, n_hidden, device)
        torch.nn.init.normal_(machine.couplings, std=deviation)
        super().__init__(machine, side, means, **how)

    @torch.no_grad()
    def free_energy(self, images: Tensor) -> Tensor:
        """Summed over hidden units and the ten one-hot states of the label."""
        each = [
            -self.machine.free_energy(self.visible(images, torch.full((len(images),), label))).double()
            for label in range(N_CLASSES)
        ]
        return -torch.logsumexp(torch.stack(each), 0)

    def base_of(self, images: Tensor) -> Tensor:
        """Fields of independent units from which log Z is annealed: of the images' means, hidden ones without any."""
        base, pixels = torch.zeros_like(self.machine.fields), self.side * self.side
        base[:pixels] = torch.atanh(pixel_spins(images).mean(0).clamp(-LARGEST_MEAN, LARGEST_MEAN))
        base[pixels : self.machine.n_visible] = math.atanh(2 / N_CLASSES - 1)
        return base

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """Log p(image and some digit), by annealed importance sampling: below log p(image).

        Labels that are not known are summed over the ten one-hot states; Z goes over all states of the label's p-bits.
        """
        machine, base = self.machine, self.base_of(images)
        n_chains, n_temperatures = (64, self.n_temperatures // 10) if quick else (256, self.n_temperatures)
        anneal = partial(annealed_importance, machine, n_chains=n_chains, base=base)
        found, n_temperatures = with_enough_temperatures(
            lambda steps: anneal(n_temperatures=steps), n_chains, n_temperatures, quick=quick
        )
        how = f"AIS, {_effort(found)}, {n_temperatures} temperatures, label summed"
        return _summary(-self.free_energy(images) - found.value, found.standard_error, how)


class DeepModel(MachineModel):
    """A sparse deep machine on a chip's own graph: pixels and labels on some of its sites, all others hidden.

    Sites of pixels and labels are drawn at random, as Niazi et al. (2024) do: a pixel's neighbours on the graph then
    speak for the whole image.

    Args:
        n_copies: of the label.
        seed: of the places.
        graph: of the chip.
        others: as for MachineModel.

    Raises:
        InvalidModelError: the chip has no graph, or too few sites.
    """

    kind = "deep"

    def __init__(
        self, n_copies: int, graph: Any, seed: int, side: int, means: Tensor, device: gl.Device | Sampler, **how: Any
    ) -> None:
        if graph is None:
            raise InvalidModelError("the chip has no graph in the catalogue, so that its sites cannot be told apart")
        n_visible = side * side + N_CLASSES * n_copies
        sites = np.unique(np.asarray(graph.edges()))
        if n_visible >= len(sites):
            raise InvalidModelError(f"{n_visible} pixels and labels leave no hidden site on a graph of {len(sites)}")
        places = np.random.default_rng(seed).permutation(sites)[:n_visible]
        machine = GraphRestrictedBoltzmannMachine(graph, places.tolist(), device)
        super().__init__(machine, side, means, copies=n_copies, **how)

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """Of image and label together, which is below that of the image: hidden units are not summed but annealed.

        log p(v) = log Z(hidden units given v) - log Z, both by annealed importance sampling. The first estimate is low
        on average and so is log p, the second acts the other way: it is no bound where few chains are effective.
        """
        machine, n = self.machine, self.machine.n_visible
        temperatures = self.n_temperatures // 10 if quick else self.n_temperatures
        repeats = 2 if quick else 8
        anneal = partial(annealed_importance, machine, n_chains=64)
        whole, of_whole = with_enough_temperatures(
            lambda steps: anneal(n_temperatures=steps), 64, temperatures, quick=quick
        )
        data = self.visible(images, labels)
        hidden = _hidden_part(machine)
        pairs = machine.edges
        inner = (pairs < n).all(1)
        across = (pairs[:, 0] < n) != (pairs[:, 1] < n)
        shown, latent = pairs[across].min(1).values, pairs[across].max(1).values - n
        couplings = data.new_zeros(n, machine.n_hidden).index_put((shown, latent), machine.couplings[across])
        own = (
            data @ machine.fields[:n] + (data[:, pairs[inner, 0]] * data[:, pairs[inner, 1]]) @ machine.couplings[inner]
        )
        weights = annealed_log_weights(
            hidden,
            n_chains=repeats * len(data),
            n_temperatures=temperatures,
            base=torch.zeros_like(hidden.fields),
            extra_fields=(machine.fields[n:] + data @ couplings).repeat(repeats, 1),
        ).reshape(repeats, -1)
        log_z = torch.logsumexp(weights, 0) - math.log(repeats)
        how = f"AIS, {_effort(whole)}, {of_whole} temperatures, with the label"
        return _summary(own.double() + log_z - whole.value, whole.standard_error, how)


def _hidden_part(machine: BoltzmannMachine) -> BoltzmannMachine:
    """The hidden units and their couplings as a machine of its own, without fields."""
    n = machine.n_visible
    inner = (machine.edges >= n).all(1)
    part = BoltzmannMachine(
        machine.n_hidden,
        0,
        machine.sampler,
        edges=(machine.edges[inner] - n).cpu().numpy(),
        sites=cast("Any", machine.sites[n:].tolist()),
    )
    part.fields.zero_()
    part.couplings.copy_(machine.couplings[inner])
    return part


def _effort(found: LogPartition) -> str:
    return f"{len(found.log_weights)} chains ({found.effective_chains:.0f} effective)"


def _summary(values: Tensor, of_log_z: float, how: str) -> Likelihood:
    spread = float(values.std()) / math.sqrt(len(values))
    return Likelihood(float(values.mean()), math.hypot(spread, of_log_z), how, len(values))
