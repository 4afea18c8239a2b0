"""A chain of denoising machines: a diffusion model whose every step is a small Boltzmann machine on the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.boltzmann import BoltzmannMachine
from glauber.torch.likelihood import annealed_log_weights
from glauber.torch.objectives import check_data


class DenoisingChain(nn.Module):
    """A denoising thermodynamic model (Jelincic et al. 2025): data is noised step by step, machines undo the steps.

    Noise flips spins independently so that a step keeps the correlation rho_t = E[x_t x_(t-1)]. Step t back is

        p(x_(t-1) | x_t) ~ sum_z exp(-E_t(x_(t-1), z) + G_t x_t . x_(t-1)),  G_t = artanh rho_t

    with E_t a machine of its own. The coupling to the noisier state is a field, held while the step runs, so a machine
    need only mix within it: each is easy to sample where one machine for the data itself would not be. The device holds
    one machine at a time, and needs fields for each chain.

    Args:
        machine: makes the machine of a step, all with the same visible units; called n_steps times.
        n_steps: T.
        kept: correlation of the noisiest state with the data, rho_1 ... rho_T; small enough that it is noise.

    Raises:
        InvalidModelError: kept outside 0 to 1, or what `machine` makes are no machines of one number of visible units.

    Attributes:
        machines: of steps 1 .. T; the first one's output is data.
        pull: G_t of each.
        correlation: of x_t with the data, t = 0 .. T.
    """

    def __init__(self, machine: Callable[[], BoltzmannMachine], n_steps: int, kept: float = 0.05) -> None:
        super().__init__()
        n_steps = whole_number("n_steps", n_steps, 1)
        if not 0 < kept < 1:
            raise InvalidModelError(f"kept must lie between 0 and 1, not {kept!r}")
        made = [machine() for _ in range(n_steps)]
        for one in made:
            if not isinstance(one, BoltzmannMachine):
                raise InvalidModelError(f"machine must make a BoltzmannMachine, not a {type(one).__name__}")
            if one.n_visible != made[0].n_visible:
                raise InvalidModelError("all machines of a chain must have the same number of visible units")
        self.machines = nn.ModuleList(made)
        self.n_visible = made[0].n_visible
        each = kept ** (1 / n_steps)
        self.pull = [math.atanh(each)] * n_steps
        self.correlation = [each**t for t in range(n_steps + 1)]

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.machines)

    def _machine(self, step: int) -> BoltzmannMachine:
        machine = self.machines[step - 1]
        assert isinstance(machine, BoltzmannMachine)
        return machine

    def _flip(self, states: Tensor, correlation: float) -> Tensor:
        """Spins that agree with `states` with probability (1 + correlation) / 2, drawn by the device."""
        if correlation == 1:
            return states
        return states * (2 * self._machine(1).sampler.bits(torch.full_like(states, 2 * math.atanh(correlation)))[0] - 1)

    def step_loss(self, data: Tensor, step: int, n_sweeps: int) -> Tensor:
        """The loss of one step for data (n, n_visible): gradient of -log p(x_(t-1) | x_t) at noised data.

        The model's states begin at x_t, as they do when the chain generates, and take n_sweeps. Biased as far as those
        do not reach equilibrium. Two to four device jobs.
        """
        machine = self._machine(whole_number("step", step, 1, self.n_steps))
        data = check_data(machine, data)
        with torch.no_grad():
            cleaner = self._flip(data, self.correlation[step - 1])
            noisier = self._flip(cleaner, math.tanh(self.pull[step - 1]))
            states = self._back(noisier, step, n_sweeps)
        if not machine.hidden_are_independent:
            with torch.no_grad():
                held = machine.sample(len(data), n_sweeps=n_sweeps, clamp=cleaner)
            return machine.energy(held).mean() - machine.energy(states).mean()
        return machine.free_energy(cleaner).mean() - machine.free_energy(states[:, : self.n_visible]).mean()

    def loss(self, data: Tensor, n_sweeps: int = 20) -> Tensor:
        """The sum of all steps' losses: each machine gets the gradient of its own."""
        return torch.stack([self.step_loss(data, t, n_sweeps) for t in range(1, self.n_steps + 1)]).sum()

    def _back(self, noisier: Tensor, step: int, n_sweeps: int) -> Tensor:
        """States of all units of step's machine given x_t."""
        machine = self._machine(step)
        start = torch.cat([noisier, noisier.new_ones(len(noisier), machine.n_hidden)], 1)
        if machine.n_hidden and machine.hidden_are_independent:
            field = machine.fields[machine.n_visible :] + noisier @ machine.weights()
            start[:, machine.n_visible :] = 2 * machine.sampler.bits(2 * field)[0] - 1
        pull = self.pull[step - 1] * noisier
        return machine.sample(len(noisier), n_sweeps=n_sweeps, initial=start, extra_fields=pull)

    @torch.no_grad()
    def generate(self, n: int, n_sweeps: int = 20, *, whole_path: bool = False) -> Tensor:
        """New data: noise, then every machine once, n_sweeps each.

        Returns:
            Spins (n, n_visible); with `whole_path` those of all steps, noise first, (n_steps + 1, n, n_visible).
        """
        n = whole_number("n", n, 1)
        blank = self._machine(1).fields.new_zeros(n, self.n_visible)
        path = [2 * self._machine(1).sampler.bits(blank)[0] - 1]
        for step in range(self.n_steps, 0, -1):
            path.append(self._back(path[-1], step, n_sweeps)[:, : self.n_visible])
        return torch.stack(path) if whole_path else path[-1]

    @torch.no_grad()
    def log_likelihood(
        self, data: Tensor, *, n_paths: int = 16, n_temperatures: int = 100, n_repeats: int = 4
    ) -> Tensor:
        """A lower bound of log p(x_0) for each row of data, by importance sampling over noise paths; doubles (n,).

        log of the mean over n_paths of p(x_T) prod_t p(x_(t-1) | x_t) / q(x_t | x_(t-1)), paths drawn by the noise q
        (Burda et al. 2016): in expectation below log p(x_0), and nearer with more paths. The normalisation of each
        step, a sum over x_(t-1) given x_t, is the mean of n_repeats annealed runs of n_temperatures on the device; that
        it is estimated acts the other way, by about half the variance of its log a step, so take more of both until
        the figure stays.

        Args:
            data: spins, shape (n, n_visible).
            n_paths: noise paths for each row.
            n_temperatures: of each annealed run.
            n_repeats: annealed runs for each normalisation.
        """
        data = check_data(self._machine(1), data)
        n_paths = whole_number("n_paths", n_paths, 1)
        n_repeats = whole_number("n_repeats", n_repeats, 1)
        cleaner = data.repeat(n_paths, 1)
        total = torch.zeros(len(cleaner), dtype=torch.float64, device=data.device)
        for step in range(1, self.n_steps + 1):
            machine, pull = self._machine(step), self.pull[step - 1]
            noisier = self._flip(cleaner, math.tanh(pull))
            agreement = (cleaner * noisier).double()
            log_q = (pull * agreement).sum(1) - self.n_visible * math.log(2 * math.cosh(pull))
            weights = annealed_log_weights(
                machine,
                n_chains=n_repeats * len(cleaner),
                n_temperatures=n_temperatures,
                extra_fields=pull * noisier.repeat(n_repeats, 1),
            ).reshape(n_repeats, -1)
            log_z = torch.logsumexp(weights, 0) - math.log(n_repeats)
            total += -machine.free_energy(cleaner).double() + pull * agreement.sum(1) - log_z - log_q
            cleaner = noisier
        total -= self.n_visible * math.log(2)  # p(x_T): fair spins
        return torch.logsumexp(total.reshape(n_paths, -1), 0) - math.log(n_paths)
