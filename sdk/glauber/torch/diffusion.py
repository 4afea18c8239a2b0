"""A chain of denoising machines: a diffusion model whose every step is a small Boltzmann machine on the device."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.boltzmann import BoltzmannMachine, log_2cosh
from glauber.torch.likelihood import annealed_log_weights
from glauber.torch.objectives import check_data

MAX_SUMMED_HIDDEN = 12
"""Up to so many hidden units a step's normalisation is summed out exactly."""
MOST_TIMES = 32
"""More temperatures than asked for, at most, to reach a tolerance."""
LARGEST_MEAN = 0.98
"""Means nearer to -1 or +1 are taken as this, so that fields stay finite."""


class DenoisingChain(nn.Module):
    """A denoising thermodynamic model (Jelincic et al. 2025): data is noised step by step, machines undo the steps.

    Noise flips spins independently; x_t keeps the correlation r_t with the data. Step t back is

        p(x_(t-1) | x_t) ~ sum_z exp(-E_t(x_(t-1), z) + x_t (G_t + A_t) x_(t-1) + x_t B_t z)

    with E_t a machine of its own. G_t = artanh(r_t / r_(t-1)) is the noise's own coupling; A_t and B_t are learned
    beside it, from zero. The noisier state acts through fields alone, which the host computes and the device holds
    while the step runs: the machine on the device is no larger for them, and need only mix within what x_t leaves open.
    The device needs fields for each chain.

    With a context y, such as a class, all machines are conditional on it as they are on x_t: y C_t stands beside
    x_t A_t and y D_t beside x_t B_t. The law is that of a machine with further units for y that are held.

    Args:
        machine: makes the machine of a step, all with the same visible units; called n_steps times.
        n_steps: T.
        kept: r_T, small enough that x_T is noise, to which r_t falls linearly; or all of r_1 .. r_T.
        n_context: numbers that say what an image is to be; 0 for none.
        means: of the data, (n_visible,). With them each machine's visible fields start at those of independent spins
            of the means at its level, and x_T has its means too; None: 0.

    Raises:
        InvalidModelError: kept outside 0 to 1 or not falling, means of another shape or beyond -1 to 1, or what
            `machine` makes are no machines of one number of visible units.

    Attributes:
        machines: of steps 1 .. T; the first one's output is data.
        pull: G_t of each.
        linear: A_t of each, (n_visible, n_visible), rows by x_t.
        lift: B_t of each, (n_visible, n_hidden), rows by x_t.
        given: C_t and D_t of each side by side, (n_context, n_units), rows by y.
        correlation: r_t, t = 0 .. T.
        base: fields of independent spins with the means at level t = 0 .. T, (T + 1, n_visible).
    """

    base: Tensor

    def __init__(
        self,
        machine: Callable[[], BoltzmannMachine],
        n_steps: int,
        kept: float | Sequence[float] = 0.1,
        means: Tensor | None = None,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        n_steps = whole_number("n_steps", n_steps, 1)
        self.n_context = whole_number("n_context", n_context, 0)
        self.correlation = _correlations(kept, n_steps)
        made = [machine() for _ in range(n_steps)]
        for one in made:
            if not isinstance(one, BoltzmannMachine):
                raise InvalidModelError(f"machine must make a BoltzmannMachine, not a {type(one).__name__}")
            if one.n_visible != made[0].n_visible:
                raise InvalidModelError("all machines of a chain must have the same number of visible units")
        self.machines = nn.ModuleList(made)
        self.n_visible = n = made[0].n_visible
        self.pull = [math.atanh(b / a) for a, b in zip(self.correlation, self.correlation[1:], strict=False)]
        self.linear = nn.ParameterList(torch.zeros(n, n) for _ in made)
        self.lift = nn.ParameterList(torch.zeros(n, one.n_hidden) for one in made)
        self.given = nn.ParameterList(torch.zeros(self.n_context, one.n_units) for one in made)
        mean = torch.zeros(n) if means is None else means.detach().to(made[0].fields)
        if mean.shape != (n,) or not bool((mean.abs() <= 1).all()):
            raise InvalidModelError(f"means must be {n} numbers from -1 to 1")
        levels = torch.tensor(self.correlation).to(mean)[:, None] * mean
        self.register_buffer("base", torch.atanh(levels.clamp(-LARGEST_MEAN, LARGEST_MEAN)))
        if means is not None:
            for one, fields in zip(made, self.base, strict=False):
                one.fields.data[:n] = fields

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.machines)

    def _machine(self, step: int) -> BoltzmannMachine:
        machine = self.machines[step - 1]
        assert isinstance(machine, BoltzmannMachine)
        return machine

    def condition(self, noisier: Tensor, step: int, context: Tensor | None = None) -> Tensor:
        """Fields that x_t (n, n_visible) and y put on all units of the step's machine, (n, n_units); differentiable."""
        pulled = self.pull[step - 1] * noisier + noisier @ self.linear[step - 1]
        fields = torch.cat([pulled, noisier @ self.lift[step - 1]], 1)
        return fields if context is None else fields + context @ self.given[step - 1]

    def _context(self, context: Tensor | None, n: int) -> Tensor | None:
        """The context in the machines' dtype, of n rows; what is missing or too much is refused."""
        shape = None if context is None else tuple(context.shape)
        if shape != ((n, self.n_context) if self.n_context else None):
            raise InvalidModelError(
                f"the chain takes a context of {self.n_context} numbers for each of {n} rows, not one of shape {shape}"
            )
        return None if context is None else context.to(self.base)

    def _flip(self, states: Tensor, correlation: float) -> Tensor:
        """Spins that agree with `states` with probability (1 + correlation) / 2, drawn by the device."""
        if correlation == 1:
            return states
        return states * (2 * self._machine(1).sampler.bits(torch.full_like(states, 2 * math.atanh(correlation)))[0] - 1)

    def step_loss(self, data: Tensor, step: int, n_sweeps: int, context: Tensor | None = None) -> Tensor:
        """The loss of one step for data (n, n_visible): gradient of -log p(x_(t-1) | x_t) at noised data.

        The model's states begin at x_t, as they do when the chain generates, and take n_sweeps. Biased as far as those
        do not reach equilibrium. Two to four device jobs. `context` has a row for each of data, (n, n_context).
        """
        machine = self._machine(whole_number("step", step, 1, self.n_steps))
        data = check_data(machine, data)
        context = self._context(context, len(data))
        with torch.no_grad():
            cleaner = self._flip(data, self.correlation[step - 1])
            noisier = self._flip(cleaner, math.tanh(self.pull[step - 1]))
            states = self._back(noisier, step, n_sweeps, context)
        extra = self.condition(noisier, step, context)
        if not machine.hidden_are_independent:
            with torch.no_grad():
                held = machine.sample(len(data), n_sweeps=n_sweeps, clamp=cleaner, extra_fields=extra)
            gap = machine.energy(held) - machine.energy(states) - (extra * (held - states)).sum(1)
            return gap.mean()
        model = states[:, : self.n_visible]
        return (machine.free_energy(cleaner, extra) - machine.free_energy(model, extra)).mean()

    def loss(self, data: Tensor, n_sweeps: int = 20, context: Tensor | None = None) -> Tensor:
        """The sum of all steps' losses: each machine gets the gradient of its own."""
        return torch.stack([self.step_loss(data, t, n_sweeps, context) for t in range(1, self.n_steps + 1)]).sum()

    def _back(self, noisier: Tensor, step: int, n_sweeps: int, context: Tensor | None) -> Tensor:
        """States of all units of step's machine given x_t and y."""
        machine, extra = self._machine(step), self.condition(noisier, step, context)
        start = torch.cat([noisier, noisier.new_ones(len(noisier), machine.n_hidden)], 1)
        if machine.n_hidden and machine.hidden_are_independent:
            field = machine.fields[machine.n_visible :] + extra[:, machine.n_visible :] + noisier @ machine.weights()
            start[:, machine.n_visible :] = 2 * machine.sampler.bits(2 * field)[0] - 1
        return machine.sample(len(noisier), n_sweeps=n_sweeps, initial=start, extra_fields=extra)

    @torch.no_grad()
    def generate(
        self, n: int, n_sweeps: int = 20, *, context: Tensor | None = None, whole_path: bool = False
    ) -> Tensor:
        """New data: noise, then every machine once, n_sweeps each; a row for each of `context`, if the chain has one.

        Returns:
            Spins (n, n_visible); with `whole_path` those of all steps, noise first, (n_steps + 1, n, n_visible).
        """
        n = whole_number("n", n, 1)
        context = self._context(context, n)
        path = [2 * self._machine(1).sampler.bits(2 * self.base[-1].expand(n, -1))[0] - 1]
        for step in range(self.n_steps, 0, -1):
            path.append(self._back(path[-1], step, n_sweeps, context)[:, : self.n_visible])
        return torch.stack(path) if whole_path else path[-1]

    @torch.no_grad()
    def log_likelihood(
        self,
        data: Tensor,
        context: Tensor | None = None,
        *,
        n_paths: int = 16,
        n_temperatures: int = 100,
        n_repeats: int = 4,
        tolerance: float | None = None,
    ) -> Tensor:
        """A lower bound of log p(x_0), given y if there is a context, by importance sampling over noise paths.

        Doubles (n,), one for each row of data:
        log of the mean over n_paths of p(x_T) prod_t p(x_(t-1) | x_t) / q(x_t | x_(t-1)), paths drawn by the noise q
        (Burda et al. 2016): in expectation below log p(x_0), and nearer with more paths.

        A step's normalisation, a sum over x_(t-1) given x_t, is exact where the machine has at most 12 hidden units and
        no couplings among its visible ones. Elsewhere it is the mean of n_repeats annealed runs on the device, and that
        it is estimated acts the other way, by up to the variance of its log a step: give a tolerance, or take more
        temperatures and repeats until the figure stays.

        Args:
            data: spins, shape (n, n_visible).
            context: y of each, (n, n_context).
            n_paths: noise paths for each row.
            n_temperatures: of each annealed run.
            n_repeats: annealed runs for each normalisation.
            tolerance: nats of a step by which its estimated normalisation may flatter a row, in the mean over rows, as
                far as the variance among repeats tells; a step takes more temperatures until that holds, 32 times as
                many at most. None: they stay.

        Warns:
            UserWarning: a tolerance was not reached.

        Raises:
            InvalidModelError: data or context of another shape, numbers below 1, or a tolerance that is not above 0 or
                for which there are no repeats.
        """
        data = check_data(self._machine(1), data)
        n_repeats = whole_number("n_repeats", n_repeats, 1)
        if tolerance is not None and not (tolerance > 0 and n_repeats > 1):
            raise InvalidModelError(
                f"a tolerance must be above 0, and is judged by 2 repeats or more; not {tolerance!r} with {n_repeats!r}"
            )
        n_paths = whole_number("n_paths", n_paths, 1)
        cleaner = data.repeat(n_paths, 1)
        context = self._context(context, len(data))
        context = None if context is None else context.repeat(n_paths, 1)
        total = torch.zeros(len(cleaner), dtype=torch.float64, device=data.device)
        for step in range(1, self.n_steps + 1):
            machine, pull = self._machine(step), self.pull[step - 1]
            noisier = self._flip(cleaner, math.tanh(pull))
            log_q = pull * (cleaner * noisier).double().sum(1) - self.n_visible * math.log(2 * math.cosh(pull))
            extra = self.condition(noisier, step, context)
            if machine.visible_are_independent and machine.n_hidden <= MAX_SUMMED_HIDDEN:
                log_z = _log_normalisation(machine, extra)
            else:
                base = torch.zeros_like(machine.fields)
                base[: self.n_visible] = self.base[step - 1]
                weights = self._annealed(
                    machine, base, extra.repeat(n_repeats, 1), n_temperatures, n_repeats, tolerance
                )
                log_z = torch.logsumexp(weights, 0) - math.log(n_repeats)
            total += -machine.free_energy(cleaner, extra).double() - log_z - log_q
            cleaner = noisier
        total += (cleaner * self.base[-1] - log_2cosh(self.base[-1])).double().sum(1)  # p(x_T)
        return torch.logsumexp(total.reshape(n_paths, -1), 0) - math.log(n_paths)

    def _annealed(
        self,
        machine: BoltzmannMachine,
        base: Tensor,
        extra: Tensor,
        n_temperatures: int,
        n_repeats: int,
        tolerance: float | None,
    ) -> Tensor:
        """Log weights (n_repeats, n_rows), from as many temperatures as the tolerance asks for; see log_likelihood."""
        most = MOST_TIMES * n_temperatures
        while True:
            weights = annealed_log_weights(
                machine, n_chains=len(extra), n_temperatures=n_temperatures, base=base, extra_fields=extra
            ).reshape(n_repeats, -1)
            if tolerance is None:
                return weights
            # half of it for one noise path, all for many: what counts is then the mean of 1 / Z
            flattered = float(weights.var(0).mean()) / n_repeats
            if flattered > tolerance and n_temperatures == most:
                message = (
                    f"{most} temperatures leave {flattered:.2g} nats a step, more than the tolerance {tolerance:g}"
                )
                warnings.warn(message, stacklevel=3)
            if flattered <= tolerance or n_temperatures == most:
                return weights
            # a variance falls more slowly than the temperatures rise, with a power of 3/4 or so
            n_temperatures = min(most, math.ceil(1.2 * n_temperatures * (flattered / tolerance) ** (4 / 3)))


