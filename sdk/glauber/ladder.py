"""Temperatures for parallel tempering, spaced by what one short anneal shows of the model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from glauber.checks import whole_number
from glauber.device import Device
from glauber.errors import InvalidModelError
from glauber.model import IsingModel
from glauber.request import check_seed
from glauber.schedule import MAX_TEMPERATURES, SamplingSchedule

GRID = 33
"""Temperatures of the anneal, evenly spaced in beta^(1/2) so that the hot end, where energies change most, has more."""
SPACING = 1.6
"""c of dbeta dE = c^2: about 0.26 of the exchanges between neighbours are accepted, erfc(c / 2)."""


def tempering_ladder(
    device: Device,
    model: IsingModel,
    beta_min: float,
    beta_max: float,
    n_temperatures: int | None = None,
    *,
    spacing: float = SPACING,
    n_chains: int = 64,
    n_sweeps: int = 660,
    seed: int | None = None,
) -> tuple[float, ...]:
    """Betas from beta_min to beta_max between which exchanges are about equally likely.

    One anneal of n_chains chains measures the mean energy E(beta). Neighbours at which the product of the differences
    of beta and of mean energy is c^2 exchange with probability about erfc(c / 2) whatever the model, as their energies
    are nearly normal with variance -dE/dbeta; so betas are spaced evenly in the integral of sqrt(-dE/dbeta).

    Args:
        device: that will run the tempering; it must take a beta per job.
        model: to be sampled.
        beta_min: of the hottest chain. Hotter than needed costs sweeps that nobody profits from.
        beta_max: of the coldest chain.
        n_temperatures: how many; None takes as many as `spacing` needs.
        spacing: c, if n_temperatures is None; larger ones need fewer temperatures and exchange less often.
        n_chains: of the anneal.
        n_sweeps: of the anneal, shared between its 33 temperatures.
        seed: of the anneal's jobs; None derives them from the device's.

    Returns:
        Betas for a TemperingSchedule, ascending; the first is beta_min, the last beta_max.

    Raises:
        InvalidModelError: an argument is out of range, or the anneal says that more than 4,096 betas are needed.
        ModelNotSupportedError: the device cannot sample the model.
    """
    for name, value in (("beta_min", beta_min), ("beta_max", beta_max), ("spacing", spacing)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
            raise InvalidModelError(f"{name} must be a finite number that is not negative, not {value!r}")
    if not beta_min < beta_max or spacing == 0:
        raise InvalidModelError(
            f"beta_min = {beta_min:g} must be below beta_max = {beta_max:g}, and spacing = {spacing:g} above 0"
        )
    if n_temperatures is not None:
        n_temperatures = whole_number("n_temperatures", n_temperatures, 2, MAX_TEMPERATURES)
    n_sweeps = whole_number("n_sweeps", n_sweeps, GRID, 2**31)
    seed = check_seed(seed)
    betas = np.linspace(math.sqrt(beta_min), math.sqrt(beta_max), GRID) ** 2
    betas[0], betas[-1] = beta_min, beta_max
    energies = _mean_energies(device, model, betas, n_chains, n_sweeps // GRID, seed)
    # a short anneal is noisy and can only rise by noise; what is flat needs no temperatures
    falling = np.minimum.accumulate(energies)
    length = np.concatenate([[0.0], np.cumsum(np.sqrt(np.diff(betas) * -np.diff(falling)))])
    if n_temperatures is None:
        n_temperatures = max(2, math.ceil(float(length[-1]) / spacing) + 1)
        if n_temperatures > MAX_TEMPERATURES:
            raise InvalidModelError(
                f"spacing = {spacing:g} needs {n_temperatures} temperatures, and {MAX_TEMPERATURES} are the most; take"
                " a larger spacing or a narrower range"
            )
    # the tilt keeps betas apart where energies do not change at all
    length += 1e-3 * max(1.0, float(length[-1])) * (betas - beta_min) / (beta_max - beta_min)
    ladder = np.interp(np.linspace(0.0, length[-1], n_temperatures), length, betas)
    return (float(beta_min), *ladder[1:-1].tolist(), float(beta_max))


def _mean_energies(
    device: Device, model: IsingModel, betas: NDArray[np.float64], n_chains: int, n_sweeps: int, seed: int | None
) -> NDArray[np.float64]:
    """Mean energy at each beta of an anneal from hot to cold, over the second half of the sweeps at each."""
    means = np.empty(len(betas))
    state: NDArray[np.integer] | None = None
    for k, beta in enumerate(betas.tolist()):
        warm = n_sweeps // 2
        schedule = SamplingSchedule(n_samples=n_sweeps - warm, n_chains=n_chains, n_warmup=warm, beta=beta)
        job_seed = None if seed is None else (seed + k) % 2**64
        job = device.submit(model, schedule, initial=state, observe={"energies", "last"}, seed=job_seed)
        result = job.result()
        means[k] = result.energies.mean()
        state = result.last
    return means
