"""Losses of energy models: minimise them and the gradient is that of the objective's name.

What is Monte Carlo in them comes from a device, one job a step. The value of a contrastive loss, mean free energy of
data minus that of the model's states, is no measure of progress; its gradient is what counts. Likelihoods are in
glauber.torch.likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.schedule import SamplingSchedule, TemperingSchedule
from glauber.torch.boltzmann import BoltzmannMachine
from glauber.torch.layers import Noise


def _contrast(machine: BoltzmannMachine, data: Tensor, states: Tensor, n_sweeps: int) -> Tensor:
    """Mean F(data) - mean F(model's states); hidden units are summed out where that is exact, else drawn."""
    states = states.detach()
    if machine.hidden_are_independent:
        return machine.free_energy(data).mean() - machine.free_energy(states[..., : machine.n_visible]).mean()
    with torch.no_grad():
        held = machine.sample(len(data), n_sweeps=n_sweeps, clamp=data)
    return machine.energy(held).mean() - machine.energy(states).mean()


def contrastive_divergence(machine: BoltzmannMachine, data: Tensor, n_sweeps: int = 1) -> Tensor:
    """CD-k (Hinton 2002): the model's states are `n_sweeps` sweeps away from the data.

    Biased: the chains have not forgotten the data, and the less so the larger the couplings. One device job; two, where
    hidden units are coupled to each other.

    Args:
        machine: the model.
        data: visible states -1 and +1, shape (n, n_visible).
        n_sweeps: k.
    """
    data = check_data(machine, data)
    with torch.no_grad():
        if machine.hidden_are_independent:
            field = machine.fields[machine.n_visible :] + data @ machine.weights()
            drawn = 2 * machine.sampler.bits(2 * field)[0] - 1
            start = torch.cat([data, drawn], 1)
        else:
            start = machine.sample(len(data), n_sweeps=n_sweeps, clamp=data)
        states = machine.sample(len(data), n_sweeps=n_sweeps, initial=start)
    return _contrast(machine, data, states, n_sweeps)


class PersistentChains:
    """Persistent contrastive divergence (Tieleman 2008): chains that go on from step to step; with betas, tempered.

    Biased as long as the chains lag behind the parameters; the bias vanishes with the learning rate. With `betas` each
    chain is a ladder of temperatures that exchange states (Desjardins et al. 2010), and the coldest counts.

    Args:
        machine: the model.
        n_chains: chains; with `betas` ladders.
        n_sweeps: sweeps a step; with more than two `betas` 2 or more.
        betas: ascending inverse temperatures that end at 1, for parallel tempering; None for chains at 1 alone.

    Raises:
        InvalidModelError: betas that do not ascend to 1, go with `machine.temperature`, or more than two
            with a single sweep a step.
    """

    def __init__(
        self, machine: BoltzmannMachine, n_chains: int, *, n_sweeps: int = 1, betas: Sequence[float] | None = None
    ) -> None:
        self.machine = machine
        self.n_chains = whole_number("n_chains", n_chains, 1)
        self.n_sweeps = whole_number("n_sweeps", n_sweeps, 1)
        self.betas = None if betas is None else tuple(float(beta) for beta in betas)
        if self.betas is not None and (self.betas[-1:] != (1.0,) or sorted(set(self.betas)) != list(self.betas)):
            raise InvalidModelError(f"betas must ascend and end at 1, the machine's own, not {self.betas}")
        if self.betas is not None and len(self.betas) > 2 and self.n_sweeps < 2:
            raise InvalidModelError(
                "a ladder of more than two temperatures needs n_sweeps=2 or more: each step is a job of its own, which"
                " tries to exchange even pairs of temperatures after its first sweep and odd ones after its second, so"
                " that with one sweep no state would come down the whole ladder"
            )
        self.states: Tensor | None = None

    def advance(self) -> Tensor:
        """Move the chains under the machine's present parameters; their states at beta = 1, (n_chains, n_units)."""
        machine = self.machine
        if self.betas is None:
            self.states = machine.sample(self.n_chains, n_sweeps=self.n_sweeps, initial=self.states)
            return self.states
        if machine.temperature is not None:
            raise InvalidModelError("a tempered ladder has many temperatures; learn the device's with chains at one")
        schedule = TemperingSchedule(
            betas=self.betas, n_ladders=self.n_chains, n_samples=1, sweeps_per_sample=self.n_sweeps
        )
        result = machine.run(schedule, initial=self.states, observe="last")
        states = self.states = machine.units(result.last)
        return states[-self.n_chains :]

    def loss(self, data: Tensor) -> Tensor:
        """The objective for a batch of visible states (n, n_visible); moves the chains."""
        data = check_data(self.machine, data)
        with torch.no_grad():
            states = self.advance()
        return _contrast(self.machine, data, states, max(self.n_sweeps, 10))

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the chains' states."""
        return {"states": self.states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict.

        Raises:
            InvalidModelError: the state is that of other chains.
        """
        states = state["states"]
        rows = self.n_chains * (1 if self.betas is None else len(self.betas))
        if states is not None:
            if states.shape != (rows, self.machine.n_units):
                raise InvalidModelError(
                    f"the states saved have shape {tuple(states.shape)}, these chains {(rows, self.machine.n_units)}"
                )
            states = states.to(self.machine.fields, copy=True)
        self.states = states


def maximum_likelihood(
    machine: BoltzmannMachine, data: Tensor, *, n_chains: int = 64, n_samples: int = 64, n_warmup: int = 200
) -> Tensor:
    """The two-phase gradient of the mean log-likelihood by moments: data's minus the model's, from fresh chains.

    Biased only by chains that have not reached equilibrium after `n_warmup` sweeps from random states: compare two
    lengths. One device job, plus one for data where hidden units are coupled to each other.

    Args:
        machine: the model.
        data: visible states, shape (n, n_visible).
        n_chains: chains.
        n_samples: samples of each, a sweep apart.
        n_warmup: sweeps before them.
    """
    data = check_data(machine, data)
    beta = 1.0 if machine.temperature is None else machine.temperature.asked(1.0)
    schedule = SamplingSchedule(n_samples=n_samples, n_chains=n_chains, n_warmup=n_warmup, beta=beta)
    with torch.no_grad():
        result = machine.run(schedule, observe={"samples"} if machine.temperature is not None else {"moments"})
        if machine.temperature is not None:
            machine.temperature.observe(result)
            states = machine.units(result.states).flatten(0, 1)
            sites = states.mean(0)
            edges = (states[:, machine.edges[:, 0]] * states[:, machine.edges[:, 1]]).mean(0)
        else:
            assert result.moments is not None
            sites = torch.from_numpy(result.moments.site_means[machine.sites]).to(machine.fields)
            edges = torch.from_numpy(result.moments.edge_means).to(machine.couplings)
    positive = (
        machine.free_energy(data).mean()
        if machine.hidden_are_independent
        else machine.energy(machine.sample(len(data), n_sweeps=n_warmup, clamp=data).detach()).mean()
    )
    return positive + sites @ machine.fields + edges @ machine.couplings


def denoising_score_matching(energy: Callable[[Tensor], Tensor], data: Tensor, scale: float, noise: Noise) -> Tensor:
    """Denoising score matching (Vincent 2011) for an energy of real vectors, p(x) ~ exp(-energy(x)).

    Fits -grad energy(x + scale z) to -z / scale, so the density that is learned is the data's, blurred by `scale`.

    Args:
        energy: from (n, d) to (n,), differentiable.
        data: shape (n, d).
        scale: standard deviation of the noise.
        noise: where z comes from.
    """
    if not 0 < scale < math.inf:
        raise InvalidModelError(f"scale must be above 0, not {scale!r}")
    z = noise.like(data)
    noisy = (data + scale * z).requires_grad_()
    (slope,) = torch.autograd.grad(energy(noisy).sum(), noisy, create_graph=True)
    return ((slope * scale - z) ** 2).sum(-1).mean() / 2


def sliced_score_matching(energy: Callable[[Tensor], Tensor], data: Tensor, noise: Noise, n_slices: int = 1) -> Tensor:
    """Sliced score matching (Song et al. 2019, eq. 8): the score's fit along random directions, without extra noise.

    v' (d score / dx) v + (v' score)^2 / 2 for directions of independent signs, whose second moment is the identity, as
    the method needs; a direction is drawn by the device, one p-bit a number.

    Args:
        energy: from (n, d) to (n,), twice differentiable.
        data: shape (n, d).
        noise: gives the device that draws the directions.
        n_slices: directions for each row.
    """
    n_slices = whole_number("n_slices", n_slices, 1)
    x = data.repeat(n_slices, 1).requires_grad_()
    v = 2 * noise.sampler.bits(torch.zeros_like(x, requires_grad=False))[0] - 1
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    along = -(slope * v).sum(-1)
    (curvature,) = torch.autograd.grad(along.sum(), x, create_graph=True)
    return ((curvature * v).sum(-1) + along**2 / 2).mean()


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor | None = None, temperature: float = 0.1) -> Tensor:
    """InfoNCE (van den Oord et al. 2018): cross-entropy of telling a query's partner from others, by cosine.

    Args:
        query: shape (n, d).
        positive: partner of each query, (n, d).
        negatives: others, (m, d), such as states that a device drew; None takes the other rows' partners.
        temperature: of the softmax.
    """
    if not 0 < temperature < math.inf:
        raise InvalidModelError(f"temperature must be above 0, not {temperature!r}")
    q, p = functional.normalize(query, dim=-1), functional.normalize(positive, dim=-1)
    if negatives is None:
        return functional.cross_entropy(q @ p.T / temperature, torch.arange(len(q), device=q.device))
    others = q @ functional.normalize(negatives, dim=-1).T
    scores = torch.cat([(q * p).sum(-1, keepdim=True), others], 1) / temperature
    return functional.cross_entropy(scores, torch.zeros(len(q), dtype=torch.int64, device=q.device))


def noise_contrastive(
    log_model: Callable[[Tensor], Tensor], log_noise: Callable[[Tensor], Tensor], data: Tensor, noise: Tensor
) -> Tensor:
    """Noise-contrastive estimation (Gutmann and Hyvarinen 2010): telling data from noise of a known law.

    The model may be unnormalised, its log Z one more parameter. Consistent as the number of noise draws grows; the
    nearer the noise is to the data, the less variance.

    Args:
        log_model: log of the (unnormalised) model, from (n, d) to (n,).
        log_noise: log probability of the noise.
        data: shape (n, d).
        noise: draws of the noise, shape (m, d).
    """
    if len(noise) == 0 or len(data) == 0:
        raise InvalidModelError(f"there must be data and noise, not {len(data)} and {len(noise)} rows")
    odds = math.log(len(noise) / len(data))
    of_data = log_model(data) - log_noise(data) - odds
    of_noise = log_model(noise) - log_noise(noise) - odds
    return functional.softplus(-of_data).mean() + len(noise) / len(data) * functional.softplus(of_noise).mean()


def check_data(machine: BoltzmannMachine, data: Tensor) -> Tensor:
    """Visible states in the machine's dtype and place; what is no batch of them is refused."""
    if data.dim() != 2 or data.shape[1] != machine.n_visible or len(data) == 0:
        raise InvalidModelError(
            f"data must have shape (n, {machine.n_visible}), one column a visible unit, not {tuple(data.shape)}"
        )
    if not bool((data.abs() == 1).all()):
        raise InvalidModelError("data must be spins, -1 and +1; bits b become 2 b - 1")
    return data.to(machine.fields)