def _correlations(kept: float | Sequence[float], n_steps: int) -> list[float]:
    """r_0 .. r_T."""
    try:
        if isinstance(kept, Iterable):
            found = [1.0, *(float(one) for one in kept)]
        else:
            found = [1 - (1 - float(kept)) * t / n_steps for t in range(n_steps + 1)]
    except (TypeError, ValueError):  # no numbers
        found = []
    falls = all(0 < after < before for before, after in itertools.pairwise(found))
    if len(found) != n_steps + 1 or not falls:
        raise InvalidModelError(
            f"kept must be a number between 0 and 1, or {n_steps} of them, one a step, that fall; not {kept!r}"
        )
    return found


def _log_normalisation(machine: BoltzmannMachine, extra: Tensor) -> Tensor:
    """Log of the sum over all states under each row of extra fields, hidden states one by one; doubles (n,)."""
    n = machine.n_visible
    hidden = torch.cat(list(machine.states_of(machine.n_hidden)))
    field, own = machine.fields[:n] + hidden @ machine.weights().T, hidden @ machine.fields[n:]
    parts = []
    for rows in torch.split(extra, max(1, 2**16 // len(hidden))):
        each = log_2cosh(field + rows[:, None, :n]).sum(-1) + own + rows[:, n:] @ hidden.T
        parts.append(torch.logsumexp(each.double(), 1))
    return torch.cat(parts)
