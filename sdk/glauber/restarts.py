"""Low energies from a device that only samples: anneals of growing length, again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from glauber.compile.quantise import exact_step
from glauber.device import Device
from glauber.driver import Incumbent
from glauber.errors import InvalidModelError
from glauber.model import IsingModel
from glauber.request import Budget
from glauber.schedule import AnnealingSchedule
from glauber.spec import AnySpec

FIRST_SWEEPS = 100
"""Sweeps of the first anneal; each following one is twice as long until MOST_SWEEPS."""
MOST_SWEEPS = 6400
CHAINS = 64
"""Anneals side by side: two words of 32 replicas."""
LARGE_UPDATES = 20_000_000
"""Updates of the first anneal beyond which its time is measured on a shorter one first."""
QUENCH_SWEEPS = 10
"""Sweeps at the end, ten times colder, that let every chain slide into its minimum."""
POOL = 64
"""States remembered besides the best."""


def beta_range(model: IsingModel) -> tuple[float, float]:
    """Hot and cold ends of an anneal.

    With `unit` the smallest step between coefficients (0 if they have none), `typical` their median magnitude and d2
    the mean over sites of sum_j J_ij^2: hot is min(1.1 / unit, 2.2 / sqrt(d2)), where spins move freely, and cold is
    min(2.2 / unit, 3 / typical): the smallest uphill flip has probability exp(-4.4) = 1.2 %, or, where coefficients
    differ, one against a single typical one exp(-6) = 0.2 %.
    """
    values = np.concatenate([model.couplings, model.fields])
    values = np.abs(values[values != 0])
    if values.size == 0:
        return 1.0, 1.0
    largest = float(values.max())  # everything relative to it, so that squares neither overflow nor vanish
    values, couplings, fields = values / largest, model.couplings / largest, model.fields / largest
    unit = exact_step(values, limit=2**15) or 0.0
    squares = np.bincount(model.edges.ravel(), np.repeat(couplings**2, 2), model.n_sites) + fields**2
    hot = min(_ratio(1.1, unit), 2.2 / math.sqrt(float(squares.mean())))
    cold = min(_ratio(2.2, unit), _ratio(3.0, float(np.median(values))))
    return hot / largest, max(cold, hot) / largest


def _ratio(a: float, b: float) -> float:
    return math.inf if b == 0 else a / b


def anneal_table(model: IsingModel, spec: AnySpec, n_sweeps: int) -> tuple[float, ...]:
    """Geometric from hot to cold, then a quench; as cold as the device can be, its scaling of the model included."""
    hot, cold = beta_range(model)
    table = np.array([*np.geomspace(hot, cold, n_sweeps), *([10 * cold] * QUENCH_SWEEPS)])
    limits, largest = spec.capabilities.beta_range, float(np.abs(model.couplings).max(initial=0.0))
    if limits is not None:
        weight_range = spec.coefficients.weight_range
        scale = 1.0 if weight_range is None or largest <= weight_range else weight_range / largest
        table = np.clip(table, limits[0] * scale, limits[1] * scale)
    return tuple(table.tolist())


def anneal_again(device: Device, model: IsingModel, budget: Budget, seed: int) -> Iterator[Incumbent]:
    """Anneals of growing length until the budget is spent; job k has the seed `seed` + k.

    Raises:
        InvalidModelError: the budget allows not even one.
    """
    pool: dict[bytes, tuple[float, NDArray[np.int8]]] = {}

    def others() -> NDArray[np.int8]:
        return np.array([state for _, state in pool.values()])

    began = time.perf_counter()
    best = math.inf
    probe = model.n_sites * CHAINS * FIRST_SWEEPS > LARGE_UPDATES  # a first look, to learn the rate
    wanted = 1 if probe and budget.seconds is not None else FIRST_SWEEPS
    done, number, seconds_per_sweep = 0, 0, 0.0
    while True:
        left = math.inf
        if budget.sweeps is not None:
            left = (budget.sweeps - done) // CHAINS - QUENCH_SWEEPS
        if budget.seconds is not None and number:
            in_time = (budget.seconds - (time.perf_counter() - began)) / max(1e-9, seconds_per_sweep) - QUENCH_SWEEPS
            if in_time < min(wanted, FIRST_SWEEPS) and number > 1:
                return  # an anneal that is much too short finds nothing
            left = min(left, int(in_time))
        length = int(min(wanted, left))
        if length < 1:
            break
        schedule = AnnealingSchedule(table=anneal_table(model, device.spec, length), n_chains=CHAINS)
        started = time.perf_counter()
        job = device.submit(model, schedule, observe={"last"}, seed=(seed + number) % 2**64, on_overflow="scale")
        try:
            states = job.result().last
        except BaseException:
            job.ask_to_cancel()
            raise
        seconds_per_sweep = (time.perf_counter() - started) / schedule.n_sweeps
        done, number = done + CHAINS * schedule.n_sweeps, number + 1
        wanted = min(2 * wanted, MOST_SWEEPS)
        energies = model.energies(states)
        for k in np.argsort(energies, kind="stable").tolist():
            pool.setdefault(states[k].tobytes(), (float(energies[k]), states[k]))
        pool = dict(sorted(pool.items(), key=lambda item: item[1][0])[:POOL])
        energy, state = next(iter(pool.values()))
        yield Incumbent(state if energy < best else None, others, done, model.n_sites, tuple, proven=False)
        best = min(best, energy)
    if not number:
        least = CHAINS * (1 + QUENCH_SWEEPS)
        raise InvalidModelError(f"the budget allows no anneal at all; {least} sweeps over all chains are the least")
