"""Low energies instead of samples: `solve` anneals a model on a device again and again within a budget.

Every energy that is reported is recounted from the problem as it was given, not taken from the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.checks import whole_number
from glauber.compile.quantise import exact_step
from glauber.device import Device, open_device
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.formats import Graph, is_gset, read_gset, read_model
from glauber.job import Job
from glauber.model import IsingModel
from glauber.request import Budget, check_seed
from glauber.samples import Aggregate
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


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best so far, as `solve` reports it while it runs.

    Attributes:
        seconds: since the start.
        energy: of the user's problem.
        objective: the cut of a MaxCut file, else the energy.
        sweeps: sweeps so far, over all chains.
        restarts: anneals so far, over all chains.
    """

    seconds: float
    energy: float
    objective: float
    sweeps: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Solution:
    """What `solve` found.

    Attributes:
        spins: the best state, int8 (n_sites,).
        energy: its energy, recounted from the problem as given.
        objective: "cut" for a MaxCut (Gset) file, "energy" otherwise.
        value: of the objective: the cut, recounted edge by edge, or the energy.
        solutions: distinct states found, best first.
        seconds: wall-clock time used.
        sweeps: sweeps used, over all chains.
        restarts: anneals made.
        jobs: jobs submitted.
        trace: each improvement as it came.
        seconds_to_target: when the target was reached; None if it was not, or none was given.
        seed: of the whole solve.
        device: address.
        method: how it was solved.
    """

    spins: NDArray[np.int8]
    energy: float
    objective: str
    value: float
    solutions: Aggregate
    seconds: float
    sweeps: int
    restarts: int
    jobs: int
    trace: tuple[Incumbent, ...]
    seconds_to_target: float | None
    seed: int
    device: str
    method: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("energy", "objective", "value", "seconds", "sweeps", "restarts", "jobs", "seed", "device", "method")
        result = {name: getattr(self, name) for name in names}
        result["seconds_to_target"] = self.seconds_to_target
        result["distinct_solutions"] = len(self.solutions)
        result["spins"] = self.spins.tolist()
        return result


def beta_range(model: IsingModel) -> tuple[float, float]:
    """Hot and cold ends of an anneal.

    With `unit` the smallest step between energies and d2 the mean over sites of sum_j J_ij^2: hot is
    min(1.1 / unit, 2.2 / sqrt(d2)), where spins move freely, and cold is 2.2 / unit, where the smallest uphill flip has
    probability exp(-4.4) = 1.2 %. For weights without a common step the median |J| / 4 stands for the unit.
    """
    values = np.concatenate([model.couplings, model.fields])
    values = np.abs(values[values != 0])
    if values.size == 0:
        return 1.0, 1.0
    largest = float(values.max())  # everything relative to it, so that squares neither overflow nor vanish
    values, couplings, fields = values / largest, model.couplings / largest, model.fields / largest
    step = exact_step(values, limit=64)
    unit = step if step is not None else float(np.median(values)) / 4
    squares = np.bincount(model.edges.ravel(), np.repeat(couplings**2, 2), model.n_sites) + fields**2
    hot = min(1.1 / unit, 2.2 / math.sqrt(float(squares.mean())))
    return hot / largest, max(2.2 / unit, hot) / largest


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


@dataclass
class _Search:
    """The state of one solve."""

    model: IsingModel
    graph: Graph | None
    target: float | None
    keep: int
    on_progress: Callable[[Incumbent], None] | None
    began: float = field(default_factory=time.perf_counter)
    sweeps: int = 0
    restarts: int = 0
    jobs: int = 0
    reached: float | None = None
    trace: list[Incumbent] = field(default_factory=list)
    pool: dict[bytes, tuple[float, NDArray[np.int8]]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def objective(self, energy: float) -> float:
        return -energy if self.graph is not None else energy

    def take(self, states: NDArray[np.int8], n_sweeps: int) -> None:
        """Keep the best states of an anneal, each with its energy recounted from the model."""
        self.sweeps += n_sweeps * len(states)
        self.restarts += len(states)
        self.jobs += 1
        energies = self.model.energies(states)
        for k in np.argsort(energies, kind="stable")[: self.keep].tolist():
            self.pool.setdefault(states[k].tobytes(), (float(energies[k]), states[k]))
        ordered = sorted(self.pool.items(), key=lambda item: item[1][0])[: self.keep]
        self.pool = dict(ordered)
        best = ordered[0][1][0]
        now = Incumbent(self.seconds, best, self.objective(best), self.sweeps, self.restarts)
        if not self.trace or best < self.trace[-1].energy:
            self.trace.append(now)
        if self.target is not None and self.reached is None:
            hit = now.objective >= self.target if self.graph is not None else best <= self.target
            self.reached = now.seconds if hit else None
        if self.on_progress is not None:
            self.on_progress(now)


def solve(
    problem: IsingModel | str | Path,
    *,
    device: Device | str,
    budget: Budget | None = None,
    target: float | None = None,
    seed: int | None = None,
    n_solutions: int = 10,
    on_progress: Callable[[Incumbent], None] | None = None,
) -> Solution:
    """Search for a state of low energy.

    Args:
        problem: a model, or a file that `read_model` reads; a Gset file is a MaxCut problem, its objective the cut.
        device: an open device or an address.
        budget: seconds (20 by default) or sweeps over all chains; a budget in sweeps makes the result reproducible.
        target: stop when the objective is as good as this: a cut at least, or an energy at most.
        seed: 0 .. 2^64 - 1; None derives one from the device's.
        n_solutions: distinct states to return.
        on_progress: called with the best so far after each round of anneals.

    Raises:
        ModelNotSupportedError: the device cannot run the model, or cannot anneal.
        FileFormatError: the file is malformed.
    """
    budget = Budget(seconds=20.0) if budget is None else budget
    if not isinstance(budget, Budget):
        raise InvalidModelError(f"budget must be a glauber.Budget, not {type(budget).__name__}")
    if not isinstance(device, Device | str):
        raise InvalidModelError(f"device must be a Device or an address, not {type(device).__name__}")
    if not isinstance(problem, IsingModel | str | Path):
        raise InvalidModelError(f"solve takes an IsingModel or a file, not {type(problem).__name__}")
    seed = check_seed(seed)
    if budget.joules is not None or (budget.seconds is None and budget.sweeps is None):
        raise InvalidModelError("solve takes a budget in seconds or sweeps")
    n_solutions = whole_number("n_solutions", n_solutions, 1)
    if target is not None and (not isinstance(target, int | float) or not math.isfinite(target)):
        raise InvalidModelError(f"target must be a finite number, not {target!r}")
    graph = None
    if isinstance(problem, str | Path):
        graph = read_gset(problem) if is_gset(problem) else None
        read = read_model(problem)
        if not isinstance(read, IsingModel):
            raise ModelNotSupportedError(f"{problem} holds a Potts model; solve takes Ising models")
        problem = read
    search = _Search(problem, graph, target, n_solutions, on_progress)
    if isinstance(device, str):
        with open_device(device) as opened:
            return _anneal(search, opened, budget, seed)
    return _anneal(search, device, budget, seed)


def _anneal(search: _Search, device: Device, budget: Budget, seed: int | None) -> Solution:
    """Anneals of growing length until the budget is spent or the target reached."""
    job: Job | None = None
    probe = search.model.n_sites * CHAINS * FIRST_SWEEPS > LARGE_UPDATES  # a first look, to learn the rate
    sweeps = 1 if probe and budget.seconds is not None else FIRST_SWEEPS
    seconds_per_sweep = 0.0
    first_seed = seed
    number = 0
    while search.reached is None:
        length = _length(search, budget, sweeps, seconds_per_sweep)
        if length is None:
            break
        schedule = AnnealingSchedule(table=anneal_table(search.model, device.spec, length), n_chains=CHAINS)
        job_seed = None if first_seed is None else (first_seed + number) % 2**64
        began = search.seconds
        job = device.submit(search.model, schedule, observe={"last"}, seed=job_seed, on_overflow="scale")
        first_seed = job.seed if first_seed is None else first_seed
        try:
            states = job.result().last
        except BaseException:
            job.ask_to_cancel()
            raise
        search.take(states, schedule.n_sweeps)
        seconds_per_sweep = (search.seconds - began) / schedule.n_sweeps
        sweeps = min(2 * sweeps, MOST_SWEEPS)
        number += 1
    if job is None or first_seed is None:
        needed = CHAINS * (1 + QUENCH_SWEEPS)
        raise InvalidModelError(f"the budget allows no anneal at all; {needed} sweeps over all chains are the least")
    ranked = list(search.pool.values())
    best_energy, best = ranked[0]
    value = search.graph.cut(best) if search.graph is not None else best_energy
    solutions = Aggregate(
        np.array([state for _, state in ranked]),
        np.array([energy for energy, _ in ranked]),
        np.ones(len(ranked), dtype=np.int64),
    )
    return Solution(
        spins=best,
        energy=best_energy,
        objective="cut" if search.graph is not None else "energy",
        value=value,
        solutions=solutions,
        seconds=search.seconds,
        sweeps=search.sweeps,
        restarts=search.restarts,
        jobs=search.jobs,
        trace=tuple(search.trace),
        seconds_to_target=search.reached,
        seed=first_seed,
        device=device.address,
        method="annealing with restarts",
    )


def _length(search: _Search, budget: Budget, wanted: int, seconds_per_sweep: float) -> int | None:
    """Sweeps of the next anneal that fit into what is left of the budget; None to stop."""
    length = wanted
    if budget.sweeps is not None:
        length = min(length, (budget.sweeps - search.sweeps) // CHAINS - QUENCH_SWEEPS)
    if budget.seconds is not None and search.jobs:
        left = (budget.seconds - search.seconds) / max(1e-9, seconds_per_sweep)
        length = min(length, int(left) - QUENCH_SWEEPS)
        if length < min(wanted, FIRST_SWEEPS) and search.jobs > 1:
            return None  # an anneal that is much too short finds nothing
    return length if length >= 1 else None
